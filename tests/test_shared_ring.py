from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.errors import HardwareError
from robot.shared_ring import SharedRing

ROOT = Path(__file__).parents[1]
LONGEST_S = 60.0  # a safety net, not a claim

_WRITES = """
import sys
from contextlib import closing
from robot.shared_ring import SharedRing
with closing(SharedRing(int(sys.argv[1]))) as ring:
    while True:
        ring.write(ring.count.to_bytes(8, "little") * (ring.record_bytes // 8))
"""


@contextmanager
def two_ends(slots: int, record_bytes: int) -> Iterator[tuple[SharedRing, SharedRing]]:
    """Writer and reader, each with a mapping of its own."""
    with (
        closing(SharedRing.new(slots=slots, record_bytes=record_bytes)) as writer,
        closing(SharedRing(os.dup(writer.file))) as reader,
    ):
        yield writer, reader


@contextmanager
def writing(ring: SharedRing) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes as fast as it can, each record full of its own number."""
    command = [sys.executable, "-c", _WRITES, str(ring.file)]
    with subprocess.Popen(command, pass_fds=[ring.file], cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def is_whole(number: int, data: bytearray) -> bool:
    return bytes(data) == number.to_bytes(8, "little") * (len(data) // 8)


@given(st.integers(1, 5), st.lists(st.binary(max_size=40), max_size=20))
def test_the_last_records_come_back_and_no_others(slots: int, records: list[bytes]) -> None:
    with two_ends(slots, 40) as (writer, reader):
        for number, record in enumerate(records):
            assert writer.write(record[:7], record[7:]) == number
        assert reader.count == len(records)
        for number in range(-2, len(records) + 2):
            there = max(0, len(records) - slots) <= number < len(records)
            record = records[number] if there else b"?" * 40
            out = bytearray(len(record))
            assert reader.holds(number) == there
            assert reader.read(number, out) == there
            if there:
                assert out == record
                assert reader.view(number, len(record)) == record


@given(st.data())
def test_a_part_of_a_record_is_read_from_its_offset(data: st.DataObject) -> None:
    record = data.draw(st.binary(min_size=1, max_size=100))
    offset = data.draw(st.integers(0, len(record)))
    with two_ends(2, len(record)) as (writer, reader):
        writer.write(record)
        out = bytearray(len(record) - offset)
        assert reader.read(0, out, offset)
        assert out == record[offset:]


def test_a_record_that_is_too_long_is_refused_and_the_last_one_stays() -> None:
    with two_ends(1, 8) as (writer, reader):
        writer.write(b"12345678")
        with pytest.raises(ValueError, match="a record of 9 bytes, the ring holds 8"):
            writer.write(b"abcdefgh", b"i")
        out = bytearray(8)
        assert reader.read(0, out)
        assert out == b"12345678"


def test_a_record_that_is_written_over_while_it_is_copied_is_refused() -> None:
    class WritesMeanwhile(SharedRing):
        def holds(self, number: int) -> bool:
            held = super().holds(number)
            if self.count < 3:
                writer.write(b"new")
            return held

    with closing(SharedRing.new(slots=1, record_bytes=8)) as writer, closing(WritesMeanwhile(os.dup(writer.file))) as r:
        writer.write(b"old")
        assert not r.read(0, bytearray(3))


def test_a_record_that_a_killed_writer_had_not_counted_is_not_there_and_is_written_anew() -> None:
    with two_ends(2, 8) as (writer, reader):
        writer.write(b"first")
        writer.write(b"second")
        writer._header[8] = 1  # killed between the record's end and the count
        assert not reader.read(1, bytearray(6))
        with closing(SharedRing(os.dup(writer.file))) as successor:
            assert successor.write(b"anew") == 1
        out = bytearray(4)
        assert reader.read(1, out)
        assert out == b"anew"


def test_no_torn_record_is_read_while_a_writer_laps_the_readers() -> None:
    with closing(SharedRing.new(slots=2, record_bytes=1 << 20)) as ring, writing(ring) as process:
        out = bytearray(ring.record_bytes)
        read = refused = 0
        deadline_s = time.monotonic() + LONGEST_S
        while (read < 1000 or refused < 20) and time.monotonic() < deadline_s:
            number = ring.count - 1 - (read + refused) % 2
            if number < 0:
                continue
            if ring.read(number, out):
                assert is_whole(number, out), f"record {number} is torn"
                read += 1
            else:
                refused += 1
        assert process.poll() is None
    assert read >= 1000
    assert refused >= 20


def test_a_writer_that_is_killed_any_time_leaves_whole_records_to_which_its_successor_adds() -> None:
    with closing(SharedRing.new(slots=3, record_bytes=1 << 19)) as ring:
        out = bytearray(ring.record_bytes)
        for killed in range(8):
            begun = ring.count
            with writing(ring) as process:
                deadline_s = time.monotonic() + LONGEST_S
                while ring.count < begun + 50 + 7 * killed and time.monotonic() < deadline_s:
                    pass
                process.send_signal(signal.SIGKILL)
                process.wait()
            count = ring.count
            assert count >= begun + 50
            assert ring.read(count - 1, out)
            for number in range(count - 3, count + 2):
                if ring.read(number, out):
                    assert is_whole(number, out)


def test_a_writer_that_stands_still_leaves_the_newest_record_to_read() -> None:
    with closing(SharedRing.new(slots=2, record_bytes=1 << 19)) as ring, writing(ring) as process:
        out = bytearray(ring.record_bytes)
        stopped = 0
        while stopped < 20:
            if ring.count > 10 * stopped:
                process.send_signal(signal.SIGSTOP)
                os.waitpid(process.pid, os.WUNTRACED)
                number = ring.count - 1
                assert ring.read(number, out)
                assert is_whole(number, out)
                process.send_signal(signal.SIGCONT)
                stopped += 1


def test_memory_that_is_no_ring_is_refused() -> None:
    def memory(content: bytes) -> int:
        file = os.memfd_create("test")
        os.write(file, content)
        return file

    words = struct.Struct("=QQQ")
    with closing(SharedRing.new(slots=2, record_bytes=64)) as ring:
        header = os.pread(ring.file, 256, 0)
    magic = struct.unpack_from("=Q", header)[0]
    for content in (
        b"",
        header[:100],
        b"\0" * 512,
        header,  # cut off
        header + b"\0" * 256 + b"\0",
        words.pack(magic, 0, 64) + header[words.size :],
        words.pack(magic, 1 << 62, 64) + header[words.size :] + b"\0" * 256,
    ):
        file = memory(content)
        with pytest.raises(HardwareError, match="start the run again"):
            SharedRing(file)
        with pytest.raises(OSError):  # it was taken over, so it is closed
            os.fstat(file)


def test_a_ring_without_memory_leaves_no_descriptor_behind() -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    with pytest.raises(OSError, match=r"\[Errno"):
        SharedRing.new(slots=2, record_bytes=1 << 60)
    assert len(list(descriptors.iterdir())) == before


def test_closing_twice_does_no_harm() -> None:
    ring = SharedRing.new(slots=1, record_bytes=1)
    ring.close()
    ring.close()
