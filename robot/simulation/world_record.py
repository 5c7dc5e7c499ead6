"""The world as a record of shared memory, and what its process is told."""

from __future__ import annotations

import enum
import struct

import numpy as np

from robot.joint_stream import Reading
from robot.message_ring import MessageRing
from robot.shared_ring import SharedRing
from robot.simulation.layout import Arrangement
from robot.simulation.place_scene import PLACE_SCENE
from robot.simulation.scene import Scene
from robot.simulation.world import SimulatedWorld, WorldSnapshot
from robot.simulation.world_stream import READING_BYTES, pack_reading, unpack_reading

_SERVOS = 9  # seven joints and two fingers
_FIXED = 2 + 2 + 2 + 2 * _SERVOS  # start and steps, ramp, target, ends of the ramp
_ARRANGEMENT = struct.Struct("=10d")


class WorldOrder(enum.IntEnum):
    """Kinds of message to the world's process."""

    LAY = 1
    FAIL = 2  # the arm's own reflex, for tests


def new_world_ring(scene: Scene = PLACE_SCENE, slots: int = 64) -> SharedRing:
    """Make the ring that the world's process writes, one record per step of physics."""
    size = SimulatedWorld(start_s=0.0, scene=scene).physics_size
    return SharedRing.new(slots=slots, record_bytes=READING_BYTES + 8 * (_FIXED + size))


def new_world_orders() -> MessageRing:
    """Make the ring that the loop writes and the world's process reads."""
    return MessageRing.new(1 << 12)


def pack_world(reading: Reading, snapshot: WorldSnapshot) -> tuple[bytes, bytes]:
    """Return the two parts of a record."""
    s = snapshot
    numbers = np.concatenate(
        [(s.start_s, float(s.steps)), s.ramp_s, s.target_xy_m, s.ramp_from, s.ramp_to, s.physics], dtype=np.float64
    )
    return pack_reading(reading), numbers.tobytes()


def unpack_world(record: bytes | bytearray) -> WorldSnapshot:
    """Return the snapshot of a whole record, in memory of its own."""
    numbers = np.frombuffer(bytes(record[READING_BYTES:]))
    return WorldSnapshot(
        start_s=float(numbers[0]),
        steps=int(numbers[1]),
        ramp_s=(float(numbers[2]), float(numbers[3])),
        target_xy_m=numbers[4:6],
        ramp_from=numbers[6 : 6 + _SERVOS],
        ramp_to=numbers[6 + _SERVOS : _FIXED],
        physics=numbers[_FIXED:],
        arm=unpack_reading(record).arm,
    )


def pack_arrangement(arrangement: Arrangement) -> bytes:
    """Return the body of a LAY."""
    a = arrangement
    return _ARRANGEMENT.pack(*a.object_m, *a.object_quat_wxyz, a.grip_m, *a.target_xy_m)


def unpack_arrangement(body: bytes) -> Arrangement:
    """Return the arrangement of a body that `pack_arrangement` made."""
    x, y, z, qw, qx, qy, qz, grip_m, target_x, target_y = _ARRANGEMENT.unpack(body)
    return Arrangement(
        object_m=(x, y, z), object_quat_wxyz=(qw, qx, qy, qz), grip_m=grip_m, target_xy_m=(target_x, target_y)
    )
