"""A disk that can be made full or slow, so that a person can see what a run then does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from policy.episode_file import free_bytes
from teleop.recorder_messages import RecorderFault


class FaultyDisk:
    """Says how much room there is before each write; without a fault, what the real disk says."""

    def __init__(self, free: Callable[[Path], int] = free_bytes, sleep: Callable[[float], None] = time.sleep) -> None:
        self._free, self._sleep = free, sleep
        self._amounts: dict[RecorderFault, float] = {}

    def suffer(self, fault: RecorderFault, amount: float) -> None:
        """Begin a fault, or end it with an amount of 0."""
        self._amounts[fault] = amount

    def __call__(self, folder: Path) -> int:
        """Return the bytes that are free for `folder`."""
        slow_s = self._amounts.get(RecorderFault.SLOW_DISK, 0.0)
        if slow_s:
            self._sleep(slow_s)
        return 0 if self._amounts.get(RecorderFault.DISK_FULL) else self._free(folder)
