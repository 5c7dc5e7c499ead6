"""The servo's process with a Franka over libfranka's own protocol: armed, driven, stopped, and what faults lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from robot import fr3
from robot.arm_state import ArmState
from robot.command import Command, CommandKind, Reason
from robot.errors import HardwareError
from robot.safety import SafetyFilter
from robot.servo import Cause, ServoMode
from tests.filter_bench import LIMITS, PERIOD_S
from tests.franka_bench import FrankaServo, StandIn, franka, franka_servo, stand_in, until

# one at a time: each simulates at 1 kHz
pytestmark = pytest.mark.xdist_group("franka")

HOME_M = (0.45, 0.0, 0.3)


@pytest.fixture(scope="module")
def arm() -> Iterator[StandIn]:
    with stand_in() as arm:
        yield arm


@pytest.fixture
def servo(arm: StandIn, tmp_path: Path) -> Iterator[FrankaServo]:
    with franka_servo(franka(arm.address), tmp_path) as servo:
        servo.ready()
        yield servo


def test_it_stands_until_armed_and_goes_home_through_the_filter_within_all_limits(servo: FrankaServo) -> None:
    before = servo.arm.state()
    np.testing.assert_allclose(before.T_base_tcp, fr3.FR3Kinematics().forward(before.q_rad), atol=1e-4)
    assert before.fault is None
    until(lambda: servo.arm.state().measured_s > before.measured_s + 0.3, "states go on")
    np.testing.assert_allclose(servo.arm.state().q_rad, before.q_rad, atol=2e-3)

    servo.arm_it()
    servo.arm.history()
    servo.go(HOME_M, width_m=0.02)
    until(lambda: servo.arm.state().gripper_width_m < 0.03, "the hand is closed")

    # far outside of the box, and on and on: it stays inside of the box and of the joints' limits
    wish, states = servo.to((1.5, 1.0, -1.0)), servo.arm.history()

    def moved() -> bool:
        servo.drive(20, wish)
        assert not servo.memory.latched, servo.told()
        states.extend(servo.arm.history())
        return float(np.abs(states[-1].T_base_tcp[:3, 3] - HOME_M).max()) > 0.12

    until(moved, "the arm goes as far as it may")
    p = np.array([state.T_base_tcp[:3, 3] for state in states])
    low, high = np.array(LIMITS.workspace_min_m), np.array(LIMITS.workspace_max_m)
    assert (p[-1] > low - 5e-3).all()
    assert (p <= high + 0.02).all()
    assert (p >= low - 0.02).all()
    q = np.array([state.q_rad for state in states])
    assert (q > np.array(fr3.Q_MIN_RAD)).all()
    assert (q < np.array(fr3.Q_MAX_RAD)).all()
    assert (np.diff([state.measured_s for state in states]) > 0.0).all()


def test_a_reflex_in_motion_stops_it_and_only_the_arm_verb_goes_on(arm: StandIn, servo: FrankaServo) -> None:
    servo.arm_it()
    # well above the ground: what the simulator holds there slides on and on
    servo.go(HOME_M)
    wish = servo.to((0.35, 0.15, 0.4))
    until(lambda: bool(servo.drive(5, wish)) and servo.speed() > 0.02, "the arm moves")
    arm.show("reflex")
    until(lambda: servo.arm.state().fault is not None, "the reflex is seen")
    fault = servo.arm.state().fault
    assert fault == (
        f"franka {arm.address} stopped by a reflex (joint_velocity_violation); look at the arm, then arm again"
    )
    until(servo.stands, "the arm stands")
    stood = servo.arm.state().q_rad
    servo.drive(10, servo.to(HOME_M))  # the loop may wish what it likes
    assert servo.arm.state().fault == fault
    np.testing.assert_allclose(servo.arm.state().q_rad, stood, atol=5e-3)
    assert servo.arm.status is not None
    assert servo.arm.status.mode is ServoMode.FAULT

    servo.arm_it()
    assert servo.arm.state().fault is None
    servo.go(HOME_M)


def test_a_pressed_stop_is_not_overruled_by_the_arm_verb_and_forces_reach_the_loop(
    arm: StandIn, servo: FrankaServo
) -> None:
    arm.show("12.5")
    until(lambda: servo.arm.state().force_n == 12.5, "the force is seen")
    wrench = servo.arm.state().wrench
    assert wrench is not None
    # libfranka counts what the arm does to its surroundings
    assert wrench.tolist() == [-12.5, 0.0, 0.0, 0.0, 0.0, -25.0]
    arm.show("0")  # libfranka's word for no estimate, as near a singularity
    until(lambda: servo.arm.state().force_n is None, "there is no force")
    assert servo.arm.state().wrench is None
    arm.show("feel")
    servo.arm_it()
    arm.show("stop")
    until(lambda: servo.arm.state().fault is not None, "the stop is seen")
    assert servo.arm.status is not None
    before = servo.arm.status.clears
    servo.arm.clear_fault()
    until(lambda: servo.arm.status is not None and servo.arm.status.clears > before, "the arm verb was heeded")
    until(lambda: "user-stopped" in (servo.arm.state().fault or ""), "it is still stopped")
    arm.show("idle")
    servo.arm_it()
    assert servo.arm.state().fault is None


def test_pushed_against_the_ground_it_tells_the_wrench_and_the_filter_stops_it(servo: FrankaServo) -> None:
    servo.arm_it()
    servo.go((0.45, 0.0, 0.06))
    limits = LIMITS.model_copy(update={"workspace_min_m": (0.2, -0.3, -0.2), "max_force_n": 20.0})
    state = servo.arm.state()
    assert state.force_n is not None  # the joints' friction
    assert state.force_n < 10.0
    servo.safety = SafetyFilter(limits, fr3.FR3Kinematics(), PERIOD_S, state.T_base_tcp[:3, :3])
    servo.memory = servo.safety.rearm(servo.safety.start(state), state)
    wish, pushed = servo.to((0.45, 0.0, -0.15)), list[ArmState]()

    def stopped() -> bool:
        pushed.extend(servo.drive(5, wish))
        return servo.memory.latched

    until(stopped, "the force stops it")
    assert servo.memory.reasons == Reason.FORCE | Reason.FAULTED
    state = next(state for state in pushed if (state.force_n or 0.0) > 20.0)
    assert state.wrench is not None
    assert state.wrench[2] > 15.0  # the ground pushes it up
    assert state.force_n == pytest.approx(np.linalg.norm(state.wrench[:3]))
    assert abs(state.T_base_tcp[2, 3]) < 0.03  # where the ground is


def test_a_joint_that_is_sent_past_its_end_stops_before_it_and_stays_stopped(servo: FrankaServo) -> None:
    servo.arm_it()

    def turning(step_rad: float) -> Callable[[ArmState], Command]:
        def wish(state: ArmState) -> Command:
            turned = servo.memory.q_rad + step_rad * np.eye(7)[6]
            due_s = state.measured_s + PERIOD_S
            return Command(kind=CommandKind.JOINT_POSITION, target=turned, gripper_width_m=0.078, due_s=due_s)

        return wish

    states = list[ArmState]()

    def stopped() -> bool:
        states.extend(servo.drive(10, turning(0.06)))
        return servo.memory.latched

    until(stopped, "the joint's end is near")
    assert Reason.JOINT_LIMIT in servo.memory.reasons
    until(servo.stands, "the arm stands")
    q_rad = np.array([state.q_rad for state in states])[:, 6]
    end_rad = fr3.Q_MAX_RAD[6] - LIMITS.joint_margin_rad
    assert end_rad - 0.2 < q_rad.max() < end_rad + 0.05  # it went there, and what it overshoots leaves half the margin

    servo.arm_it()  # back is allowed
    until(lambda: servo.drive(5, turning(-0.06))[-1].q_rad[6] < fr3.HOME_Q_RAD[6], "it goes back")
    assert not servo.memory.latched, servo.told()


def test_without_a_wish_it_brakes_and_stands_until_there_is_one_again(servo: FrankaServo) -> None:
    servo.arm_it()
    servo.go(HOME_M)
    wish = servo.to((0.35, 0.15, 0.4))
    until(lambda: bool(servo.drive(5, wish)) and servo.speed() > 0.02, "the arm moves")
    servo.drive(15, lambda state: None)  # what the person's stop leads to
    until(servo.stands, "the arm stands")
    assert not servo.memory.latched, servo.told()
    servo.go(HOME_M)


def test_when_its_controller_dies_in_motion_the_loop_hears_of_it_and_the_servo_says_why(tmp_path: Path) -> None:
    with stand_in() as arm, franka_servo(franka(arm.address), tmp_path) as servo:
        servo.ready()
        servo.arm_it()
        wish = servo.to((0.35, 0.15, 0.4))
        until(lambda: bool(servo.drive(5, wish)) and servo.speed() > 0.02, "the arm moves")
        arm.end()
        until(lambda: servo.arm.status is not None and servo.arm.status.cause is Cause.STATE_OLD, "the servo stops")
        until(lambda: servo.process.poll() is not None, "the servo ends")
        assert servo.process.returncode == 1
        said = servo.said.read_text()
        assert said.startswith(f"servo: franka {arm.address}: connection lost (")
        assert said.endswith("; the arm stops by itself: look at it, then start the run again\n")
        assert said.count("\n") == 1
        with pytest.raises(HardwareError, match=r"servo: arm state is \d+ ms old"):
            servo.arm.state()
