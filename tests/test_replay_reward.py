from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from policy.episode_file import write_label
from policy.episode_header import LabelSource, Outcome
from policy.episode_reader import Episode, read_episode
from robot.errors import BadInputError
from teleop.replay_episode import EpisodeReplay, EpisodeReport
from tests.replay_run import changed, make_run
from tests.tiny_reward import make_tiny_reward

DEBOUNCE = 5


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three episodes that a reward model judged, unless frames were dropped too often for it."""
    folder = tmp_path_factory.mktemp("judged")
    reward = make_tiny_reward(folder / "reward", threshold=0.01, debounce_ticks=DEBOUNCE)
    return make_run(folder, None, ("reward.source", '"model"'), ("reward.path", json.dumps(str(reward))))


@pytest.fixture
def episodes(recorded: list[Path], tmp_path: Path) -> list[Path]:
    """A copy to spoil."""
    shutil.copytree(recorded[0].parents[1], tmp_path / "run")
    return [tmp_path / "run" / "episodes" / path.name for path in recorded]


def judged(episodes: list[Path]) -> Path:
    """The first episode that the model ended."""
    return next(path for path in episodes if read_episode(path).outcome.label_source is LabelSource.REWARD_MODEL)


def verify(path: Path) -> EpisodeReport:
    return EpisodeReplay().verify(path)


def test_what_the_model_said_is_recomputed_bit_for_bit(recorded: list[Path]) -> None:
    assert judged(recorded)
    for path in recorded:
        report = verify(path)
        assert (report.mismatches, report.largest_difference) == (0, {}), report.first
    said = read_episode(judged(recorded)).array("tick/reward_probability")
    assert np.isfinite(said.astype(float)).sum() >= DEBOUNCE


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("tick/reward_probability", lambda value: np.nextafter(value, np.float32(1.0))),
        ("tick/reward_answer", lambda value: 0),
        ("tick/reward_streak", lambda value: value + 1),
        ("tick/reward_ms", lambda value: -1.0),
    ],
)
def test_a_changed_answer_is_found_at_its_tick(
    episodes: list[Path], field: str, change: Callable[[np.generic], float]
) -> None:
    path = judged(episodes)
    row = read_episode(path).length - 2
    with changed(path, reseal=True) as demo:
        demo[field][row] = change(demo[field][row])
    report = verify(path)
    assert field in report.by_field
    assert report.first[0].tick == int(read_episode(path).array("tick/index")[row])  # type: ignore[call-overload]


def relabel(path: Path, outcome: Outcome, source: LabelSource) -> Episode:
    """Write another first label, as if the episode had ended so."""
    label = read_episode(path).labels[0].model_copy(update={"outcome": outcome, "label_source": source})
    with h5py.File(path, "r+") as file:
        write_label(file, [label])
    return read_episode(path)


def test_a_verdict_that_the_model_did_not_give_is_found(episodes: list[Path]) -> None:
    other = next(path for path in episodes if read_episode(path).outcome.outcome is Outcome.SUCCESS)
    with changed(other, reseal=True) as demo:
        demo["tick/reward_streak"][-1] = 1
    relabel(other, Outcome.SUCCESS, LabelSource.REWARD_MODEL)
    assert verify(other).by_field["label_source"] == 1


def test_a_verdict_that_was_given_to_another_is_found(episodes: list[Path]) -> None:
    path = judged(episodes)
    relabel(path, Outcome.SUCCESS, LabelSource.TASK)
    assert verify(path).by_field == {"label_source": 1}


def test_a_person_s_word_in_its_place_is_none(episodes: list[Path]) -> None:
    path = judged(episodes)
    relabel(path, Outcome.SUCCESS, LabelSource.PERSON)
    assert verify(path).mismatches == 0


def test_a_run_folder_without_its_reward_model_is_refused(episodes: list[Path]) -> None:
    shutil.rmtree(episodes[0].parents[1] / "rewards")
    with pytest.raises(BadInputError, match=r"cannot read reward\.json"):
        verify(episodes[0])


def test_another_model_under_its_hash_is_refused(episodes: list[Path], tmp_path: Path) -> None:
    (kept,) = (episodes[0].parents[1] / "rewards").iterdir()
    make_tiny_reward(kept, threshold=0.9)
    with pytest.raises(BadInputError, match="the files were changed, restore them"):
        verify(episodes[0])
