"""The driver of a camera that is a file: it plays in real time, beside any arm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from perception.config import PlaybackCameraConfig
from perception.footage import Picture, open_footage
from perception.frame_source import Place, RawFrame
from robot.clock import Clock, WallClock
from robot.errors import BadInputError, HardwareError

_LEAST_FRAMES = 2  # one frame alone has no rate


def check_footage(config: PlaybackCameraConfig, path: Path) -> None:
    """Look whether a file can be played as the station says, before anything starts.

    Raises:
        BadInputError: it cannot be read, is of another size, or its first frames come at another rate.
    """
    times_s: list[float] = []
    with open_footage(path, config.view) as pictures:
        for time_s, rgb in pictures:
            times_s.append(time_s)
            if rgb.shape[:2] != (config.height, config.width):
                raise BadInputError(
                    f"camera {config.name!r}: {path} has pictures of {rgb.shape[1]}x{rgb.shape[0]}, the station says "
                    f"{config.width}x{config.height}; correct width and height"
                )
            if len(times_s) > config.rate_hz:
                break
    if len(times_s) < _LEAST_FRAMES:
        raise BadInputError(
            f"camera {config.name!r}: {path} has {len(times_s)} frames; at least {_LEAST_FRAMES} needed"
        )
    rate_hz = (len(times_s) - 1) / (times_s[-1] - times_s[0])
    if not 0.5 * config.rate_hz <= rate_hz <= 1.05 * config.rate_hz:
        raise BadInputError(
            f"camera {config.name!r}: {path} has {rate_hz:.3g} frames a second, the station says rate_hz = "
            f"{config.rate_hz:g}; correct it"
        )


class PlaybackSource:
    """Gives each picture when it is due by the file's own times, counted from when the source was entered.

    Those times are the stamps of a device's clock. Pictures for which nobody waited are lost, as in a device with one
    buffer. At its end a file begins anew, its first picture one frame period after its last.

    Args:
        config: section of the station.
        path: the file.
        clock: the host's.
    """

    def __init__(self, config: PlaybackCameraConfig, path: Path, *, clock: Clock | None = None) -> None:
        self._config, self._path, self._clock = config, path, clock or WallClock()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._number = -1
        self._start_s = self._clock.now_s()
        self._offset_s: float | None = None  # from the file's times to this source's
        self._device_s = -1.0 / self._config.rate_hz  # of the picture before
        self._ended = False
        self._rewind()
        self._next = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def wait(self, timeout_s: float, place: Place | None = None) -> RawFrame | None:
        """Return the newest picture that is due; None when none was in time, or the file is at its end.

        Raises:
            HardwareError: the file cannot be read any more.
        """
        deadline_s = self._clock.now_s() + timeout_s
        due_s = deadline_s if self._next is None else self._start_s + self._next[0]
        self._clock.sleep_until(min(deadline_s, due_s))
        now_s = self._clock.now_s()
        if self._next is None or due_s > now_s:
            return None
        (device_s, rgb), self._next = self._next, self._read()
        while self._next is not None and self._start_s + self._next[0] <= now_s:
            (device_s, rgb), self._next = self._next, self._read()
        return RawFrame(
            frame_id=self._number if self._next is None else self._number - 1,
            arrived_s=now_s,
            device_s=device_s,
            rgb=rgb,
        )

    def _rewind(self) -> None:
        self._stack.close()
        try:
            self._pictures: Iterator[Picture] = self._stack.enter_context(open_footage(self._path, self._config.view))
        except BadInputError as error:
            raise HardwareError(str(error)) from None
        self._offset_s = None

    def _read(self) -> Picture | None:
        """The next picture with its time since the beginning [s]; None when there is none."""
        for attempt in range(2):
            try:
                picture = next(self._pictures, None)
            except BadInputError as error:
                raise HardwareError(str(error)) from None
            if picture is not None:
                break
            if attempt == 1 or not self._config.repeat:
                return None
            self._rewind()
        assert picture is not None
        time_s, rgb = picture
        if self._offset_s is None:
            self._offset_s = self._device_s + 1.0 / self._config.rate_hz - time_s
        self._device_s = time_s + self._offset_s
        self._number += 1
        return self._device_s, rgb
