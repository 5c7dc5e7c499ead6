"""Whatever targets come, the set-points keep the limits and come to rest; and each failsafe of the servo."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from robot.fr3 import HOME_Q_RAD
from robot.joint_path import MotionLimits, PathPlanner
from robot.joint_stream import Reading, SetPoint
from robot.servo import CATCH_UP_RATIO, CATCH_UP_SHARE, Cause, JointTarget, Servo, ServoLimits, ServoMode
from robot.servo_config import motion_limits
from tests.filter_bench import arm_state
from tests.servo_bench import SERVO

Array = NDArray[np.float64]

LOOP_S = 0.05
STEP_S = 0.004
DELAY_S = 0.5 * LOOP_S
WATCHDOG_S = 0.12
TRACKING_RAD = 0.2
STATE_AGE_S = 0.02
LIMITS: MotionLimits = motion_limits(SERVO)
HOME = np.array(HOME_Q_RAD)
# ruckig works to 1e-8; differences over 4 ms of doubles of some radians add 1e-13 / dt^2 and / dt^3
ROUNDING = 1.0 + 1e-6


def reading(q_rad: Array, measured_s: float, **changes: object) -> Reading:
    """An arm that is where its set-point is."""
    arm = arm_state(q_rad=q_rad, measured_s=measured_s)
    at = Reading(arm=arm, following=True, q_set_rad=tuple(q_rad.tolist()), gripper_set_m=0.04, clears=0)
    return dataclasses.replace(at, **changes)  # type: ignore[arg-type]


class Stand:
    """A servo whose arm follows at once, or stays where `stuck` says; all set-points are kept."""

    def __init__(self, start_s: float = 100.0, step_s: float = STEP_S) -> None:
        self.now_s, self.step_s = start_s, step_s
        limits = ServoLimits(
            loop_period_s=LOOP_S,
            delay_s=DELAY_S,
            watchdog_s=WATCHDOG_S,
            max_state_age_s=STATE_AGE_S,
            max_tracking_rad=TRACKING_RAD,
        )
        self.servo = Servo(PathPlanner(LIMITS), limits, reading(HOME, start_s), start_s)
        self.points: list[SetPoint] = []
        self.stuck: Array | None = None
        self.changes: dict[str, object] = {}
        self.state_age_s = 0.0
        self.step()

    @property
    def q(self) -> Array:
        return np.array(self.points[-1].q_rad) if self.points else HOME

    def step(self) -> None:
        at = self.q if self.stuck is None else self.stuck
        self.points.append(self.servo.step(self.now_s, reading(at, self.now_s - self.state_age_s, **self.changes)))
        self.now_s += self.step_s

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / self.step_s)):
            self.step()

    def target(self, q_rad: Array, due_s: float | None = None, sent_s: float | None = None) -> bool:
        """Send a target, by default one that is sent now for one period later."""
        return self.servo.target(
            JointTarget(
                q_rad=tuple(q_rad.tolist()),
                gripper_width_m=0.03,
                due_s=self.now_s + LOOP_S if due_s is None else due_s,
                sent_s=self.now_s if sent_s is None else sent_s,
            ),
            self.now_s,
        )

    def cruise(self, ticks: int = 12, step_rad: float = 0.02) -> Array:
        """Move joints 1 and 4 on at a steady speed; returns the last target."""
        q = self.q.copy()
        for _ in range(ticks):
            q = q + np.array([step_rad, 0.0, 0.0, step_rad, 0.0, 0.0, 0.0])
            assert self.target(q)
            self.run(0.048)
        return q

    def check(self) -> None:
        """Velocity, acceleration and jerk, differentiated from the positions, are in their limits."""
        self.check_from(0)

    def check_from(self, first: int) -> None:
        """The same for the points from one on, for a stream that began anew where the controller stood."""
        q = np.array([point.q_rad for point in self.points[first:]])
        dq = np.diff(q, axis=0) / self.step_s
        ddq = np.diff(dq, axis=0) / self.step_s
        dddq = np.diff(ddq, axis=0) / self.step_s
        for values, most, slack in (
            (dq, LIMITS.dq_rad_s, 1e-9),
            (ddq, LIMITS.ddq_rad_s2, 1e-6),
            (dddq, LIMITS.dddq_rad_s3, 1e-2),
        ):
            assert (np.abs(values).max(axis=0) <= np.array(most) * ROUNDING + slack).all()

    def reach(self) -> tuple[Array, Array]:
        """Least and greatest position of each joint."""
        q = np.array([point.q_rad for point in self.points])
        return q.min(axis=0), q.max(axis=0)


def braking(speed: float) -> Array:
    return np.array([LIMITS.braking_rad(joint, speed) for joint in range(7)])


JOINT = st.floats(-0.6, 0.6)
RUDE = st.sampled_from([math.nan, math.inf, -math.inf, 1e300, 9.0])
ORDERS = st.lists(
    st.tuples(
        st.lists(st.one_of(JOINT, JOINT, JOINT, RUDE), min_size=7, max_size=7),
        st.floats(-0.2, 0.3),  # due, from now
        st.floats(-0.3, 0.1),  # sent, from now
        st.integers(0, 60),  # steps until the next
        st.sampled_from(["target", "target", "target", "target", "hold", "clear", "stall"]),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(ORDERS)
def test_whatever_comes_the_set_points_keep_all_limits_and_come_to_rest(
    orders: list[tuple[list[float], float, float, int, str]],
) -> None:
    stand = Stand()
    lowest = highest = HOME
    for offsets, due_s, sent_s, steps, what in orders:
        q = HOME + np.array(offsets)
        if what == "hold":
            stand.servo.hold(stand.now_s)
        elif what == "clear":
            stand.servo.clear_fault()
            stand.changes["clears"] = stand.servo.clears
        elif what == "target" and stand.target(q, stand.now_s + due_s, stand.now_s + sent_s):
            assert np.isfinite(q).all()
            lowest, highest = np.minimum(lowest, q), np.maximum(highest, q)
        stand.run(steps * STEP_S)
    stand.run(0.5 + WATCHDOG_S + DELAY_S)
    resting = stand.points[-1]
    stand.run(0.2)
    assert stand.points[-1].q_rad == resting.q_rad
    assert stand.servo.mode is ServoMode.HELD
    stand.check()
    fastest = np.abs(np.diff([point.q_rad for point in stand.points], axis=0)).max(axis=0) / STEP_S
    # braking, or the turn between two targets
    beyond = np.array([LIMITS.braking_rad(joint, speed) + 0.05 * speed for joint, speed in enumerate(fastest)])
    least, greatest = stand.reach()
    assert (least >= lowest - beyond - 1e-9).all()
    assert (greatest <= highest + beyond + 1e-9).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-0.35, 0.35), min_size=7, max_size=7),
    st.floats(0.3, 2.5),
    st.lists(st.floats(-0.02, 0.03), min_size=30, max_size=30),
)
def test_a_smooth_wish_is_followed_without_leaving_the_limits_however_late_its_targets_are(
    amplitudes: list[float], rate_hz: float, late_s: list[float]
) -> None:
    stand = Stand()
    for tick, late in enumerate(late_s):
        due_s = 100.0 + LOOP_S * (tick + 2)
        wish = HOME + np.array(amplitudes) * math.sin(2.0 * math.pi * rate_hz * LOOP_S * tick)
        stand.run(max(0.0, due_s - LOOP_S + late - stand.now_s))
        stand.target(wish, due_s)
    stand.run(0.6)
    stand.check()
    assert stand.servo.mode is ServoMode.HELD


def test_a_target_is_reached_when_its_delay_is_over() -> None:
    stand = Stand()
    start, ticks = stand.q, 20
    wish = [start + 0.1 * math.sin(0.3 * tick) * np.ones(7) for tick in range(ticks)]
    due = [100.05 + LOOP_S * tick for tick in range(ticks)]
    reached = []
    for tick in range(ticks):
        while stand.now_s < due[tick] - LOOP_S:
            stand.step()
        stand.target(wish[tick], due[tick])
    times = np.array([point.time_s for point in stand.points])
    for tick in range(8, ticks - 2):
        at = np.argmin(np.abs(times - due[tick] - DELAY_S))
        reached.append(np.abs(np.array(stand.points[at].q_rad) - wish[tick]).max())
    # a set-point is up to half a step away in time, 0.6 rad/s at most here; the rest is interpolation
    assert max(reached) < 0.6 * 0.5 * STEP_S + 1e-3
    stand.check()


def test_without_a_successor_it_brakes_from_the_targets_time_on_and_never_repeats_the_last_step() -> None:
    stand = Stand()
    last = stand.cruise()
    assert stand.servo.mode is ServoMode.FOLLOWING
    speed = abs(stand.points[-1].dq_rad_s[0])
    stand.run(DELAY_S + 2 * STEP_S)
    assert stand.servo.mode is ServoMode.BRAKING
    assert stand.servo.cause is Cause.LATE
    stand.run(0.3)
    assert stand.servo.mode is ServoMode.HELD
    assert stand.servo.cause is Cause.WATCHDOG
    beyond = abs(stand.q[0] - last[0])
    assert 0.0 < beyond <= braking(speed)[0]
    stand.check()


def test_a_target_that_is_due_late_is_let_go_once_it_is_older_than_the_watchdog_allows() -> None:
    stand = Stand()
    assert stand.target(stand.q + 0.1, due_s=stand.now_s + 0.9)
    stand.run(WATCHDOG_S - STEP_S)
    assert stand.servo.mode is ServoMode.FOLLOWING
    stand.run(2 * STEP_S)
    assert stand.servo.mode is not ServoMode.FOLLOWING
    assert stand.servo.cause is Cause.WATCHDOG
    stand.run(0.3)
    assert stand.servo.mode is ServoMode.HELD
    assert 0.0 < stand.q[0] - HOME[0] < 0.05
    stand.check()


def test_after_the_watchdog_a_new_target_is_followed_from_where_it_stands() -> None:
    stand = Stand()
    stand.cruise()
    stand.run(0.5)
    assert stand.servo.mode is ServoMode.HELD
    stand.cruise(ticks=5)
    assert stand.servo.mode is ServoMode.FOLLOWING
    assert stand.servo.cause is Cause.NONE
    stand.check()


def test_hold_brakes_at_once_and_later_targets_are_followed() -> None:
    stand = Stand()
    stand.cruise(step_rad=0.06)
    at, speed = stand.q[0], abs(stand.points[-1].dq_rad_s[0])
    stand.servo.hold(stand.now_s)
    assert stand.servo.mode is not ServoMode.FOLLOWING
    stand.run(0.4)
    assert stand.servo.mode is ServoMode.HELD
    assert stand.servo.cause is Cause.LOOP
    assert abs(stand.q[0] - at) <= braking(speed)[0] + speed * STEP_S
    stand.cruise(ticks=3)
    assert stand.servo.mode is ServoMode.FOLLOWING
    stand.check()


def test_hold_after_the_loop_has_braked_comes_to_rest_on_its_last_target() -> None:
    # the filter goes on from there; an arm beside it would jump by the difference
    stand = Stand()
    q = stand.cruise(step_rad=0.03)
    for step_rad in (0.02, 0.01, 0.003):
        q = q + np.array([step_rad, 0.0, 0.0, step_rad, 0.0, 0.0, 0.0])
        stand.target(q)
        stand.run(0.048)
    stand.servo.hold(stand.now_s)
    stand.run(0.4)
    assert stand.servo.mode is ServoMode.HELD
    np.testing.assert_allclose(stand.q, q, atol=1e-9)
    stand.check()


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


def test_the_gripper_is_passed_through_and_kept_while_it_holds() -> None:
    stand = Stand()
    assert stand.points[-1].gripper_width_m == 0.04
    stand.cruise(ticks=2)
    assert stand.points[-1].gripper_width_m == 0.03
    stand.run(0.5)
    assert stand.points[-1].gripper_width_m == 0.03


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


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([Cause.CONTROLLER, Cause.TRACKING, Cause.WATCHDOG]),
    st.lists(st.floats(-0.02, 0.02), min_size=7, max_size=7),  # rad per tick: up to 0.2 rad, some 8 cm, in the gap
)
def test_targets_that_went_on_during_a_rest_are_caught_up_with_no_faster_than_the_cap(
    cause: Cause, slope: list[float]
) -> None:
    stand, per_tick = Stand(), np.array(slope)
    per_tick[[1, 3, 5]] = np.abs(per_tick[[1, 3, 5]])  # the other way their ends are near
    due_s, q = stand.now_s + LOOP_S, HOME.copy()

    def ticks(count: int, *, sends: bool = True) -> None:
        nonlocal due_s, q
        for _ in range(count):
            q = q + per_tick
            if sends:
                stand.target(q, due_s)
            while stand.now_s < due_s:
                stand.step()
            due_s += LOOP_S

    ticks(8)
    if cause is Cause.CONTROLLER:
        stand.changes = {"following": False, "q_set_rad": tuple(stand.q.tolist())}
    elif cause is Cause.TRACKING:
        stand.stuck = stand.q + 1.2 * TRACKING_RAD
    ticks(10, sends=cause is not Cause.WATCHDOG)
    assert stand.servo.mode is ServoMode.HELD
    assert stand.servo.cause is cause
    stand.changes, stand.stuck = {}, None
    stand.step()
    resumed = len(stand.points)
    ticks(70)
    fastest = np.abs([point.dq_rad_s for point in stand.points[resumed:]]).max(axis=0)
    cap = np.maximum(CATCH_UP_SHARE * np.array(LIMITS.dq_rad_s), CATCH_UP_RATIO * np.abs(per_tick) / LOOP_S)
    assert (fastest <= cap + 1e-6).all()
    # it has met the stream, and is as exact as ever
    there = q - per_tick * (due_s - LOOP_S + DELAY_S - stand.points[-1].time_s) / LOOP_S
    np.testing.assert_allclose(stand.q, there, atol=1e-3)
    stand.check_from(resumed)


def test_once_it_has_caught_up_the_set_point_may_use_all_of_the_joint_speeds_again() -> None:
    stand = Stand()
    stand.cruise(ticks=3, step_rad=0.01)
    assert stand.target(stand.q + 0.15, stand.now_s + 0.1)
    stand.run(0.09)
    assert stand.points[-1].dq_rad_s[0] > 2.0 * CATCH_UP_SHARE * LIMITS.dq_rad_s[0]
    stand.check()
