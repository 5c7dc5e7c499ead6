"""What the loop and the recorder say to each other: orders through a ring in memory, reports over a private socket."""

from __future__ import annotations

import enum

from policy.episode_header import Record


class Order(enum.Enum):
    """Kind of a message from the loop; what it holds stands behind it."""

    ROW = 0  # the bytes of one row, of the type that the header's spec gives
    BEGIN = 1  # EpisodeHeader
    END = 2  # EpisodeOutcome
    CLOSE = 3


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
