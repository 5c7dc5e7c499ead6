"""OpenCV, which only some camera kinds need, loaded when the first of them is opened."""

from __future__ import annotations

import importlib
import os
from typing import Any

from robot.errors import HardwareError

_STILL_S = "1"  # of the V4L2 reader; OpenCV's own 10 s would outlast every patience with a camera that has stopped


def load_opencv() -> Any:
    """Return the module `cv2`.

    Raises:
        HardwareError: it is not installed.
    """
    # read once, as the library is loaded
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", _STILL_S)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # what fails is said by us, in one line
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise HardwareError(
            f"needs OpenCV, which cannot be loaded ({error}); install it: .venv/bin/pip install -e '.[calibration]'"
        ) from None
