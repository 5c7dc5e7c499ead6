from __future__ import annotations

import hashlib
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from policy.episode_header import Outcome
from policy.episode_reader import latest_revisions, read_episode
from policy.episode_schema import EpisodeSpec
from robot.errors import BadInputError
from teleop.recorder import Recorder, RecorderProcess
from tests.episodes import SPEC, SUCCESS, header, make_rows

RUN = "demo-0a1b"
ROW_BYTES = SPEC.row_dtype().itemsize
BIG = SPEC.model_copy(update={"cameras": (("front", 200, 200),)})
WAIT_S = 30.0
FAILURE = SUCCESS.model_copy(update={"outcome": Outcome.FAILURE})


def until(done: Callable[[], object]) -> None:
    """The suite's time limit ends what never comes true."""
    while not done():
        os.sched_yield()


def record(recorder: Recorder, index: int, count: int, spec: EpisodeSpec = SPEC) -> list[bool]:
    recorder.begin(header(index, spec))
    taken = [recorder.put(row) for row in make_rows(count, spec, seed=index)]
    recorder.end(SUCCESS)
    return taken


def process_id(recorder: RecorderProcess) -> int:
    assert recorder.pid is not None
    return recorder.pid


def test_episodes_cross_to_the_recorder_bit_for_bit(tmp_path: Path) -> None:
    with RecorderProcess(tmp_path, lock_step=True, capacity_bytes=2 * ROW_BYTES) as recorder:
        for index in range(2):
            assert all(record(recorder, index, 60))
            committed = recorder.wait_committed(RUN, index, WAIT_S)
            assert committed is not None
            assert committed.sha256 == hashlib.sha256(committed.path.read_bytes()).hexdigest()
            episode = read_episode(committed.path)
            assert episode.outcome == SUCCESS
            assert episode.rows().tobytes() == b"".join(row.tobytes() for row in make_rows(60, seed=index))
        assert [item.episode for item in recorder.committed()] == [0, 1]
        assert recorder.committed() == []
        # an episode without an end is finished as the run closes
        recorder.begin(header(2))
        assert recorder.put(make_rows(1)[0])
    assert [item.outcome.outcome for item in recorder.committed()] == [Outcome.INCOMPLETE]
    assert not recorder.put(make_rows(1)[0])
    assert recorder.failures() == []


def test_a_full_recorder_costs_ticks_and_never_holds_up_the_loop(tmp_path: Path) -> None:
    with RecorderProcess(tmp_path, lock_step=False, capacity_bytes=11 * BIG.row_dtype().itemsize // 2) as recorder:
        assert recorder.wait_ready(WAIT_S)
        os.kill(process_id(recorder), signal.SIGSTOP)
        taken = record(recorder, 0, 9, BIG)
        os.kill(process_id(recorder), signal.SIGCONT)
        committed = recorder.wait_committed(RUN, 0, WAIT_S)
    assert taken == [True] * 5 + [False] * 4
    assert committed is not None
    assert committed.rows == 5
    assert committed.outcome.success
    assert not committed.outcome.complete
    assert committed.outcome.dropped_ticks == 4


def test_a_recorder_that_is_started_again_does_not_stay_on_the_loops_core(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    with RecorderProcess(tmp_path, lock_step=True) as recorder:
        assert recorder.wait_ready(WAIT_S)
        os.sched_setaffinity(0, {max(cores)})  # as the loop does once everything is open
        try:
            os.kill(process_id(recorder), signal.SIGKILL)
            until(lambda: not recorder.alive)
            recorder.begin(header(1))  # starts another one
            assert recorder.wait_ready(WAIT_S)
            assert os.sched_getaffinity(process_id(recorder)) == cores
        finally:
            os.sched_setaffinity(0, cores)


def test_a_killed_recorder_costs_one_episode_and_the_next_recovers_it(tmp_path: Path) -> None:
    with RecorderProcess(tmp_path, lock_step=True, capacity_bytes=2 * ROW_BYTES) as recorder:
        recorder.begin(header(0))
        assert all(recorder.put(row) for row in make_rows(5))
        until(lambda: list(tmp_path.glob("*.partial")))
        os.kill(process_id(recorder), signal.SIGKILL)
        until(lambda: not recorder.alive)
        assert not recorder.put(make_rows(1)[0])
        recorder.end(SUCCESS)
        assert recorder.wait_committed(RUN, 0, WAIT_S) is None
        assert "the recorder ended (status -9)" in recorder.failures()[0].message
        assert all(record(recorder, 1, 5))
        assert recorder.wait_committed(RUN, 1, WAIT_S) is not None
    first, second = latest_revisions(tmp_path)
    assert first.outcome.outcome is Outcome.INCOMPLETE
    assert second.outcome == SUCCESS


def test_what_waits_for_a_recorder_that_dies_is_recorded_by_the_next(tmp_path: Path) -> None:
    with RecorderProcess(tmp_path, lock_step=False) as recorder:
        assert recorder.wait_ready(WAIT_S)
        os.kill(process_id(recorder), signal.SIGSTOP)
        for index in range(2):
            assert all(record(recorder, index, 5))
        recorder.begin(header(2))
        assert all(recorder.put(row) for row in make_rows(3))
        os.kill(process_id(recorder), signal.SIGKILL)
        until(lambda: not recorder.alive)
        assert all(record(recorder, 3, 5))
        for index in range(4):
            assert recorder.wait_committed(RUN, index, WAIT_S) is not None
    assert [episode.length for episode in latest_revisions(tmp_path)] == [5, 5, 3, 5]
    assert [episode.outcome.outcome for episode in latest_revisions(tmp_path)] == [
        Outcome.SUCCESS,
        Outcome.SUCCESS,
        Outcome.INCOMPLETE,
        Outcome.SUCCESS,
    ]


def test_an_episode_that_nobody_finished_is_named_at_the_end(tmp_path: Path) -> None:
    with RecorderProcess(tmp_path, lock_step=False) as recorder:
        recorder.begin(header(0))
        assert recorder.wait_ready(WAIT_S)
        os.kill(process_id(recorder), signal.SIGKILL)
        until(lambda: not recorder.alive)
    assert recorder.failures()[-1].message.startswith("episode 0 was not committed")


def test_an_episode_that_could_not_begin_gives_its_outcome_to_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teleop.recorder._ORDERS_BYTES", 4000)
    refused = []
    with RecorderProcess(tmp_path, lock_step=False, capacity_bytes=2 * ROW_BYTES) as recorder:
        assert recorder.wait_ready(WAIT_S)
        os.kill(process_id(recorder), signal.SIGSTOP)
        for index in range(40):
            recorder.begin(header(index))
            refused += [failure.episode for failure in recorder.failures() if failure.episode == index]
            recorder.end(SUCCESS if index % 2 else FAILURE)
        os.kill(process_id(recorder), signal.SIGCONT)
    assert refused
    for committed in recorder.committed():
        assert committed.episode not in refused
        expected = SUCCESS if committed.episode % 2 else FAILURE
        assert committed.outcome.outcome in (expected.outcome, Outcome.INCOMPLETE)


def test_a_busy_recorder_heeds_sigterm(tmp_path: Path) -> None:
    with RecorderProcess(tmp_path, lock_step=True) as recorder:
        assert recorder.wait_ready(WAIT_S)
        rows = make_rows(4, BIG)
        recorder.begin(header(0, BIG))
        for _ in range(100):
            recorder.put(rows[0])
        os.kill(process_id(recorder), signal.SIGTERM)
        until(lambda: not recorder.put(rows[1]))
        assert not recorder.alive


def test_without_memory_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with (
        pytest.raises(BadInputError, match="cannot be started"),
        RecorderProcess(tmp_path, lock_step=True, capacity_bytes=1 << 60),
    ):
        pass
    assert list(temporary.iterdir()) == []


def test_a_write_that_fails_ends_the_recorder_and_spares_what_was_flushed(tmp_path: Path) -> None:
    with RecorderProcess(tmp_path, lock_step=True) as recorder:
        assert recorder.wait_ready(WAIT_S)
        resource.prlimit(process_id(recorder), resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
        record(recorder, 0, 100, BIG)
        assert recorder.wait_committed(RUN, 0, WAIT_S) is None
        assert not recorder.alive
        record(recorder, 1, 3)
        assert recorder.wait_committed(RUN, 1, WAIT_S) is not None
    assert [episode.outcome.outcome for episode in latest_revisions(tmp_path)] == [Outcome.INCOMPLETE, Outcome.SUCCESS]


_RUN_THAT_DIES = """
import os, signal, sys
from pathlib import Path
from teleop.recorder import RecorderProcess
from tests.episodes import header, make_rows
with RecorderProcess(Path(sys.argv[1]), lock_step=True) as recorder:
    recorder.begin(header())
    for row in make_rows(11):
        recorder.put(row)
    print(recorder.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_recorder_of_a_killed_run_finishes_the_episode_and_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RUN_THAT_DIES, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as run:
        assert run.stdout is not None
        watched = os.pidfd_open(int(run.stdout.readline()))
    select.select([watched], [], [], WAIT_S)
    os.close(watched)
    (episode,) = latest_revisions(tmp_path)
    assert episode.length == 11
    assert episode.outcome.outcome is Outcome.INCOMPLETE
    assert episode.outcome.reason == "the run died"


def test_two_recorders_never_share_a_folder(tmp_path: Path) -> None:
    with RecorderProcess(tmp_path, lock_step=True) as first:
        assert first.wait_ready(WAIT_S)
        with RecorderProcess(tmp_path, lock_step=True) as second:
            assert not second.wait_ready(WAIT_S)
            assert "a run is still recording here" in second.failures()[0].message


def test_sockets_need_a_short_temporary_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(BadInputError, match="set TMPDIR to a short path"), RecorderProcess(tmp_path, lock_step=True):
        pass
    assert list(deep.iterdir()) == []


def test_a_recorder_that_cannot_be_started_again_is_told_and_never_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RecorderProcess(tmp_path, lock_step=True) as recorder:
        assert recorder.wait_ready(WAIT_S)
        os.kill(process_id(recorder), signal.SIGKILL)
        until(lambda: not recorder.alive)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
        assert record(recorder, 0, 2) == [False, False]
        ended, unstarted = recorder.failures()
        assert "the recorder ended (status -9)" in ended.message
        assert "no recorder can be started" in unstarted.message


def test_the_sockets_have_no_names_once_it_is_ready(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", temporary)
        with RecorderProcess(tmp_path, lock_step=True) as recorder:
            assert list(Path(temporary).iterdir())
            assert recorder.wait_ready(WAIT_S)
            assert list(Path(temporary).iterdir()) == []
            record(recorder, 1, 2)
            assert recorder.wait_committed(RUN, 1, WAIT_S) is not None
