"""A small network for waveforms as an ONNX file, with seeded weights: python make_tones.py (onnx, numpy) writes tones.onnx."""
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

draw = np.random.default_rng(5)


def weight(name, *shape):
    scale = (3.0 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.0
    return numpy_helper.from_array((draw.uniform(-1, 1, shape) * scale).astype(np.float32), name)


nodes = [
    helper.make_node("Conv", ["wave", "conv1.weight", "conv1.bias"], ["a"], "conv1", kernel_shape=[16], strides=[4]),
    helper.make_node("Relu", ["a"], ["b"], "relu1"),
    helper.make_node("Conv", ["b", "conv2.weight", "conv2.bias"], ["c"], "conv2", kernel_shape=[5], strides=[2]),
    helper.make_node("Relu", ["c"], ["d"], "relu2"),
    helper.make_node("GlobalAveragePool", ["d"], ["e"], "pool"),
    helper.make_node("Flatten", ["e"], ["f"], "flatten"),
    helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
]
weights = [weight("conv1.weight", 8, 1, 16), weight("conv1.bias", 8), weight("conv2.weight", 8, 8, 5),
           weight("conv2.bias", 8), weight("fc.weight", 2, 8), weight("fc.bias", 2)]
graph = helper.make_graph(nodes, "tones", [helper.make_tensor_value_info("wave", TensorProto.FLOAT, ["batch", 1, 256])],
                          [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
(Path(__file__).parent / "tones.onnx").write_bytes(model.SerializeToString())
