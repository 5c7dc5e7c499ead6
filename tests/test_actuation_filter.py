"""What can be promised of torques: their range, their change in a tick, and no actuation where nobody may act."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.arm_state import ArmState
from robot.command import Command, CommandKind, Hold, Reason, SafeCommand
from robot.environment.actuation_filter import ActuationFilter
from robot.errors import HardwareError
from tests.filter_bench import LIMITS

MAX_CHANGE = 0.3
COUNT = 3
INSIDE = tuple((low + high) / 2.0 for low, high in zip(LIMITS.workspace_min_m, LIMITS.workspace_max_m, strict=True))


def gate(*, watches: bool = True) -> ActuationFilter:
    return ActuationFilter(LIMITS, max_change=MAX_CHANGE, watches=watches)


def state(p: tuple[float, ...] = INSIDE, *, fault: str | None = None, q: float = 0.0) -> ArmState:
    T = np.eye(4)
    T[:3, 3] = p
    return ArmState(
        measured_s=1.0, q_rad=np.full(COUNT, q), dq_rad_s=np.zeros(COUNT), T_base_tcp=T, tcp_velocity=np.zeros(6),
        gripper_width_m=0.0, fault=fault,
    )  # fmt: skip


def command(*shares: float, kind: CommandKind = CommandKind.ACTUATION) -> Command:
    return Command(kind=kind, target=np.array(shares), gripper_width_m=0.0, due_s=1.05)


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@given(st.lists(st.tuples(*[numbers] * COUNT), min_size=1, max_size=12))
def test_whatever_is_wanted_every_number_is_in_range_and_changes_by_no_more_than_it_may(
    wanted: list[tuple[float, ...]],
) -> None:
    safety = gate()
    memory = safety.rearm(safety.start(state()), state())
    before = np.zeros(COUNT)
    for shares in wanted:
        memory, output = safety.step(memory, state(), command(*shares))
        after = output.q_rad if isinstance(output, SafeCommand) else np.zeros(COUNT)
        assert np.isfinite(after).all()
        assert (np.abs(after) <= 1.0).all()
        if isinstance(output, SafeCommand):
            assert (np.abs(after - before) <= MAX_CHANGE + 1e-12).all()
        before = after


def test_what_is_within_both_bounds_passes_to_the_bit() -> None:
    safety = gate()
    memory = safety.rearm(safety.start(state()), state())
    _, output = safety.step(memory, state(), command(0.1, -0.3, 0.3))
    assert isinstance(output, SafeCommand)
    np.testing.assert_array_equal(output.q_rad, [0.1, -0.3, 0.3])
    assert output.reasons == Reason.NONE


def test_a_clamped_number_says_so() -> None:
    safety = gate()
    memory = safety.rearm(safety.start(state()), state())
    _, output = safety.step(memory, state(), command(0.9, 0.0, 0.0))
    assert isinstance(output, SafeCommand)
    np.testing.assert_allclose(output.q_rad, [MAX_CHANGE, 0.0, 0.0])
    assert output.reasons == Reason.ACTUATION


def test_nothing_passes_before_the_person_arms_nor_without_a_wish() -> None:
    safety = gate()
    started = safety.start(state())
    memory, output = safety.step(started, state(), command(0.1, 0.0, 0.0))
    assert isinstance(output, Hold)
    assert output.latched
    armed = safety.rearm(memory, state())
    _, output = safety.step(armed, state(), None)
    assert isinstance(output, Hold)
    assert not output.latched


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (command(0.0, 0.0), Reason.WRONG_SHAPE),
        (command(0.0, 0.0, 0.0, kind=CommandKind.JOINT_POSITION), Reason.WRONG_SHAPE),
        (command(math.nan, 0.0, 0.0), Reason.NOT_FINITE),
    ],
)
def test_three_wrong_commands_in_a_row_latch(wrong: Command, reason: Reason) -> None:
    safety = gate()
    memory = safety.rearm(safety.start(state()), state())
    for count in range(1, 4):
        memory, output = safety.step(memory, state(), wrong)
        assert isinstance(output, Hold)
        assert reason in output.reasons
        assert output.latched == (count == 3)


def test_a_hand_that_left_the_workspace_latches_and_arming_does_not_help_before_it_is_back() -> None:
    safety = gate()
    outside = state((INSIDE[0], INSIDE[1], LIMITS.workspace_max_m[2] + 0.01))
    memory = safety.rearm(safety.start(state()), state())
    memory, output = safety.step(memory, outside, command(0.1, 0.0, 0.0))
    assert isinstance(output, Hold)
    assert output.latched
    assert Reason.WORKSPACE in output.reasons
    assert safety.rearm(memory, outside).latched
    assert not safety.rearm(memory, state()).latched


def test_where_nobody_knows_the_hand_no_workspace_is_watched() -> None:
    safety = gate(watches=False)
    memory = safety.rearm(safety.start(state()), state())
    _, output = safety.step(memory, state((9.0, 9.0, 9.0)), command(0.1, 0.0, 0.0))
    assert isinstance(output, SafeCommand)


def test_a_fault_latches() -> None:
    safety = gate()
    memory = safety.rearm(safety.start(state()), state())
    memory, output = safety.step(memory, state(fault="reflex"), command(0.1, 0.0, 0.0))
    assert isinstance(output, Hold)
    assert Reason.ARM_FAULT in output.reasons
    assert memory.latched


def test_the_same_input_gives_the_same_bits() -> None:
    safety = gate()
    memory = safety.rearm(safety.start(state()), state())
    first, second = (safety.step(memory, state(), command(0.11, 0.22, -0.9)) for _ in range(2))
    assert first[0].to_json() == second[0].to_json()


def test_an_actuation_that_is_not_finite_is_no_start() -> None:
    with pytest.raises(HardwareError, match="not finite"):
        gate().start(state(q=math.nan))
