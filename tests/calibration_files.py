"""Calibration files as `calibrate_rig.py extrinsics` writes them, for stations that point to one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.extrinsics_result import ExtrinsicsResult, rows
from calibration.hand_eye_result import HandEyeResult
from calibration.intrinsics_result import IntrinsicsResult
from calibration.result import sealed, write_result
from perception.camera_model import CameraModel
from tests.calibration_scenes import BOARD

Array = NDArray[np.float64]


def write_rig(
    path: Path,
    cameras: Mapping[str, tuple[str, Array]],
    *,
    size: tuple[int, int] = (84, 84),
    lens: CameraModel | None = None,
    **more: Any,
) -> str:
    """Write a rig's calibration, camera -> (mount, T_mount_camera), and return the file's SHA-256."""
    lens = lens or CameraModel(kind="pinhole", width=size[1], height=size[0], fx=90.0, fy=91.0, cx=42.0, cy=41.0)
    half = {"position_m": (0.001,) * 3, "rotation_deg": (0.1,) * 3}
    values: dict[str, Any] = {
        "inputs": {},
        "board": BOARD.model_dump(),
        "board_mount": "free",
        "cameras": {
            name: {
                "mount": mount,
                "T_mount_camera": rows(T),
                "half_widths_95": half,
                "lens": lens.model_dump(),
                "sightings": 9,
                "rms_px": 0.2,
            }
            for name, (mount, T) in cameras.items()
        },
        "held_out": {key: {"median": 1.0, "p90": 2.0} for key in ("translation_mm", "rotation_deg", "pixels")}
        | {"count": 9},
        "sigma_px": 0.2,
        "left_out": (),
        "lenses_held": False,
        **more,
    }
    return write_result(path, sealed(ExtrinsicsResult, values))


def write_lens(path: Path, lens: CameraModel) -> str:
    """Write a lens as `intrinsics` does, and return the file's SHA-256."""
    values: dict[str, Any] = {
        "inputs": {},
        "camera": lens.model_dump(),
        "half_widths_95": dict.fromkeys(lens.names, 0.1),
        "covariance": (),
        "held_out": {"rms_px": 0.2, "median_px": 0.2, "p90_px": 0.3},
        "sigma_px": 0.2,
        "tried": {},
        "board": BOARD.model_dump(),
        "advice": (),
    }
    return write_result(path, sealed(IntrinsicsResult, values))


def write_hand_eye(path: Path, T_hand_camera: Array, camera: str | None = None) -> str:
    """Write a camera on the hand as `hand-eye` does, and return the file's SHA-256."""
    half = ((-0.001, 0.001),) * 3
    interval = {"position_m": half, "rotation_deg": half}
    spread = {"median": 1.0, "p90": 2.0}
    values: dict[str, Any] = {
        "inputs": {},
        "setup": "eye-in-hand",
        "camera": camera,
        "T_hand_camera": rows(T_hand_camera),
        "T_base_target": rows(np.eye(4)),
        "time_offset_s": 0.0,
        "time_offset_sought": False,
        "intervals_95": {"T_hand_camera": interval, "T_base_target": interval},
        "translation_mm": spread,
        "rotation_deg": spread,
        "held_out_all": {"translation_mm": spread, "rotation_deg": spread, "folds": 5},
        "sightings": 20,
        "inliers": 19,
        "covariance": (),
        "blocks": 20,
        "seed": "shah",
        "motion": {"frame": "hand", "turned_deg": (40.0, 40.0, 40.0)},
    }
    return write_result(path, sealed(HandEyeResult, values))
