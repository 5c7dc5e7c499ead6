"""The stream between the servo and the simulated arm's controller, through shared memory."""

from __future__ import annotations

import struct

from robot.arm_ring import ArmRecord
from robot.joint_stream import Reading, SetPoint
from robot.shared_ring import SharedRing

_JOINTS = 7
_POINT = struct.Struct(f"=ddQ{3 * _JOINTS}d")
_HEAD = struct.Struct(f"=?Qd{_JOINTS}d")
_ARM = ArmRecord(_JOINTS)
READING_BYTES = _HEAD.size + _ARM.size
_TRIES = 3


def new_set_point_ring() -> SharedRing:
    """Make the ring that the servo writes and the simulated hardware reads."""
    return SharedRing.new(slots=16, record_bytes=_POINT.size)


def pack_reading(reading: Reading) -> bytes:
    """Return the beginning of the record that the simulated hardware publishes at each step."""
    head = _HEAD.pack(reading.following, reading.clears, reading.gripper_set_m, *reading.q_set_rad)
    return head + _ARM.pack(reading.arm)


def unpack_reading(record: bytes | bytearray) -> Reading:
    """Return the reading at the beginning of such a record."""
    following, clears, gripper_set_m, *q_set_rad = _HEAD.unpack_from(record)
    return Reading(
        arm=_ARM.unpack(record, _HEAD.size),
        following=following,
        q_set_rad=tuple(q_set_rad),
        gripper_set_m=gripper_set_m,
        clears=clears,
    )


class WorldStream:
    """The servo's end.

    Args:
        world: ring that the simulated hardware writes.
        set_points: ring that the servo writes.
    """

    def __init__(self, world: SharedRing, set_points: SharedRing) -> None:
        self._world, self._set_points = world, set_points
        self._record = bytearray(READING_BYTES)
        self._read = 0  # how many records there were at the last look
        self._reading: Reading | None = None

    def read(self) -> Reading | None:
        """Return the newest reading, None before there is one."""
        for _ in range(_TRIES):  # the writer may go over the newest only after it has gone round the ring
            count = self._world.count
            if count == self._read:
                break
            if self._world.read(count - 1, self._record):
                self._read, self._reading = count, unpack_reading(self._record)
                break
        return self._reading

    def write(self, point: SetPoint) -> None:
        """Stream the next set-point."""
        self._set_points.write(
            _POINT.pack(
                point.time_s, point.gripper_width_m, point.clears, *point.q_rad, *point.dq_rad_s, *point.ddq_rad_s2
            )
        )


class SetPoints:
    """The simulated hardware's end."""

    def __init__(self, ring: SharedRing) -> None:
        self._ring = ring
        self._record = bytearray(_POINT.size)
        self._read, self._newest = 0, None

    _newest: SetPoint | None

    def newest(self) -> SetPoint | None:
        """Return the newest set-point, the same object until there is a newer one; None before the first."""
        for _ in range(_TRIES):
            count = self._ring.count
            if count == self._read:
                break
            if self._ring.read(count - 1, self._record):
                time_s, width_m, clears, *joints = _POINT.unpack(self._record)
                n = _JOINTS
                self._read = count
                self._newest = SetPoint(
                    time_s=time_s,
                    q_rad=tuple(joints[:n]),
                    dq_rad_s=tuple(joints[n : 2 * n]),
                    ddq_rad_s2=tuple(joints[2 * n :]),
                    gripper_width_m=width_m,
                    clears=clears,
                )
                break
        return self._newest
