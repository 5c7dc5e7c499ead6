"""Messages to another process through anonymous shared memory: how the loop's rows reach the recorder."""

from __future__ import annotations

import mmap
import os
import select
import struct
from typing import Self

_WRITTEN, _READ = 0, 8  # numbers of the two positions, a cache line apart
_POSITIONS_BYTES = 128
_HEAD = struct.Struct("=QQ")  # kind and length of what follows


class MessageRing:
    """A ring with one writer and one reader, without a lock, and a bell for what cannot wait until the reader looks.

    To put a message takes no system call, and the writer never waits for the reader. The memory has no name and lives
    as long as one of the two processes, so the reader of a writer that was killed finds all that it had put.

    A position counts all bytes that ever went through. It is one aligned word, written after the bytes that it counts,
    which is enough where stores become visible in their order, as on x86-64; ARM promises no such thing.
    """

    def __init__(self, memory: int, bell: int) -> None:
        """Take over the two file descriptors of a ring, as `files` of the other end names them."""
        self.files = memory, bell
        # touched now, not in the middle of a tick
        self._map = mmap.mmap(memory, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self._whole = memoryview(self._map)
        self._positions = self._whole[:_POSITIONS_BYTES].cast("Q")
        self._bytes = self._whole[_POSITIONS_BYTES:]
        self._capacity = len(self._bytes)

    @classmethod
    def new(cls, capacity: int) -> Self:
        """Make a ring that holds one message of `capacity` bytes. Raises OSError where there is no memory for it."""
        files: list[int] = []
        try:
            files.append(os.memfd_create("handrail-ring", os.MFD_CLOEXEC))
            os.truncate(files[0], _POSITIONS_BYTES + _HEAD.size + capacity)
            files.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            return cls(*files)
        except OSError:
            for file in files:
                os.close(file)
            raise

    @property
    def written(self) -> int:
        """Position behind the last message put."""
        return self._positions[_WRITTEN]

    @property
    def read(self) -> int:
        """Position behind the last message taken."""
        return self._positions[_READ]

    def has_room(self, size: int) -> bool:
        """Return whether a message of `size` bytes can be put now."""
        return self._positions[_WRITTEN] - self._positions[_READ] + _HEAD.size + size <= self._capacity

    def put(self, kind: int, data: bytes | memoryview) -> None:
        """Copy a message, a contiguous view of bytes, into the ring. The writer alone, and only where there is room."""
        at, size = self._positions[_WRITTEN], len(data)
        start = at % self._capacity
        body, end = start + _HEAD.size, start + _HEAD.size + size
        if end <= self._capacity:
            _HEAD.pack_into(self._bytes, start, kind, size)
            self._bytes[body:end] = data
        else:
            self._copy_in(at, _HEAD.pack(kind, size))
            self._copy_in(at + _HEAD.size, data)
        self._positions[_WRITTEN] = at + _HEAD.size + size

    def ring(self) -> None:
        """Have the reader look now."""
        os.eventfd_write(self.files[1], 1)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the bell; False when it did not ring in time."""
        rung = bool(select.select([self.files[1]], [], [], timeout_s)[0])
        if rung:
            os.eventfd_read(self.files[1])
        return rung

    def take(self) -> tuple[int, bytes] | None:
        """Return kind and bytes of the next message, or None. The reader alone.

        Raises:
            RuntimeError: the ring holds no messages; whoever wrote there was no writer of this class.
        """
        read, waiting = self.read, self.written - self.read
        if waiting == 0:
            return None
        if not _HEAD.size <= waiting <= self._capacity:
            raise RuntimeError(f"message ring: {waiting} bytes wait in {self._capacity}")
        kind, size = _HEAD.unpack(self._copy_out(read, _HEAD.size))
        if size > waiting - _HEAD.size:
            raise RuntimeError(f"message ring: a message of {size} bytes where {waiting} wait")
        data = self._copy_out(read + _HEAD.size, size)
        self._positions[_READ] = read + _HEAD.size + size
        return kind, data

    def close(self) -> None:
        """Let go of the memory. Doing it again does no harm."""
        if not self._map.closed:
            for view in (self._positions, self._bytes, self._whole):
                view.release()
            self._map.close()
            for file in self.files:
                os.close(file)

    def _copy_in(self, position: int, data: bytes | memoryview) -> None:
        start = position % self._capacity
        first = min(len(data), self._capacity - start)
        self._bytes[start : start + first] = data[:first]
        if first < len(data):
            self._bytes[: len(data) - first] = data[first:]

    def _copy_out(self, position: int, size: int) -> bytes:
        start = position % self._capacity
        first = min(size, self._capacity - start)
        return bytes(self._bytes[start : start + first]) + bytes(self._bytes[: size - first])
