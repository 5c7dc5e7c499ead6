"""What a supervisor and its processes tell each other in shared memory: who lives, what to fail."""

from __future__ import annotations

import enum
import mmap
import os
import time
from typing import Self

import numpy as np

_PLACE = np.dtype(
    [
        ("beat_s", "f8"),  # by the process: when it was last alive, host monotonic clock
        ("ready", "i8"),  # by the process: 1 once it does its work
        ("pid", "i8"),  # by the supervisor: 0 while there is none
        ("starts", "i8"),  # by the supervisor
        ("ended", "i8"),  # by the supervisor: an `Ended` and, above 16 bits, what the process ended with
        ("fault", "i8"),  # by whoever injects one: number of a fault that the process is to show, 0 for none
        ("fault_value", "f8"),  # by the same: how much of it
        ("condemned", "i8"),  # by the run: 1 for a process that hangs and is to be ended; the supervisor takes it back
    ]
)


class Ended(enum.IntEnum):
    """Why the last process of a place is gone."""

    NOT = 0
    DIED = 1  # ended by itself or by a signal that the supervisor did not send
    SILENT = 2  # showed no sign of life and was killed
    GIVEN_UP = 3  # gone, and may not be started again
    REFUSED = 4  # would not take what the person gave it, and said so


class ProcessBoard:
    """One place per process, each word of it written by one process only, so that none waits for another.

    Words are aligned and 8 bytes long: a reader sees an old value or a new one, never half of each.
    """

    def __init__(self, file: int) -> None:
        """Take over the file descriptor of a board."""
        self.file = file
        self._map = mmap.mmap(file, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self.places = np.frombuffer(self._map, _PLACE)

    @classmethod
    def new(cls, places: int) -> Self:
        """Make a board for so many processes. Raises OSError where there is no memory for it."""
        file = os.memfd_create("handrail-board", os.MFD_CLOEXEC)
        os.truncate(file, max(1, places) * _PLACE.itemsize)
        return cls(file)

    def beat(self, place: int) -> None:
        """Say that the process at `place` is alive."""
        self.places["beat_s"][place] = time.monotonic()

    def close(self) -> None:
        """Let go of the memory."""
        if not self._map.closed:
            del self.places
            self._map.close()
            os.close(self.file)
