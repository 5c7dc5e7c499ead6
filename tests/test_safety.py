import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.arm_state import ArmState
from robot.command import Command, CommandKind, Reason, SafeCommand
from robot.geometry import matrix_to_rotvec, pose, rotvec_to_matrix
from robot.safety import FilterState, SafetyFilter
from tests.filter_bench import (
    HOME_Q,
    KINEMATICS,
    LIMITS,
    PERIOD_S,
    T_HOME,
    Bench,
    arm_state,
    command,
    delta,
    tilt_rad,
)

STEP_M = LIMITS.max_speed_m_s * PERIOD_S

# numbers of the right size, far too large, and not numbers at all
NUMBERS = st.one_of(
    st.floats(-0.05, 0.05),
    st.floats(-2.0, 2.0),
    st.sampled_from([0.0, 1e9, -1e300, 1.7e308, math.nan, math.inf, -math.inf]),
)
TARGETS = st.one_of(
    st.lists(st.floats(-0.03, 0.03), min_size=6, max_size=6),
    st.lists(st.floats(-0.2, 0.2), min_size=7, max_size=7),
    st.lists(NUMBERS, min_size=0, max_size=8),
).map(np.array)
COMMANDS = st.one_of(
    st.none(),
    st.builds(command, TARGETS, st.sampled_from(CommandKind), st.one_of(st.just(0.04), NUMBERS)),
)


@st.composite
def arm_states(draw: st.DrawFn) -> ArmState | None:
    """The arm as it may be measured: following, somewhere else, or nonsense."""
    match draw(st.sampled_from(["follows"] * 6 + ["elsewhere", "nonsense", "shape"])):
        case "elsewhere":
            offset = np.array(draw(st.lists(st.floats(-0.3, 0.3), min_size=6, max_size=6)))
            return arm_state(pose(rotvec_to_matrix(offset[3:]) @ T_HOME[:3, :3], T_HOME[:3, 3] + offset[:3]))
        case "nonsense":
            return arm_state(np.where(T_HOME == 0.0, draw(NUMBERS), T_HOME))
        case "shape":
            return arm_state(np.zeros((3, 4)))
    return None


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(COMMANDS, arm_states(), st.integers(1, 8)), max_size=12), st.booleans())
def test_no_limit_is_ever_broken_whatever_is_commanded_and_measured(
    ticks: list[tuple[Command | None, ArmState | None, int]], armed_again: bool
) -> None:
    bench = Bench()
    for wanted, measured, times in ticks:
        for _ in range(times):
            bench.step(wanted, measured)
        if armed_again and bench.state.latched:
            bench.state = bench.filter.rearm(bench.state, bench.arm)
    bench.settle()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(COMMANDS, arm_states(), st.integers(1, 8)), max_size=10))
def test_no_cartesian_limit_is_ever_broken_without_kinematics(
    ticks: list[tuple[Command | None, ArmState | None, int]],
) -> None:
    bench = Bench(kinematics=None)
    for wanted, measured, times in ticks:
        for _ in range(times):
            bench.step(wanted, measured)
    assert bench.state.q_rad.size == 0
    bench.settle()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.floats(-0.05, 0.05), min_size=6, max_size=6),
    st.lists(st.tuples(st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6), st.integers(1, 15)), max_size=6),
)
def test_walls_hold_for_driving_into_corners(start: list[float], drives: list[tuple[list[float], int]]) -> None:
    T = pose(rotvec_to_matrix(4.0 * np.array(start[3:])) @ T_HOME[:3, :3], T_HOME[:3, 3] + np.array(start[:3]))
    q_rad = KINEMATICS.solve(T, HOME_Q)
    assert q_rad is not None
    bench = Bench(at=arm_state(T, q_rad))
    for twist, times in drives:
        for _ in range(times):
            bench.step(command(np.array(twist) * [0.02, 0.02, 0.02, 0.08, 0.08, 0.08]))


@settings(max_examples=40, deadline=None)
@given(COMMANDS, arm_states(), st.floats(-0.01, 0.01), st.floats(-0.05, 0.05))
def test_same_input_gives_the_same_bits_also_from_a_state_read_back(
    wanted: Command | None, measured: ArmState | None, x: float, yaw: float
) -> None:
    bench = Bench()
    for _ in range(3):
        bench.step(delta(x=x, yaw=yaw))
    again = FilterState.from_json(bench.state.to_json())
    other = SafetyFilter(LIMITS, KINEMATICS, PERIOD_S, T_HOME[:3, :3])
    first, first_output = bench.filter.step(bench.state, measured or bench.arm, wanted)
    second, second_output = other.step(again, measured or bench.arm, wanted)
    assert first.to_json() == second.to_json()
    assert type(first_output) is type(second_output)
    assert first_output.reasons == second_output.reasons


def test_deltas_add_to_the_last_commanded_pose_not_to_the_measured_one() -> None:
    bench = Bench()
    lagging = bench.arm
    for _ in range(5):
        assert bench.step(delta(x=0.002), lagging) is Reason.NONE
    assert bench.state.T_base_tcp[0, 3] == pytest.approx(T_HOME[0, 3] + 0.01, abs=1e-12)


def test_a_delta_within_all_limits_passes_unchanged() -> None:
    bench = Bench()
    assert bench.step(delta(x=0.001, y=-0.001, yaw=0.01)) is Reason.NONE
    moved = bench.state.T_base_tcp[:3, 3] - T_HOME[:3, 3]
    np.testing.assert_allclose(moved, [0.001, -0.001, 0.0], atol=1e-15)
    turned = matrix_to_rotvec(bench.state.T_base_tcp[:3, :3] @ T_HOME[:3, :3].T)
    np.testing.assert_allclose(turned, [0.0, 0.0, 0.01], atol=1e-12)


def test_translation_and_acceleration_are_clamped_and_said() -> None:
    bench = Bench()
    reasons = bench.step(delta(y=0.1))
    assert Reason.TRANSLATION_STEP in reasons
    assert Reason.ACCELERATION in reasons
    assert bench.state.T_base_tcp[1, 3] == pytest.approx(LIMITS.max_acceleration_m_s2 * PERIOD_S**2)
    for _ in range(6):
        before = bench.state.T_base_tcp[1, 3]
        reasons = bench.step(delta(y=0.1))
    assert reasons == Reason.TRANSLATION_STEP
    assert bench.state.T_base_tcp[1, 3] - before == pytest.approx(STEP_M)


def test_rotation_is_clamped_and_said() -> None:
    bench = Bench()
    for _ in range(10):
        reasons = bench.step(delta(yaw=-1.0))
    assert reasons == Reason.ROTATION_STEP
    assert bench.state.velocity[5] == pytest.approx(-LIMITS.max_rotation_speed_rad_s)


def test_arm_reaches_the_wall_stops_there_and_still_slides_along_it() -> None:
    bench = Bench()
    for _ in range(80):
        reasons = bench.step(delta(y=STEP_M))
    assert reasons == Reason.WORKSPACE
    assert bench.state.T_base_tcp[1, 3] == pytest.approx(LIMITS.workspace_max_m[1], abs=1e-4)
    before = bench.state.T_base_tcp[2, 3]
    for _ in range(10):
        reasons = bench.step(delta(y=STEP_M, z=-0.005))
    assert before - bench.state.T_base_tcp[2, 3] > 0.03
    assert bench.state.T_base_tcp[1, 3] <= LIMITS.workspace_max_m[1]


def test_person_who_arms_outside_the_box_may_only_go_inwards() -> None:
    limits = LIMITS.model_copy(update={"workspace_max_m": (0.6, 0.3, 0.4)})
    bench = Bench(limits)  # home is 0.487 m high
    for _ in range(5):
        assert Reason.WORKSPACE in bench.step(delta(z=0.01))
    assert bench.state.T_base_tcp[2, 3] == pytest.approx(T_HOME[2, 3], abs=1e-6)
    for _ in range(30):
        bench.step(delta(z=-0.01))
    assert bench.state.T_base_tcp[2, 3] < 0.4
    for _ in range(40):
        bench.step(delta(z=0.01))
    assert bench.state.T_base_tcp[2, 3] <= 0.4


def test_tilt_stops_at_its_limit_and_yaw_stays_free() -> None:
    bench = Bench()
    for _ in range(40):
        reasons = bench.step(delta(roll=0.05))
    assert Reason.TILT in reasons
    assert tilt_rad(bench.state.T_base_tcp) == pytest.approx(LIMITS.max_tilt_rad, abs=2e-3)
    R_before = bench.state.T_base_tcp[:3, :3]
    for _ in range(10):
        bench.step(delta(roll=0.05, yaw=0.03))
    assert np.linalg.norm(matrix_to_rotvec(bench.state.T_base_tcp[:3, :3] @ R_before.T)) > 0.1


def test_blocked_arm_does_not_wind_up() -> None:
    bench = Bench()
    blocked = bench.arm
    for _ in range(40):
        reasons = bench.step(delta(x=0.005, yaw=0.05), blocked)
    assert Reason.TRACKING in reasons
    away_m = np.linalg.norm(bench.state.T_base_tcp[:3, 3] - T_HOME[:3, 3])
    away_rad = np.linalg.norm(matrix_to_rotvec(bench.state.T_base_tcp[:3, :3] @ T_HOME[:3, :3].T))
    assert LIMITS.max_tracking_m - 2e-3 < away_m <= LIMITS.max_tracking_m + 1e-9
    assert LIMITS.max_tracking_rad - 2e-2 < away_rad <= LIMITS.max_tracking_rad + 1e-9
    for _ in range(10):
        bench.step(delta(x=-0.005, yaw=-0.05), blocked)
    assert np.linalg.norm(bench.state.T_base_tcp[:3, 3] - T_HOME[:3, 3]) < away_m - 0.03


def test_pose_target_is_reached_without_overshoot() -> None:
    bench = Bench()
    goal = T_HOME[:3, 3] + [0.08, 0.15, -0.2]
    target = command(
        np.concatenate([goal, matrix_to_rotvec(rotvec_to_matrix(np.array([0, 0, 0.6])) @ T_HOME[:3, :3])]),
        CommandKind.TCP_POSE,
    )
    away_m = []
    for _ in range(60):
        bench.step(target)
        away_m.append(float(np.linalg.norm(bench.state.T_base_tcp[:3, 3] - goal)))
    assert away_m == sorted(away_m, reverse=True)
    assert away_m[-1] < 1e-9
    assert isinstance(bench.output, SafeCommand)


def test_joint_position_is_reached_in_the_joints_too() -> None:
    bench = Bench()
    goal = HOME_Q + np.array([0.3, 0.1, -0.2, 0.15, 0.2, -0.1, 0.3])
    for _ in range(80):
        bench.step(command(goal, CommandKind.JOINT_POSITION))
    np.testing.assert_allclose(bench.state.q_rad, goal, atol=1e-4)


def test_joint_delta_passes_unchanged_within_all_limits() -> None:
    bench = Bench()
    step = np.array([0.002, 0.0, -0.002, 0.001, 0.0, 0.0, 0.002])
    assert bench.step(command(step, CommandKind.JOINT_DELTA)) is Reason.NONE
    np.testing.assert_allclose(bench.state.q_rad, HOME_Q + step, atol=1e-6)


def test_joint_speed_share_slows_the_step_down() -> None:
    bench = Bench(LIMITS.model_copy(update={"max_joint_speed_share": 0.05}))
    share = 0.05 * KINEMATICS.joint_limits.dq_max_rad_s * PERIOD_S
    seen = Reason.NONE
    for _ in range(20):
        before = bench.state.q_rad
        seen |= bench.step(delta(x=0.01, yaw=0.05))
        assert (np.abs(bench.state.q_rad - before) <= share + 1e-12).all()
    assert Reason.JOINT_SPEED in seen


def test_joint_margin_rejects_and_the_third_rejection_in_a_row_latches() -> None:
    bench = Bench(LIMITS.model_copy(update={"max_tilt_rad": math.pi, "max_tracking_rad": 1.5}))
    for _ in range(400):
        reasons = bench.step(delta(yaw=0.07))  # joint 7 runs into its limit
        if bench.state.latched:
            break
    assert Reason.JOINT_LIMIT in reasons
    assert bench.state.rejections == 3
    margin_rad = KINEMATICS.joint_limits.q_max_rad - LIMITS.joint_margin_rad - np.abs(bench.state.q_rad)
    assert margin_rad[6] >= 0.0


def test_joints_armed_inside_the_margin_may_only_leave_it() -> None:
    q_rad = HOME_Q.copy()
    q_rad[6] = KINEMATICS.joint_limits.q_max_rad[6] - 0.5 * LIMITS.joint_margin_rad
    limits = LIMITS.model_copy(update={"max_tracking_rad": 1.5})
    bench = Bench(limits, at=arm_state(KINEMATICS.forward(q_rad), q_rad))
    assert Reason.JOINT_LIMIT in bench.step(delta(yaw=-0.02))
    for _ in range(10):
        assert bench.step(delta(yaw=0.01)) is Reason.NONE
    assert bench.state.q_rad[6] < q_rad[6] - 0.05


def test_gripper_is_clamped_and_said() -> None:
    bench = Bench()
    assert bench.step(command(np.zeros(6), width_m=0.2)) == Reason.GRIPPER
    assert bench.state.gripper_width_m == LIMITS.gripper_max_m


def test_joint_commands_without_kinematics_are_rejected() -> None:
    bench = Bench(kinematics=None)
    assert bench.step(command(np.zeros(0), CommandKind.JOINT_DELTA)) == Reason.NO_SOLUTION


def test_still_target_keeps_still_joints() -> None:
    bench = Bench()
    for _ in range(5):
        bench.step(delta(x=0.004, y=0.003, z=-0.004))
    bench.settle()
    q_rad = bench.state.q_rad
    for _ in range(20):
        bench.step(delta())
    np.testing.assert_array_equal(bench.state.q_rad, q_rad)


def test_state_cannot_be_written_through() -> None:
    bench = Bench()
    bench.step(delta(x=0.001))
    assert isinstance(bench.output, SafeCommand)
    for array in (bench.output.T_base_tcp, bench.output.q_rad, bench.state.velocity):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_nobody_else_makes_a_safe_command() -> None:
    with pytest.raises(TypeError, match="send a Command through it"):
        SafeCommand(T_base_tcp=T_HOME, q_rad=HOME_Q, gripper_width_m=0.0, due_s=0.0, reasons=Reason.NONE)


def test_an_arm_that_stands_at_its_furthest_reach_comes_away_from_it() -> None:
    """Near a singularity the joints of a shortened step are not shorter in proportion."""
    limits = LIMITS.model_copy(update={"workspace_max_m": (0.7, 0.32, 0.6), "max_speed_m_s": 0.5})
    q_rad = np.array([0.3134, 0.6239, -0.0080, -0.8504, 0.0047, 1.4743, 2.2862])
    T = KINEMATICS.forward(q_rad)
    safety = SafetyFilter(limits, KINEMATICS, PERIOD_S, T[:3, :3])
    state = safety.rearm(safety.start(arm_state(T=T, q_rad=q_rad)), arm_state(T=T, q_rad=q_rad))
    for tick in range(40):
        measured = arm_state(T=KINEMATICS.forward(state.q_rad), q_rad=state.q_rad)
        before = state
        state, decided = safety.step(state, measured, command(np.array([-0.02, -0.02, -0.02, 0.0, 0.0, 0.0])))
        assert isinstance(decided, SafeCommand), tick
        speed_share = np.abs(state.q_rad - before.q_rad) / (KINEMATICS.joint_limits.dq_max_rad_s * PERIOD_S)
        assert speed_share.max() <= limits.max_joint_speed_share + 1e-9
    assert np.linalg.norm(state.T_base_tcp[:3, 3] - T[:3, 3]) > 0.2
