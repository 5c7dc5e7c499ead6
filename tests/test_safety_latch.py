"""When the safety filter latches, brakes and holds, and from what it starts."""

import dataclasses
import math

import numpy as np
import pytest

from robot.command import Command, CommandKind, Hold, Reason, SafeCommand
from robot.errors import HardwareError
from robot.fr3 import FR3Kinematics
from robot.geometry import pose
from robot.safety import SafetyFilter
from tests.filter_bench import (
    LIMITS,
    PERIOD_S,
    T_HOME,
    Bench,
    arm_state,
    command,
    delta,
)


def test_a_start_is_latched_and_moves_nothing_until_armed() -> None:
    bench = Bench()
    state = bench.filter.start(bench.arm)
    assert state.latched
    state, output = bench.filter.step(state, bench.arm, delta(x=0.005))
    assert isinstance(output, Hold)
    assert output.latched
    state = bench.filter.rearm(state, bench.arm)
    _, output = bench.filter.step(state, bench.arm, delta(x=0.001))
    assert isinstance(output, SafeCommand)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (command(np.full(6, math.nan)), Reason.NOT_FINITE),
        (command(np.array([0.0, 0.0, 1e300, 0.0, 0.0, 0.0])), Reason.NOT_FINITE),
        (command(np.zeros(6), width_m=math.nan), Reason.NOT_FINITE),
        (dataclasses.replace(delta(), due_s=math.inf), Reason.NOT_FINITE),
        (command(np.zeros(7)), Reason.WRONG_SHAPE),
        (command(np.zeros((6, 1))), Reason.WRONG_SHAPE),
        (command(np.array(["0"] * 6)), Reason.WRONG_SHAPE),
        (command([0.0] * 6), Reason.WRONG_SHAPE),
        (command(np.zeros(6), CommandKind.JOINT_DELTA), Reason.WRONG_SHAPE),
    ],
)
def test_three_bad_commands_in_a_row_latch_and_two_do_not(bad: Command, reason: Reason) -> None:
    bench = Bench()
    for _ in range(2):
        assert bench.step(bad) == reason
    assert bench.step(delta()) is Reason.NONE
    assert bench.state.rejections == 0
    for _ in range(2):
        bench.step(bad)
    bench.step(None)  # no command is neither good nor bad
    assert not bench.state.latched
    assert bench.step(bad) == reason | Reason.FAULTED
    for _ in range(5):
        assert Reason.FAULTED in bench.step(delta(x=0.001))
        assert isinstance(bench.output, Hold)
        assert bench.output.latched
    bench.state = bench.filter.rearm(bench.state, bench.arm)
    assert bench.step(delta(x=0.001)) is Reason.NONE


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ({"force_n": 30.1}, Reason.FORCE),
        ({"force_n": math.nan}, Reason.FORCE),
        ({"fault": "reflex"}, Reason.ARM_FAULT),
    ],
)
def test_force_or_fault_stops_within_the_acceleration_and_latches(trouble: dict[str, object], reason: Reason) -> None:
    bench = Bench()
    for _ in range(6):
        bench.step(delta(x=0.01))
    assert bench.step(delta(x=0.01), dataclasses.replace(bench.arm, **trouble)) == reason | Reason.FAULTED
    assert isinstance(bench.output, SafeCommand)  # braking, not freezing
    for _ in range(10):
        reasons = bench.step(delta(x=0.01))
    assert reasons == reason | Reason.FAULTED
    assert isinstance(bench.output, Hold)
    still = bench.filter.rearm(bench.state, dataclasses.replace(bench.arm, **trouble))
    assert still.latched
    bench.state = bench.filter.rearm(bench.state, bench.arm)
    assert bench.step(delta(x=0.002)) is Reason.NONE


def test_arming_in_motion_changes_nothing() -> None:
    bench = Bench()
    lagging = bench.arm
    for _ in range(5):
        bench.step(delta(x=0.01))
    assert bench.filter.rearm(bench.state, lagging) is bench.state
    bench.step(None, dataclasses.replace(bench.arm, fault="reflex"))
    assert isinstance(bench.output, SafeCommand)
    assert bench.filter.rearm(bench.state, lagging) is bench.state  # still braking


def test_no_command_slows_down_at_full_braking_and_then_holds() -> None:
    bench = Bench()
    for _ in range(10):
        bench.step(delta(y=0.015))
    ticks = math.ceil(LIMITS.max_speed_m_s / (LIMITS.max_acceleration_m_s2 * PERIOD_S))
    assert bench.settle() == ticks
    assert bench.output == Hold(reasons=Reason.NONE, latched=False)


def test_braking_targets_stay_due_one_period_apart() -> None:
    bench = Bench()
    for _ in range(5):
        bench.step(delta(y=0.01))
    dues_s = [bench.state.due_s]
    for _ in range(3):
        bench.step(None)
        assert isinstance(bench.output, SafeCommand)
        dues_s.append(bench.output.due_s)
    np.testing.assert_allclose(np.diff(dues_s), PERIOD_S)


def test_filter_refuses_to_start_from_a_wrong_tool_or_an_unusable_state() -> None:
    bench = Bench()
    other_tool = T_HOME @ pose(np.eye(3), np.array([0.0, 0.0, 0.05]))
    with pytest.raises(HardwareError, match=r"50\.0 mm and 0\.0 degrees .* set the same tool"):
        bench.filter.start(arm_state(other_tool))
    nowhere = FR3Kinematics(T_flange_tcp=pose(np.eye(3), np.array([0.0, math.nan, 0.1])))
    with pytest.raises(HardwareError, match=r"nan mm .* set the same tool"):
        SafetyFilter(LIMITS, nowhere, PERIOD_S, T_HOME[:3, :3]).start(arm_state())
    with pytest.raises(HardwareError, match="not finite"):
        bench.filter.start(arm_state(np.full((4, 4), math.nan)))
    with pytest.raises(HardwareError, match="7 finite joints"):
        bench.filter.start(arm_state(q_rad=np.zeros(6)))
