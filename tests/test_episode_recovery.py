from __future__ import annotations

from pathlib import Path

import pytest

from policy.episode_header import Outcome
from policy.episode_recovery import recording_lock, recover_folder
from policy.episode_writer import EpisodeWriter
from robot.errors import BadInputError
from tests.episodes import header, make_rows


def left_open(folder: Path, index: int) -> Path:
    with EpisodeWriter(folder, header(index), flush_period_s=0.0) as writer:
        for row in make_rows(5, seed=index):
            writer.append(row)
        return writer.path


def test_a_run_is_recovered_whole_and_a_second_time_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    folder.mkdir()
    partials = [left_open(folder, 0), left_open(folder, 1)]
    (folder / "x.h5.creating").touch()
    (folder / "x.h5.committing").touch()
    recovery = recover_folder(tmp_path)
    assert [committed.path for committed in recovery.episodes] == [path.with_suffix("") for path in partials]
    assert {committed.outcome.outcome for committed in recovery.episodes} == {Outcome.INCOMPLETE}
    assert [committed.rows for committed in recovery.episodes] == [5, 5]
    assert sorted(folder.iterdir()) == [path.with_suffix("") for path in partials]
    assert recover_folder(folder).episodes == ()


def test_what_a_killed_run_had_half_stored_goes(tmp_path: Path) -> None:
    for kind in ("episodes", "bundles", "weights", "stations"):
        (tmp_path / kind).mkdir()
    whole = tmp_path / "bundles" / ("0a1b" * 16)
    half = tmp_path / "bundles" / f".{'2c3d' * 16}.4711"
    for folder in (whole, half):
        folder.mkdir()
        (folder / "act.onnx").touch()
    (tmp_path / ".run.json.4711").touch()
    (tmp_path / "weights" / f".00000001-{'4e5f' * 16}.4711").touch()
    (tmp_path / ".notes.2026-11.md").touch()
    recover_folder(tmp_path)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()} - {"lock"}
    assert left == {"act.onnx", ".notes.2026-11.md"}
    assert whole.exists()
    assert not half.exists()


def test_one_recording_is_recovered_by_its_name(tmp_path: Path) -> None:
    first, second = left_open(tmp_path, 0), left_open(tmp_path, 1)
    assert [committed.episode for committed in recover_folder(second).episodes] == [1]
    assert first.exists()


def test_a_broken_recording_is_named_and_does_not_stop_the_others(tmp_path: Path) -> None:
    left_open(tmp_path, 1)
    broken = tmp_path / "20261101T101530.123456Z-demo-000000.h5.partial"
    broken.write_bytes(b"noise")
    recovery = recover_folder(tmp_path)
    assert len(recovery.episodes) == 1
    assert len(recovery.problems) == 1
    assert "not an HDF5 file" in recovery.problems[0]
    assert broken.exists()


def test_a_run_that_still_records_is_left_alone(tmp_path: Path) -> None:
    partial = left_open(tmp_path, 0)
    with recording_lock(tmp_path), pytest.raises(BadInputError, match="a run is still recording here"):
        recover_folder(partial)
    assert len(recover_folder(partial).episodes) == 1


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file or folder"):
        recover_folder(tmp_path / "none")
