"""Messages to another process through anonymous shared memory: how the loop's rows reach the recorder."""

from __future__ import annotations

import mmap
import os
import select
import struct
from types import TracebackType
from typing import Self

_WRITTEN, _READ = 0, 8  # numbers of the two positions, a cache line apart
_POSITIONS_BYTES = 128
_HEAD = struct.Struct("=QQ")  # kind and length of what follows


class MessageRing:
    """A ring with one writer and one reader, without a lock, and a bell for what cannot wait until the reader looks.

    To put a message takes no system call, and the writer never waits for the reader. The memory has no name and lives
    as long as one of the two processes, so the reader of a writer that was killed finds all that it had put.

    A position counts all bytes that ever went through. It is one aligned word, so none is ever seen half written; but
    a processor other than x86 may show it before the bytes that it counts. So the reader goes by a position that it
    saw a while ago, or behind the bell or the end of the writer, which have everything come before them.
    """

    def __init__(self, memory: int, bell: int) -> None:
        """Map the ring behind two file descriptors (`files`), which stay the caller's."""
        # touched now, not in the middle of a tick
        self._map = mmap.mmap(memory, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self._whole = memoryview(self._map)
        self._positions = self._whole[:_POSITIONS_BYTES].cast("Q")
        self._bytes = self._whole[_POSITIONS_BYTES:]
        self._capacity = len(self._bytes)
        self._bell = os.dup(bell)

    @staticmethod
    def files(capacity: int) -> tuple[int, int]:
        """Make memory and bell of a new ring that holds one message of `capacity` bytes; return their descriptors."""
        memory = os.memfd_create("handrail-ring", os.MFD_CLOEXEC)
        os.truncate(memory, _POSITIONS_BYTES + _HEAD.size + capacity)
        return memory, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        return self.written - self.read + _HEAD.size + size <= self._capacity

    def put(self, kind: int, data: bytes | memoryview) -> None:
        """Copy a message, a contiguous view of bytes, into the ring. The writer alone, and only where there is room."""
        at = self.written
        self._copy_in(at, _HEAD.pack(kind, len(data)))
        self._copy_in(at + _HEAD.size, data)
        self._positions[_WRITTEN] = at + _HEAD.size + len(data)

    def ring(self) -> None:
        """Have the reader look now."""
        os.eventfd_write(self._bell, 1)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the bell; False when it did not ring in time."""
        rung = bool(select.select([self._bell], [], [], timeout_s)[0])
        if rung:
            os.eventfd_read(self._bell)
        return rung

    def take(self, end: int) -> tuple[int, bytes] | None:
        """Return kind and bytes of the next message that ends at or before position `end`, or None. The reader alone.

        Raises:
            RuntimeError: the ring holds no messages; whoever wrote there was no writer of this class.
        """
        read = self.read
        if end - read < _HEAD.size:
            return None
        kind, size = _HEAD.unpack(self._copy_out(read, _HEAD.size))
        if not 0 < end - read <= self._capacity or size > self._capacity:
            raise RuntimeError(f"message ring: {end - read} bytes and a message of {size} in {self._capacity}")
        if end - read < _HEAD.size + size:
            return None
        data = self._copy_out(read + _HEAD.size, size)
        self._positions[_READ] = read + _HEAD.size + size
        return kind, data

    def close(self) -> None:
        """Let go of the memory. Doing it again does no harm."""
        if not self._map.closed:
            for view in (self._positions, self._bytes, self._whole):
                view.release()
            self._map.close()
            os.close(self._bell)

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
