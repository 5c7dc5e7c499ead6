"""What lies where in a stored replay buffer: a record per episode, in the order in which they were taken.

With it a learner that starts again finds its transitions where it left them instead of making them anew from the
stored episodes. Those remain the truth: a record counts only if it is whole, is of the very file that lies in the
store under its number, and was made under the same conditions.
"""

from __future__ import annotations

import json
import os
import struct
import weakref
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.learner_episode import EpisodeKey

Rows = NDArray[np.int32]
_MAGIC = b"handrail replay 1\n"
# run id's length, stored file's size, episode, revision, taken, frames, transitions, shown, CRC of the rows
_HEAD = struct.Struct("<HQqqBIIII")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True)
class PlacedEpisode:
    """One stored episode and its rows.

    Attributes:
        key: identity.
        stored_bytes: size of its file in the episode store.
        taken: False where a newer revision was here already, so that nothing changed.
        frames: its rows, ascending.
        steps: those of them that a transition begins at.
        guided: those of them that a person showed.
        checksum: CRC-32 of the rows' bytes.
    """

    key: EpisodeKey
    stored_bytes: int
    taken: bool
    frames: Rows
    steps: Rows
    guided: Rows
    checksum: int


class ReplayLog:
    """The file of records, appended to."""

    def __init__(self, path: Path, conditions: Mapping[str, Any]) -> None:
        """Open the log at `path`. `conditions` (JSON) decide, with the episodes, what the rows hold.

        Raises:
            OSError: the file cannot be made.
        """
        self._head = _MAGIC + _sealed(json.dumps(conditions, sort_keys=True).encode())
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.close = weakref.finalize(self, os.close, self._file)

    def records(self) -> tuple[list[PlacedEpisode], list[int]]:
        """Return the whole records from the start of the file and where each of them ends [byte].

        Nothing where the file is new, of other conditions or damaged at its start.
        """
        data = b""
        while part := os.pread(self._file, 1 << 30, len(data)):
            data += part
        if not data.startswith(self._head):
            return [], []
        found: list[PlacedEpisode] = []
        ends: list[int] = []
        at = len(self._head)
        while (record := _record(data, at)) is not None:
            found.append(record[0])
            at = record[1]
            ends.append(at)
        return found, ends

    def append(self, record: PlacedEpisode) -> None:
        """Write a record; it is whole or does not count. Raises OSError when the disk is full or failing."""
        end = os.fstat(self._file).st_size
        _write(self._file, _packed(record) if end else self._head + _packed(record), end)

    def cut(self, end: int | None = None) -> None:
        """Forget the records from byte `end` on; all of them without one."""
        if end is None:
            os.ftruncate(self._file, 0)
            _write(self._file, self._head, 0)
        else:
            os.ftruncate(self._file, end)

    def sync(self) -> None:
        """Bring everything to the disk."""
        os.fdatasync(self._file)


def _write(file: int, data: bytes, at: int) -> None:
    while data:
        done = os.pwrite(file, data, at)
        data, at = data[done:], at + done


def _sealed(data: bytes) -> bytes:
    return _CRC.pack(len(data)) + data + _CRC.pack(zlib.crc32(data))


def _packed(record: PlacedEpisode) -> bytes:
    run_id = record.key.run_id.encode()
    rows: Sequence[Rows] = (record.frames, record.steps, record.guided)
    head = _HEAD.pack(
        len(run_id), record.stored_bytes, record.key.episode, record.key.revision, record.taken,
        *(len(part) for part in rows), record.checksum,
    )  # fmt: skip
    body = b"".join([head, run_id, *(part.astype("<i4").tobytes() for part in rows)])
    return body + _CRC.pack(zlib.crc32(body))


def _record(data: bytes, at: int) -> tuple[PlacedEpisode, int] | None:
    """Return the record that begins at `at` and where it ends; None where no whole one does."""
    if at + _HEAD.size > len(data):
        return None
    name, stored_bytes, episode, revision, taken, frames, steps, guided, checksum = _HEAD.unpack_from(data, at)
    start = at + _HEAD.size
    end = start + name + 4 * (frames + steps + guided)
    if end + _CRC.size > len(data) or zlib.crc32(memoryview(data)[at:end]) != _CRC.unpack_from(data, end)[0]:
        return None
    rows = np.frombuffer(data, "<i4", frames + steps + guided, start + name).astype(np.int32)
    record = PlacedEpisode(
        key=EpisodeKey(data[start : start + name].decode(), episode, revision),
        stored_bytes=stored_bytes,
        taken=bool(taken),
        frames=rows[:frames],
        steps=rows[frames : frames + steps],
        guided=rows[frames + steps :],
        checksum=checksum,
    )
    return record, end + _CRC.size
