"""The last records of one writer for any number of readers in other processes: frames, arm states, what is shown."""

from __future__ import annotations

import mmap
import os
from typing import Self

from typing_extensions import Buffer

from robot.errors import HardwareError

_MAGIC = 0x4841_4E44_5241_494C
_LINE_BYTES = 64
_HEADER_BYTES = 4 * _LINE_BYTES
_COUNT = 8  # the count has a cache line of its own, counted in words


class SharedRing:
    """A ring of records of one size in anonymous shared memory, with one writer, without a lock.

    The writer never waits and no reader can hold it up: it writes over the oldest record, and a reader that was
    copying that one finds out (a sequence lock for each record). Neither end can be blocked by the death of the other;
    a writer that was killed in the middle of a record leaves one that no reader takes, and its successor writes it
    anew. The memory has no name, so nothing is left of it once the last process that has it is gone.

    The sequence words are aligned and written before and after the bytes that they guard, which is enough where
    stores become visible in their order, as on x86-64; ARM promises no such thing.
    """

    def __init__(self, file: int) -> None:
        """Take over the file descriptor of a ring, as `file` of the other end names it.

        Raises:
            HardwareError: the memory is no ring, or not as large as it says.
        """
        self.file = file
        size = os.fstat(file).st_size
        if size < _HEADER_BYTES:
            os.close(file)
            raise HardwareError(f"shared ring: {size} bytes of memory are none; start the run again")
        # touched now, not in the middle of a tick
        self._map = mmap.mmap(file, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self._bytes = memoryview(self._map)
        self._header = self._bytes[:_HEADER_BYTES].cast("Q")
        magic, self.slots, self.record_bytes = self._header[0], self._header[1], self._header[2]
        self._stride = _stride(self.record_bytes)
        if magic != _MAGIC or self.slots < 1 or _HEADER_BYTES + self.slots * self._stride != size:
            self.close()
            raise HardwareError("shared ring: the memory is not a ring; start the run again")
        first = _HEADER_BYTES
        self._sequences = self._bytes[first:].cast("Q")

    @classmethod
    def new(cls, *, slots: int, record_bytes: int) -> Self:
        """Make a ring of `slots` records of at most `record_bytes`. Raises OSError where there is no memory for it."""
        file = os.memfd_create("handrail-records", os.MFD_CLOEXEC)
        try:
            os.truncate(file, _HEADER_BYTES + slots * _stride(record_bytes))
            for word, value in enumerate((_MAGIC, slots, record_bytes)):
                os.pwrite(file, value.to_bytes(8, "little"), 8 * word)
            return cls(file)
        except OSError:
            os.close(file)
            raise

    @property
    def count(self) -> int:
        """How many records were ever written; the newest has number `count - 1`, the oldest there `count - slots`."""
        return self._header[_COUNT]

    def write(self, *parts: Buffer) -> int:
        """Write the next record from contiguous `parts`, one after another, and return its number. The writer alone.

        Raises:
            ValueError: the parts are longer than a record; nothing was written.
        """
        data = [memoryview(part).cast("B") for part in parts]
        if sum(map(len, data)) > self.record_bytes:
            raise ValueError(f"a record of {sum(map(len, data))} bytes, the ring holds {self.record_bytes}")
        number = self.count
        start = self._start(number)
        word = (start - _LINE_BYTES - _HEADER_BYTES) // 8
        self._sequences[word] = 2 * number + 1
        for part in data:
            self._bytes[start : start + len(part)] = part
            start += len(part)
        self._sequences[word] = 2 * number + 2
        self._header[_COUNT] = number + 1
        return number

    def read(self, number: int, out: Buffer, offset: int = 0) -> bool:
        """Copy bytes of record `number` from `offset` into `out`; False when it is not there any more, or not yet."""
        if not self.holds(number):
            return False
        data = memoryview(out).cast("B")
        assert offset + len(data) <= self.record_bytes
        start = self._start(number) + offset
        data[:] = self._bytes[start : start + len(data)]
        return self.holds(number)

    def holds(self, number: int) -> bool:
        """Return whether record `number` is there whole."""
        # one that its writer had just finished when it was killed does not count: its successor writes it anew
        if not 0 <= number < self.count:
            return False
        return self._sequences[(number % self.slots) * self._stride // 8] == 2 * number + 2

    def view(self, number: int, size: int, offset: int = 0) -> memoryview:
        """Return bytes of record `number` without a copy: valid only if it is still held after they were used."""
        start = self._start(number) + offset
        return self._bytes[start : start + size].toreadonly()

    def close(self) -> None:
        """Let go of the memory. Doing it again does no harm."""
        if not self._map.closed:
            for view in (getattr(self, "_sequences", None), self._header, self._bytes):
                if view is not None:
                    view.release()
            self._map.close()
            os.close(self.file)

    def _start(self, number: int) -> int:
        return _HEADER_BYTES + (number % self.slots) * self._stride + _LINE_BYTES


def _stride(record_bytes: int) -> int:
    """Bytes of a slot: the sequence word in a cache line of its own, then the record, rounded up to cache lines."""
    return _LINE_BYTES + -(-record_bytes // _LINE_BYTES) * _LINE_BYTES
