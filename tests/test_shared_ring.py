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

_COPIES_IN = """
import sys
from contextlib import closing
from robot.shared_ring import SharedRing
with closing(SharedRing(int(sys.argv[1]))) as ring:
    while True:
        ring.write(ring.count.to_bytes(8, "little") * (ring.record_bytes // 8))
"""
_MAKES_IN_PLACE = """
import sys
from contextlib import closing
import numpy as np
from robot.shared_ring import SharedRing
with closing(SharedRing(int(sys.argv[1]))) as ring:
    while True:
        words = np.frombuffer(ring.loan(), np.uint64)
        words[: len(words) // 2] = ring.count
        words[len(words) // 2 :] = ring.count
        ring.commit()
"""
_STOPS_HALFWAY = """
import signal, sys
from robot.shared_ring import SharedRing
ring = SharedRing(int(sys.argv[1]))
record = ring.loan()
record[: len(record) // 2] = b"\\xff" * (len(record) // 2)
print("half", flush=True)
signal.pause()
"""
BOTH_WAYS = pytest.mark.parametrize("writes", [_COPIES_IN, _MAKES_IN_PLACE], ids=["copied_in", "in_place"])


@contextmanager
def two_ends(slots: int, record_bytes: int) -> Iterator[tuple[SharedRing, SharedRing]]:
    """Writer and reader, each with a mapping of its own."""
    with (
        closing(SharedRing.new(slots=slots, record_bytes=record_bytes)) as writer,
        closing(SharedRing(os.dup(writer.file))) as reader,
    ):
        yield writer, reader


@contextmanager
def writing(ring: SharedRing, program: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes; where it does so as fast as it can, each record is full of its own number."""
    command = [sys.executable, "-c", program, str(ring.file)]
    with subprocess.Popen(command, pass_fds=[ring.file], cwd=ROOT, stdout=subprocess.PIPE) as process:
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


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "loan", "commit"]), st.binary(min_size=8, max_size=8)), max_size=30
)


@given(st.integers(1, 4), STEPS)
def test_copied_in_lent_or_given_up_in_any_order_what_was_published_is_there(
    slots: int, steps: list[tuple[str, bytes]]
) -> None:
    published: list[bytes] = []
    with two_ends(slots, 8) as (writer, reader):
        lent: memoryview | None = None
        for step, record in steps:
            if step == "loan":  # also anew, when nothing came of the last one
                lent = writer.loan()
                lent[:] = record
            elif step == "write":  # gives up a loan, if there is one
                assert writer.write(record) == len(published)
                published.append(record)
                lent = None
            elif lent is not None:
                published.append(bytes(lent))
                assert writer.commit() == len(published) - 1
                lent = None
            assert reader.count == len(published)
            oldest = len(published) - slots + (lent is not None)
            for number in range(len(published) + 2):
                out = bytearray(8)
                assert reader.read(number, out) == (oldest <= number < len(published))
                if oldest <= number < len(published):
                    assert out == published[number]


def test_a_commit_needs_a_loan_of_its_own() -> None:
    with two_ends(2, 8) as (writer, successor):
        with pytest.raises(ValueError, match="record 0 is to be committed and was not lent"):
            writer.commit()
        writer.loan()
        with pytest.raises(ValueError, match="was not lent"):
            successor.commit()
        writer.write(b"over it")
        with pytest.raises(ValueError, match="record 1 is to be committed and was not lent"):
            writer.commit()
        assert writer.count == 1


def test_a_record_that_is_lent_while_it_is_copied_is_refused() -> None:
    class LendsMeanwhile(SharedRing):
        def holds(self, number: int) -> bool:
            held = super().holds(number)
            writer.loan()
            return held

    with (
        closing(SharedRing.new(slots=1, record_bytes=8)) as writer,
        closing(LendsMeanwhile(os.dup(writer.file))) as reader,
    ):
        writer.write(b"old")
        assert not reader.read(0, bytearray(3))


def test_a_writer_that_is_killed_while_a_record_is_on_loan_leaves_the_others_and_its_successor_goes_on() -> None:
    with closing(SharedRing.new(slots=3, record_bytes=1 << 16)) as ring:
        out = bytearray(ring.record_bytes)
        for number in range(4):
            ring.write(number.to_bytes(8, "little") * (len(out) // 8))
        for number in (4, 5):
            with writing(ring, _STOPS_HALFWAY) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"half\n"
                for killed in (False, True):
                    if killed:
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                    assert ring.count == number
                    assert [held for held in range(number + 3) if ring.read(held, out)] == [number - 2, number - 1]
                    assert is_whole(number - 1, out)
            with closing(SharedRing(os.dup(ring.file))) as successor:
                record = successor.loan()
                assert bytes(record[:8]) == b"\xff" * 8, "the same bytes, as they were left"
                record[:] = number.to_bytes(8, "little") * (len(record) // 8)
                record.release()
                assert successor.commit() == number
            assert ring.read(number, out)
            assert is_whole(number, out)


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


@BOTH_WAYS
def test_no_torn_record_is_read_while_a_writer_laps_the_readers(writes: str) -> None:
    with closing(SharedRing.new(slots=2, record_bytes=1 << 20)) as ring, writing(ring, writes) as process:
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


@BOTH_WAYS
def test_a_writer_that_is_killed_any_time_leaves_whole_records_to_which_its_successor_adds(writes: str) -> None:
    with closing(SharedRing.new(slots=3, record_bytes=1 << 19)) as ring:
        out = bytearray(ring.record_bytes)
        for killed in range(8):
            begun = ring.count
            with writing(ring, writes) as process:
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


@BOTH_WAYS
def test_a_writer_that_stands_still_leaves_the_newest_record_to_read(writes: str) -> None:
    with closing(SharedRing.new(slots=2, record_bytes=1 << 19)) as ring, writing(ring, writes) as process:
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


def test_a_ring_leaves_no_descriptor_behind() -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    with closing(SharedRing.new(slots=2, record_bytes=8)):
        assert len(list(descriptors.iterdir())) > before
    assert len(list(descriptors.iterdir())) == before
    with pytest.raises(OSError, match=r"\[Errno"):
        SharedRing.new(slots=2, record_bytes=1 << 60)
    assert len(list(descriptors.iterdir())) == before


def test_closing_twice_does_no_harm() -> None:
    ring = SharedRing.new(slots=1, record_bytes=1)
    ring.close()
    ring.close()


def test_closing_does_no_harm_to_whoever_still_has_a_loan() -> None:
    ring = SharedRing.new(slots=1, record_bytes=8)
    record = ring.loan()
    file = ring.file
    ring.close()
    ring.close()
    record[:] = b"harmless"
    assert bytes(record) == b"harmless"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(file)
