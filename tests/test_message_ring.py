from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.message_ring import MessageRing

HEAD = 16


@contextmanager
def two_ends(capacity: int) -> Iterator[tuple[MessageRing, MessageRing]]:
    """Writer and reader, each with a mapping of its own."""
    with closing(MessageRing.new(capacity)) as writer, closing(MessageRing(*map(os.dup, writer.files))) as reader:
        yield writer, reader


@given(st.integers(0, 200), st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=220), st.booleans())))
def test_messages_come_out_as_they_went_in_or_are_refused(capacity: int, steps: list[tuple[int, bytes, bool]]) -> None:
    with two_ends(capacity) as (writer, reader):
        waiting: list[tuple[int, bytes]] = []
        for kind, data, takes in steps:
            fits = sum(HEAD + len(other) for _, other in waiting) + HEAD + len(data) <= HEAD + capacity
            assert writer.has_room(len(data)) == fits
            if fits:
                writer.put(kind, data)
                waiting.append((kind, data))
            if takes:
                assert reader.take() == (waiting.pop(0) if waiting else None)
        for message in waiting:
            assert reader.take() == message
        assert reader.take() is None


def test_the_bell_is_heard_once() -> None:
    with two_ends(8) as (writer, reader):
        assert not reader.wait(0.0)
        writer.ring()
        writer.ring()
        assert reader.wait(5.0)
        assert not reader.wait(0.0)


@pytest.mark.parametrize("head", [struct.pack("=QQ", 0, 1 << 60), struct.pack("=QQ", 0, 33)])
def test_a_length_that_cannot_be_is_refused(head: bytes) -> None:
    with two_ends(64 - HEAD) as (writer, reader):
        writer.put(0, b"x" * 32)
        writer._bytes[:HEAD] = head
        with pytest.raises(RuntimeError, match="message ring"):
            reader.take()


@pytest.mark.parametrize(("written", "read"), [(1 << 62, 0), (0, 32), (8, 0)])
def test_a_position_that_cannot_be_is_refused(written: int, read: int) -> None:
    with two_ends(64) as (writer, reader):
        writer._positions[0], writer._positions[8] = written, read
        with pytest.raises(RuntimeError, match="message ring"):
            reader.take()


_WRITES_UNTIL_KILLED = """
import itertools, sys
from contextlib import closing
from robot.message_ring import MessageRing
with closing(MessageRing(int(sys.argv[1]), int(sys.argv[2]))) as ring:
    for number in itertools.count():
        data = number.to_bytes(8, "little") * (number % 700)
        while not ring.has_room(len(data)):
            pass
        ring.put(1, data)
"""


def test_whatever_a_killed_writer_had_put_is_whole() -> None:
    with closing(MessageRing.new(100_000)) as reader:
        command = [sys.executable, "-c", _WRITES_UNTIL_KILLED, *map(str, reader.files)]
        with subprocess.Popen(command, pass_fds=reader.files, cwd=Path(__file__).parents[1]) as writer:
            count = 0
            while True:
                message = reader.take()
                if message is not None:
                    assert message == (1, count.to_bytes(8, "little") * (count % 700))
                    count += 1
                elif writer.returncode is not None:
                    break
                if count == 5000 and writer.returncode is None:
                    writer.send_signal(signal.SIGKILL)
                    writer.wait()
    assert count >= 5000


def test_a_ring_without_memory_leaves_no_descriptor_behind() -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    with pytest.raises(OSError, match=r"\[Errno"):
        MessageRing.new(1 << 60)
    assert len(list(descriptors.iterdir())) == before
