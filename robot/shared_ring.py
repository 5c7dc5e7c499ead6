"""The last records of one writer for any number of readers in other processes: frames, arm states, what is shown."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
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
    copying that one finds out (a sequence lock for each record). A record is copied in (`write`) or made where it is
    to be read (`loan` and `commit`). Neither end can be blocked by the death of the other; a writer that was killed in
    the middle of a record leaves one that no reader takes, and its successor writes it anew. The memory has no name,
    so nothing is left of it once the last process that has it is gone.

    The sequence words are aligned and written before and after the bytes that they guard, which is enough where
    stores become visible in their order, as on x86-64; ARM promises no such thing.
    """

    def __init__(self, file: int) -> None:
        """Take over the file descriptor of a ring, as `file` of the other end names it.

        Raises:
            HardwareError: the memory is no ring, or not as large as it says.
            OSError: it cannot be mapped.
        """
        self.file = file
        size = os.fstat(file).st_size
        if size < _HEADER_BYTES:
            os.close(file)
            raise HardwareError(f"shared ring: {size} bytes of memory are none; start the run again")
        try:
            # touched now, not in the middle of a tick
            self._map = mmap.mmap(file, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except OSError:
            os.close(file)
            raise
        self._lent = self._closed = False
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
        return cls(cls.allocate(slots=slots, record_bytes=record_bytes))

    @staticmethod
    def allocate(*, slots: int, record_bytes: int) -> int:
        """Return the file descriptor of a new ring, for its first owner to take over. Raises OSError as `new`."""
        file = os.memfd_create("handrail-records", os.MFD_CLOEXEC)
        try:
            os.truncate(file, _HEADER_BYTES + slots * _stride(record_bytes))
            for word, value in enumerate((_MAGIC, slots, record_bytes)):
                os.pwrite(file, value.to_bytes(8, "little"), 8 * word)
        except OSError:
            os.close(file)
            raise
        return file

    @property
    def count(self) -> int:
        """How many records were ever written; the newest has number `count - 1`, the oldest there `count - slots`.

        While the next one is being written, the oldest that is there is the one after that.
        """
        return self._header[_COUNT]

    def write(self, *parts: Buffer) -> int:
        """Write the next record from contiguous `parts`, one after another, and return its number. The writer alone.

        Raises:
            ValueError: the parts are longer than a record; nothing was written.
        """
        data = [memoryview(part).cast("B") for part in parts]
        if sum(map(len, data)) > self.record_bytes:
            raise ValueError(f"a record of {sum(map(len, data))} bytes, the ring holds {self.record_bytes}")
        record, start = self.loan(), 0
        for part in data:
            record[start : start + len(part)] = part
            start += len(part)
        return self.commit()

    def loan(self) -> memoryview:
        """Begin the next record and return its bytes, to be written in place until `commit`. The writer alone.

        From now on the oldest record is not there any more. A loan of which nothing comes need not be given back: the
        same bytes are lent again, or written by `write`, here as in the successor of a writer that was killed. They
        are not to be touched after the `commit`, nor by a thread or a device that has not finished by then.
        """
        number = self.count
        self._sequences[self._word(number)] = 2 * number + 1
        self._lent = True
        start = self._start(number)
        return self._bytes[start : start + self.record_bytes]

    def commit(self) -> int:
        """Publish the record that is on loan and return its number. The writer alone.

        Raises:
            ValueError: none is on loan here.
        """
        number = self.count
        if not self._lent:
            raise ValueError(f"record {number} is to be committed and was not lent; take a loan first")
        self._lent = False
        self._sequences[self._word(number)] = 2 * number + 2
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
        return self._sequences[self._word(number)] == 2 * number + 2

    def view(self, number: int, size: int, offset: int = 0) -> memoryview:
        """Return bytes of record `number` without a copy: valid only if it is still held after they were used."""
        start = self._start(number) + offset
        return self._bytes[start : start + size].toreadonly()

    def close(self) -> None:
        """Let go of the memory, which stays for whoever still has bytes of it. Doing it again does no harm."""
        if self._closed:
            return
        self._closed = True
        for view in (getattr(self, "_sequences", None), self._header, self._bytes):
            if view is not None:
                view.release()
        with suppress(BufferError):  # a loan or a view is still held, by a failing driver's traceback for one
            self._map.close()
        os.close(self.file)

    def _word(self, number: int) -> int:
        """Place of the sequence word of a record, among the words behind the header."""
        return (number % self.slots) * self._stride // 8

    def _start(self, number: int) -> int:
        return _HEADER_BYTES + (number % self.slots) * self._stride + _LINE_BYTES


def _stride(record_bytes: int) -> int:
    """Bytes of a slot: the sequence word in a cache line of its own, then the record, rounded up to cache lines."""
    return _LINE_BYTES + -(-record_bytes // _LINE_BYTES) * _LINE_BYTES
