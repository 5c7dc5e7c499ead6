"""Faults of a camera, shown on demand in its own process."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from perception.frame_source import FrameSource, Place, RawFrame
from robot.clock import Clock, WallClock
from robot.errors import HardwareError

_NOW_AND_THEN = 0.2  # share of the frames
_JUMP_ENDS = 0.5  # share of the frames after which a jumped clock is right again


class CameraFault(enum.IntEnum):
    """What can be asked for, and what the amount means."""

    NONE = 0
    SLOW = 1  # every frame comes later by the amount [s]
    OUT_OF_ORDER = 2  # now and then a frame comes after its successor
    JUMPING_CLOCK = 3  # now and then the device's stamps are ahead by the amount [s]
    DROPS = 4  # this share of the frames is lost
    WRONG_SIZE = 5  # only the upper half of each picture comes
    SILENT = 6  # no frame comes
    GONE = 7  # the device cannot be reached


class FaultySource:
    """Hands on the frames of a source, with the fault that is asked for at the time.

    Args:
        source: the device.
        fault: number and amount of the fault to show now; looked at before every wait for the source.
        seed: of which frames it hits.
        clock: for delays.
    """

    def __init__(
        self, source: FrameSource, fault: Callable[[], tuple[int, float]], *, seed: int, clock: Clock | None = None
    ) -> None:
        self._source, self._fault, self._clock = source, fault, clock or WallClock()
        self._rng = np.random.default_rng(seed)
        self._held: deque[tuple[float, RawFrame]] = deque()  # with when each is to be given [s]
        self._late: RawFrame | None = None  # to be given after its successor
        self._jumped = False

    def __enter__(self) -> Self:
        self._refuse_if_gone(*self._fault())
        self._held.clear()
        self._late = None
        self._source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, trace)

    def wait(self, timeout_s: float, place: Place | None = None) -> RawFrame | None:
        """Return the next frame, None when none came in time.

        Raises:
            HardwareError: the source says so, or the fault is GONE.
        """
        deadline_s = self._clock.now_s() + timeout_s
        while True:
            now_s = self._clock.now_s()
            if self._held and self._held[0][0] <= now_s:
                frame = self._held.popleft()[1]
                return dataclasses.replace(frame, arrived_s=max(frame.arrived_s, now_s))
            until_s = min(deadline_s, self._held[0][0] if self._held else math.inf)
            number, amount = self._fault()
            # one that is held, or will be, must not lie where the next is published
            holds = self._held or self._late is not None or number != CameraFault.NONE
            fresh = self._source.wait(max(0.0, until_s - now_s), None if holds else place)
            self._take(fresh, number, amount)
            if self._clock.now_s() >= deadline_s and not (self._held and self._held[0][0] <= deadline_s):
                return None

    def _take(self, frame: RawFrame | None, number: int, amount: float) -> None:
        """Hold a fresh frame until it is to be given, changed as the fault wants it."""
        self._refuse_if_gone(number, amount)
        if frame is None:
            return
        due_s = frame.arrived_s
        match number:
            case CameraFault.SILENT:
                return
            case CameraFault.DROPS if self._rng.random() < amount:
                return
            case CameraFault.WRONG_SIZE:
                frame = dataclasses.replace(frame, rgb=frame.rgb[: frame.rgb.shape[0] // 2])
            case CameraFault.JUMPING_CLOCK if frame.device_s is not None:
                self._jumped = self._rng.random() < (1.0 - _JUMP_ENDS if self._jumped else _NOW_AND_THEN)
                frame = dataclasses.replace(frame, device_s=frame.device_s + amount * self._jumped)
            case CameraFault.SLOW:
                due_s += amount
            case CameraFault.OUT_OF_ORDER if self._late is None and self._rng.random() < _NOW_AND_THEN:
                self._late = frame
                return
        self._held.append((due_s, frame))
        if self._late is not None:
            self._held.append((due_s, self._late))
            self._late = None

    def _refuse_if_gone(self, number: int, amount: float) -> None:
        if number == CameraFault.GONE:
            raise HardwareError("the device is gone (injected fault)")
