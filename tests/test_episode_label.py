from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from policy.episode_commit import commit_episode
from policy.episode_header import LabelSource, Outcome
from policy.episode_label import label_episode
from policy.episode_reader import read_episode
from policy.episode_writer import EpisodeWriter
from robot.errors import BadInputError
from tests.episodes import SUCCESS, header, make_rows


def episode(folder: Path) -> Path:
    with EpisodeWriter(folder, header()) as writer:
        for row in make_rows(4):
            writer.append(row)
        return commit_episode(writer.finish(SUCCESS.with_gaps(1, "queue full"))).path


def test_a_late_label_is_the_next_revision_and_touches_no_array(tmp_path: Path) -> None:
    path = episode(tmp_path)
    before = read_episode(path)
    rows = before.rows().tobytes()
    committed = label_episode(path, Outcome.FAILURE, LabelSource.PERSON)
    after = read_episode(path)
    assert committed.revision == after.revision == 1
    assert after.labels == (before.outcome, after.outcome)
    assert after.outcome.outcome is Outcome.FAILURE
    assert after.rows().tobytes() == rows
    with h5py.File(path) as file:
        assert not file["data/demo_0"].attrs["success"]
        assert file["data/demo_0"].attrs["revision"] == 1
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_label_does_not_make_an_incomplete_episode_complete(tmp_path: Path) -> None:
    path = episode(tmp_path)
    label_episode(path, Outcome.SUCCESS, LabelSource.PERSON)
    assert not read_episode(path).outcome.complete
    assert read_episode(path).outcome.dropped_ticks == 1


def test_nobody_labels_an_episode_incomplete(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="'incomplete' is no label"):
        label_episode(episode(tmp_path), Outcome.INCOMPLETE, LabelSource.PERSON)
