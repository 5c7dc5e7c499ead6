"""What the loop and the recorder say to each other: orders through a ring in memory, reports over a private socket."""

from __future__ import annotations

import enum
import struct

from policy.episode_header import Record

FAULT_BODY = struct.Struct("=qd")  # RecorderFault, amount


class Order(enum.Enum):
    """Kind of a message from the loop; what it holds stands behind it."""

    ROW = 0  # the bytes of one row, of the type that the header's spec gives
    BEGIN = 1  # EpisodeHeader
    END = 2  # EpisodeOutcome
    CLOSE = 3
    FAULT = 4  # FAULT_BODY: for tests by hand, as `run_robot.py --inject` sends them


class RecorderFault(enum.IntEnum):
    """What the recorder can be made to suffer. Each stays until it is called off with an amount of 0."""

    DISK_FULL = 1  # the disk says that it has no room
    SLOW_DISK = 2  # each write takes so much longer [s]


def fault_body(fault: RecorderFault, amount: float) -> bytes:
    """Return what an `Order.FAULT` holds. Raises ValueError where the amount is none."""
    if not 0.0 <= amount < 3600.0:
        raise ValueError(f"{fault.name} of {amount}: from 0 to 3600")
    return FAULT_BODY.pack(fault, amount)


class Report(enum.Enum):
    """First of the two parts of a message from the recorder; what the second holds stands behind it."""

    READY = b"ready"  # it owns the folder
    COMMITTED = b"committed"  # Committed
    FAILED = b"failed"  # RecorderFailure


class RecorderFailure(Record):
    """Something that the recorder could not do, in words for the person.

    Attributes:
        episode: index of the episode it concerns, or None.
        message: one line with the cure.
        final: True when no file comes for that episode now; recovery may still make one.
    """

    episode: int | None
    message: str
    final: bool
