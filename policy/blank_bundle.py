"""A policy that holds still: what a new station runs until it has demonstrations to learn a real one from."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from policy.bundle_writer import check_target, write_bundle
from policy.manifest import SCHEMA_VERSION, ActionSpec, CameraCalibration, CameraInput, ProprioInput
from robot.command import CommandKind

DIMS = ("x", "y", "z", "yaw", "gripper")
STEP_M, STEP_RAD = 0.02, 0.1  # a tick at full deflection
HEADROOM = 0.25  # of the trained policy to come, whose residual needs it
PROPRIO = (ProprioInput(key="tcp_position_m", size=3), ProprioInput(key="gripper_width_m", size=1))
CHUNK_LENGTH = 8


def write_blank_bundle(
    folder: Path,
    *,
    name: str,
    rate_hz: float,
    cameras: Sequence[CameraInput],
    calibration: Mapping[str, CameraCalibration],
    gripper_open_m: float,
    gripper_closed_m: float,
) -> Path:
    """Write the bundle to `folder` and return it; its actions are TCP deltas in the base frame, all zero.

    Args:
        folder: where it goes; a bundle there is replaced.
        name: of the bundle, lower case.
        rate_hz: of the station's loop [Hz].
        cameras: of the station, in its order.
        calibration: by camera.
        gripper_open_m: width of the open gripper [m].
        gripper_closed_m: width of the closed gripper [m].

    Raises:
        BadInputError: the folder holds something else, or the values make no manifest.
    """
    check_target(folder)
    action = ActionSpec(
        kind=CommandKind.TCP_DELTA,
        frame="base",
        dims=DIMS,
        scale=(STEP_M, STEP_M, STEP_M, STEP_RAD, 1.0),
        offset=(0.0,) * len(DIMS),
        headroom=HEADROOM,
        gripper="binary",
        gripper_open_m=gripper_open_m,
        gripper_closed_m=gripper_closed_m,
    )
    proprio_size = sum(entry.size for entry in PROPRIO)
    images = [(f"{camera.name}_image", (1, camera.height, camera.width, 3)) for camera in cameras]
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": 1,
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rate_hz": rate_hz,
        "cameras": [camera.model_dump(mode="json") for camera in cameras],
        "proprio": [entry.model_dump(mode="json") for entry in PROPRIO],
        "action": action.model_dump(mode="json"),
        "chunk_length": CHUNK_LENGTH,
        "execute_steps": CHUNK_LENGTH // 2,
        "feature_size": 1,
        "calibration": {camera: where.model_dump(mode="json") for camera, where in calibration.items()},
        "training": {"method": "none, holds still"},
    }
    inputs = [_value(image, shape, TensorProto.UINT8) for image, shape in images]
    proprio = _value("proprio", (1, proprio_size))
    graphs = {
        "encode": _constant([*inputs, proprio], "features", np.zeros((1, 1), np.float32)),
        "act": _constant(
            [_value("features", (1, 1)), proprio], "chunk", np.zeros((1, CHUNK_LENGTH, len(DIMS)), np.float32)
        ),
    }
    return write_bundle(folder, content, graphs)


def _value(name: str, shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _constant(inputs: Sequence[onnx.ValueInfoProto], output: str, value: NDArray[np.float32]) -> bytes:
    """A graph that takes `inputs` and gives `value` whatever they are."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["always"], [output])],
        output,
        inputs,
        [_value(output, value.shape)],
        [numpy_helper.from_array(value, "always")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
