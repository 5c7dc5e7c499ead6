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

from policy.bundle import Bundle
from policy.bundle_writer import check_target, write_bundle
from policy.manifest import SCHEMA_VERSION, ActionSpec, CameraCalibration, CameraInput, ProprioInput
from robot.command import CommandKind
from robot.errors import BadInputError

DIMS = ("x", "y", "z", "yaw", "gripper")
STEP_M, STEP_RAD = 0.02, 0.1  # a tick at full deflection
HEADROOM = 0.25  # of the trained policy to come, whose residual needs it
PROPRIO = (ProprioInput(key="tcp_position_m", size=3), ProprioInput(key="gripper_width_m", size=1))
CHUNK_LENGTH = 8


def tcp_steps(dims: Sequence[str] = DIMS, *, gripper_open_m: float, gripper_closed_m: float) -> ActionSpec:
    """Return actions that are TCP steps of a tick in the base frame, the gripper open or closed; widths in [m]."""
    steps = {"gripper": 1.0, **dict.fromkeys("xyz", STEP_M)}
    return ActionSpec(
        kind=CommandKind.TCP_DELTA,
        frame="base",
        dims=tuple(dims),
        scale=tuple(steps.get(name, STEP_RAD) for name in dims),
        offset=(0.0,) * len(dims),
        headroom=HEADROOM,
        gripper="binary" if "gripper" in dims else "none",
        gripper_open_m=gripper_open_m,
        gripper_closed_m=gripper_closed_m,
    )


def actuations(count: int) -> ActionSpec:
    """Return actions that are shares of what each of `count` actuators can give."""
    return ActionSpec(
        kind=CommandKind.ACTUATION,
        frame="base",
        dims=tuple(f"actuator_{number}" for number in range(count)),
        scale=(1.0,) * count,
        offset=(0.0,) * count,
        headroom=HEADROOM,
        gripper="none",
        gripper_open_m=0.0,
        gripper_closed_m=0.0,
    )


def write_blank_bundle(
    folder: Path,
    *,
    name: str,
    rate_hz: float,
    cameras: Sequence[CameraInput],
    calibration: Mapping[str, CameraCalibration],
    gripper_open_m: float,
    gripper_closed_m: float,
    action: ActionSpec | None = None,
    proprio: Sequence[ProprioInput] = PROPRIO,
    encode_of: Bundle | None = None,
) -> Path:
    """Write the bundle to `folder` and return it; its actions are all zero.

    They are `action`, TCP deltas in the base frame where that is left out, or what `encode_of` has.

    Args:
        folder: where it goes; a bundle there is replaced.
        name: of the bundle, lower case.
        rate_hz: of the station's loop [Hz].
        cameras: of the station, in its order.
        calibration: by camera.
        gripper_open_m: width of the open gripper [m].
        gripper_closed_m: width of the closed gripper [m].
        action: how its actions map to SI.
        proprio: the proprioception that it takes.
        encode_of: shows its features and proprioception and takes its actions and windows, for learning without a base.

    Raises:
        BadInputError: the folder holds something else, the values make no manifest, or the encoder takes other
            cameras.
    """
    check_target(folder)
    shown = encode_of.manifest if encode_of is not None else None
    if encode_of is not None and shown is not None and {*shown.cameras} != {*cameras}:
        raise BadInputError(
            f"bundle {encode_of.folder}: its encoder takes {_sizes(shown.cameras)}, the station has "
            f"{_sizes(cameras)}; name a bundle of this station"
        )
    proprio_entries = shown.proprio if shown is not None else proprio
    feature_size = shown.feature_size if shown is not None else 1
    if shown is not None:
        action = shown.action
    elif action is None:
        action = tcp_steps(gripper_open_m=gripper_open_m, gripper_closed_m=gripper_closed_m)
    proprio_size = sum(entry.size for entry in proprio_entries)
    images = [(f"{camera.name}_image", (1, camera.height, camera.width, 3)) for camera in cameras]
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": 1,
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rate_hz": rate_hz,
        "cameras": [camera.model_dump(mode="json") for camera in cameras],
        "proprio": [entry.model_dump(mode="json") for entry in proprio_entries],
        "action": action.model_dump(mode="json"),
        "chunk_length": CHUNK_LENGTH,
        "execute_steps": CHUNK_LENGTH // 2,
        "feature_size": feature_size,
        "calibration": {camera: where.model_dump(mode="json") for camera, where in calibration.items()},
        "training": {"method": "none, holds still"},
    }
    if shown is not None:  # what its features are, and how many ticks of them are seen
        content |= shown.model_dump(mode="json", include={"history", "pictures"}, exclude_none=True)
    inputs = [_value(image, shape, TensorProto.UINT8) for image, shape in images]
    seen = _value("proprio", (1, proprio_size))
    still = np.zeros((1, CHUNK_LENGTH, action.size), np.float32)
    graphs = {
        "encode": _constant([*inputs, seen], "features", np.zeros((1, 1), np.float32))
        if encode_of is None
        else encode_of.files()[encode_of.manifest.encode.file],
        "act": _constant([_value("features", (1, feature_size)), seen], "chunk", still),
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


def _sizes(cameras: Sequence[CameraInput]) -> str:
    return ", ".join(f"'{camera.name}' {camera.width}x{camera.height}" for camera in cameras)
