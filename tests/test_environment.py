"""What is wrong with a station that names an environment is one line, and says what to do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest
from pydantic import ValidationError

from robot.environment.environment import Environment
from robot.errors import BadInputError, HardwareError
from tests.environment_bench import PANDA, PUSHER, arm_config


def environment(base: Mapping[str, Any] = PUSHER, *, rate_hz: float = 20.0, **changes: Any) -> Environment:
    return Environment(arm_config(base, **changes), "station s", rate_hz=rate_hz, rendered=False)


def refused(base: Mapping[str, Any] = PUSHER, *, rate_hz: float = 20.0, **changes: Any) -> str:
    with pytest.raises(BadInputError) as caught, environment(base, rate_hz=rate_hz, **changes):
        pass
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("station s: environment ")
    return line


def test_an_unknown_environment_is_refused() -> None:
    assert "is not known" in refused(environment="Pushher-v5")
    assert "correct arm.environment" in refused(environment="NoSuchThing-v0")


def test_a_package_that_is_not_there_is_named() -> None:
    assert "package 'no_such_package' cannot be imported" in refused(package="no_such_package")


def test_without_gymnasium_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    assert "run pip install gymnasium" in refused()


def test_options_that_the_environment_does_not_take_are_refused() -> None:
    line = refused(options={"colour": "red"})
    assert "cannot be made" in line
    assert "look at arm.options" in line


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"tcp_position_m": "achieved_goal"}, "has no 'achieved_goal' (allowed ['observation'])"),
        ({"tcp_position_m": "observation[14:18]"}, "'observation[14:18]' has 4 numbers, 3 are needed"),
        ({"tcp_position_m": "observation[21:24]"}, "'observation[21:24]' is not within the 23 numbers"),
        ({"readings": {"goal": "goal"}}, "has no 'goal'"),
        ({"gripper_width_m": "observation[0:2]"}, "arm.state.gripper_width_m 'observation[0:2]' has 2 numbers, 1"),
    ],
)
def test_a_place_that_the_observation_does_not_have_is_refused(state: dict[str, Any], said: str) -> None:
    assert said in refused(state=state)


def test_as_many_dimensions_as_the_action_has_numbers() -> None:
    line = refused(action={"kind": "tcp_delta", "dims": ["x", "y"], "scale": [0.05, 0.05]})
    assert "its actions have 7 numbers, arm.action.dims names 2" in line


def test_actions_to_choose_from_are_refused() -> None:
    assert "allowed is a Box" in refused(environment="CartPole-v1", options={}, state={}, rate_hz=50.0)


def test_another_rate_than_the_environments_is_refused() -> None:
    line = refused(rate_hz=25.0)
    assert "steps 20 times a second by its own word, loop.rate_hz is 25; set loop.rate_hz to 20" in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"action": {"kind": "tcp_delta", "dims": ["x"], "scale": [1.0]}, "state": {}}, "tcp_position_m is missing"),
        ({"action": {"kind": "tcp_delta", "dims": ["gripper"], "scale": [1.0]}}, "gripper_width_m is missing"),
        ({"action": {"kind": "tcp_delta", "dims": ["x", "x"], "scale": [1.0, 1.0]}}, "each dimension once"),
        ({"action": {"kind": "tcp_delta", "dims": ["x"], "scale": [1.0, 1.0]}}, "with one scale"),
        ({"state": {"tcp_quat_xyzw": [1.0, 1.0, 0.0, 0.0]}}, "is no rotation"),
        ({"state": {"tcp_position_m": "observation[0:3"}}, "String should match pattern"),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("[", r"\[")):
        arm_config(PUSHER, **changes)


def test_the_same_seed_begins_the_same_episode() -> None:
    with environment() as made:
        made.reset(5)
        first = made.pick("observation")
        made.step(np.zeros(7))
        made.reset(6)
        assert not np.array_equal(made.pick("observation"), first)
        made.reset(5)
        np.testing.assert_array_equal(made.pick("observation"), first)


def test_a_time_limit_truncates_and_does_not_terminate() -> None:
    with environment(options={"max_episode_steps": 3}) as made:
        for step in range(3):
            assert not made.done
            made.step(np.zeros(7))
            assert np.isfinite(made.reward), step
        assert made.truncated
        assert not made.terminated
        made.reset(1)
        assert not made.done


class Breaks(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Raises on its second step."""

    def step(self, action: Any) -> Any:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 2:
            raise RuntimeError("physics blew up\nat length")
        return super().step(action)


def test_an_environment_that_raises_is_a_hardware_error_until_it_is_reset() -> None:
    with environment() as made:
        made._made = Breaks(made._made)
        made.step(np.zeros(7))
        with pytest.raises(HardwareError, match=r"step failed \(physics blew up\); reset it"):
            made.step(np.zeros(7))
        assert made.done
        made.reset(0)
        assert not made.done


class Odd(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Answers a step with something else than Gymnasium's interface says."""

    def __init__(self, env: Any, place: int, answer: Any) -> None:
        super().__init__(env)
        self.place, self.answer = place, answer

    def step(self, action: Any) -> Any:
        answers = list(super().step(action))
        answers[self.place] = self.answer
        return tuple(answers)


@pytest.mark.parametrize(
    ("place", "answer"),
    [(0, [[1.0], [1.0, 2.0]]), (1, np.array([1.0, 2.0])), (1, None), (2, np.array([True, False])), (4, None)],
)
def test_an_answer_that_is_none_of_gymnasiums_is_a_hardware_error(place: int, answer: Any) -> None:
    with environment() as made:
        made._made = Odd(made._made, place, answer)
        with pytest.raises(HardwareError, match=r"step failed \(.+\); reset it"):
            made.step(np.zeros(7))
        assert made.done


def test_a_key_of_a_dictionary_is_found_by_its_name() -> None:
    with environment(PANDA, rate_hz=25.0) as made:
        made.reset(3)
        assert made.pick("observation[6:9]").shape == (3,)
        np.testing.assert_array_equal(made.pick("observation[6:9]"), made.pick("achieved_goal"))
        assert made.pick("desired_goal[2]").shape == (1,)
