from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from policy.episode_commit import Committed
from policy.episode_header import Outcome
from policy.episode_reader import read_episode
from teleop import recorder_process
from teleop.frame_collector import Backlog, FrameCollector, FullFrames
from teleop.recorder_messages import RecorderFailure, Report
from teleop.recorder_process import EpisodeRecorder
from tests.episodes import SUCCESS, header, make_rows
from tests.stream_rings import camera, mark, marked

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


def test_frames_that_come_too_late_for_their_episode_are_counted_in_it(
    tmp_path: Path, wire: tuple[Socket, Socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is stuck in the middle when the recorder waits no longer."""
    step, steps = FrameCollector.step, 0

    def stuck(self: FrameCollector, now_s: float) -> bool:
        nonlocal steps
        if steps == 4:  # the begin, and three frames
            return False
        steps += 1
        return step(self, now_s)

    monkeypatch.setattr(FrameCollector, "step", stuck)
    monkeypatch.setattr(recorder_process, "_SETTLE_S", 0.0)
    with camera() as front, marked(front) as (marks, arguments):
        (source,) = arguments.sources
        mine = arguments.model_copy(
            update={
                "marks": os.dup(arguments.marks),
                "sources": (source.model_copy(update={"file": os.dup(front.ring.file)}),),
            }
        )
        mark(marks, 0, 10.0, front, begins=True)
        front.publish(10.0, 9)
        mark(marks, 0, 10.1, front, begins=False)
        with FullFrames(mine, backlog=Backlog(), now_s=lambda: 1000.0) as frames:
            while steps < 4 or frames._collectors[0]._next < 3:
                os.sched_yield()
            recorder = EpisodeRecorder(tmp_path, wire[0], frames=frames)
            recorder.begin(header(0))
            recorder.put(make_rows(1)[0].tobytes())
            recorder.end(SUCCESS)
    committed, told = said(wire[1])
    assert isinstance(committed, Committed)
    assert committed.outcome == SUCCESS
    episode = read_episode(committed.path)
    for name in ("front", "front_depth"):
        assert len(episode.stream(name)) + episode.stream(name).dropped == 9
        assert len(episode.stream(name)) <= 3
    assert isinstance(told, RecorderFailure)
    assert "full-size frames are missing, " in told.message
