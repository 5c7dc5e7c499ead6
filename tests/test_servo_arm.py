"""The loop's arm behind the servo, on a bench that has both in one process on a virtual clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robot.arm import Arm
from robot.arm_state import ArmState
from robot.clock import VirtualClock
from robot.command import Command, CommandKind, SafeCommand
from robot.errors import HardwareError
from robot.fr3 import FR3Kinematics
from robot.joint_path import MotionLimits
from robot.joint_stream import SetPoint
from robot.safety import SafetyFilter
from robot.servo import Cause, ServoMode
from robot.servo_arm import ServoArm
from robot.servo_config import motion_limits
from robot.servo_record import ServoRecord, ServoStep
from robot.simulation.world_record import WorldOrder
from tests.contracts import FollowingArmContract
from tests.filter_bench import LIMITS
from tests.servo_bench import PERIOD_S, SERVO, Bench, BenchArm, Rings


class TestServoArm(FollowingArmContract):
    def make(self, clock: VirtualClock) -> Arm:
        bench = Bench(clock)
        clock.sleep_until(clock.now_s() + 0.02)  # until the controller follows
        return BenchArm(bench)

    def make_filter(self, state: ArmState) -> SafetyFilter:
        return SafetyFilter(LIMITS, FR3Kinematics(), self.period_s, state.T_base_tcp[:3, :3])

    def fail(self, arm: Arm) -> None:
        assert isinstance(arm, BenchArm)
        arm.bench.rings.world_orders.put(WorldOrder.FAIL, b"reflex: contact")
        clock = arm.bench.clock
        clock.sleep_until(clock.now_s() + 0.01)


def following(start_s: float = 100.0) -> BenchArm:
    """An arm whose controller follows the servo."""
    clock = VirtualClock(start_s)
    arm = BenchArm(Bench(clock))
    clock.sleep_until(start_s + 0.02)
    arm.state()
    return arm


def drive(arm: BenchArm, ticks: int, step_m: float = 0.006) -> None:
    """Go down at a steady speed; at the end the newest target has been under way for a whole period."""
    clock, state = arm.bench.clock, arm.state()
    safety = SafetyFilter(LIMITS, FR3Kinematics(), PERIOD_S, state.T_base_tcp[:3, :3])
    memory = safety.rearm(safety.start(state), state)
    for _ in range(ticks):
        due_s = clock.now_s() + PERIOD_S
        target = np.array([0.0, 0.0, -step_m, 0.0, 0.0, 0.0])
        wanted = Command(kind=CommandKind.TCP_DELTA, target=target, gripper_width_m=0.08, due_s=due_s)
        memory, command = safety.step(memory, arm.state(), wanted)
        assert isinstance(command, SafeCommand)
        arm.send(command)
        clock.sleep_until(due_s)
        arm.state()


def steps(arm: BenchArm) -> list[ServoStep]:
    """All that the servo published."""
    ring, layout = arm.bench.rings.servo, ServoRecord(7)
    record, found = bytearray(layout.size), []
    for number in range(ring.count):
        assert ring.read(number, record)
        found.append(layout.unpack(record))
    return found


def test_set_points_through_the_whole_chain_keep_the_stations_limits() -> None:
    arm, limits = following(), motion_limits(SERVO)
    drive(arm, 20)
    arm.hold()
    arm.bench.clock.sleep_until(arm.bench.clock.now_s() + 0.5)
    arm.state()
    found = steps(arm)
    assert {step.status.mode for step in found} >= {ServoMode.FOLLOWING, ServoMode.HELD}
    q = np.array([step.q_rad for step in found])
    assert np.abs(q[-1] - q[0]).max() > 0.1
    for order, most in enumerate((limits.dq_rad_s, limits.ddq_rad_s2, limits.dddq_rad_s3), 1):
        q = np.diff(q, axis=0) * SERVO.rate_hz
        assert (np.abs(q).max(axis=0) <= np.array(most) + 10.0 ** (3 * order - 11)).all()


def test_a_silent_loop_is_answered_by_braking_from_the_last_target_on_and_told_in_the_status() -> None:
    arm = following()
    drive(arm, 12)
    clock = arm.bench.clock
    clock.sleep_until(clock.now_s() + 1.0)
    state, status = arm.state(), arm.status
    assert status is not None
    assert (status.mode, status.cause) == (ServoMode.HELD, Cause.WATCHDOG)
    assert status.target_age_s == pytest.approx(1.05, abs=0.01)
    assert np.abs(state.dq_rad_s).max() < 1e-3  # the simulated arm's servos are slow to settle


def test_history_gives_every_state_once_in_the_order_of_time() -> None:
    arm = following()
    arm.history()
    drive(arm, 3)
    first = [state.measured_s for state in arm.history()]
    drive(arm, 2)
    second = [state.measured_s for state in arm.history()]
    assert arm.history() == []
    times = np.array(first + second)
    assert (np.diff(times) > 0.0).all()
    assert times[-1] - times[0] == pytest.approx(0.25, abs=0.012)


def test_history_gives_no_state_twice_where_the_arm_tells_it_less_often_than_the_servo_steps() -> None:
    arm = following()
    bench, ring = arm.bench, arm.bench.rings.servo

    def pass_by(seconds: float) -> list[ArmState]:
        bench.clock.sleep_until(bench.clock.now_s() + seconds)
        bench.catch_up()
        return arm.history()

    before, steps, bench.hardware_runs = pass_by(0.02), ring.count, False
    assert before
    assert pass_by(0.02) == []
    assert ring.count > steps + 3  # the servo has stepped on, with the state that was given
    bench.hardware_runs = True
    assert pass_by(0.02)[0].measured_s > before[-1].measured_s


def test_a_state_that_is_too_old_is_an_error() -> None:
    arm = following()
    arm.bench.hardware_runs = False
    clock = arm.bench.clock
    clock.sleep_until(clock.now_s() + 0.09)
    assert arm.state().fault is not None  # the servo has stopped long before
    clock.sleep_until(clock.now_s() + 0.03)
    with pytest.raises(HardwareError) as refused:
        arm.state()
    assert str(refused.value) == (
        "servo: arm state is 120 ms old (allowed 100 ms); "
        "the servo's process or the arm is gone: look at the arm, then start the run again"
    )


def test_an_arm_whose_servo_never_was_has_no_state() -> None:
    rings = Rings()
    arm = ServoArm(rings.servo, rings.servo_orders, VirtualClock(1.0), age_s=0.1)
    assert arm.status is None
    assert arm.history() == []
    with pytest.raises(HardwareError, match="servo: no arm state yet; wait until its process is ready"):
        arm.state()


def test_orders_that_nobody_takes_are_an_error_in_the_end_and_leaving_is_none() -> None:
    rings = Rings()
    arm = ServoArm(rings.servo, rings.servo_orders, VirtualClock(1.0), age_s=0.1)

    def hold_on() -> None:
        for _ in range(100_000):
            arm.hold()

    with arm, pytest.raises(HardwareError, match="servo: it takes no orders; its process is gone or hangs"):
        hold_on()


def test_after_clearing_the_old_fault_is_not_shown_and_one_that_stays_is_shown_again() -> None:
    arm = following()
    bench, clock = arm.bench, arm.bench.clock
    bench.hardware_runs = False
    clock.sleep_until(clock.now_s() + 0.05)
    assert arm.state().fault is not None
    arm.clear_fault()
    assert arm.state().fault is None
    clock.sleep_until(clock.now_s() + 0.01)
    assert arm.state().fault is not None  # the arm is still gone


def test_a_servo_that_never_answers_a_clearing_cannot_hide_its_fault_for_long() -> None:
    arm = following()
    bench, clock = arm.bench, arm.bench.clock
    bench.hardware_runs = False
    clock.sleep_until(clock.now_s() + 0.05)
    faulted = arm.state()
    bench.servo_runs = False
    arm.clear_fault()
    newest = steps(arm)[-1]
    point = SetPoint(
        time_s=newest.status.time_s,
        q_rad=newest.q_rad,
        dq_rad_s=newest.dq_rad_s,
        ddq_rad_s2=newest.ddq_rad_s2,
        gripper_width_m=0.08,
        clears=0,
    )
    for passed_s, hidden in ((0.15, True), (0.21, False)):
        clock.sleep_until(faulted.measured_s + 0.05 + passed_s)
        # a servo that goes on publishing and does not heed the clearing
        state = replace(newest.arm, measured_s=clock.now_s())
        bench.rings.servo.write(ServoRecord(7).pack(state, newest.status, point))
        assert (arm.state().fault is None) is hidden


def failed() -> BenchArm:
    """An arm with a fault of its own, which the loop has seen."""
    arm = following()
    arm.bench.rings.world_orders.put(WorldOrder.FAIL, b"reflex: contact")
    arm.bench.clock.sleep_until(arm.bench.clock.now_s() + 0.02)
    assert arm.state().fault is not None
    return arm


def test_a_clearing_that_lay_about_while_the_servo_stood_still_clears_nothing() -> None:
    arm = failed()
    bench, clock = arm.bench, arm.bench.clock
    bench.servo_runs = False
    arm.clear_fault()
    clock.sleep_until(clock.now_s() + 0.25)
    bench.catch_up()
    bench.servo_runs = True
    clock.sleep_until(clock.now_s() + 0.1)
    assert arm.state().fault is not None
    assert {step.status.clears for step in steps(arm)} == {0}
    arm.clear_fault()  # one that is heeded in time does
    clock.sleep_until(clock.now_s() + 0.1)
    assert arm.state().fault is None


def test_a_clearing_counts_as_done_only_once_the_arm_shows_its_fault_no_more() -> None:
    arm = failed()
    arm.clear_fault()
    for _ in range(20):
        arm.bench.clock.sleep_until(arm.bench.clock.now_s() + 0.004)
        assert arm.state().fault is None
    found = steps(arm)
    assert found[-1].status.clears == 1
    assert all(step.arm.fault is None for step in found if step.status.clears == 1)


def test_the_limits_of_the_station_are_shares_of_the_arms_own() -> None:
    limits: MotionLimits = motion_limits(SERVO)
    assert limits.dq_rad_s[0] == pytest.approx(0.8 * 2.62)
    assert limits.ddq_rad_s2[0] == pytest.approx(8.0)
    assert limits.dddq_rad_s3[0] == pytest.approx(4000.0)
