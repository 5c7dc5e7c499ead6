from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from policy.action_space import ActionSpace
from policy.episode_commit import commit_episode, describe
from policy.episode_header import EpisodeOutcome, Outcome
from policy.episode_reader import read_episode
from policy.episode_schema import Row
from policy.episode_writer import EpisodeWriter
from robot.errors import BadInputError
from tests.episodes import SUCCESS, header, make_rows


def record(folder: Path, rows: list[Row], outcome: EpisodeOutcome | None = SUCCESS, episode: int = 0) -> Path:
    with EpisodeWriter(folder, header(episode), flush_period_s=0.0) as writer:
        for row in rows:
            writer.append(row)
        return writer.path if outcome is None else writer.finish(outcome)


def test_a_robomimic_style_reader_finds_its_way_with_plain_h5py(tmp_path: Path) -> None:
    rows = make_rows(20)
    committed = commit_episode(record(tmp_path, rows))
    with h5py.File(committed.path) as file:
        assert file["data"].attrs["total"] == 20
        assert json.loads(file["data"].attrs["env_args"])["env_name"] == "insertion"
        demo = file["data/demo_0"]
        assert demo.attrs["num_samples"] == 20
        assert bool(demo.attrs["success"])
        assert demo.attrs["outcome"] == "success"
        assert demo.attrs["label_source"] == "person"
        assert demo.attrs["run_id"] == "demo-0a1b"
        assert demo.attrs["station_sha256"] == "1" * 64
        assert demo.attrs["bundle_sha256"] == "2" * 64
        assert bool(demo.attrs["complete"])
        assert demo.attrs["revision"] == 0
        assert sorted(demo["obs"]) == ["front_image", "gripper_width_m", "tcp_position_m", "wrist_image"]
        assert demo["obs/front_image"].shape == (20, 9, 11, 3)
        assert demo["obs/front_image"].compression == "gzip"
        np.testing.assert_array_equal(demo["actions"][7], rows[7]["actions"])
        assert len(demo["rewards"]) == len(demo["dones"]) == 20


def test_measured_is_the_state_at_the_start_of_the_next_tick(tmp_path: Path) -> None:
    rows = make_rows(5)
    episode = read_episode(commit_episode(record(tmp_path, rows)).path)
    found = episode.arrays(["tick/measured_T", "tick/measured_q", "tick/measured_gripper_m", "tick/measured"])
    assert {len(values) for values in found.values()} == {4}
    space = ActionSpace(header().action)
    for t in range(4):
        now, after = rows[t], rows[t + 1]
        np.testing.assert_array_equal(found["tick/measured_T"][t], after["tick/T_base_tcp"])
        np.testing.assert_array_equal(found["tick/measured_q"][t], after["tick/q_rad"])
        assert found["tick/measured_gripper_m"][t] == after["tick/gripper_width_m"]
        action = space.executed(
            now["tick/T_base_tcp"],
            after["tick/T_base_tcp"],
            now["tick/q_rad"],
            after["tick/q_rad"],
            float(after["tick/gripper_width_m"]),
        )
        np.testing.assert_array_equal(found["tick/measured"][t], action)


def test_a_tick_that_was_not_recorded_is_counted_and_nothing_is_measured_across_it(tmp_path: Path) -> None:
    rows = [row for row in make_rows(6) if int(row["tick/index"]) not in (2, 3)]
    committed = commit_episode(record(tmp_path, rows))
    measured = read_episode(committed.path).array("tick/measured")
    assert np.isnan(measured).all(axis=1).tolist() == [False, True, False]
    assert committed.outcome.dropped_ticks == 2
    assert not committed.outcome.complete
    assert committed.outcome.success


def test_a_tick_that_a_late_loop_skipped_is_no_loss_and_nothing_is_measured_across_it(tmp_path: Path) -> None:
    rows = [row for row in make_rows(6) if int(row["tick/index"]) not in (2, 3)]
    committed = commit_episode(record(tmp_path, rows, SUCCESS.model_copy(update={"skipped_ticks": 2})))
    assert np.isnan(read_episode(committed.path).array("tick/measured")).all(axis=1).tolist() == [False, True, False]
    assert (committed.outcome.skipped_ticks, committed.outcome.dropped_ticks) == (2, 0)
    assert committed.outcome.complete
    with h5py.File(committed.path) as file:
        assert file["data/demo_0"].attrs["skipped_ticks"] == 2


def test_lost_ticks_are_told_from_skipped_ones(tmp_path: Path) -> None:
    rows = [row for row in make_rows(6) if int(row["tick/index"]) not in (2, 3)]
    committed = commit_episode(record(tmp_path, rows, SUCCESS.model_copy(update={"skipped_ticks": 1})))
    assert (committed.outcome.skipped_ticks, committed.outcome.dropped_ticks) == (1, 1)
    assert not committed.outcome.complete


def test_an_unknown_pose_is_measured_as_unknown(tmp_path: Path) -> None:
    rows = make_rows(4)
    rows[1]["tick/T_base_tcp"] = np.nan
    measured = read_episode(commit_episode(record(tmp_path, rows)).path).array("tick/measured")
    assert np.isnan(measured).all(axis=1).tolist() == [True, True, False]


@pytest.mark.parametrize("count", [0, 1])
def test_an_episode_of_hardly_any_rows_is_an_episode(tmp_path: Path, count: int) -> None:
    committed = commit_episode(record(tmp_path, make_rows(count), None))
    episode = read_episode(committed.path)
    assert episode.length == len(episode.rows()) == count
    assert episode.array("tick/measured").shape == (0, 4)


def test_committing_again_changes_nothing(tmp_path: Path) -> None:
    partial = record(tmp_path, make_rows(3))
    first = commit_episode(partial)
    assert [path.name for path in tmp_path.iterdir()] == [first.path.name]
    assert commit_episode(partial) == first


def test_a_kill_between_rename_and_removal_is_finished_by_the_next_commit(tmp_path: Path) -> None:
    partial = record(tmp_path, make_rows(3))
    kept = partial.read_bytes()
    first = commit_episode(partial)
    partial.write_bytes(kept)
    partial.with_name(first.path.name + ".committing").write_bytes(b"half")
    assert commit_episode(partial) == first
    assert not partial.exists()


def test_a_damaged_final_file_never_costs_the_partial(tmp_path: Path) -> None:
    partial = record(tmp_path, make_rows(3))
    partial.with_suffix("").write_bytes(b"")
    with pytest.raises(BadInputError, match="the file is empty"):
        commit_episode(partial)
    assert partial.exists()


def test_rows_of_a_broken_flush_are_cut_to_what_is_whole(tmp_path: Path) -> None:
    partial = record(tmp_path, make_rows(9), None)
    # what a kill inside a flush leaves: datasets that grew by different amounts, and a row without its bytes
    with h5py.File(partial, "r+", libver="latest") as file:
        demo = file["data/demo_0"]
        demo["rewards"].resize(8, axis=0)
        demo["tick/features"][7] = 0.0
    committed = commit_episode(partial)
    assert committed.rows == 7
    assert committed.outcome.outcome is Outcome.INCOMPLETE
    assert read_episode(committed.path).rows().tobytes() == b"".join(row.tobytes() for row in make_rows(7))


def test_an_outcome_cut_in_the_middle_is_no_outcome(tmp_path: Path) -> None:
    partial = record(tmp_path, make_rows(2))
    with h5py.File(partial, "r+", libver="latest") as file:
        file["pending_outcome"][20:] = 0
    assert commit_episode(partial, reason="killed").outcome.reason == "killed"


def test_the_description_is_of_the_bytes_on_disk(tmp_path: Path) -> None:
    committed = commit_episode(record(tmp_path, make_rows(2)))
    assert describe(committed.path) == committed
    with h5py.File(committed.path, "r+") as file:
        file["data/demo_0/rewards"][0] += 1.0
    assert describe(committed.path).sha256 != committed.sha256


def test_only_a_partial_is_committed(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not a recording in progress"):
        commit_episode(tmp_path / "some.h5")
    with pytest.raises(BadInputError, match="no such file"):
        commit_episode(tmp_path / "some.h5.partial")
