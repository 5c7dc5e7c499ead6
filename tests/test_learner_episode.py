"""What the learner gets of an episode is what the log holds, with late labels written where they belong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from policy.episode_commit import commit_episode
from policy.episode_header import EpisodeOutcome, LabelSource, Outcome
from policy.episode_label import label_episode
from policy.episode_reader import read_episode
from policy.episode_writer import EpisodeWriter
from policy.learner_episode import HOLD, HUMAN, POLICY, RESET, EpisodeArrays, EpisodeKey, of_columns, of_episode
from tests.episodes import SPEC, SUCCESS, header, make_rows

PROPRIO = [key for key, _ in SPEC.proprio]


def rows(count: int = 6) -> NDArray[np.void]:
    """Rows as a loop writes them: a reset, the policy, a person, a refusal of the filter, and success at the end."""
    table = np.array(make_rows(count))
    rng = np.random.default_rng(1)
    for name in ("tick/features", "tick/base", "tick/commanded", "tick/human", *(f"obs/{key}" for key in PROPRIO)):
        table[name] = rng.normal(size=table[name].shape)
    for name in ("rewards", "terminated", "truncated", "tick/engaged", "tick/held", "tick/reset", "tick/source"):
        table[name] = 0
    table["tick/human"] = table["tick/reset"] = np.nan
    table["tick/reset"][0], table["tick/source"][0] = 0.1, HUMAN  # even where a person drove meanwhile
    table["tick/source"][2], table["tick/engaged"][2], table["tick/human"][2] = HUMAN, 1, 0.5
    table["tick/held"][3] = 1
    table["rewards"][-1] = table["terminated"][-1] = 1
    return table


def committed(folder: Path, episode: int = 0) -> Path:
    head = header(episode)
    with EpisodeWriter(folder, head) as writer:
        for row in rows():
            writer.append(row)
        partial = writer.finish(SUCCESS)
    return commit_episode(partial).path


def labelled(*outcomes: Outcome) -> EpisodeArrays:
    labels = [EpisodeOutcome(outcome=outcome, label_source=LabelSource.PERSON) for outcome in outcomes]
    return of_columns(
        rows(),
        key=EpisodeKey("r", 0, len(labels) - 1),
        proprio=PROPRIO,
        labels=labels,
        open_loop=False,
        bundle_sha256=None,
    )


def test_rows_in_memory_and_the_committed_file_give_the_same(tmp_path: Path) -> None:
    episode = read_episode(committed(tmp_path, episode=3))
    found = of_episode(episode)
    wanted = of_columns(
        rows(),
        key=EpisodeKey(episode.header.run_id, 3, 0),
        proprio=PROPRIO,
        labels=[SUCCESS],
        open_loop=False,
        bundle_sha256="2" * 64,
    )
    for field in fields(EpisodeArrays):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(wanted, field.name), field.name)
    assert found.features.shape == (6, SPEC.feature_size)
    np.testing.assert_array_equal(found.proprio[:, :3], rows()[f"obs/{PROPRIO[0]}"])


def test_ticks_that_the_filter_refused_or_that_reset_are_marked() -> None:
    assert labelled(Outcome.SUCCESS).source.tolist() == [RESET, POLICY, HUMAN, HOLD, POLICY, POLICY]


def test_first_label_leaves_the_rows_alone() -> None:
    whole = labelled(Outcome.SUCCESS)
    assert whole.rewards.tolist() == [0, 0, 0, 0, 0, 1]
    assert whole.terminated.tolist() == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("outcome", "reward", "terminated"),
    [(Outcome.FAILURE, 0.0, True), (Outcome.TIMEOUT, 0.0, False), (Outcome.ABORT, 0.0, False)],
)
def test_success_taken_back_pays_nothing(outcome: Outcome, reward: float, terminated: bool) -> None:
    whole = labelled(Outcome.SUCCESS, outcome)
    assert whole.outcome is outcome
    assert (whole.rewards[-1], whole.terminated[-1], whole.truncated[-1]) == (reward, terminated, not terminated)


def test_late_success_pays_one_at_the_last_tick() -> None:
    whole = labelled(Outcome.TIMEOUT, Outcome.SUCCESS)
    assert whole.rewards.tolist() == [0, 0, 0, 0, 0, 1]
    assert (whole.terminated[-1], whole.truncated[-1]) == (True, False)


def test_late_label_in_the_file_is_a_new_revision(tmp_path: Path) -> None:
    path = committed(tmp_path)
    label_episode(path, Outcome.FAILURE, LabelSource.PERSON)
    found = of_episode(read_episode(path), demonstration=True)
    assert found.key.revision == 1
    assert (found.outcome, found.rewards.sum(), found.demonstration) == (Outcome.FAILURE, 0.0, True)
