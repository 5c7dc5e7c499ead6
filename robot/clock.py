"""Time: one monotonic clock for everything, real or virtual."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where `now` comes from and how the loop waits."""

    @property
    def virtual(self) -> bool:
        """True when time moves only by `sleep_until` (lock-step)."""
        ...

    def now_s(self) -> float:
        """Seconds on the host's monotonic clock."""
        ...

    def sleep_until(self, deadline_s: float) -> None:
        """Return at `deadline_s` or at once when it has passed."""
        ...


class WallClock:
    """The host's monotonic clock."""

    virtual = False

    def now_s(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def sleep_until(self, deadline_s: float) -> None:
        """Sleep to an absolute deadline, so that lateness never adds up."""
        remaining_s = deadline_s - time.monotonic()
        if remaining_s > 0.0:
            time.sleep(remaining_s)


class VirtualClock:
    """A clock that jumps: the same stages run in lock-step as fast as the machine allows."""

    virtual = True

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now_s(self) -> float:
        """Virtual seconds since `start_s`."""
        return self._now_s

    def sleep_until(self, deadline_s: float) -> None:
        """Move to `deadline_s`; time never goes back."""
        self._now_s = max(self._now_s, deadline_s)
