"""A base policy of a usual size with random weights: one small convolutional encoder per camera and a head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from policy.bundle_writer import write_bundle
from policy.manifest import SCHEMA_VERSION, ActionSpec, CameraInput
from robot.command import CommandKind

_DIMS = ("x", "y", "z", "yaw", "gripper")
_LAYERS = ((3, 32, 5, 2), (32, 32, 3, 2), (32, 32, 3, 2), (32, 32, 3, 2))  # channels in, out, kernel, stride
_FEATURES, _CHUNK, _PROPRIO = 128, 8, 4
_SPEED_M_S = 0.4  # at full deflection, as for homing
_REACH = 0.01  # of full deflection, so that the arm drifts a little about its home and meets nothing
_IDENTITY = tuple(float(value) for value in np.eye(4).ravel())


def write_random_bundle(folder: Path, cameras: Sequence[str], *, size: int = 84, rate_hz: float) -> Path:
    """Write a bundle that sees `cameras` at `size` x `size` and hardly moves the arm; return its folder."""
    action = ActionSpec(
        kind=CommandKind.TCP_DELTA,
        frame="base",
        dims=_DIMS,
        scale=(_SPEED_M_S / rate_hz,) * 3 + (0.02, 1.0),
        offset=(0.0,) * len(_DIMS),
        headroom=0.2,
        gripper="binary",
        gripper_open_m=0.08,
        gripper_closed_m=0.0,
    )
    pose = {"mount": "base", "T_mount_camera": _IDENTITY, "fx": 90.0, "fy": 90.0, "cx": size / 2, "cy": size / 2}
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": "random",
        "version": 1,
        "created_utc": "2026-01-01T00:00:00+00:00",
        "rate_hz": rate_hz,
        "cameras": [CameraInput(name=name, height=size, width=size).model_dump(mode="json") for name in cameras],
        "proprio": [{"key": "tcp_position_m", "size": 3}, {"key": "gripper_width_m", "size": 1}],
        "action": action.model_dump(mode="json"),
        "chunk_length": _CHUNK,
        "execute_steps": _CHUNK // 2,
        "feature_size": _FEATURES,
        "calibration": dict.fromkeys(cameras, pose),
        "training": {"method": "none, random weights"},
    }
    rng = np.random.default_rng(0)
    return write_bundle(folder, content, {"encode": _encode(cameras, size, rng), "act": _act(rng)})


def _encode(cameras: Sequence[str], size: int, rng: np.random.Generator) -> bytes:
    tensors: dict[str, Any] = {"level": np.float32(1 / 255)}
    nodes, seen = [], []
    for camera in cameras:
        image, layer = f"{camera}_image", f"{camera}_0"
        nodes += [
            helper.make_node("Cast", [image], [f"{camera}_f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{camera}_f", "level"], [f"{camera}_1"]),
            helper.make_node("Transpose", [f"{camera}_1"], [layer], perm=[0, 3, 1, 2]),
        ]
        side = size
        for i, (inputs, outputs, kernel, stride) in enumerate(_LAYERS):
            weight, after = f"{camera}_w{i}", f"{camera}_c{i}"
            tensors[weight] = _weights(rng, outputs, inputs, kernel, kernel)
            nodes.append(helper.make_node("Conv", [layer, weight], [after], strides=[stride, stride]))
            layer = f"{after}_r"
            nodes.append(helper.make_node("Relu", [after], [layer]))
            side = (side - kernel) // stride + 1
        flat = _LAYERS[-1][1] * side * side
        tensors[f"{camera}_w"] = _weights(rng, flat, _FEATURES // 2)
        nodes += [
            helper.make_node("Flatten", [layer], [f"{camera}_flat"]),
            helper.make_node("MatMul", [f"{camera}_flat", f"{camera}_w"], [f"{camera}_seen"]),
        ]
        seen.append(f"{camera}_seen")
    wide = len(cameras) * (_FEATURES // 2) + _PROPRIO
    tensors["out"] = _weights(rng, wide, _FEATURES)
    nodes += [
        helper.make_node("Concat", [*seen, "proprio"], ["all"], axis=1),
        helper.make_node("MatMul", ["all", "out"], ["wide"]),
        helper.make_node("Tanh", ["wide"], ["features"]),
    ]
    images = [(f"{camera}_image", TensorProto.UINT8, (1, size, size, 3)) for camera in cameras]
    return _model(
        nodes, [*images, ("proprio", TensorProto.FLOAT, (1, _PROPRIO))], ("features", (1, _FEATURES)), tensors
    )


def _act(rng: np.random.Generator) -> bytes:
    size = _CHUNK * len(_DIMS)
    tensors = {
        "hidden": _weights(rng, _FEATURES + _PROPRIO, 256),
        "out": _weights(rng, 256, size),
        "reach": np.float32(_REACH),
        "shape": np.array([1, _CHUNK, len(_DIMS)], np.int64),
    }
    nodes = [
        helper.make_node("Concat", ["features", "proprio"], ["seen"], axis=1),
        helper.make_node("MatMul", ["seen", "hidden"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["active"]),
        helper.make_node("MatMul", ["active", "out"], ["flat"]),
        helper.make_node("Tanh", ["flat"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "reach"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "shape"], ["chunk"]),
    ]
    inputs = [("features", TensorProto.FLOAT, (1, _FEATURES)), ("proprio", TensorProto.FLOAT, (1, _PROPRIO))]
    return _model(nodes, inputs, ("chunk", (1, _CHUNK, len(_DIMS))), tensors)


def _weights(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    fan_in = math.prod(shape[1:]) if len(shape) > 2 else shape[0]
    weights: NDArray[np.float32] = (rng.normal(size=shape) / math.sqrt(fan_in)).astype(np.float32)
    return weights


def _model(
    nodes: list[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, tuple[int, ...]]],
    output: tuple[str, tuple[int, ...]],
    tensors: dict[str, Any],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        output[0],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
