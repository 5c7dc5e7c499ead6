"""A Video4Linux device opened through OpenCV, set as the station says and read back."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perception.config import UvcCameraConfig
from perception.opencv import load_opencv
from robot.errors import HardwareError

_FOURCC = {"mjpeg": "MJPG", "yuyv": "YUYV"}
_EXPOSURE_STEP_US = 100.0  # V4L2_CID_EXPOSURE_ABSOLUTE counts these
# With one alone, the driver has nowhere to put a frame that begins while the last one is decoded. Nothing waits in
# them: the reader takes each frame as it comes and keeps the newest.
_KERNEL_BUFFERS = 2
_MANUAL, _APERTURE_PRIORITY = 1.0, 3.0  # V4L2_CID_EXPOSURE_AUTO


class Capture(Protocol):
    """What the driver needs of a `cv2.VideoCapture`."""

    def grab(self) -> bool:
        """Wait for the next frame; False when none came."""
        ...

    def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
        """Decode the frame that was grabbed, (H, W, 3) uint8, blue first."""
        ...

    def get(self, key: int) -> float:
        """Return a property."""
        ...

    def release(self) -> None:
        """Close the device."""
        ...


def open_v4l2(config: UvcCameraConfig) -> Capture:
    """Open the device.

    Raises:
        HardwareError: it is not there, or does not take what the station says.
    """
    cv2 = load_opencv()
    where = f"{config.device}"
    try:
        capture = cv2.VideoCapture(config.device, cv2.CAP_V4L2)
    except cv2.error as error:
        raise HardwareError(f"{where} cannot be opened ({error.err}); check its cable and the name") from None
    if not capture.isOpened():
        raise HardwareError(
            f"{where} cannot be opened as a camera; check its cable, the name (ls /dev/v4l/by-id), that you are in "
            "group 'video', and that no other program uses it"
        )
    try:
        _set_up(cv2, capture, config, where)
    except HardwareError:
        capture.release()
        raise
    opened: Capture = capture
    return opened


def _set_up(cv2: Any, capture: Any, config: UvcCameraConfig, where: str) -> None:
    # the pixel format first: the sizes and rates that a device has depend on it
    fourcc = _FOURCC[config.pixels]
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.height)
    capture.set(cv2.CAP_PROP_FPS, config.rate_hz)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, _KERNEL_BUFFERS)
    got = (
        int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1"),
        round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        round(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        capture.get(cv2.CAP_PROP_FPS),
    )
    wanted = fourcc, config.height, config.width, config.rate_hz
    if got[:3] != wanted[:3] or abs(got[3] - wanted[3]) > 0.02 * wanted[3]:
        raise HardwareError(
            f"{where} gives {got[0]} of {got[2]}x{got[1]} at {got[3]:g} Hz, the station says {wanted[0]} of "
            f"{wanted[2]}x{wanted[1]} at {wanted[3]:g} Hz; choose a mode of `v4l2-ctl -d {where} --list-formats-ext`"
        )
    automatic = _APERTURE_PRIORITY if config.auto_exposure else _MANUAL
    _pin(capture, cv2.CAP_PROP_AUTO_EXPOSURE, automatic, f"{where}: auto_exposure")
    if config.exposure_us is not None:
        steps = float(round(config.exposure_us / _EXPOSURE_STEP_US))
        _pin(capture, cv2.CAP_PROP_EXPOSURE, max(1.0, steps), f"{where}: exposure_us", _EXPOSURE_STEP_US)
    if config.gain is not None:
        _pin(capture, cv2.CAP_PROP_GAIN, config.gain, f"{where}: gain")
    if config.white_balance_k is not None:
        _pin(capture, cv2.CAP_PROP_AUTO_WB, 0.0, f"{where}: automatic white balance")
        _pin(capture, cv2.CAP_PROP_WB_TEMPERATURE, config.white_balance_k, f"{where}: white_balance_k")


def _pin(capture: Any, key: int, value: float, what: str, unit: float = 1.0) -> None:
    """Set a property and read it back; `unit` is what 1 of the device's is in the station's."""
    taken = capture.set(key, value)
    got = capture.get(key)
    if not taken or abs(got - value) > 0.5:
        raise HardwareError(
            f"{what} is {value * unit:g}, the device {'took' if taken else 'refused it and has'} {got * unit:g};"
            " choose a value of `v4l2-ctl --list-ctrls`, or leave it out"
        )
