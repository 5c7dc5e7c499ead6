from dataclasses import replace

import numpy as np
import pytest

from policy.learner_episode import HUMAN, POLICY, EpisodeArrays
from policy.reachability import Advice, Reachability, corrections
from tests.learner_episodes import made_up

NAMES = ("x", "z", "gripper")
SCALE = (0.4, 0.2, 0.0)


def driven(*wanted: tuple[float, float, float], ticks: int = 100) -> EpisodeArrays:
    """An episode that a person drives all of, `wanted` away from a base of zeros, in turn."""
    human = np.resize(np.array(wanted, np.float32), (ticks, 3))
    episode = made_up(0, ticks=ticks)
    return replace(
        episode,
        base=np.zeros((ticks, 3), np.float32),
        human=human,
        engaged=np.ones(ticks, np.bool_),
        source=np.full(ticks, HUMAN, np.int8),
    )


def measured(*episodes: EpisodeArrays, gripper: bool = False) -> Reachability:
    return Reachability.of(corrections(episodes, len(NAMES)), NAMES, SCALE, gripper=gripper)


def test_each_dimension_has_its_share_beyond_the_bound() -> None:
    found = measured(driven((0.3, 0.1, 0.0), (-0.5, 0.1, 0.0), (0.1, -0.1, 0.0), (0.2, 0.19, 0.0)))
    x, z, gripper = found.dimensions
    assert (x.beyond, z.beyond, gripper.beyond) == (0.25, 0.0, 0.0)
    assert (x.advice, z.advice, gripper.advice) == (Advice.WIDEN, Advice.NONE, Advice.NONE)
    assert found.lines() == ["x: 25 % of 100 corrected ticks beyond the bound 0.4; widen residual.scale to 0.5"]


def test_a_tenth_beyond_the_bound_asks_for_nothing() -> None:
    misses = np.zeros((100, 3), np.float32)
    misses[:10, 0] = 0.9
    assert Reachability.of(misses, NAMES, SCALE).dimensions[0].advice is Advice.NONE
    misses[:11, 0] = 0.9
    assert Reachability.of(misses, NAMES, SCALE).dimensions[0].advice is Advice.WIDEN


def test_a_wish_that_reverses_the_base_is_no_matter_of_the_bound() -> None:
    found = measured(driven((1.6, 0.0, 0.0)))
    assert found.dimensions[0].advice is Advice.PERSON
    assert found.lines()[0].endswith("up to 1.60; leave it to the person, or retrain the base")


def test_a_gripper_that_the_person_works_otherwise_needs_the_discrete_head() -> None:
    episode = driven((0.0, 0.0, 2.0), (0.0, 0.0, 0.0))
    assert measured(episode).dimensions[2].advice is Advice.GRIPPER
    assert "residual.gripper = true" in measured(episode).lines()[0]
    assert measured(episode, gripper=True).dimensions[2].beyond == 0.0


def test_small_differences_where_the_base_has_a_dimension_to_itself_are_no_wish() -> None:
    misses = np.tile(np.array([0.0, 0.0, 0.3], np.float32), (100, 1))  # a base that all but closes, a person who closes
    misses[:, 1] = 0.04
    found = Reachability.of(misses, NAMES, (0.4, 0.0, 0.0))
    assert [dimension.beyond for dimension in found.dimensions] == [0.0, 0.0, 0.0]
    assert found.lines() == []


def test_only_ticks_that_a_person_drove_beside_a_base_action_count() -> None:
    episode = driven((0.9, 0.9, 0.0), ticks=200)
    episode.source[:100] = POLICY
    episode.base[100:140] = np.nan
    episode.human[140:190] = np.nan
    found = measured(episode)
    assert found.dimensions[0].ticks == 10
    assert found.dimensions[0].advice is Advice.FEW
    assert found.lines() == []


def test_all_episodes_count_together() -> None:
    found = measured(driven((0.9, 0.0, 0.0)), driven((0.0, 0.0, 0.0), ticks=300))
    assert (found.dimensions[0].ticks, found.dimensions[0].beyond) == (400, 0.25)


def test_nothing_seen_is_nothing_known() -> None:
    assert measured().summary()["x"] == {
        "scale": 0.4, "ticks": 0, "beyond": None, "wanted": None, "advice": str(Advice.FEW)
    }  # fmt: skip


def test_bounds_must_be_those_of_the_dimensions() -> None:
    with pytest.raises(ValueError, match="3 dimensions, 1 bounds and corrections of 3"):
        Reachability.of(corrections([], 3), NAMES, (0.4,))
