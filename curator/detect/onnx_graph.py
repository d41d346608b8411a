"""An exported ONNX graph made fit for curator: any batch size, feature maps among the outputs.

In: an ONNX file. Out: a torch module whose outputs are the file's own, then the wanted inner values.
Exports with a fixed batch of 1 hold Reshape constants such as [1, 85, -1]; fed a batch they would mix the
images without an error, so a leading 1 becomes 0 ("as the input has it") and `check_batches` compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx2torch import convert
from torch import Tensor, nn

from curator.errors import InputError
from curator.tensors import generator


class OnnxGraph:
    """An ONNX model and the look-ups that decoders need.

    Attributes:
        outputs: names of the model's own outputs. input_size: (h, w).
    """

    def __init__(self, path: Path) -> None:
        """Read `path`.

        Raises:
            InputError: missing file, no ONNX, or an input that is not one (N, 3, h, w) image of fixed size.
        """
        if not path.is_file():
            raise InputError(f"onnx: expected an ONNX file, found none at {path}")
        try:
            self.model = onnx.load(str(path))
        except Exception as error:  # protobuf's own exception types differ between versions
            raise InputError(f"onnx: {path} is no ONNX file ({' '.join(str(error).split())})") from error
        graph = self.model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.producers = {name: node for node in graph.node for name in node.output}
        self.outputs = [value.name for value in graph.output]
        images = [value for value in graph.input if value.name not in self.constants]
        shape = [d.dim_value for d in images[0].type.tensor_type.shape.dim] if len(images) == 1 else []
        if len(shape) != 4 or shape[1] != 3 or min(shape[2:]) < 1:
            raise InputError(
                f"onnx: expected one input (N, 3, h, w) of fixed size in {path}, got "
                f"{[value.name for value in images]} {shape}"
            )
        self.input_size: tuple[int, int] = (shape[2], shape[3])
        self._image = images[0]

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

    def to_torch(self, extra: Sequence[str]) -> nn.Module:
        """Convert; the outputs are the model's own followed by the values named in `extra`."""
        graph = self.model.graph
        for number, node in enumerate(graph.node):
            if node.op_type == "Reshape" and node.input[1] in self.constants:
                shape = numpy_helper.to_array(self.constants[node.input[1]])
                if len(shape) > 1 and shape[0] == 1:
                    changed = np.concatenate([np.zeros(1, np.int64), shape[1:]])
                    name = f"{node.input[1]}_any_batch_{number}"
                    graph.initializer.append(numpy_helper.from_array(changed, name))
                    node.input[1] = name
        self._image.type.tensor_type.shape.dim[0].dim_param = "N"
        constant_inputs = [value for value in graph.input if value.name in self.constants]
        for value in constant_inputs:
            graph.input.remove(value)
        del graph.value_info[:]
        for name in extra:
            graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        module: nn.Module = convert(self.model)
        for name, child in list(module.named_children()):
            if type(child).__name__ == "OnnxSlice":
                module.add_module(name, _Slice())
        return module.eval().requires_grad_(False)


class _Slice(nn.Module):
    """ONNX Slice; onnx2torch's own indexes with a list, which newer torch versions refuse."""

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
        singles = [run(network, images[i : i + 1]) for i in range(2)]
        try:
            both = run(network, images)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(
                f"onnx: {where} takes one image at a time ({reason}); export it "
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


def run(network: nn.Module, batch: Tensor) -> list[Tensor]:
    """Run in fp32, whatever autocast says; a single output becomes a list of one."""
    with torch.autocast(batch.device.type, enabled=False):
        out = network(batch.float())
    return [out] if isinstance(out, Tensor) else list(out)
