from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from policy.episode_commit import commit_episode
from policy.episode_file import NoSpaceError
from policy.episode_header import Outcome
from policy.episode_reader import read_episode
from policy.episode_schema import EpisodeSpec, row_digest
from policy.episode_writer import EpisodeWriter
from robot.errors import BadInputError
from tests.episodes import SPEC, SUCCESS, header, make_rows


class Seconds:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def seen(path: Path) -> int:
    with h5py.File(path, "r", libver="latest", swmr=True) as file:
        return len(file["data/demo_0/tick/row_digest"])


@pytest.mark.parametrize("spec", [SPEC, SPEC.model_copy(update={"joint_count": 0, "cameras": (), "proprio": ()})])
def test_every_field_of_every_row_comes_back_bit_for_bit(tmp_path: Path, spec: EpisodeSpec) -> None:
    rows = make_rows(70, spec)
    with EpisodeWriter(tmp_path, header(spec=spec), flush_period_s=0.0) as writer:
        for row in rows:
            writer.append(row)
        committed = commit_episode(writer.finish(SUCCESS))
    episode = read_episode(committed.path)
    assert episode.rows().tobytes() == b"".join(row.tobytes() for row in rows)
    assert episode.rows(10, 12).tobytes() == rows[10].tobytes() + rows[11].tobytes()
    assert episode.header == header(spec=spec)
    assert episode.outcome == SUCCESS


def test_rows_are_readable_as_soon_as_the_period_is_over(tmp_path: Path) -> None:
    clock = Seconds()
    with EpisodeWriter(tmp_path, header(), flush_period_s=0.4, now_s=clock) as writer:
        first, second = make_rows(2)
        writer.append(first)
        assert seen(writer.path) == 0
        clock.now_s += 0.41
        writer.poll()
        assert seen(writer.path) == 1
        clock.now_s += 0.41
        writer.append(second)
        assert seen(writer.path) == 2


def test_a_full_buffer_does_not_wait_for_the_period(tmp_path: Path) -> None:
    big = SPEC.model_copy(update={"cameras": (("front", 1000, 1000),)})
    with EpisodeWriter(tmp_path, header(spec=big), now_s=Seconds()) as writer:
        for row in make_rows(2, big):
            writer.append(row)
        assert seen(writer.path) == 2


def test_every_row_is_sealed_as_it_is_written(tmp_path: Path) -> None:
    rows = make_rows(3)
    with EpisodeWriter(tmp_path, header()) as writer:
        for row in rows:
            writer.append(row)
        written = read_episode(commit_episode(writer.finish(SUCCESS)).path).rows()
    assert [int(row["tick/row_digest"]) for row in written] == [row_digest(row) for row in rows]


def test_an_episode_is_never_written_over_another(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, header()) as writer:
        with pytest.raises(BadInputError, match="this episode exists"):
            EpisodeWriter(tmp_path, header())
        commit_episode(writer.finish(SUCCESS))
    with pytest.raises(BadInputError, match="this episode exists"):
        EpisodeWriter(tmp_path, header())


def test_a_full_disk_stops_the_episode_while_its_rows_can_still_be_committed(tmp_path: Path) -> None:
    room = 100_000_000
    with EpisodeWriter(tmp_path, header(), flush_period_s=0.0, free=lambda folder: room) as writer:
        rows = make_rows(3)
        writer.append(rows[0])
        writer.append(rows[1])
        room = 16_000_000
        with pytest.raises(NoSpaceError, match="16 MB free on its disk"):
            writer.append(rows[2])
    committed = commit_episode(writer.path, reason="disk full")
    assert committed.rows == 2
    assert committed.outcome.outcome is Outcome.INCOMPLETE
    with pytest.raises(NoSpaceError):
        EpisodeWriter(tmp_path, header(1), free=lambda folder: room)


def test_the_outcome_survives_a_kill_before_the_commit(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, header()) as writer:
        writer.append(make_rows(1)[0])
        partial = writer.finish(SUCCESS)
    assert commit_episode(partial).outcome == SUCCESS


_WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from policy.episode_writer import EpisodeWriter
from tests.episodes import header, make_rows
rows = make_rows(40)
with EpisodeWriter(Path(sys.argv[1]), header(), flush_period_s=3600.0) as writer:
    for index in itertools.count():
        row = rows[index % 40]
        row["tick/index"] = index
        writer.append(row)
        if index % 3 == 2:
            writer.flush()
            print(index + 1, flush=True)
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_writer_killed_at_a_random_moment_loses_no_flushed_row(tmp_path: Path, seed: int) -> None:
    lines = int(np.random.default_rng(seed).integers(1, 120))
    command = [sys.executable, "-c", _WRITE_FOR_EVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        flushed = 0
        for _ in range(lines):
            flushed = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            flushed = int(line) if line.endswith("\n") else flushed
    partial = next(tmp_path.glob("*.partial"))
    committed = commit_episode(partial)
    assert committed.rows >= flushed >= 3
    assert committed.outcome.outcome is Outcome.INCOMPLETE
    assert not committed.outcome.complete
    rows = read_episode(committed.path).rows()
    assert all(int(row["tick/row_digest"]) == row_digest(row) for row in rows)
    assert rows["tick/index"].tolist() == list(range(committed.rows))
