"""What the loop and the recorder say to each other over a private socket.

A message of one part is a row: its bytes, of the type that the header's spec gives. Any other has two, a kind and a
body.
"""

from __future__ import annotations

import enum

from policy.episode_header import Record


class Kind(enum.Enum):
    """First part of a message; what the body is stands behind it."""

    # from the loop
    HELLO = b"hello"  # the first message; READY answers it
    BEGIN = b"begin"  # EpisodeHeader
    END = b"end"  # EpisodeOutcome
    CLOSE = b"close"
    # from the recorder
    READY = b"ready"  # it owns the folder, and both sockets are connected
    CREDIT = b"credit"  # bytes of rows that it took since the last one, as decimal digits; not for each row
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
