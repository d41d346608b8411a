"""An exported ONNX graph made fit for curator: any batch size, feature maps among the outputs.

In: an ONNX file. Out: a torch module whose outputs are the file's own, then the wanted inner values.
Exports with a fixed batch of 1 hold Reshape constants such as [1, 85, -1]; fed a batch they would mix the
images without an error. The first dimension carries the images, so it is left to be computed
([-1, 85, 3549]), and `check_batches` compares.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx2pytorch import ConvertModel
from onnx2pytorch.operations import Gather, Slice
from torch import Tensor, nn

from curator.detect.onnx_fold import fold
from curator.errors import InputError
from curator.tensors import generator


def data_files(path: Path) -> list[Path]:
    """The file, and those beside it that hold its weights (models of more than 2 GB, and many exports)."""
    tensors = onnx.load(str(path), load_external_data=False).graph.initializer
    names = {
        entry.value
        for tensor in tensors
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path, *(path.parent / name for name in sorted(names))]


class OnnxGraph:
    """An ONNX model and the look-ups that decoders need.

    Attributes:
        outputs: names of the model's own outputs. input_size: (h, w). facts: the metadata of the file.
        files: the file's own and those that hold its weights, where they lie outside of it.
        takes_sizes: it had a second input orig_target_sizes (w, h), which is now the input size.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None) -> None:
        """Read `path`.

        Args:
            size: (h, w) of the input where the file leaves it open; None: as its metadata says ("imgsz").
        Raises:
            InputError: missing file, no ONNX, an input that is not one (N, 3, h, w) image, or one of a size
                that neither the file nor `size` says, or that they say differently.
        """
        if not path.is_file():
            raise InputError(f"onnx: expected an ONNX file, found none at {path}")
        try:
            self.files = data_files(path)
            self.model = onnx.load(str(path))
        except Exception as error:  # protobuf's own exception types differ between versions
            raise InputError(f"onnx: {path} is no ONNX file ({' '.join(str(error).split())})") from error
        self.path = path
        self.facts = {entry.key: entry.value for entry in self.model.metadata_props}
        graph = self.model.graph
        given = {tensor.name for tensor in graph.initializer}
        images = [value for value in graph.input if value.name not in given]
        sizes = [value for value in images if value.name == "orig_target_sizes"] if len(images) == 2 else []
        self.takes_sizes = bool(sizes)
        images = [value for value in images if value not in sizes]
        shape = [d.dim_value for d in images[0].type.tensor_type.shape.dim] if len(images) == 1 else []
        if len(shape) != 4 or shape[1] not in (0, 3):
            raise InputError(
                f"onnx: expected one input (N, 3, h, w) in {path}, got {[v.name for v in images]} {shape}"
            )
        self.input_size = self._size((shape[2], shape[3]), size)
        self._image = images[0]
        for number, value in enumerate((1, 3, *self.input_size)):
            self._image.type.tensor_type.shape.dim[number].dim_value = value
        for value in sizes:  # boxes come out in the input frame
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            said = np.array([self.input_size[::-1]], kind)
            graph.input.remove(value)
            graph.initializer.append(numpy_helper.from_array(said, value.name))
        fold(self.model)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output}
        self.outputs = [value.name for value in graph.output]

    def _size(self, own: tuple[int, int], wanted: tuple[int, int] | None) -> tuple[int, int]:
        if min(own) >= 1:
            if wanted not in (None, own):
                raise InputError(
                    f"onnx: {self.path} takes inputs of {own[0]} x {own[1]}, got size={wanted[0]}x{wanted[1]}"
                )
            return own
        said = re.findall(r"\d+", self.facts.get("imgsz", "")) if wanted is None else wanted
        numbers = [int(number) for number in said]
        if not numbers:
            raise InputError(
                f"onnx: {self.path} leaves its input size open; give it, as in onnx:FILE?size=640 or "
                "size=384x640 (height x width)"
            )
        return numbers[0], numbers[-1]

    def cut(self, *values: str) -> None:
        """Make inner values the only outputs."""
        graph = self.model.graph
        needed = set().union(*(self.ancestors(value) for value in values))
        kept = [node for node in graph.node if needed & set(node.output)]
        del graph.node[:]
        graph.node.extend(kept)
        del graph.output[:]
        for value in values:
            graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
        self.outputs = list(values)

    def ancestors(self, value: str) -> set[str]:
        """All values that `value` is computed from, constants left out, itself included."""
        seen: set[str] = set()
        stack = [value]
        while stack:
            name = stack.pop()
            if name in seen or name in self.constants or not name:
                continue
            seen.add(name)
            stack.extend(self.producers[name].input if name in self.producers else ())
        return seen

    def last_common(self, values: Sequence[str]) -> str:
        """The last value (in execution order) that all of `values` are computed from."""
        common = set.intersection(*(self.ancestors(value) for value in values))
        order = [name for node in self.model.graph.node for name in node.output]
        return str([name for name in order if name in common][-1])

    def upstream(self, value: str, operator: str) -> Any:
        """The nearest node of type `operator` up the chain of first inputs that ends in `value`."""
        while value in self.producers:
            node = self.producers[value]
            if node.op_type == operator:
                return node
            value = node.input[0]
        raise InputError(f"onnx: found no {operator} above {value!r}; is this the model that decode= names?")

    def nearest(self, value: str, operator: str) -> Any | None:
        """As `upstream`; None where there is none."""
        try:
            return self.upstream(value, operator)
        except InputError:
            return None

    def shape(self, value: str) -> tuple[int, ...]:
        """What shape inference finds of a value: -1 for a dimension that is not fixed, () where it finds
        nothing."""
        return self._shapes.get(value, ())

    def joins(self, parts: int, length: int, axis: int = 2) -> list[Any]:
        """The nodes, in execution order, that join so many values to one of this length along an axis: where
        the levels of a detector's head meet."""
        found = []
        for node in self.model.graph.node:
            shape = self.shape(node.output[0])
            long = len(shape) > axis and shape[axis] == length
            if node.op_type == "Concat" and len(node.input) == parts and long:
                found.append(node)
        return found

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        known = onnx.shape_inference.infer_shapes(self.model).graph
        return {
            value.name: tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim)
            for value in [*known.value_info, *known.output]
        }

    def to_torch(self, extra: Sequence[str]) -> nn.Module:
        """Convert; the outputs are the model's own followed by the values named in `extra`.

        Raises:
            InputError: what torch does not compute as the file says.
        """
        graph = self.model.graph
        opset = max((i.version for i in self.model.opset_import if i.domain in ("", "ai.onnx")), default=1)
        for number, node in enumerate(graph.node):
            if node.op_type == "Resize" and opset >= 11:
                scales = self.constants.get(node.input[2]) if len(node.input) > 2 else None
                check_resize(node, None if scales is None else numpy_helper.to_array(scales), self.path)
            if node.op_type == "Reshape" and node.input[1] in self.constants:
                shape = numpy_helper.to_array(self.constants[node.input[1]])
                whole = self.shape(node.output[0])  # for one image
                if len(shape) > 1 and len(whole) == len(shape) and min(whole) > 0:
                    changed = np.array([-1, *whole[1:]], np.int64)
                    name = f"{node.input[1]}_any_batch_{number}"
                    graph.initializer.append(numpy_helper.from_array(changed, name))
                    node.input[1] = name
        self._plain_products()
        self._image.type.tensor_type.shape.dim[0].dim_param = "N"
        constant_inputs = [value for value in graph.input if value.name in self.constants]
        for value in constant_inputs:
            graph.input.remove(value)
        del graph.value_info[:]
        for name in extra:
            graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        return converted(self.model, self.path)

    def _plain_products(self) -> None:
        """Hide constants that are no (in, out) weights on the right from onnx2pytorch, which takes every
        MatMul with a constant for a linear layer: constants on the left, and stacks of matrices."""
        graph = self.model.graph
        hidden = []
        for number, node in enumerate(graph.node):
            for place, name in enumerate(node.input if node.op_type == "MatMul" else ()):
                if name in self.constants and (place == 0 or len(self.constants[name].dims) != 2):
                    node.input[place] = f"{name}_as_value_{number}"
                    value = self.constants[name]
                    hidden.append(onnx.helper.make_node("Constant", [], [node.input[place]], value=value))
        for made in reversed(hidden):
            graph.node.insert(0, made)


def converted(model: onnx.ModelProto, path: Path) -> nn.Module:
    """Convert with onnx2pytorch, which warns where it guesses: what may come out otherwise is refused.

    Raises:
        InputError: an operator, or a way of resizing, that torch does not compute as ONNX says.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message="Pytorch's interpolate uses no")  # `check_resize`
            warnings.simplefilter("ignore", DeprecationWarning)
            module: nn.Module = ConvertModel(model)
    except Exception as error:  # it raises NotImplementedError, ValueError, KeyError, assertions and warnings
        raise InputError(
            f"onnx: {path} cannot be converted ({_one_line(error)}); export it with torch.onnx.export at "
            "opset 11 to 20"
        ) from error
    for name, child in list(module.named_children()):
        if isinstance(child, Gather):
            setattr(module, name, _Gather(child.dim))
        elif isinstance(child, Slice) and child.starts is None:
            setattr(module, name, _Slice())
    return module.eval().requires_grad_(False)


def check_resize(node: onnx.NodeProto, scales: NDArray[np.float32] | None, path: Path) -> None:
    """Refuse a Resize (opset 11 on) that `torch.nn.functional.interpolate` computes otherwise.

    torch's "nearest" takes the pixel floor(i / scale); for whole scales that is the pixel whose centre is
    nearest. Its "bilinear" and "bicubic" (a = -0.75) go by pixel centres or by aligned corners.

    Args:
        scales: where they are known.
    Raises:
        InputError: names the node and its settings.
    """
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    text = {name: value.decode() for name, value in settings.items() if isinstance(value, bytes)}
    mode = text.get("mode", "nearest")
    where = text.get("coordinate_transformation_mode", "half_pixel")
    rounding = text.get("nearest_mode", "round_prefer_floor")
    centres = where in ("half_pixel", "pytorch_half_pixel")
    whole = scales is not None and bool((scales == np.round(scales)).all())
    smooth = centres or where == "align_corners"
    fits = {
        "nearest": (where == "asymmetric" and rounding == "floor")
        or (centres and whole and rounding.startswith("round_prefer")),
        "linear": smooth,
        "cubic": smooth and abs(settings.get("cubic_coeff_a", -0.75) + 0.75) < 1e-6,
    }
    ignored = [name for name in ("antialias", "exclude_outside", "axes") if settings.get(name)]
    if text.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        ignored.append("keep_aspect_ratio_policy")
    if ignored or not fits.get(mode, False):
        raise InputError(
            f"onnx: {path} resizes in a way that torch does not ({node.name or node.output[0]}: "
            f"{', '.join([mode, where, rounding, *ignored])}); export it from torch"
        )


class _Gather(nn.Module):
    """ONNX Gather; onnx2pytorch's own indexes with a list, which torch announced to read otherwise."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Entries `indices` (...) of `x`, in place of the axis; negative ones count from the end."""
        where: list[slice | Tensor] = [slice(None)] * (self.axis % x.ndim)
        return x[(*where, indices.long())]


class _Slice(nn.Module):
    """ONNX Slice; onnx2pytorch's own indexes with a list, which torch announced to read otherwise."""

    def forward(
        self, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        """Slice `x` along `axes` (all leading ones for None)."""
        first, last = starts.tolist(), ends.tolist()
        along = range(len(first)) if axes is None else axes.tolist()
        by = [1] * len(first) if steps is None else steps.tolist()
        for axis, start, end, step in zip(along, first, last, by, strict=True):
            chosen = range(x.shape[axis])[start:end:step]
            if step > 0:  # a view; a negative step needs a copy
                where = [slice(None)] * x.ndim
                where[axis] = slice(chosen.start, chosen.stop, step)
                x = x[tuple(where)]
            else:
                x = x.index_select(axis, torch.tensor(list(chosen), device=x.device))
        return x


def check_batches(network: nn.Module, input_size: tuple[int, int], where: str) -> None:
    """Compare a batch of two with two singles.

    Raises:
        InputError: the images of a batch influence each other, or batches fail.
    """
    images = torch.rand(2, 3, *input_size, generator=generator("onnx batch check")) * 255
    with torch.inference_mode():
        try:
            singles = [run(network, images[i : i + 1]) for i in range(2)]
        except Exception as error:  # what the converter does not know of an operator shows on running
            raise InputError(
                f"onnx: {where} does not run once converted ({_one_line(error)}); export it with "
                "torch.onnx.export at opset 11 to 20"
            ) from error
        try:
            both = run(network, images)
        except RuntimeError as error:
            raise InputError(
                f"onnx: {where} takes one image at a time ({_one_line(error)}); export it "
                f"with a dynamic batch dimension"
            ) from error
    for number, value in enumerate(both):
        for i in range(2):
            single = singles[i][number]
            tolerance = 1e-3 * float(single.abs().max())
            same = value[i : i + 1].shape == single.shape and torch.allclose(
                value[i : i + 1], single, rtol=1e-3, atol=tolerance
            )
            if not same:
                raise InputError(
                    f"onnx: {where} mixes the images of a batch (output {number}); export it "
                    f"with a dynamic batch dimension"
                )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def run(network: nn.Module, batch: Tensor) -> list[Tensor]:
    """Run in fp32, whatever autocast says; a single output becomes a list of one."""
    with torch.autocast(batch.device.type, enabled=False):
        out = network(batch.float())
    return [out] if isinstance(out, Tensor) else list(out)
