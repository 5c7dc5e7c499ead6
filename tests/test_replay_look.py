"""Proprioception of the frames' time is recomputed from the states that the log has round it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perception.observation import Verdict
from policy.episode_reader import read_episode
from teleop.replay_episode import EpisodeReplay
from tests.replay_run import changed, make_run

Recorded = tuple[list[Path], EpisodeReplay]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    files = make_run(tmp_path_factory.mktemp("frames"), None, ("synchroniser.proprio_time", '"frames"'))
    return files, EpisodeReplay()


@pytest.fixture
def copy(recorded: Recorded) -> Iterator[Path]:
    path = recorded[0][0].with_name("changed.h5")
    shutil.copyfile(recorded[0][0], path)
    yield path
    path.unlink()


def interpolated_rows(path: Path) -> list[int]:
    """Rows in which the arm moves between the two states, so that where between them matters."""
    around = read_episode(path).array("tick/arm_around")
    moved = np.abs(around[:, 1, 1:17] - around[:, 0, 1:17]).max(axis=1)
    return [int(row) for row in np.flatnonzero(moved > 1e-3)]


def test_a_run_with_proprioception_of_the_frames_time_verifies(recorded: Recorded) -> None:
    files, replay = recorded
    for file in files:
        assert replay.verify(file).mismatches == 0
    episode = read_episode(files[0])
    fresh = episode.array("tick/verdict") == Verdict.FRESH
    captured_s, proprio_s = episode.array("tick/captured_s")[fresh], episode.array("tick/proprio_s")[fresh]
    assert proprio_s[0] == episode.array("tick/state_s")[fresh][0]  # the first look knows of no state before its own
    np.testing.assert_allclose(proprio_s[1:], captured_s.mean(axis=1)[1:], rtol=0.0, atol=1e-9)
    assert (proprio_s < episode.array("tick/state_s")[fresh] - 0.005)[1:].all()


def test_the_proprioception_lies_between_that_of_the_two_states(recorded: Recorded) -> None:
    path = recorded[0][0]
    episode, rows = read_episode(path), interpolated_rows(path)
    around = episode.array("tick/arm_around")[rows].astype(float)
    share = (episode.array("tick/proprio_s")[rows] - around[:, 0, 0]) / (around[:, 1, 0] - around[:, 0, 0])
    heights_m = around[:, :, 1 + 11]
    expected = heights_m[:, 0] + share * (heights_m[:, 1] - heights_m[:, 0])
    assert len(rows) > 10
    np.testing.assert_allclose(episode.array("obs/tcp_position_m")[rows, 2], expected, atol=1e-6)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("value", range(38), ids=lambda value: f"value{value}")
def test_a_changed_value_of_a_neighbouring_state_is_found(
    recorded: Recorded, copy: Path, place: int, value: int
) -> None:
    row = interpolated_rows(copy)[5]
    with changed(copy, reseal=True) as demo:
        around = demo["tick/arm_around"][row]
        around[place, value] += 0.01
        demo["tick/arm_around"][row] = around
    # with another time it is no row's state any more, but the proprioception is not what it then gives
    expected = "tick/arm_around" if value else "obs/tcp_position_m"
    assert expected in recorded[1].verify(copy).by_field


def test_a_changed_moment_is_found(recorded: Recorded, copy: Path) -> None:
    row = interpolated_rows(copy)[5]
    with changed(copy, reseal=True) as demo:
        demo["tick/proprio_s"][row] += 1e-9
    assert recorded[1].verify(copy).by_field == {"tick/proprio_s": 1}


def test_states_that_were_taken_away_are_missed(recorded: Recorded, copy: Path) -> None:
    row = interpolated_rows(copy)[5]
    with changed(copy, reseal=True) as demo:
        demo["tick/arm_around"][row] = np.nan
    found = recorded[1].verify(copy).by_field
    assert {"tick/arm_around", "tick/proprio_s", "obs/tcp_position_m"} <= set(found)
