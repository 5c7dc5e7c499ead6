"""What the loop tells the servo process."""

from __future__ import annotations

import enum
import struct

from robot.message_ring import MessageRing
from robot.servo import JointTarget

# An order to clear is obeyed so long after it was sent, and a cleared fault may take so long to be gone from the
# states [s].
CLEARING_S = 0.2
ORDER_BYTES = 1 << 14  # of the ring: some three seconds of targets at 50 Hz


class ServoOrder(enum.IntEnum):
    """Kinds of message in the servo's `MessageRing`."""

    TARGET = 1
    HOLD = 2
    CLEAR_FAULT = 3  # body: when it was sent, of `pack_time`


def new_order_ring() -> MessageRing:
    """Make the ring that the loop writes and the servo process reads."""
    return MessageRing.new(ORDER_BYTES)


def pack_target(target: JointTarget) -> bytes:
    """Return the body of a TARGET."""
    head = (target.sent_s, target.due_s, target.gripper_width_m)
    return struct.pack(f"={3 + len(target.q_rad)}d", *head, *target.q_rad)


def unpack_target(body: bytes) -> JointTarget:
    """Return the target of a body that `pack_target` made."""
    sent_s, due_s, width_m, *q_rad = struct.unpack(f"={len(body) // 8}d", body)
    return JointTarget(q_rad=tuple(q_rad), gripper_width_m=width_m, due_s=due_s, sent_s=sent_s)


def pack_time(sent_s: float) -> bytes:
    """Return the body of a CLEAR_FAULT that is sent at a time [s]."""
    return struct.pack("=d", sent_s)


def unpack_time(body: bytes) -> float:
    """Return the time of a body that `pack_time` made [s]."""
    sent_s: float = struct.unpack("=d", body)[0]
    return sent_s
