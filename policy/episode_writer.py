"""Writes the rows and streams of one episode into a `.partial` file that survives a kill at any moment.

HDF5's SWMR mode keeps the file readable after every flush. It allows nothing new once it is on, so all
datasets and attributes are made before, and the outcome, known last, has its bytes reserved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from h5py import h5s

from policy.episode_file import (
    CREATING,
    DEMO,
    FORMAT,
    PARTIAL,
    PENDING_OUTCOME,
    NoSpaceError,
    check_space,
    free_bytes,
)
from policy.episode_header import EpisodeHeader, EpisodeOutcome
from policy.episode_schema import SCHEMA_VERSION, Row, seal
from policy.episode_streams import EncodedFrame, StreamWriter
from robot.errors import BadInputError

_OUTCOME_BYTES = 65536
_CHUNK_BYTES = 262144  # what HDF5 rewrites when a flush meets a chunk that is part full
_CHUNK_ROWS = 64
_BUFFER_BYTES = 8_000_000
_ROWS_FIRST_BYTES = 64_000_000  # room that full-size frames leave to the rows


class EpisodeWriter:
    """One open recording. Rows are kept back for at most `flush_period_s`, then written and flushed together.

    A flush costs 1.5 ms for 55 datasets, however few rows it has, hence the batches. Call `poll` a few
    times in each period, also when no rows come. Where the disk gets full, full-size frames go before any row does.

    Attributes:
        streams: writers of the header's streams by name.
        no_room: why frames were let go for want of room on the disk, empty when none were.
    """

    def __init__(
        self,
        folder: Path,
        header: EpisodeHeader,
        *,
        flush_period_s: float = 0.25,
        now_s: Callable[[], float] = time.monotonic,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        """Create `<utc>-<run>-<index>.h5.partial`.

        Raises:
            BadInputError: an episode of that name exists.
            NoSpaceError: the disk is full.
            OSError: the folder cannot be written.
        """
        check_space(folder, _BUFFER_BYTES, free)
        self.path = folder / (header.file_name + PARTIAL)
        if self.path.exists() or (folder / header.file_name).exists():
            raise BadInputError(f"{folder / header.file_name}: this episode exists; give each its own index and start")
        self._dtype = header.spec.row_dtype()
        self._buffer = np.empty(max(1, min(1024, _BUFFER_BYTES // self._dtype.itemsize)), self._dtype)
        self._buffered = self._rows = 0
        self._flush_period_s, self._now_s, self._free = flush_period_s, now_s, free
        self.streams: dict[str, StreamWriter] = {}
        self.no_room = ""
        # Only a file in SWMR mode survives a kill, so it gets its name when it is in that mode.
        creating = folder / (header.file_name + CREATING)
        creating.unlink(missing_ok=True)
        self._file = h5py.File(creating, "x", libver="latest")
        try:
            self._datasets = _create(self._file, header, self._dtype)
            for spec in header.streams:
                self.streams[spec.name] = StreamWriter(self._file[DEMO], spec)
            self._outcome = self._file[PENDING_OUTCOME]
            self._file.swmr_mode = True
            self._file.flush()
            creating.rename(self.path)
        except BaseException:
            self._close()
            raise
        self._flushed_s = now_s()

    @property
    def rows(self) -> int:
        """Rows appended so far."""
        return self._rows + self._buffered

    @property
    def closed(self) -> bool:
        """True after `finish` and `abandon`."""
        return not self._file

    def append(self, row: Row) -> None:
        """Take one row, and seal what is written of it: whoever hands rows over has no time for that.

        Raises:
            NoSpaceError: the disk is full; the rows flushed before are safe, and there is room to commit them.
            OSError, RuntimeError: the disk is failing; the same, but HDF5 cannot go on in this process.
        """
        taken = self._buffer[self._buffered, ...]
        taken[...] = row
        seal(taken)
        self._buffered += 1
        if self._buffered == len(self._buffer):
            self.flush()
        else:
            self.poll()

    def append_frame(self, stream: str, frame: EncodedFrame) -> None:
        """Take a full-size frame of the header's stream of that name. Raises what `append` does."""
        self.streams[stream].append(frame)
        if sum(writer.waiting_bytes for writer in self.streams.values()) >= _BUFFER_BYTES:
            self.flush()
        else:
            self.poll()

    def poll(self) -> None:
        """Flush when it is due. Raises what `append` does."""
        if self._now_s() - self._flushed_s >= self._flush_period_s:
            self.flush()

    def flush(self) -> None:
        """Bring every row and frame so far to where a kill cannot reach it. Raises what `append` does."""
        fresh = bool(self._buffered)
        if fresh:
            check_space(self.path.parent, self._commit_bytes(), self._free)
            self._write_rows()
        unwritten = [writer for writer in self.streams.values() if writer.unwritten]
        if unwritten:
            self._make_room()
            for writer in unwritten:
                writer.write()
        if fresh or unwritten:
            self._file.flush()
        # afterwards, or on a slow disk each row would be flushed by itself
        self._flushed_s = self._now_s()

    def _commit_bytes(self) -> int:
        """Bytes that have to be free for what waits of the rows and for the commit, which writes all of it anew."""
        return 2 * self.rows * self._dtype.itemsize + sum(writer.written_bytes for writer in self.streams.values())

    def _make_room(self) -> None:
        """Let go of the frames that wait where there is no room for them."""
        waiting = sum(writer.waiting_bytes for writer in self.streams.values())
        try:
            if waiting:
                check_space(self.path.parent, self._commit_bytes() + 2 * waiting + _ROWS_FIRST_BYTES, self._free)
        except NoSpaceError as error:
            self.no_room = str(error)
            for writer in self.streams.values():
                writer.shed()

    def _write_rows(self) -> None:
        batch, first, count = self._buffer[: self._buffered], self._rows, self._buffered
        # h5py's own indexing costs four times as much as these calls
        for name, dataset in self._datasets.items():
            shape = self._dtype[name].shape
            dataset.set_extent((first + count, *shape))
            there = dataset.get_space()
            there.select_hyperslab((first, *(0 for _ in shape)), (count, *shape))
            dataset.write(h5s.create_simple((count, *shape)), there, np.ascontiguousarray(batch[name]))
        self._rows += count
        self._buffered = 0

    def finish(self, outcome: EpisodeOutcome) -> Path:
        """Flush, note the outcome, close and return the `.partial`, ready for `commit_episode`."""
        self.flush()
        text = outcome.to_json().encode()
        if len(text) > _OUTCOME_BYTES:
            raise ValueError(f"the outcome takes {len(text)} bytes (at most {_OUTCOME_BYTES})")
        # after the rows are safe, so that an outcome in the file says that they all are
        self._outcome[: len(text)] = np.frombuffer(text, np.uint8)
        self._file.flush()
        self._close()
        return self.path

    def abandon(self) -> None:
        """Close without an outcome and without the rows that were not flushed yet."""
        self._buffered = 0
        self._close()

    def _close(self) -> None:
        self._datasets = {}
        for writer in self.streams.values():
            writer.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.closed:
            self.abandon()


def _create(file: h5py.File, header: EpisodeHeader, dtype: np.dtype[np.void]) -> dict[str, h5py.h5d.DatasetID]:
    """Make everything that the file will ever have; fields of size 0 have no dataset."""
    file.attrs["format"] = np.bytes_(FORMAT)
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["header"] = np.bytes_(header.to_json())
    file.create_dataset(PENDING_OUTCOME, data=np.zeros(_OUTCOME_BYTES, np.uint8))
    demo = file.create_group(DEMO)
    datasets = {}
    for name in dtype.names or ():
        field = dtype[name]
        if field.itemsize:
            chunk_rows = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // field.itemsize))
            datasets[name] = demo.create_dataset(
                name,
                shape=(0, *field.shape),
                maxshape=(None, *field.shape),
                chunks=(chunk_rows, *field.shape),
                dtype=field.base,
            ).id
    return datasets
