from dataclasses import replace

import numpy as np
import pytest

from policy.learner_episode import HUMAN, POLICY, EpisodeArrays, EpisodeKey
from policy.reachability import MIN_TICKS, Advice, ReachabilityMeter
from tests.learner_episodes import made_up

NAMES = ("x", "z", "gripper")
SCALE = (0.4, 0.2, 0.0)


def driven(*wanted: tuple[float, float, float], ticks: int = 100, key: EpisodeKey | None = None) -> EpisodeArrays:
    """An episode that a person drives all of, `wanted` away from a base of zeros, in turn."""
    human = np.resize(np.array(wanted, np.float32), (ticks, 3))
    episode = made_up(0, ticks=ticks)
    return replace(
        episode,
        key=key or episode.key,
        base=np.zeros((ticks, 3), np.float32),
        human=human,
        engaged=np.ones(ticks, np.bool_),
        source=np.full(ticks, HUMAN, np.int8),
    )


def test_each_dimension_has_its_share_beyond_the_bound() -> None:
    meter = ReachabilityMeter(NAMES, SCALE)
    meter.add(driven((0.3, 0.1, 0.0), (-0.5, 0.1, 0.0), (0.1, -0.1, 0.0), (0.2, 0.19, 0.0)))
    x, z, gripper = meter.dimensions()
    assert (x.beyond, z.beyond, gripper.beyond) == (0.25, 0.0, 0.0)
    assert (x.advice, z.advice, gripper.advice) == (Advice.WIDEN, Advice.NONE, Advice.NONE)
    assert meter.lines() == ["x: 25 % of 100 corrected ticks beyond the bound 0.4; widen residual.scale to 0.5"]


def test_a_wish_that_reverses_the_base_is_no_matter_of_the_bound() -> None:
    meter = ReachabilityMeter(NAMES, SCALE)
    meter.add(driven((1.6, 0.0, 0.0)))
    assert meter.dimensions()[0].advice is Advice.PERSON
    assert meter.lines()[0].endswith("up to 1.60; leave it to the person, or retrain the base")


def test_a_gripper_that_the_person_works_otherwise_needs_the_discrete_head() -> None:
    meter = ReachabilityMeter(NAMES, SCALE)
    meter.add(driven((0.0, 0.0, 2.0), (0.0, 0.0, 0.0)))
    assert meter.dimensions()[2].advice is Advice.GRIPPER
    assert "residual.gripper = true" in meter.lines()[0]
    meter = ReachabilityMeter(NAMES, SCALE, gripper=True)
    meter.add(driven((0.0, 0.0, 2.0), (0.0, 0.0, 0.0)))
    assert meter.dimensions()[2].beyond == 0.0


def test_only_ticks_that_a_person_drove_beside_a_base_action_count() -> None:
    episode = driven((0.9, 0.9, 0.0), ticks=200)
    episode.source[:100] = POLICY
    episode.base[100:140] = np.nan
    episode.human[140:190] = np.nan
    meter = ReachabilityMeter(NAMES, SCALE)
    meter.add(episode)
    assert meter.dimensions()[0].ticks == 10
    assert meter.dimensions()[0].advice is Advice.FEW
    assert meter.lines() == []


def test_a_newer_revision_of_an_episode_takes_the_older_ones_place_and_never_the_reverse() -> None:
    meter = ReachabilityMeter(NAMES, SCALE)
    new, old = (EpisodeKey("run", 0, revision) for revision in (1, 0))
    meter.add(driven((0.9, 0.0, 0.0), key=new))
    meter.add(driven((0.0, 0.0, 0.0), ticks=500, key=old))
    assert (meter.dimensions()[0].ticks, meter.dimensions()[0].beyond) == (100, 1.0)


def test_nothing_seen_is_nothing_known() -> None:
    summary = ReachabilityMeter(NAMES, SCALE).summary()
    assert summary["x"] == {"scale": 0.4, "ticks": 0, "beyond": None, "wanted": None, "advice": str(Advice.FEW)}
    assert MIN_TICKS > 0


def test_bounds_must_be_those_of_the_dimensions() -> None:
    with pytest.raises(ValueError, match="3 dimensions and 1 bounds"):
        ReachabilityMeter(NAMES, (0.4,))
