"""The driver of a USB camera: a thread that reads the device without a pause, and keeps the newest frame only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from perception.config import UvcCameraConfig
from perception.frame_source import Place, RawFrame
from perception.opencv import load_opencv
from perception.v4l2_capture import Capture, open_v4l2
from robot.clock import Clock, WallClock
from robot.errors import HardwareError

_BAD_ROW = 30  # frames that cannot be decoded, in a row, before the device is opened anew
_FAREWELL_S = 0.3  # for the reader to end; it may sit in the kernel for a second, and ends by itself then


@dataclass(frozen=True, kw_only=True)
class _Read:
    number: int
    arrived_s: float
    stamp_s: float
    bgr: NDArray[np.uint8]


class UvcSource:
    """Opens a device and gives its newest frame; older ones, and those for which nobody waited, are lost.

    OpenCV says when the kernel had the frame's first bytes (`CAP_PROP_POS_MSEC` of its V4L2 reader), and not its number
    in the driver: ids count the frames that were read, so frames that the driver lost show as gaps in time alone.

    Args:
        config: section of the station.
        clock: the host's.
        open_capture: opens the device.
    """

    def __init__(
        self,
        config: UvcCameraConfig,
        *,
        clock: Clock | None = None,
        open_capture: Callable[[UvcCameraConfig], Capture] = open_v4l2,
    ) -> None:
        self._config, self._clock, self._open_capture = config, clock or WallClock(), open_capture

    def __enter__(self) -> Self:
        self._cv2 = load_opencv()
        self._reader = _Reader(self._open_capture(self._config), self._cv2, self._clock, self._config.device)
        self._given = -1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.end()

    def wait(self, timeout_s: float, place: Place | None = None) -> RawFrame | None:
        """Return the newest frame, written into `place` if there is one; None when none came in time.

        Raises:
            HardwareError: the device gives nothing more, or no stamps where the station wants them.
        """
        read = self._reader.newer(self._given, timeout_s)
        if read is None:
            return None
        self._given = read.number
        device_s = None
        if self._config.stamps == "driver":
            if not read.stamp_s > 0.0:
                raise HardwareError(f"{self._config.device}: its driver gives no stamps; say stamps = 'arrival'")
            device_s = read.stamp_s
        # only an array of the very size is written into, another one would be a new one
        there = place.rgb if place is not None and place.rgb.shape == read.bgr.shape else None
        rgb = self._cv2.cvtColor(read.bgr, self._cv2.COLOR_BGR2RGB, there)
        return RawFrame(
            frame_id=read.number,
            arrived_s=read.arrived_s,
            device_s=device_s,
            rgb=rgb if there is None else there,
        )


class _Reader:
    """The thread. It owns the capture and closes it, as nobody else may while it waits inside."""

    def __init__(self, capture: Capture, cv2: Any, clock: Clock, name: str) -> None:
        self._capture, self._cv2, self._clock, self._name = capture, cv2, clock, name
        self._changed = threading.Condition()
        self._newest: _Read | None = None
        self._failure: str | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=f"reader of {name}", daemon=True)
        self._thread.start()

    def newer(self, than: int, timeout_s: float) -> _Read | None:
        """Return the newest frame once it has a greater number. Raises HardwareError when none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._is_newer(than), timeout_s)
            if self._is_newer(than):
                return self._newest
            if self._failure is not None:
                raise HardwareError(self._failure)
            return None

    def end(self) -> None:
        """Let the thread come to its end."""
        self._ending = True
        self._thread.join(_FAREWELL_S)

    def _is_newer(self, than: int) -> bool:
        return self._newest is not None and self._newest.number > than

    def _run(self) -> None:
        failure = f"{self._name}: reading ended"
        try:
            failure = self._read()
        except Exception as error:  # of whatever kind: the other thread has to hear of it
            lines = str(error).splitlines() or [type(error).__name__]  # OpenCV's have two
            failure = f"{self._name}: reading failed ({lines[0]})"
        finally:
            with self._changed:
                self._failure = failure
                self._changed.notify_all()
            self._capture.release()

    def _read(self) -> str:
        """Read until the end; say why it ended."""
        key = self._cv2.CAP_PROP_POS_MSEC
        number = bad = 0
        while not self._ending:
            if not self._capture.grab():
                return f"{self._name} gives no frame; it was unplugged or has stopped: check its cable and the USB hub"
            arrived_s, stamp_s = self._clock.now_s(), 1e-3 * self._capture.get(key)
            whole, bgr = self._capture.retrieve()
            number += 1
            bad = 0 if whole else bad + 1
            if bad > _BAD_ROW:
                return f"{self._name} gives frames that cannot be decoded; try another cable, hub or pixels = 'yuyv'"
            if whole:
                with self._changed:
                    self._newest = _Read(number=number, arrived_s=arrived_s, stamp_s=stamp_s, bgr=bgr)
                    self._changed.notify_all()
        return f"{self._name} was closed"
