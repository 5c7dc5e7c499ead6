"""Whatever targets come, the set-points keep the limits, reach what was wanted, and come to rest."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.servo import CATCH_UP_RATIO, CATCH_UP_SHARE, Cause, ServoMode
from tests.servo_stand import (
    DELAY_S,
    HOME,
    LIMITS,
    LOOP_S,
    STEP_S,
    TRACKING_RAD,
    WATCHDOG_S,
    Stand,
    braking,
)

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


def test_the_gripper_is_passed_through_and_kept_while_it_holds() -> None:
    stand = Stand()
    assert stand.points[-1].gripper_width_m == 0.04
    stand.cruise(ticks=2)
    assert stand.points[-1].gripper_width_m == 0.03
    stand.run(0.5)
    assert stand.points[-1].gripper_width_m == 0.03


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
