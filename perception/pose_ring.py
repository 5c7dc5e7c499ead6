"""Where the arm was, in shared memory: written by the loop, read by whoever has to know where a camera on it was."""

from __future__ import annotations

import struct
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from robot.geometry import interpolate_pose
from robot.shared_ring import SharedRing

Array = NDArray[np.float64]

_POSE = struct.Struct("=d16d")
_SLOTS = 129  # more than a second at 100 Hz


class Poses(Protocol):
    """Where the TCP was."""

    @property
    def newest_s(self) -> float:
        """Time up to which poses are known [s]; minus infinity before the first."""
        ...

    def at(self, time_s: float) -> Array | None:
        """Return `T_base_tcp` (4, 4) at a time, None where it is not known."""
        ...


class PoseRing:
    """The poses of the last ticks. Between two of them position moves on a line and orientation by slerp."""

    def __init__(self, file: int) -> None:
        """Take over the file descriptor of a ring."""
        self._ring = SharedRing(file)

    @classmethod
    def new(cls) -> Self:
        """Make a ring. Raises OSError where there is no memory for it."""
        return cls(SharedRing.allocate(slots=_SLOTS, record_bytes=_POSE.size))

    @property
    def file(self) -> int:
        """File descriptor, for the process that shares it."""
        return self._ring.file

    def write(self, measured_s: float, T_base_tcp: Array) -> None:
        """Add a pose that was measured later than the last; another one says nothing new. The loop alone."""
        if measured_s > self.newest_s:
            self._ring.write(_POSE.pack(measured_s, *T_base_tcp.ravel().tolist()))

    @property
    def newest_s(self) -> float:
        """Time of the newest pose [s]; minus infinity before the first."""
        newest = self._read(self._ring.count - 1)
        return -np.inf if newest is None else newest[0]

    def at(self, time_s: float) -> Array | None:
        """Return `T_base_tcp` (4, 4) at a time, None before the oldest pose that is there or after the newest."""
        after: tuple[float, Array] | None = None
        count = self._ring.count
        for number in range(count - 1, max(-1, count - _SLOTS), -1):
            pose = self._read(number)
            if pose is None:
                return None
            if pose[0] <= time_s:
                if after is None:
                    return pose[1] if pose[0] == time_s else None
                share = (time_s - pose[0]) / (after[0] - pose[0])
                return interpolate_pose(pose[1], after[1], share)
            after = pose
        return None

    def close(self) -> None:
        """Let go of the memory. Doing it again does no harm."""
        self._ring.close()

    def _read(self, number: int) -> tuple[float, Array] | None:
        if number < 0:
            return None
        data = bytearray(_POSE.size)
        if not self._ring.read(number, data):
            return None
        measured_s, *values = _POSE.unpack(data)
        return measured_s, np.array(values).reshape(4, 4)
