from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from policy.episode_commit import Committed
from policy.episode_header import Outcome
from teleop.recorder_messages import RecorderFailure, Report
from teleop.recorder_process import EpisodeRecorder
from tests.episodes import SUCCESS, header, make_rows

Socket = zmq.Socket[bytes]


@pytest.fixture
def wire() -> Iterator[tuple[Socket, Socket]]:
    """Two ends of the way that reports take."""
    with zmq.Context() as context, context.socket(zmq.PULL) as there, context.socket(zmq.PUSH) as here:
        there.bind("inproc://reports")
        here.connect("inproc://reports")
        yield here, there


def said(socket: Socket) -> list[Committed | RecorderFailure]:
    reports: list[Committed | RecorderFailure] = []
    while socket.poll(0):
        kind, body = socket.recv_multipart()
        of = Committed if Report(kind) is Report.COMMITTED else RecorderFailure
        reports.append(of.from_json(body, where="test"))
    return reports


def test_a_full_disk_costs_the_rest_of_one_episode_only(tmp_path: Path, wire: tuple[Socket, Socket]) -> None:
    room = 10**9
    recorder = EpisodeRecorder(tmp_path, wire[0], free=lambda folder: room)
    recorder.begin(header(0))
    recorder.put(make_rows(1)[0].tobytes())
    room = 0
    recorder.end(SUCCESS)
    recorder.begin(header(1))
    recorder.put(make_rows(1)[0].tobytes())
    recorder.end(SUCCESS)
    room = 10**9
    recorder.begin(header(2))
    recorder.put(make_rows(1)[0].tobytes())
    recorder.end(SUCCESS)
    full, cut, none, nothing, whole = said(wire[1])
    assert isinstance(full, RecorderFailure)
    assert "episode 0 is not recorded to its end" in full.message
    assert "MB free on its disk" in full.message
    assert isinstance(cut, Committed)
    assert cut.outcome.outcome is Outcome.INCOMPLETE
    assert cut.outcome.reason == full.message
    assert isinstance(none, RecorderFailure)
    assert (none.episode, none.final) == (1, False)
    assert isinstance(nothing, RecorderFailure)
    assert (nothing.episode, nothing.final) == (1, True)
    assert isinstance(whole, Committed)
    assert whole.outcome == SUCCESS


def test_a_row_of_another_size_is_not_recorded(tmp_path: Path, wire: tuple[Socket, Socket]) -> None:
    good = make_rows(1)[0].tobytes()
    recorder = EpisodeRecorder(tmp_path, wire[0])
    recorder.begin(header(0))
    recorder.put(good)
    recorder.put(good[:-1])
    recorder.put(good)
    recorder.end(SUCCESS)
    failure, committed = said(wire[1])
    assert isinstance(failure, RecorderFailure)
    assert not failure.final
    assert isinstance(committed, Committed)
    assert committed.rows == 1
    assert committed.outcome.outcome is Outcome.INCOMPLETE


def test_an_episode_that_never_ended_is_finished_when_the_next_begins(
    tmp_path: Path, wire: tuple[Socket, Socket]
) -> None:
    recorder = EpisodeRecorder(tmp_path, wire[0])
    recorder.begin(header(0))
    recorder.put(make_rows(1)[0].tobytes())
    recorder.begin(header(1))
    recorder.stop("the run closed")
    first, second = said(wire[1])
    assert isinstance(first, Committed)
    assert isinstance(second, Committed)
    assert (first.rows, second.rows) == (1, 0)
    assert first.outcome.reason == "the next episode began before this one had ended"
    assert second.outcome.reason == "the run closed"


def test_what_an_earlier_recorder_left_is_finished_first(tmp_path: Path, wire: tuple[Socket, Socket]) -> None:
    left = EpisodeRecorder(tmp_path, wire[0])
    left.begin(header(0))
    del left
    (tmp_path / "noise-000001.h5.partial").write_bytes(b"noise")
    EpisodeRecorder(tmp_path, wire[0]).recover()
    recovered, problem = said(wire[1])
    assert isinstance(recovered, Committed)
    assert isinstance(problem, RecorderFailure)
    assert "not an HDF5 file" in problem.message
