"""Whole runs in lock-step whose reward comes from a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from policy.episode_header import LabelSource, Outcome
from policy.episode_label import label_episode
from policy.episode_reader import Episode, latest_revisions
from policy.learner_episode import of_episode
from policy.transitions import transitions
from robot.clock import VirtualClock
from teleop.replay_episode import EpisodeReplay
from teleop.rig import TaskJudge
from teleop.run import Run
from teleop.run_options import RunOptions
from teleop.run_report import run_summary, summary_lines
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_reward import make_tiny_reward
from tests.tiny_station import tiny_station


def record(folder: Path, *more: tuple[str, str], scale: float = 1.0) -> tuple[list[Episode], Run]:
    """Two short episodes that nobody looks at but the model, which is content with every picture."""
    reward = make_tiny_reward(folder / "reward", threshold=0.01, debounce_ticks=4, scale=scale)
    loaded = tiny_station(
        make_tiny_bundle(folder / "bundle"),
        ("arm.home_m", "[0.40, 0.0, 0.40]"),
        ("episode.timeout_s", "1.0"),
        ("reward.path", json.dumps(str(reward))),
        *more,
    )
    with Run(loaded, VirtualClock(), RunOptions(out=folder / "run", operator="none")) as run:
        for _ in range(2):
            run.episode()
        run.finish()
    return latest_revisions(run.folder.episodes), run


def test_a_model_s_success_reaches_the_learner_as_the_reward_of_the_last_tick(tmp_path: Path) -> None:
    episodes, run = record(tmp_path, ("reward.source", '"model"'))
    for episode in episodes:
        assert (episode.outcome.outcome, episode.outcome.label_source) == (Outcome.SUCCESS, LabelSource.REWARD_MODEL)
        assert episode.header.reward_sha256 is not None
        assert EpisodeReplay().verify(episode.path).mismatches == 0
        arrays = of_episode(episode)
        assert arrays.rewards.tolist() == [0.0] * (arrays.ticks - 1) + [1.0]
        learned = transitions(arrays, n_step=1, discount=0.98)
        assert (learned.reward[-1], learned.discount[-1]) == (1.0, 0.0)
        assert learned.reward[:-1].sum() == 0.0
    document = run_summary(run)
    assert document["labels"] == {"reward_model": 2}
    assert document["reward_model"] == {"sha256": episodes[0].header.reward_sha256, "judges": True, "unusable": 0}
    assert "labelled: 2 by reward model" in summary_lines(run, document)


def test_a_person_who_takes_it_back_takes_the_reward_back(tmp_path: Path) -> None:
    (episode, _), _ = record(tmp_path, ("reward.source", '"model"'))
    label_episode(episode.path, Outcome.FAILURE, LabelSource.PERSON)
    (again, _) = latest_revisions(episode.path.parent)
    assert again.outcome.label_source is LabelSource.PERSON
    assert again.labels[0].label_source is LabelSource.REWARD_MODEL
    assert of_episode(again).rewards.sum() == 0.0
    assert EpisodeReplay().verify(episode.path).mismatches == 0


@pytest.mark.parametrize("source", ["person", "task"])
def test_without_a_say_the_model_is_logged_and_replayed(tmp_path: Path, source: str) -> None:
    episodes, run = record(tmp_path, ("reward.source", json.dumps(source)))
    for episode in episodes:
        assert episode.outcome.outcome is Outcome.TIMEOUT
        assert np.isfinite(episode.array("tick/reward_probability").astype(float)).sum() == 20
        assert EpisodeReplay().verify(episode.path).mismatches == 0
    document = run_summary(run)
    assert document["labels"] == {"none": 2}
    told = "agrees in 0 of 2 episodes (95 % interval 0 to 66 %); fired in 0 of 0 successes and in 2 of 2 failures"
    assert f"reward model: {told}" in summary_lines(run, document)


def test_the_person_hears_of_a_model_that_gives_no_numbers(tmp_path: Path) -> None:
    episodes, run = record(tmp_path, ("reward.source", '"model"'), scale=0.0)
    assert "20 times it gave no number from 0 to 1" not in run.news()
    assert run.rig.reward is not None
    assert run.rig.reward.unusable == 40
    for episode in episodes:
        assert episode.outcome.outcome is Outcome.TIMEOUT
        assert EpisodeReplay().verify(episode.path).mismatches == 0


def test_a_task_s_word_that_has_to_last_leaves_its_frames_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TaskJudge, "outcome", lambda judge, state: Outcome.FAILURE)
    lengths = []
    for name, dwell_s in (("at_once", "0.0"), ("lasting", "0.3")):
        episodes, _ = record(tmp_path / name, ("reward.dwell_s", dwell_s))
        assert episodes[0].outcome.label_source is LabelSource.TASK
        assert episodes[0].outcome.outcome is Outcome.FAILURE
        lengths.append(int(np.isnan(episodes[0].array("tick/reset").astype(float)).all(axis=1).sum()))
    assert lengths[1] == lengths[0] + 6
