"""What a takeover says about the ticks before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from policy.episode_header import Outcome
from policy.hindsight import LevelMotion, hindsight
from policy.learner_config import LearnerConfig
from policy.learner_episode import HOLD, HUMAN, POLICY, EpisodeArrays, EpisodeKey
from policy.learner_settings import LearnerSettings
from policy.manifest import ActionSpec
from policy.replay_buffer import ReplayBuffer
from policy.residual_learner import LearnerDims, ResidualLearner
from policy.transitions import transitions
from robot.command import CommandKind

X, Y, Z, GRIPPER = range(4)
MOTION = LevelMotion(dims=(X, Y), scale_m=(0.02, 0.02), gripper=GRIPPER)
GAIN = 0.2
SOURCES = {"p": POLICY, "h": HUMAN, "-": HOLD}


def descent(
    sources: str, *, goal_m: tuple[float, float] = (0.03, -0.01), grip_from: int | None = None
) -> EpisodeArrays:
    """A policy that goes straight down, and a person who closes a fifth of what is left to the goal, tick by tick."""
    ticks = len(sources)
    source = np.array([SOURCES[letter] for letter in sources], np.int8)
    executed = np.zeros((ticks, 4), np.float32)
    executed[:, Z], executed[:, GRIPPER] = -0.3, -1.0
    at_m = np.zeros(2)
    for tick in np.flatnonzero(source == HUMAN):
        step_m = GAIN * (np.array(goal_m) - at_m)
        executed[tick, :2] = step_m / 0.02
        at_m += step_m
    if grip_from is not None:
        executed[grip_from:, GRIPPER] = 1.0
    human = source == HUMAN
    number = np.arange(ticks)
    return EpisodeArrays(
        key=EpisodeKey("run", 0, 0),
        outcome=Outcome.SUCCESS,
        complete=True,
        open_loop=False,
        demonstration=False,
        bundle_sha256="0" * 64,
        index=number,
        features=np.tile(number[:, None], (1, 3)).astype(np.float32),
        proprio=np.zeros((ticks, 1), np.float32),
        base=np.zeros((ticks, 4), np.float32),
        executed=executed,
        human=np.where(human[:, None], executed, np.nan).astype(np.float32),
        engaged=human,
        source=source,
        rewards=(number == ticks - 1).astype(np.float32),
        terminated=number == ticks - 1,
        truncated=np.zeros(ticks, np.bool_),
    )


def told(episode: EpisodeArrays, doubt_ticks: int = 4, motion: LevelMotion = MOTION) -> list[int]:
    return np.flatnonzero(hindsight(episode, motion, doubt_ticks)[0]).tolist()


def way_m(episode: EpisodeArrays, first: int, end: int) -> NDArray[np.float64]:
    return episode.executed[first:end, :2].astype(np.float64).sum(axis=0) * 0.02


def test_the_ticks_of_doubt_are_told_to_steer_for_where_the_person_went() -> None:
    episode = descent("pppppp" + "h" * 12)
    ticks, actions = hindsight(episode, MOTION, 4)
    assert np.flatnonzero(ticks).tolist() == [2, 3, 4, 5]
    end_m = way_m(episode, 6, 18)
    # the person's gain is by least squares on the way that they went, whose end is not quite the goal
    gains = actions[2:6, :2] * 0.02 / end_m
    np.testing.assert_allclose(gains, gains[0, 0], rtol=1e-5)
    assert GAIN < gains[0, 0] < 1.15 * GAIN
    assert np.isnan(actions[:, [Z, GRIPPER]]).all()
    assert np.isnan(actions[~ticks]).all()


@given(
    st.floats(-0.05, 0.05), st.floats(-0.05, 0.05), st.integers(1, 20), st.integers(3, 30), st.integers(0, 30),
    st.floats(-0.5, 0.5),
)  # fmt: skip
def test_it_points_to_the_goal_from_each_tick_and_is_never_faster_than_the_arm_was(
    x_m: float, y_m: float, before: int, driven: int, doubt_ticks: int, drift: float
) -> None:
    episode = descent("p" * before + "h" * driven, goal_m=(x_m, y_m))
    episode.executed[:before, X] = drift
    ticks, actions = hindsight(episode, MOTION, doubt_ticks)
    assert set(np.flatnonzero(ticks)) <= set(range(max(0, before - doubt_ticks), before))
    first = max(0, before - doubt_ticks)
    fastest = np.linalg.norm(episode.executed[first:, :2], axis=1).max()
    for tick in np.flatnonzero(ticks):
        left_m = way_m(episode, int(tick), before + driven)
        wanted = actions[tick, :2].astype(np.float64)
        assert np.linalg.norm(wanted) <= fastest * (1.0 + 1e-5)
        # a share of what is left, along it
        assert abs(wanted[0] * left_m[1] - wanted[1] * left_m[0]) < 1e-6
        assert wanted @ left_m >= -1e-9
        assert np.linalg.norm(wanted) * 0.02 <= 0.5 * np.linalg.norm(left_m) + 1e-7


def test_a_policy_that_came_from_afar_is_not_told_to_go_as_slowly_as_the_person_who_was_near() -> None:
    episode = descent("pppp" + "h" * 12, goal_m=(0.004, 0.0))
    episode.executed[:4, X] = 0.5  # 10 mm a tick, to a goal that is 4 mm further on
    _, actions = hindsight(episode, MOTION, 4)
    person = np.linalg.norm(episode.executed[4:, :2], axis=1).max()
    assert actions[0, X] > 3.0 * person  # 44 mm to go: a share of that, not the person's millimetre
    assert (actions[:4, X] <= 0.5 + 1e-6).all()
    assert (np.diff(actions[:4, X]) < 0.0).all()


def test_the_goal_is_where_the_person_first_worked_the_gripper() -> None:
    whole, gripped = descent("pppp" + "h" * 16), descent("pppp" + "h" * 16, grip_from=12)
    gripped.executed[12:, :2] = 1.0  # where they went on to
    short = descent("pppp" + "h" * 8)
    for episode in (whole, gripped, short):
        episode.executed[:4, X] = -0.1  # the policy goes away from the goal: a person has further to go than it had
    _, actions = hindsight(gripped, MOTION, 4)
    np.testing.assert_array_equal(actions, np.vstack([hindsight(short, MOTION, 4)[1], np.full((8, 4), np.nan)]))
    assert not np.array_equal(actions, hindsight(whole, MOTION, 4)[1], equal_nan=True)
    # a gripper that is not open or closed says nothing
    assert told(gripped, motion=MOTION.model_copy(update={"gripper": None})) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("sources", "ticks"),
    [
        ("pppppphhh", [2, 3, 4, 5]),
        ("pppppphh", []),  # too short a drive
        ("hhhhpphhhhh", [4, 5]),  # up to the last handback
        ("pppp-phhhh", [5]),  # up to a hold
        ("pppppp-hhhh", []),  # the hold was between
        ("hhhh", []),
        ("pppp", []),
        ("", []),
        ("pppphhhhpppphhhh", [0, 1, 2, 3, 8, 9, 10, 11]),
    ],
)
def test_only_what_the_policy_did_without_a_break_before_a_takeover(sources: str, ticks: list[int]) -> None:
    assert told(descent(sources)) == ticks


def test_a_missing_tick_ends_the_stretch() -> None:
    episode = descent("ppppppp" + "h" * 8)
    index = episode.index.copy()
    index[5:] += 1
    assert told(replace(episode, index=index)) == [5, 6]
    index = episode.index.copy()
    index[7:] += 1
    assert told(replace(episode, index=index)) == []
    index = episode.index.copy()
    index[9:] += 1  # two ticks of driving are left
    assert told(replace(episode, index=index)) == []


def test_a_gripper_that_moved_before_the_takeover_ends_the_stretch() -> None:
    episode = descent("pppppp" + "h" * 8)
    episode.executed[:4, GRIPPER] = 1.0
    assert told(episode) == [4, 5]


@pytest.mark.parametrize("outcome", [Outcome.FAILURE, Outcome.TIMEOUT, Outcome.ABORT])
def test_a_way_that_did_not_lead_to_success_tells_nothing(outcome: Outcome) -> None:
    episode = descent("pppp" + "h" * 8)
    assert told(replace(episode, outcome=outcome)) == []
    assert told(replace(episode, demonstration=True)) == []


@pytest.mark.parametrize("goal_m", [(0.0, 0.0), (0.0006, -0.0006)])
def test_a_person_who_only_lifts_tells_nothing(goal_m: tuple[float, float]) -> None:
    assert told(descent("pppp" + "h" * 8, goal_m=goal_m)) == []


def test_an_offset_of_the_action_counts_as_motion() -> None:
    episode = descent("pppp" + "h" * 8)
    shifted = replace(episode, executed=episode.executed - np.array([0.5, 0.25, 0.0, 0.0], np.float32))
    motion = MOTION.model_copy(update={"offset_m": (0.01, 0.005)})
    _, plain = hindsight(episode, MOTION, 4)
    _, actions = hindsight(shifted, motion, 4)
    np.testing.assert_allclose(actions[:4, :2], plain[:4, :2] - [0.5, 0.25], atol=1e-6)


def spec(**changes: object) -> ActionSpec:
    values: dict[str, object] = {
        "kind": CommandKind.TCP_DELTA, "frame": "base", "dims": ("z", "y", "x", "gripper"),
        "scale": (0.3, 0.2, 0.1, 1.0), "offset": (0.0, 0.0, 0.001, 0.0), "headroom": 0.0,
        "gripper": "binary", "gripper_open_m": 0.08, "gripper_closed_m": 0.0,
    }  # fmt: skip
    return ActionSpec.model_validate(values | changes)


def test_a_bundles_actions_say_how_they_move_the_arm_across_the_table() -> None:
    expected = LevelMotion(dims=(2, 1), scale_m=(0.1, 0.2), offset_m=(0.001, 0.0), gripper=3)
    assert LevelMotion.of(spec()) == expected
    assert LevelMotion.of(spec(gripper="width")) == expected.model_copy(update={"gripper": None})
    assert LevelMotion.of(spec(frame="tcp")) is None
    assert LevelMotion.of(spec(kind=CommandKind.TCP_POSE)) is None
    assert LevelMotion.of(spec(dims=("z", "y", "roll", "gripper"))) is None


@pytest.mark.parametrize(("level", "x", "y"), [(None, 0.0, 0.0), (MOTION, 0.2, -0.02)])
def test_a_learner_is_taught_by_it_within_its_reach(level: LevelMotion | None, x: float, y: float) -> None:
    """Nobody drives and nothing is approved in what is drawn from here: the ticks before the takeover alone."""
    episode = descent("p" * 8 + "h" * 12, goal_m=(0.09, -0.002))
    data = transitions(episode, n_step=1, discount=0.9, doubt_ticks=8, level=level)
    assert data.hindsight.tolist() == [level is not None] * 8 + [False] * 12
    rows = ("frame", "next_frame", "action", "reward", "discount", "human", "human_action", "hindsight", "approved")
    before = replace(data, **{name: getattr(data, name)[:8] for name in rows})
    buffer = ReplayBuffer(feature_size=3, proprio_size=1, action_size=4, max_frames=100)
    buffer.add(episode.key, before)
    assert buffer.corrections().shape == (0, 4)  # the reachability meter counts what a person drove
    assert buffer.guided_size == 0  # and what is shown is what a person did
    config = LearnerConfig(scale=(0.2, 0.2, 0.2, 0.0), hidden=(16,), q_weight=0.0, actor_rate=0.01)
    made = ResidualLearner(LearnerDims(feature_size=3, proprio_size=1, action_size=4), config, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(600):
        made.update(buffer.sample(32, rng))
    seen = torch.as_tensor(np.hstack([episode.features, episode.proprio])[:8])
    with torch.no_grad():
        residual, _ = made._act(made._normaliser(seen), torch.zeros(8, 4), seen[:, :3])
    np.testing.assert_allclose(residual[:, X], x, atol=0.02)
    np.testing.assert_allclose(residual[:, Y], y, atol=0.01)
    np.testing.assert_array_equal(residual[:, Z:], 0.0)


def test_the_settings_that_rows_depend_on_say_so() -> None:
    values = {
        "state_dir": "x", "run_id": "run", "bundle_sha256": "0" * 64, "feature_size": 3, "proprio_size": 1,
        "action_size": 4,
    }  # fmt: skip
    with_it = LearnerSettings.model_validate(values | {"hindsight": MOTION.model_dump()})
    without = LearnerSettings.model_validate(values)
    assert with_it.fingerprint()["hindsight"] != without.fingerprint()["hindsight"]
    assert LearnerSettings.model_validate_json(with_it.model_dump_json()) == with_it
    with pytest.raises(ValidationError, match="hindsight names"):
        LearnerSettings.model_validate(values | {"hindsight": MOTION.model_dump(), "action_size": 3})
