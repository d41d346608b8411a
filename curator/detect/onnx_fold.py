"""Constants of an ONNX graph: what does not depend on the image, computed once.

In: a model whose input has a fixed size. Out: the same with fewer nodes, so that the converter meets weights
and shapes where it looks for them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.reference
import onnx.shape_inference
from onnx import numpy_helper


def fold(model: onnx.ModelProto) -> None:
    """Replace what is computed from constants and from known shapes alone by constants, in place: exporters
    share equal weights through Identity nodes, and compute shapes and grids step by step."""
    _fold(model)
    while any(node.op_type == "Shape" for node in model.graph.node):
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        known = {
            value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in [*inferred.value_info, *inferred.input, *inferred.output]
            if value.type.tensor_type.HasField("shape")
        }
        before = len(model.graph.node)
        for node in model.graph.node:
            sizes = known.get(node.input[0], [0]) if node.op_type == "Shape" else [0]
            if all(sizes) and sizes and not node.attribute:
                made = numpy_helper.from_array(np.array(sizes, np.int64), f"{node.output[0]}_known")
                model.graph.initializer.append(made)
                node.op_type, node.input[0] = "Identity", made.name
        _fold(model)
        if len(model.graph.node) == before:
            return


def _fold(model: onnx.ModelProto) -> None:
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    own = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        known = all(name in constants for name in node.input if name) and not own & set(node.output)
        made = _computed(node, constants, model) if known else None
        if made is None:
            kept.append(node)
            continue
        for tensor in made:
            constants[tensor.name] = tensor
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)


def _computed(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], model: onnx.ModelProto
) -> list[onnx.TensorProto] | None:
    """The outputs of a node of constants; None where the reference does not compute them, or by chance."""
    if node.op_type == "Identity":
        shared = onnx.TensorProto()
        shared.CopyFrom(constants[node.input[0]])
        shared.name = node.output[0]
        return [shared]
    if node.op_type.startswith(("Random", "Multinomial", "Bernoulli")):
        return None
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    used = [constants[name] for name in dict.fromkeys(node.input) if name]
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "constant", [], outputs, used), opset_imports=model.opset_import
    )
    try:
        values = onnx.reference.ReferenceEvaluator(alone).run(None, {})
    except Exception:  # an operator of another domain, or one that the reference lacks
        return None
    return [
        numpy_helper.from_array(np.asarray(value), output.name)
        for value, output in zip(values, outputs, strict=True)
    ]
