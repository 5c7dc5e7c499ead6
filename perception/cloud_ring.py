"""The newest point clouds in shared memory: written by the process that makes them, read by the loop."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Self

import numpy as np

from perception.point_cloud import COLUMNS, Cloud
from robot.errors import HardwareError
from robot.shared_ring import SharedRing

_HEAD = struct.Struct("=dddq32x")  # oldest and newest capture, when it was made, cubes; to a whole cache line
_SLOTS = 4  # latest only; one is being written, and one may be being read


@dataclass(frozen=True, kw_only=True)
class StampedCloud(Cloud):
    """A cloud and when it was seen.

    Attributes:
        captured_s: when the oldest of its pictures was taken, host monotonic clock [s].
        newest_s: when the newest was [s].
        made_s: when it was finished [s].
    """

    captured_s: float
    newest_s: float
    made_s: float


class CloudRing:
    """A `SharedRing` of clouds of one size."""

    def __init__(self, file: int, points: int) -> None:
        """Take over the file descriptor of a ring of clouds of `points` points.

        Raises:
            HardwareError: the memory holds something else.
        """
        self._ring, self.points = SharedRing(file), points
        if (self._ring.slots, self._ring.record_bytes) != (_SLOTS, self._bytes(points)):
            self._ring.close()
            raise HardwareError("fused view: its ring is of another size than the station says; start the run again")
        self._newest: tuple[int, StampedCloud] | None = None

    @staticmethod
    def _bytes(points: int) -> int:
        return _HEAD.size + 4 * COLUMNS * points

    @classmethod
    def new(cls, points: int) -> Self:
        """Make a ring. Raises OSError where there is no memory for it."""
        return cls(SharedRing.allocate(slots=_SLOTS, record_bytes=cls._bytes(points)), points)

    @property
    def file(self) -> int:
        """File descriptor, for the process that shares it."""
        return self._ring.file

    @property
    def count(self) -> int:
        """How many clouds were ever published."""
        return self._ring.count

    def publish(self, cloud: StampedCloud) -> None:
        """Write a cloud. The process that makes them alone."""
        head = _HEAD.pack(cloud.captured_s, cloud.newest_s, cloud.made_s, cloud.count)
        self._ring.write(head, np.ascontiguousarray(cloud.points).data)

    def newest(self) -> StampedCloud | None:
        """Return the newest cloud in memory of its own; None before the first. Each is copied once."""
        number = self._ring.count - 1
        if number < 0:
            return None
        if self._newest is None or self._newest[0] != number:
            data = bytearray(self._bytes(self.points))
            if self._ring.read(number, data):
                cloud = _unpack(data, self.points)
                if cloud is not None:
                    self._newest = number, cloud
        return None if self._newest is None else self._newest[1]

    def close(self) -> None:
        """Let go of the memory. Doing it again does no harm."""
        self._ring.close()


def _unpack(data: bytearray, points: int) -> StampedCloud | None:
    """The cloud of a record; None for one that cannot be."""
    captured_s, newest_s, made_s, count = _HEAD.unpack_from(data)
    if not (math.isfinite(captured_s) and captured_s <= newest_s <= made_s < math.inf and count >= 0):
        return None
    cloud = np.frombuffer(bytes(data), np.float32, COLUMNS * points, _HEAD.size).reshape(points, COLUMNS)
    return StampedCloud(points=cloud, count=count, captured_s=captured_s, newest_s=newest_s, made_s=made_s)
