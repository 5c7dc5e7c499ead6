"""The world as a record of shared memory, and what its process is told."""

from __future__ import annotations

import enum
import struct

import numpy as np

from robot.joint_stream import Reading
from robot.message_ring import MessageRing
from robot.shared_ring import SharedRing
from robot.simulation.layout import Layout
from robot.simulation.world import SimulatedWorld, WorldSnapshot
from robot.simulation.world_stream import READING_BYTES, pack_reading, unpack_reading

_SERVOS = 9  # seven joints and two fingers
_FIXED = 2 + 2 + 2 + 2 * _SERVOS  # start and steps, ramp, pad, ends of the ramp
_LAYOUT = struct.Struct("=5d")


class WorldOrder(enum.IntEnum):
    """Kinds of message to the world's process."""

    LAY = 1
    FAIL = 2  # the arm's own reflex, for tests


def new_world_ring(slots: int = 64) -> SharedRing:
    """Make the ring that the world's process writes, one record per step of physics."""
    size = SimulatedWorld(start_s=0.0).physics_size
    return SharedRing.new(slots=slots, record_bytes=READING_BYTES + 8 * (_FIXED + size))


def new_world_orders() -> MessageRing:
    """Make the ring that the loop writes and the world's process reads."""
    return MessageRing.new(1 << 12)


def pack_world(reading: Reading, snapshot: WorldSnapshot) -> tuple[bytes, bytes]:
    """Return the two parts of a record."""
    s = snapshot
    numbers = np.concatenate(
        [(s.start_s, float(s.steps)), s.ramp_s, s.pad_xy_m, s.ramp_from, s.ramp_to, s.physics], dtype=np.float64
    )
    return pack_reading(reading), numbers.tobytes()


def unpack_world(record: bytes | bytearray) -> WorldSnapshot:
    """Return the snapshot of a whole record, in memory of its own."""
    numbers = np.frombuffer(bytes(record[READING_BYTES:]))
    return WorldSnapshot(
        start_s=float(numbers[0]),
        steps=int(numbers[1]),
        ramp_s=(float(numbers[2]), float(numbers[3])),
        pad_xy_m=numbers[4:6],
        ramp_from=numbers[6 : 6 + _SERVOS],
        ramp_to=numbers[6 + _SERVOS : _FIXED],
        physics=numbers[_FIXED:],
        arm=unpack_reading(record).arm,
    )


def pack_layout(layout: Layout) -> bytes:
    """Return the body of a LAY."""
    return _LAYOUT.pack(*layout.block_xy_m, layout.block_yaw_rad, *layout.pad_xy_m)


def unpack_layout(body: bytes) -> Layout:
    """Return the layout of a body that `pack_layout` made."""
    x, y, yaw_rad, pad_x, pad_y = _LAYOUT.unpack(body)
    return Layout(block_xy_m=(x, y), block_yaw_rad=yaw_rad, pad_xy_m=(pad_x, pad_y))
