"""Calibration files as `calibrate_rig.py extrinsics` writes them, for stations that point to one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.camera_model import CameraModel
from calibration.extrinsics_result import ExtrinsicsResult, rows
from calibration.result import sealed, write_result
from tests.calibration_scenes import BOARD

Array = NDArray[np.float64]


def write_rig(
    path: Path, cameras: Mapping[str, tuple[str, Array]], *, size: tuple[int, int] = (84, 84), **more: Any
) -> str:
    """Write a rig's calibration, camera -> (mount, T_mount_camera), and return the file's SHA-256."""
    lens = CameraModel(kind="pinhole", width=size[1], height=size[0], fx=90.0, fy=91.0, cx=42.0, cy=41.0)
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
