"""The replay buffer's one array: a row a frame, with what happened from there on beside it."""

from __future__ import annotations

import mmap
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.learner_episode import Floats
from policy.observation_history import PRESENT, HistoryTicks

FLAGS = ("human", "hindsight", "approved", "demonstration")
_AHEAD_BYTES = 64 << 20  # disk space taken at a time, before a write through the map could find none (SIGBUS)


@dataclass(frozen=True)
class RowLayout:
    """Where the values of a frame lie in its row of `width` float32.

    `features | proprio | base | action | human_action | reward | discount | next row (int32) | four flags (bool)`.
    One row holds frame and transition, because at most one transition begins at a frame: a draw then reads two places
    in memory, where it starts and where it is bootstrapped, and no table of indices in between.

    Where several ticks are seen, the row of the frame before (int32) stands behind the proprioception, in the cache
    line that is read with it: a chain back through the window, whose first frame names itself. So a frame is stored
    once, however many windows it is in.
    """

    features: int
    proprio: int
    action: int
    history: HistoryTicks = PRESENT

    @property
    def chained(self) -> bool:
        """True where rows name the one before."""
        return self.history.longest > 1

    @property
    def observed(self) -> int:
        """Values up to the base action: what was seen, and what it was seen after."""
        return self.features + self.proprio + self.chained + self.action

    @property
    def width(self) -> int:
        """Values of a row."""
        return self.observed + 2 * self.action + 4

    def columns(self) -> dict[str, slice]:
        """Columns of what is float32, by name."""
        sizes = {
            "features": self.features,
            "proprio": self.proprio,
            "previous": int(self.chained),
            "base": self.action,
            "action": self.action,
            "human_action": self.action,
            "reward": 1,
            "discount": 1,
        }
        ends = np.cumsum([*sizes.values()]).tolist()
        return {
            name: slice(end - size, end)
            for (name, size), end in zip(sizes.items(), ends, strict=True)
            if name != "previous"
        }

    @property
    def next_row(self) -> int:
        """Column of the row that is bootstrapped at, int32."""
        return self.width - 2

    @property
    def previous_row(self) -> int:
        """Column of the row of the frame before in the window, int32."""
        assert self.chained, "rows name the one before only where several ticks are seen"
        return self.features + self.proprio

    def flag(self, name: str) -> int:
        """Column of a flag where the rows are viewed as bytes."""
        return 4 * (self.width - 1) + FLAGS.index(name)


class RowStore:
    """Rows of float32: in memory, or, where a path is given, in a file that the system maps into memory.

    A learner that starts again has the rows of such a file at once; to copy them into memory of its own took 1.3 s of
    CPU time for 450 MB, most of it for new pages. Room for the whole capacity is reserved at the start and used by the
    system only as rows are written, so nothing is ever copied to grow.
    """

    def __init__(self, width: int, capacity: int, path: Path | None = None) -> None:
        """Reserve `capacity` rows. Raises OSError when the file cannot be made."""
        self._width = width
        self.values: Floats = np.zeros((0, width), np.float32)
        self._file = -1
        self._space = 0  # bytes of the file that the disk has room for
        self.found_bytes = 0  # size that the file had
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._closing = weakref.finalize(self, os.close, self._file)
            self.found_bytes = os.fstat(self._file).st_size
        self._reserve(capacity)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * self._width

    def provide(self, rows: int) -> None:
        """Make the first `rows` rows fit to be written. Raises OSError when the disk has no room for them."""
        if rows > len(self.values):
            self._reserve(max(2 * len(self.values), rows))
        while self._file >= 0 and rows * self.row_bytes > self._space:
            # a write through the map to a page that the disk has no room for ends the process (SIGBUS)
            os.posix_fallocate(self._file, self._space, _AHEAD_BYTES)
            self._space += _AHEAD_BYTES

    def leave_file(self, used: int) -> None:
        """Go on in memory alone with the first `used` rows; the file stays as it is from now on."""
        if self._file >= 0:
            self._closing()
            self._file = -1
            # the others were only reserved, and copied they would take memory
            self._reserve(len(self.values), used)

    def sync(self) -> None:
        """Bring everything to the disk. Raises OSError when it is failing."""
        if self._file >= 0:
            os.fsync(self._file)  # pages that were written through the map as well

    def _reserve(self, capacity: int, used: int | None = None) -> None:
        """Make room for `capacity` rows, keeping the first `used` that are there (None: all)."""
        size = capacity * self.row_bytes
        if self._file >= 0:
            os.ftruncate(self._file, max(size, os.fstat(self._file).st_size))
            self.values = np.frombuffer(mmap.mmap(self._file, size), np.float32).reshape(capacity, self._width)
            return
        before, self.values = self.values[:used], np.empty((capacity, self._width), np.float32)
        self.values[: len(before)] = before


class RowIndex:
    """A set of rows to draw from: adding and removing k of them costs O(k), drawing one costs one look-up."""

    def __init__(self) -> None:
        self._members: NDArray[np.int32] = np.zeros(1024, np.int32)
        self._place: NDArray[np.int32] = np.zeros(1024, np.int32)  # row -> where in `_members`
        self.size = 0

    @property
    def members(self) -> NDArray[np.int32]:
        """The rows, in an order that depends on the calls so far alone."""
        return self._members[: self.size]

    def add(self, rows: NDArray[np.int32]) -> None:
        """Take in rows that are not in it yet."""
        if len(rows) == 0:
            return
        end = self.size + len(rows)
        self._members = _at_least(self._members, end)
        self._place = _at_least(self._place, int(rows.max()) + 1)
        self._members[self.size : end] = rows
        self._place[rows] = np.arange(self.size, end, dtype=np.int32)
        self.size = end

    def remove(self, rows: NDArray[np.int32]) -> None:
        """Take out rows that are in it; the last ones move into their places."""
        left = self.size - len(rows)
        place = self._place[rows]
        last = self._members[left : self.size]
        stays = np.ones(len(last), np.bool_)
        stays[place[place >= left] - left] = False
        holes, fillers = place[place < left], last[stays]
        self._members[holes] = fillers
        self._place[fillers] = holes
        self.size = left


def _at_least(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Return `values`, grown by doubling to `size` or more."""
    if size <= len(values):
        return values
    grown = np.zeros(max(size, 2 * len(values)), values.dtype)
    grown[: len(values)] = values
    return grown
