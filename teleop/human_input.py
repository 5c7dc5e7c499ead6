"""What a person's device says, and the interface of such devices."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray


class HumanEvent(enum.IntFlag):
    """Latched button edges; a tap shorter than a tick counts. Stored as a bit mask per tick."""

    NONE = 0
    SUCCESS = 1 << 0
    FAILURE = 1 << 1
    RERECORD = 1 << 2
    HOLD = 1 << 3  # toggles holding
    ARM = 1 << 4  # arms after start, stop or fault
    STOP = 1 << 5  # stops and latches
    QUIT = 1 << 6  # ends the run (window closed)


class AssistMode(enum.IntEnum):
    """How an engaged person's action meets the policy's."""

    TAKEOVER = 0  # replaces it
    NUDGE = 1  # adds to it


@dataclass(frozen=True, kw_only=True)
class HumanCommand:
    """What the person's device says at one tick.

    Attributes:
        twist: x, y, z, roll, pitch, yaw in the base frame, shape (6,), each in [-1, 1] of full speed.
        gripper: -1 closes, +1 opens, None keeps what is commanded now.
        engaged: True while the drive button is held.
        events: edges since the previous poll.
        polled_s: when the device was last known to be alive, host monotonic clock [s].
        connected: False while the supervising device is unplugged.
    """

    twist: NDArray[np.float64] = field(default_factory=lambda: np.zeros(6))
    gripper: float | None = None
    engaged: bool = False
    events: HumanEvent = HumanEvent.NONE
    polled_s: float = 0.0
    connected: bool = True


class HumanInput(Protocol):
    """A device of the person. Entering opens it; `poll` never blocks."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def poll(self, now_s: float) -> HumanCommand:
        """Return what the person wants now and clear the latched edges."""
        ...
