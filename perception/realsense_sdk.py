"""The RealSense SDK, with libusb from a wheel where the system has none."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

from robot.errors import HardwareError


def load_realsense(load: Callable[[str], Any] = importlib.import_module) -> Any:
    """Return the module `pyrealsense2`.

    Its wheel is linked against libusb-1.0 and does not bring it. Where the system has none, that of the package
    `libusb-package` is loaded first, with its names visible to what is loaded later.

    Args:
        load: imports a module by its name.

    Raises:
        HardwareError: a package is missing.
    """
    try:
        return load("pyrealsense2")
    except ImportError as error:
        if "libusb" not in str(error):
            raise HardwareError(_missing("pyrealsense2", error)) from None
    try:
        path = load("libusb_package").get_library_path()
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        return load("pyrealsense2")
    except (ImportError, OSError) as error:
        raise HardwareError(_missing("libusb", error)) from None


def _missing(what: str, error: Exception) -> str:
    return f"needs {what}, which cannot be loaded ({error}); install it: .venv/bin/pip install -e '.[realsense]'"
