"""What a servo does not follow, and what stops it: old states, faults, blocked arms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from robot.joint_path import PathPlanner
from robot.joint_stream import Reading
from robot.servo import Cause, JointTarget, Servo, ServoLimits, ServoMode
from tests.servo_bench import SERVO
from tests.servo_stand import (
    HOME,
    LIMITS,
    STATE_AGE_S,
    STEP_S,
    TRACKING_RAD,
    WATCHDOG_S,
    Array,
    Stand,
    braking,
    reading,
)


def test_an_arm_state_that_is_too_old_stops_it_until_the_fault_is_cleared() -> None:
    stand = Stand()
    q = stand.cruise()
    stand.state_age_s = STATE_AGE_S - 1e-4
    stand.step()
    assert stand.servo.mode is ServoMode.FOLLOWING
    stand.state_age_s = STATE_AGE_S + 1e-3
    stand.step()
    assert stand.servo.mode is ServoMode.FAULT
    assert stand.servo.fault == (
        "servo: arm state is 21 ms old (limit 20 ms); look at the arm's controller and its link, then arm again"
    )
    stand.state_age_s = 0.0
    stand.run(0.4)
    assert stand.servo.at_rest
    assert not stand.target(q)
    assert stand.servo.mode is ServoMode.FAULT
    stand.servo.clear_fault()
    stand.step()
    assert stand.servo.mode is ServoMode.HELD
    assert stand.target(q)
    stand.check()


def test_an_arm_that_does_not_follow_keeps_its_own_gripper_width_and_is_not_given_an_older_one_later() -> None:
    stand = Stand()
    stand.cruise()
    assert stand.points[-1].gripper_width_m == 0.03
    stand.changes = {"following": False, "gripper_set_m": 0.05}  # it stopped by itself; somebody opened its hand
    stand.step()
    stand.servo.clear_fault()
    stand.changes = {"clears": 1, "gripper_set_m": 0.05}
    stand.run(0.1)
    assert stand.points[-1].gripper_width_m == 0.05


def test_a_fault_whose_reason_is_still_there_is_there_again_at_once() -> None:
    stand = Stand()
    stand.state_age_s = 1.0
    stand.step()
    stand.servo.clear_fault()
    stand.step()
    assert stand.servo.mode is ServoMode.FAULT


def test_the_arms_own_fault_stops_it_until_the_arm_has_heeded_the_clearing() -> None:
    stand = Stand()
    q = stand.cruise()

    def faulted(clears: int) -> Reading:
        at = reading(stand.q, stand.now_s, clears=clears)
        return dataclasses.replace(at, arm=dataclasses.replace(at.arm, fault="reflex"))

    stand.servo.step(stand.now_s, faulted(0))
    assert stand.servo.fault == "reflex"
    assert not stand.target(q)
    stand.servo.clear_fault()
    point = stand.servo.step(stand.now_s, faulted(0))
    assert point.clears == 1
    assert stand.servo.mode is not ServoMode.FAULT  # the arm has not seen the clearing yet
    stand.servo.step(stand.now_s, faulted(1))
    assert stand.servo.fault == "reflex"


def test_a_blocked_arm_is_pushed_no_farther_than_the_bound_and_the_braking() -> None:
    stand = Stand()
    stand.cruise(ticks=4)
    stand.stuck = stand.q.copy()
    q, speed = stand.q.copy(), 0.0
    for _ in range(40):
        q = q + np.array([0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        stand.target(q)
        stand.run(0.048)
        speed = max(speed, abs(stand.points[-1].dq_rad_s[0]))
    assert stand.servo.mode is ServoMode.HELD
    assert stand.servo.cause is Cause.TRACKING
    off = stand.q[0] - stand.stuck[0]
    assert TRACKING_RAD < off <= TRACKING_RAD + braking(speed)[0] + speed * STEP_S
    # the way is free again: the arm comes up, and the next target is followed from there
    stand.stuck = None
    stand.step()
    assert stand.target(stand.q - 0.01)
    stand.run(0.04)
    assert stand.servo.mode is ServoMode.FOLLOWING
    stand.check()


def test_an_arm_at_twice_the_bound_is_stopped_and_its_set_point_taken_back() -> None:
    stand = Stand()
    stand.cruise()
    stand.stuck = stand.q + 2.0 * TRACKING_RAD + 0.05
    stand.step()
    assert stand.servo.mode is ServoMode.FAULT
    assert stand.servo.fault is not None
    assert stand.servo.fault.startswith("servo: a joint is 0.45")
    stand.run(5.0)
    # whoever frees the arm meets no spring that is bent by more than half the bound
    np.testing.assert_allclose(np.abs(stand.q - stand.stuck), 0.5 * TRACKING_RAD, atol=1e-6)
    assert stand.servo.mode is ServoMode.FAULT
    assert not stand.target(stand.q)
    stand.check()


def test_an_arm_that_measures_no_number_is_stopped() -> None:
    for joint in range(7):
        stand = Stand()
        stand.cruise(ticks=3)
        stand.stuck = stand.q.copy()
        stand.stuck[joint] = math.nan
        stand.step()
        assert stand.servo.mode is ServoMode.FAULT
        assert stand.servo.cause is Cause.TRACKING
        stand.run(0.4)
        assert stand.servo.at_rest
        stand.check()


def test_where_the_controller_does_not_follow_the_stream_begins_at_its_own_set_point() -> None:
    stand = Stand()
    stand.cruise()
    stands = stand.q + 0.03
    off = {"following": False, "q_set_rad": tuple(stands.tolist())}
    stand.changes = dict(off)
    stand.step()
    assert stand.servo.cause is Cause.CONTROLLER
    np.testing.assert_array_equal(stand.q, stands)
    assert not any(stand.points[-1].dq_rad_s)
    assert not stand.target(stands + 0.01)
    stand.changes = {}
    stand.step()
    assert stand.target(stands + 0.01)


@pytest.mark.parametrize(
    ("q_rad", "due_in_s", "age_s"),
    [
        (HOME * math.nan, 0.05, 0.0),
        (HOME + 9.0, 0.05, 0.0),
        (HOME[:6], 0.05, 0.0),
        (HOME, math.nan, 0.0),
        (HOME, 5.0, 0.0),
        (HOME, 0.05, WATCHDOG_S + 1e-3),
    ],
)
def test_unusable_targets_are_refused_and_counted(q_rad: Array, due_in_s: float, age_s: float) -> None:
    stand = Stand()
    assert not stand.target(q_rad, stand.now_s + due_in_s, stand.now_s - age_s)
    assert stand.servo.refused == 1
    stand.run(0.2)
    np.testing.assert_array_equal(stand.q, HOME)


@pytest.mark.parametrize("rate_hz", [20.0, 100.0])
@pytest.mark.parametrize(
    ("late_s", "taken"), [(0.0, True), (0.005, True), (0.015, True), (0.3, False), (3600.0, False)]
)
def test_a_target_of_a_tick_that_began_long_ago_is_refused_however_lately_it_was_sent(
    rate_hz: float, late_s: float, taken: bool
) -> None:
    period_s, now_s = 1.0 / rate_hz, 5000.0
    limits = ServoLimits(
        loop_period_s=period_s,
        delay_s=SERVO.delay_for_s(period_s),
        watchdog_s=SERVO.watchdog_for_s(period_s),
        max_state_age_s=STATE_AGE_S,
        max_tracking_rad=TRACKING_RAD,
    )
    servo = Servo(PathPlanner(LIMITS), limits, reading(HOME, now_s), now_s)
    servo.step(now_s, reading(HOME, now_s))
    target = JointTarget(
        q_rad=tuple((HOME + 0.01).tolist()), gripper_width_m=0.03, due_s=now_s - late_s + period_s, sent_s=now_s
    )
    assert servo.target(target, now_s) is taken
    assert servo.refused == (not taken)


def test_targets_out_of_order_are_refused() -> None:
    stand = Stand()
    now_s = stand.now_s
    assert stand.target(HOME + 0.01, now_s + 0.05)
    assert not stand.target(HOME + 0.02, now_s + 0.05)
    assert not stand.target(HOME - 0.02, now_s + 0.04)
    assert stand.target(HOME + 0.02, now_s + 0.10)


def test_a_servo_that_stood_still_goes_on_inside_the_limits_of_real_time() -> None:
    # differences over the gap count by the time that really passed
    stand = Stand()
    stand.cruise(step_rad=0.04)
    before = stand.points[-1]
    stand.now_s += 0.3
    stand.step()
    after = stand.points[-1]
    passed_s = after.time_s - before.time_s
    moved = np.abs(np.array(after.q_rad) - np.array(before.q_rad))
    assert (moved <= np.array(LIMITS.dq_rad_s) * passed_s).all()
    assert stand.servo.mode is not ServoMode.FOLLOWING
    stand.run(0.2)
    assert stand.servo.mode is ServoMode.HELD
