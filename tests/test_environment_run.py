"""The loop on public benchmarks: what it logs is what anybody gets who steps the environment with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from policy.episode_header import LabelSource, Outcome
from policy.episode_reader import Episode, latest_revisions
from robot.clock import VirtualClock, WallClock
from robot.environment.push_expert import PushStyle
from robot.errors import BadInputError
from teleop.arbiter import Source
from teleop.evaluation import evaluate
from teleop.push_sight import PushSight
from teleop.replay import verify_run
from teleop.replay_parts import each_row
from teleop.run import Run
from teleop.run_options import OperatorKind, RunOptions
from teleop.station import LoadedStation
from teleop.tick_row import read_inputs
from tests.environment_bench import panda_station, pusher_station
from tests.replay_run import changed

BRIEF = ("arm.options.max_episode_steps", "12")


def recorded(
    loaded: LoadedStation, out: Path, *, operator: OperatorKind = "none", episodes: int = 1, real: bool = False
) -> list[Episode]:
    options = RunOptions(out=out, operator=operator, seed=3)
    with Run(loaded, WallClock() if real else VirtualClock(), options) as run:
        for _ in range(episodes):
            run.episode()
        run.finish()
    return latest_revisions(out / "episodes")


@pytest.fixture(scope="module")
def panda_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panda")
    recorded(panda_station(folder, BRIEF), folder / "run", episodes=2)
    return folder / "run"


def test_stepping_the_environment_with_what_was_logged_gives_what_was_logged(panda_run: Path) -> None:
    import panda_gym  # noqa: F401  registers the environment

    environment = gymnasium.make("PandaPush-v3", max_episode_steps=12)
    for episode in latest_revisions(panda_run / "episodes"):
        assert episode.length == 12
        commanded, measured = episode.array("tick/commanded_T"), episode.array("tick/T_base_tcp")
        seen, _ = environment.reset(seed=int(str(episode.header.layout["reset_seed"])))
        for tick in range(12):
            np.testing.assert_array_equal(measured[tick, :3, 3], seen["observation"][0:3])
            np.testing.assert_array_equal(
                episode.array("tick/reading_object_position_m")[tick], seen["observation"][6:9]
            )
            np.testing.assert_array_equal(episode.array("obs/goal_position_m")[tick], seen["desired_goal"])
            action = (commanded[tick, :3, 3] - measured[tick, :3, 3]) / 0.05
            seen, reward, *_ = environment.step(action.astype(np.float32))
            assert episode.array("tick/task_reward")[tick] == reward
    environment.close()


def test_episodes_of_one_seed_differ_and_those_of_one_reset_do_not(panda_run: Path, tmp_path: Path) -> None:
    first, second = latest_revisions(panda_run / "episodes")
    assert first.header.layout != second.header.layout
    (again,) = recorded(panda_station(tmp_path, BRIEF), tmp_path / "run")
    for field in ("actions", "tick/T_base_tcp", "tick/reading_object_position_m", "tick/task_reward"):
        np.testing.assert_array_equal(again.array(field), first.array(field))


def test_a_replay_finds_nothing_and_one_changed_reading(panda_run: Path, tmp_path: Path) -> None:
    assert verify_run(panda_run, jobs=1, progress=lambda episode: None).mismatches == 0
    for field, reseal in (("tick/reading_object_position_m", True), ("tick/task_reward", False)):
        copy = shutil.copytree(panda_run, tmp_path / field)
        with changed(latest_revisions(copy / "episodes")[0].path, reseal=reseal) as demo:
            demo[field][5] += 1e-3
        assert verify_run(copy, jobs=1, progress=lambda episode: None).mismatches > 0, field


def test_the_environments_time_limit_is_a_timeout_and_no_end(panda_run: Path) -> None:
    for episode in latest_revisions(panda_run / "episodes"):
        assert episode.outcome.outcome is Outcome.TIMEOUT
        assert episode.array("truncated")[-1]
        assert not episode.array("terminated").any()
        assert not episode.array("rewards").any()


@pytest.mark.parametrize("key", ["success.reward_at_least", "success.terminated"])
def test_a_success_by_reward_or_by_termination_pays_and_is_the_tasks_word(tmp_path: Path, key: str) -> None:
    value = "-1.5" if key == "success.reward_at_least" else '"success"'
    station = panda_station(tmp_path, BRIEF, (f"arm.{key}", value), ("arm.options.reward_type", '"dense"'))
    (episode,) = recorded(station, tmp_path / "run")
    if key == "success.terminated":
        assert episode.outcome.outcome is Outcome.TIMEOUT, "the environment did not terminate"
        return
    assert episode.outcome.outcome is Outcome.SUCCESS
    assert episode.outcome.label_source is LabelSource.TASK
    assert episode.array("terminated")[-1]
    assert episode.array("rewards").tolist() == [0.0] * (episode.length - 1) + [1.0]


def test_where_the_person_judges_the_environment_only_says_that_it_is_over(tmp_path: Path) -> None:
    station = panda_station(tmp_path, BRIEF, ("arm.success.reward_at_least", "-1.5"), ("reward.source", '"person"'))
    (episode,) = recorded(station, tmp_path / "run")
    assert episode.length == 12
    assert episode.outcome.outcome is Outcome.TIMEOUT


def test_torques_pass_their_own_filter_and_are_logged_and_replayed(tmp_path: Path) -> None:
    (episode,) = recorded(pusher_station(tmp_path), tmp_path / "run")
    shares = episode.array("tick/commanded_q")
    assert episode.length == 20
    assert np.abs(shares).max() <= 1.0
    assert np.abs(np.diff(shares, axis=0, prepend=0.0)).max() <= 0.5 + 1e-9
    assert (np.abs(shares) > 0.0).any()
    # the state at a tick's start has the actuation of the tick before
    np.testing.assert_array_equal(episode.array("tick/q_rad")[1:], shares[:-1])
    np.testing.assert_allclose(episode.array("tick/commanded") * episode.header.action.scale, shares, atol=1e-6)
    assert np.isfinite(episode.array("tick/task_reward")).all()
    assert verify_run(tmp_path / "run", jobs=1, progress=lambda path: None).mismatches == 0


def test_a_hand_that_leaves_the_workspace_under_torques_ends_the_episode(tmp_path: Path) -> None:
    station = pusher_station(tmp_path, ("safety.workspace_max_m", "[2.0, 2.0, -0.28]"))
    (episode,) = recorded(station, tmp_path / "run")
    assert episode.outcome.outcome is Outcome.ABORT
    assert "WORKSPACE" in (episode.outcome.reason or "")


def test_on_a_wall_clock_it_is_stepped_at_the_loops_rate(tmp_path: Path) -> None:
    (episode,) = recorded(pusher_station(tmp_path), tmp_path / "run", real=True)
    assert episode.outcome.outcome in (Outcome.TIMEOUT, Outcome.ABORT)
    started_s = episode.array("tick/start_s")
    assert np.diff(started_s).min() > 0.0
    assert verify_run(tmp_path / "run", jobs=1, progress=lambda path: None).mismatches == 0


def test_the_expert_pushes_the_block_to_its_goal(tmp_path: Path) -> None:
    station = panda_station(tmp_path, ("arm.options.max_episode_steps", "120"), ("arm.expert", '"push"'))
    for episode in recorded(station, tmp_path / "run", operator="expert", episodes=2):
        assert episode.outcome.outcome is Outcome.SUCCESS
        assert (episode.array("tick/source") == Source.HUMAN).all()


def test_a_simulated_person_takes_over_and_brings_the_block_nearer_than_they_found_it(tmp_path: Path) -> None:
    station = panda_station(tmp_path, ("arm.options.max_episode_steps", "120"), ("arm.expert", '"push"'))
    (episode,) = recorded(station, tmp_path / "run", operator="simulated")
    sight = PushSight(PushStyle())
    rows = [read_inputs(row, episode.header.spec).observation.state for row in each_row(episode)]
    left_m = np.array([sight.distance_m(sight.look(state), state) for state in rows])
    drove = episode.array("tick/source") == Source.HUMAN
    assert 0 < drove.sum() < len(drove)
    after = np.r_[left_m[1:], left_m[-1]]
    assert (after - left_m)[drove].sum() < -0.02


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "needs somebody who knows the task"),
        ([("arm.expert", '"push"'), ("arm.state.readings", "{ goal = 'desired_goal' }")], "has no 'object_position_m'"),
    ],
)
def test_a_simulated_person_needs_a_task_that_they_know(
    tmp_path: Path, overrides: list[tuple[str, str]], said: str
) -> None:
    station = panda_station(tmp_path, *overrides)
    with pytest.raises(BadInputError, match="object_position_m" if overrides else said):
        recorded(station, tmp_path / "run", operator="simulated")


def test_an_evaluation_counts_its_layouts_whatever_the_physics_prints(tmp_path: Path) -> None:
    result = evaluate(panda_station(tmp_path, BRIEF), weights=None, episodes=2, seed=0)
    assert set(result.outcomes) == {0, 1}
    assert result.ticks == 24


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("camera", '[{ kind = "pattern", name = "front", height = 32, width = 32, rate_hz = 20.0 }]', "at most one"),
        ("synchroniser.proprio_time", '"frames"', "synchroniser.proprio_time must be 'tick'"),
        ("arm.action", '{ kind = "torque" }', "arm.action"),
        ("arm.sucess", "1", "did you mean 'success'"),
    ],
)
def test_a_station_that_no_environment_can_be_is_refused(tmp_path: Path, key: str, value: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        panda_station(tmp_path, (key, value))


def test_a_policy_that_wants_a_reading_which_nobody_gives_does_not_fit(tmp_path: Path) -> None:
    station = panda_station(tmp_path, ("arm.state.readings", "{ object_position_m = 'observation[6:9]' }"))
    with pytest.raises(BadInputError, match="needs proprio 'goal_position_m', which is unknown"):
        recorded(station, tmp_path / "run")
