"""A small real reward model made without torch: how red the front camera's picture is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from policy.reward_writer import write_reward_model

CAMERAS = {"front": (32, 40)}  # (height, width) [px]


def make_tiny_reward(
    folder: Path,
    *,
    cameras: Mapping[str, tuple[int, int]] = CAMERAS,
    proprio: Mapping[str, int] | None = None,
    rate_hz: float = 20.0,
    threshold: float = 0.5,
    debounce_ticks: int = 3,
    scale: float = 1.0,
) -> Path:
    """Write a reward model whose probability is `scale` times the mean red of its first camera, in [0, 1].

    With `scale` 0 it gives NaN, with one above 1 perhaps no probability. `proprio` is taken and not looked at.
    """
    proprio = proprio or {}
    content: dict[str, Any] = {
        "name": "tiny",
        "created_utc": "2026-01-01T00:00:00+00:00",
        "rate_hz": rate_hz,
        "cameras": [{"name": name, "height": h, "width": w, "colour": "rgb"} for name, (h, w) in cameras.items()],
        "proprio": [{"key": key, "size": size} for key, size in proprio.items()],
        "threshold": threshold,
        "debounce_ticks": debounce_ticks,
        "training": {"source": "tests/tiny_reward.py"},
    }
    return write_reward_model(folder, content, tiny_reward_graph(cameras, sum(proprio.values()), scale))


def tiny_reward_graph(cameras: Mapping[str, tuple[int, int]], proprio: int, scale: float = 1.0) -> bytes:
    """Return the graph of `make_tiny_reward`."""
    first = next(iter(cameras))
    inputs = [
        helper.make_tensor_value_info(f"{name}_image", TensorProto.UINT8, (1, height, width, 3))
        for name, (height, width) in cameras.items()
    ]
    if proprio:
        inputs.append(helper.make_tensor_value_info("proprio", TensorProto.FLOAT, (1, proprio)))
    nodes = [
        helper.make_node("Cast", [f"{first}_image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "red"], ["flat"]),
        helper.make_node("Div", ["flat", "by"], ["probability"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "axes": np.array([1, 2], np.int64),
        "red": np.array([[1.0], [0.0], [0.0]], np.float32) * np.float32(scale > 0.0),
        "by": np.array([[255.0 / scale if scale else 0.0]], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, (1, 1))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
