"""A small encoder with random weights that never change, for a base policy that shows no features of its own.

Random convolutions keep where things are and how they look well enough for a residual on top (random features: Rahimi
and Recht 2007; random convolutional filters: Saxe et al. 2011). Whoever has a trained encoder uses that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from policy.manifest import CameraInput

_AT_MOST_PX = 64  # of the shorter edge, after the first averaging
_CHANNELS = (16, 32)
_GRID = 6  # cells an edge that the features keep of the picture


def frozen_encoder(cameras: Sequence[CameraInput], *, proprio_size: int, feature_size: int, seed: int = 0) -> bytes:
    """Return the ONNX graph `encode`: images and proprioception, which it does not use, to features (1, F) of order 1.

    The same arguments give the same bytes.

    Raises:
        ValueError: fewer features than cameras.
    """
    if feature_size < len(cameras):
        raise ValueError(f"feature_size {feature_size} is less than one for each of {len(cameras)} cameras")
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, Any] = {"level": np.float32(1 / 255), "half": np.float32(0.5)}
    parts: list[str] = []
    shares = np.diff(np.linspace(0, feature_size, len(cameras) + 1).astype(int)).tolist()
    for camera, size in zip(cameras, shares, strict=True):
        name = f"{camera.name}_image"
        step = max(1, -(-min(camera.height, camera.width) // _AT_MOST_PX))
        height, width = camera.height // step, camera.width // step

        def then(kind: str, inputs: list[str], suffix: str, name: str = name, **attributes: Any) -> str:
            nodes.append(helper.make_node(kind, inputs, [f"{name}_{suffix}"], **attributes))
            return f"{name}_{suffix}"

        x = then("Cast", [name], "f", to=TensorProto.FLOAT)
        x = then("Mul", [x, "level"], "1")
        x = then("Sub", [x, "half"], "c")
        x = then("Transpose", [x], "t", perm=[0, 3, 1, 2])
        x = then("AveragePool", [x], "small", kernel_shape=[step, step], strides=[step, step])
        channels = 3
        for layer, (out, kernel) in enumerate(zip(_CHANNELS, (5, 3), strict=True)):
            weight = f"{name}_w{layer}"
            constants[weight] = _random(rng, (out, channels, kernel, kernel), channels * kernel * kernel)
            pad = kernel // 2
            x = then("Conv", [x, weight], f"conv{layer}", strides=[2, 2], pads=[pad] * 4, kernel_shape=[kernel] * 2)
            x = then("Relu", [x], f"relu{layer}")
            height, width, channels = -(-height // 2), -(-width // 2), out
        cell = (max(1, height // _GRID), max(1, width // _GRID))
        x = then("AveragePool", [x], "cells", kernel_shape=cell, strides=cell)
        flat = channels * (height // cell[0]) * (width // cell[1])
        x = then("Flatten", [x], "flat")
        constants[f"{name}_mix"] = _random(rng, (flat, size), flat)
        parts.append(then("MatMul", [x, f"{name}_mix"], "seen"))
    constants["ones"] = np.ones(feature_size, np.float32)
    nodes.append(helper.make_node("Concat", parts, ["all"], axis=1))
    nodes.append(helper.make_node("LayerNormalization", ["all", "ones"], ["features"], axis=-1))
    images = [(f"{camera.name}_image", (1, camera.height, camera.width, 3)) for camera in cameras]
    graph = helper.make_graph(
        nodes,
        "frozen_encoder",
        [
            *(helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name, shape in images),
            helper.make_tensor_value_info("proprio", TensorProto.FLOAT, (1, proprio_size)),
        ],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, (1, feature_size))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _random(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> NDArray[np.float32]:
    """Weights that keep the variance through a ReLU (He et al. 2015)."""
    return (rng.standard_normal(shape) * math.sqrt(2.0 / inputs)).astype(np.float32)
