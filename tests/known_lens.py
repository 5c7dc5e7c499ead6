"""The file of a lens that is known, as `calibrate_rig.py intrinsics` would leave it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from calibration.intrinsics_result import IntrinsicsResult
from calibration.result import sealed, write_result
from tests.calibration_scenes import BOARD, NARROW


def write_lens(path: Path) -> Path:
    """Write NARROW's file and return its path."""
    values: dict[str, Any] = {
        "inputs": {},
        "board": BOARD.model_dump(),
        "camera": NARROW.model_dump(),
        "half_widths_95": dict.fromkeys(NARROW.names, 0.1),
        "covariance": (1e-6 * np.eye(len(NARROW.names))).tolist(),
        "sigma_px": 0.1,
        "held_out": {"rms_px": 0.1, "median_px": 0.1, "p90_px": 0.1},
        "tried": {"brown": 0.1},
        "advice": (),
    }
    write_result(path, sealed(IntrinsicsResult, values))
    return path
