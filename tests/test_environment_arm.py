"""An environment as an arm: the contract of every arm that follows, on a benchmark that none of us wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from robot.arm import Arm
from robot.arm_state import ArmState
from robot.clock import VirtualClock
from robot.command import Command, CommandKind, SafeCommand
from robot.environment.actuation_filter import ActuationFilter
from robot.environment.environment import Environment
from robot.environment.environment_arm import EnvironmentArm
from robot.errors import BadInputError, HardwareError
from robot.safety import SafetyFilter
from tests.contracts import FollowingArmContract
from tests.environment_bench import PANDA, PUSHER, arm_config
from tests.filter_bench import LIMITS

WIDE = LIMITS.model_copy(update={"workspace_min_m": (-2.0, -2.0, -2.0), "workspace_max_m": (2.0, 2.0, 2.0)})


class Steps(Environment):
    """Counts what it is asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.actions: list[Any] = []

    def step(self, action: Any) -> None:
        self.actions.append(action.copy())
        super().step(action)


@pytest.fixture(scope="module")
def panda() -> Iterator[Steps]:
    with Steps(arm_config(PANDA, options={}), "station s", rate_hz=25.0, rendered=False) as environment:
        yield environment


@pytest.fixture(scope="module")
def pusher() -> Iterator[Steps]:
    with Steps(arm_config(PUSHER), "station s", rate_hz=20.0, rendered=False) as environment:
        yield environment


class TestEnvironmentArm(FollowingArmContract):
    period_s = 0.04

    @pytest.fixture(autouse=True)
    def _environment(self, panda: Steps) -> None:
        panda.reset(0)
        self.environment = panda

    def make(self, clock: VirtualClock) -> Arm:
        return EnvironmentArm(self.environment, arm_config(PANDA), clock, period_s=self.period_s)

    def make_filter(self, state: ArmState) -> SafetyFilter:
        return SafetyFilter(WIDE, None, self.period_s, state.T_base_tcp[:3, :3])

    def fail(self, arm: Arm) -> None:
        assert isinstance(arm, EnvironmentArm)
        arm.fail("reflex: contact")


def sent(arm: EnvironmentArm, clock: VirtualClock, delta_m: tuple[float, float, float]) -> SafeCommand:
    """One filtered step of the hand, sent and waited for."""
    safety = SafetyFilter(WIDE, None, 0.04, np.eye(3))
    state = arm.state()
    wanted = Command(
        kind=CommandKind.TCP_DELTA,
        target=np.array([*delta_m, 0.0, 0.0, 0.0]),
        gripper_width_m=0.0,
        due_s=clock.now_s() + 0.04,
    )
    _, command = safety.step(safety.rearm(safety.start(state), state), state, wanted)
    assert isinstance(command, SafeCommand)
    arm.send(command)
    clock.sleep_until(wanted.due_s)
    return command


def test_a_command_is_one_step_and_waiting_is_none(panda: Steps) -> None:
    clock = VirtualClock(10.0)
    with EnvironmentArm(panda, arm_config(PANDA), clock, period_s=0.04) as arm:
        arm.reset(1)
        panda.actions.clear()
        for _ in range(5):
            clock.sleep_until(clock.now_s() + 0.04)
            arm.state()
        assert not panda.actions
        for count in range(1, 4):
            sent(arm, clock, (1e-3, 0.0, 0.0))
            assert arm.state().measured_s == clock.now_s()
            arm.state()
            assert len(panda.actions) == count


def test_the_action_is_the_way_to_the_target_in_the_environments_own_unit(panda: Steps) -> None:
    clock = VirtualClock(10.0)
    with EnvironmentArm(panda, arm_config(PANDA), clock, period_s=0.04) as arm:
        arm.reset(1)
        before = arm.state().T_base_tcp[:3, 3]
        panda.actions.clear()
        command = sent(arm, clock, (1e-3, -5e-4, 0.0))
        arm.state()
        np.testing.assert_allclose(panda.actions[0] * 0.05, command.T_base_tcp[:3, 3] - before, atol=1e-9)


def test_an_episode_that_is_over_is_stepped_no_more_until_it_is_reset(panda: Steps) -> None:
    clock = VirtualClock(10.0)
    with EnvironmentArm(panda, arm_config(PANDA), clock, period_s=0.04) as arm:
        arm.reset(1)
        panda.truncated = True
        panda.actions.clear()
        sent(arm, clock, (1e-3, 0.0, 0.0))
        arm.state()
        arm.hold()
        clock.sleep_until(clock.now_s() + 0.04)
        arm.state()
        assert not panda.actions
        arm.reset(2)
        sent(arm, clock, (1e-3, 0.0, 0.0))
        arm.state()
        assert len(panda.actions) == 1


def test_the_reward_is_that_of_the_step_and_of_no_other(panda: Steps) -> None:
    clock = VirtualClock(10.0)
    with EnvironmentArm(panda, arm_config(PANDA), clock, period_s=0.04) as arm:
        arm.reset(1)
        assert np.isnan(arm.step_reward)
        sent(arm, clock, (1e-3, 0.0, 0.0))
        assert np.isnan(arm.step_reward), "the step is made when it is due"
        arm.state()
        assert arm.step_reward == panda.reward
        arm.hold()
        assert np.isnan(arm.step_reward)


def actuated(arm: EnvironmentArm, clock: VirtualClock, shares: list[float]) -> None:
    gate = ActuationFilter(WIDE, max_change=2.0, watches=False)
    state = arm.state()
    wanted = Command(
        kind=CommandKind.ACTUATION, target=np.array(shares), gripper_width_m=0.0, due_s=clock.now_s() + 0.05
    )
    _, command = gate.step(gate.rearm(gate.start(state), state), state, wanted)
    assert isinstance(command, SafeCommand)
    arm.send(command)
    clock.sleep_until(wanted.due_s)


def test_a_share_of_one_is_the_greatest_actuation_and_a_hold_is_none(pusher: Steps) -> None:
    clock = VirtualClock(10.0)
    with EnvironmentArm(pusher, arm_config(PUSHER), clock, period_s=0.05) as arm:
        arm.reset(1)
        pusher.actions.clear()
        assert arm.joint_count == 7
        actuated(arm, clock, [1.0, -1.0, 0.5, 0.0, 0.0, 0.0, 0.0])
        np.testing.assert_allclose(arm.state().q_rad, [1.0, -1.0, 0.5, 0.0, 0.0, 0.0, 0.0])
        np.testing.assert_allclose(pusher.actions[0], [2.0, -2.0, 1.0, 0.0, 0.0, 0.0, 0.0])
        arm.hold()
        clock.sleep_until(clock.now_s() + 0.05)
        assert not arm.state().q_rad.any()
        assert not pusher.actions[1].any()


def test_an_observation_that_loses_what_the_station_names_is_a_fault_and_no_bad_input(pusher: Steps) -> None:
    clock = VirtualClock(10.0)
    with EnvironmentArm(pusher, arm_config(PUSHER), clock, period_s=0.05) as arm:
        arm.reset(1)
        actuated(arm, clock, [0.1] * 7)
        pusher.pick = Mock(side_effect=BadInputError("its observation has no 'observation'"))  # type: ignore[method-assign]
        try:
            with pytest.raises(HardwareError, match="its observation has no 'observation'"):
                arm.state()
        finally:
            del pusher.pick
        assert "has no" in (arm.state().fault or "")


def test_a_step_that_fails_is_a_fault_that_stays_until_it_is_cleared(pusher: Steps) -> None:
    clock = VirtualClock(10.0)
    with EnvironmentArm(pusher, arm_config(PUSHER), clock, period_s=0.05) as arm:
        arm.reset(1)
        actuated(arm, clock, [np.nextafter(0.1, 1.0)] * 7)
        pusher._made, whole = None, pusher._made  # whatever goes wrong in a stranger's code
        try:
            with pytest.raises(Exception, match="step failed"):
                arm.state()
        finally:
            pusher._made = whole
        assert "step failed" in (arm.state().fault or "")
        arm.clear_fault()
        assert arm.state().fault is None
