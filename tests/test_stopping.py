import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from robot.command import Reason
from robot.stopping import Vector, braked, length_to_stop_within, limited_change, stop_gain

LENGTHS = st.floats(0.0, 0.1)
CHANGES = st.floats(1e-4, 0.05)
STEPS = st.tuples(*[st.floats(-0.05, 0.05)] * 3)


def never_unsafe(step: Vector) -> Reason:
    return Reason.NONE


@given(STEPS, CHANGES)
def test_stop_gain_is_what_braking_tick_by_tick_covers(step: Vector, change: float) -> None:
    covered, now = 0.0, step
    while any(now):
        covered += math.hypot(*now)
        now = braked(now, change)
    assert covered == pytest.approx(math.hypot(*step) * stop_gain(math.hypot(*step), change), rel=1e-9, abs=1e-12)


@given(LENGTHS, CHANGES)
def test_the_longest_step_to_stop_within_a_distance_stops_exactly_there(distance: float, change: float) -> None:
    length = length_to_stop_within(distance, change)
    assert length * stop_gain(length, change) == pytest.approx(distance, rel=1e-9, abs=1e-12)


@given(STEPS, CHANGES)
def test_braking_never_turns_back_and_ends(step: Vector, change: float) -> None:
    after = braked(step, change)
    assert all(a * b >= 0.0 and abs(b) <= abs(a) for a, b in zip(step, after, strict=True))
    assert math.dist(step, after) <= change * (1.0 + 1e-12)


@given(STEPS, STEPS, CHANGES)
def test_a_free_step_changes_by_no_more_than_allowed_and_goes_where_wanted(
    previous: Vector, wanted: Vector, change: float
) -> None:
    step, reasons = limited_change(previous, wanted, change, never_unsafe)
    assert math.dist(step, previous) <= change * (1.0 + 1e-9)
    assert math.dist(step, wanted) == pytest.approx(max(0.0, math.dist(wanted, previous) - change), abs=1e-9)
    assert (reasons == Reason.ACCELERATION) == (math.dist(wanted, previous) > change)


@given(STEPS, STEPS, CHANGES, st.floats(0.0, 0.05))
def test_an_unsafe_step_gives_way_and_never_faster_than_allowed(
    previous: Vector, wanted: Vector, change: float, wall: float
) -> None:
    def unsafe(step: Vector) -> Reason:
        stop = step[0] * stop_gain(math.hypot(*step), change)
        return Reason.NONE if stop <= wall + 1e-12 else Reason.WORKSPACE

    assume(not unsafe(previous))
    step, reasons = limited_change(previous, wanted, change, unsafe)
    assert math.dist(step, previous) <= change * (1.0 + 1e-9)
    assert not unsafe(step)
    assert bool(reasons) == (step != wanted)
