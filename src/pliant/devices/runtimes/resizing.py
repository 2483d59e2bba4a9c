"""Antialiased resizing as matrix products, for runtimes that would leave the antialiasing out.

Resizing is linear in rows and columns: an image X of one channel becomes A X A'. OpenVINO reads the
ONNX operator Resize but ignores its antialiasing, which changes the pixels and so the answers.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def resize_by_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every antialiased Resize as two matrix products.

    Args:
        model: as `pliant.networks.onnx` writes it: square images, the new sizes in an initializer.
    """
    nodes, constants = [], []
    initializers = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Resize" or not _is_antialiased(node):
            nodes.append(node)
            continue
        [source], [target], name = node.input[:1], node.output, node.output[0]
        matrix = _matrix(model, node, initializers[node.input[3]])
        constants.append(numpy_helper.from_array(matrix, f"{name}.rows"))
        constants.append(numpy_helper.from_array(matrix.T.copy(), f"{name}.columns"))
        nodes.append(helper.make_node("MatMul", [f"{name}.rows", source], [f"{name}.tall"]))
        nodes.append(helper.make_node("MatMul", [f"{name}.tall", f"{name}.columns"], [target]))
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(constants)
    return result


def _is_antialiased(node: onnx.NodeProto) -> bool:
    return any(one.name == "antialias" and one.i for one in node.attribute)


def _matrix(model: onnx.ModelProto, node: onnx.NodeProto, sizes: np.ndarray) -> np.ndarray:
    """What resizes a column, (new size, size): every unit vector resized by ONNX Runtime."""
    sides = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    rows = numpy_helper.from_array(np.array([sizes[-2]], np.int64), "sizes")
    copy = helper.make_node("Resize", ["columns", "", "", "sizes"], ["resized"])
    copy.attribute.extend(one for one in node.attribute if one.name != "axes")
    copy.attribute.append(helper.make_attribute("axes", [2]))
    graph = helper.make_graph(
        [copy],
        "resize",
        [helper.make_tensor_value_info("columns", TensorProto.FLOAT, [1, 1, sides, sides])],
        [helper.make_tensor_value_info("resized", TensorProto.FLOAT, None)],
        [rows],
    )
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(
        alone.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    eye = np.eye(sides, dtype=np.float32)[None, None]
    found: np.ndarray = session.run(None, {"columns": eye})[0]
    return found[0, 0]
