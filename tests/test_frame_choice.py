import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.frame import FrameStamp
from perception.frame_choice import latest_common, nearest, usable


def stamp(frame_id: int, captured_s: float) -> FrameStamp:
    return FrameStamp(frame_id=frame_id, captured_s=captured_s, arrived_s=captured_s + 0.01)


@st.composite
def rows_of_stamps(draw: st.DrawFn) -> list[list[FrameStamp]]:
    """Up to five frames of up to four cameras, on a grid of half milliseconds so that ties happen."""
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        steps = draw(st.lists(st.integers(1, 120), min_size=1, max_size=5))
        times = np.cumsum([draw(st.integers(0, 60)), *steps])[1:]
        rows.append([stamp(place, 5e-4 * int(time)) for place, time in enumerate(times)])
    return rows


def oldest_s(chosen: tuple[FrameStamp, ...]) -> float:
    return min(frame.captured_s for frame in chosen)


def skew_s(chosen: tuple[FrameStamp, ...]) -> float:
    return max(frame.captured_s for frame in chosen) - oldest_s(chosen)


@given(
    rows_of_stamps(),
    st.sampled_from([0.0, 0.01, 0.07, 0.5, 3.0]),
    st.sampled_from([0.0, 0.02, 0.1, math.inf]),
    st.sampled_from([0.05, 0.15, math.inf]),
    st.sampled_from([0.0, 0.01, 0.05, math.inf]),
)
def test_the_choice_is_the_best_of_all_combinations_within_the_limits(
    rows: list[list[FrameStamp]], age_weight: float, extra_s: float, age_s: float, most_skew_s: float
) -> None:
    now_s = 0.33
    sets = list(itertools.product(*rows))
    newest_s = max(oldest_s(chosen) for chosen in sets)
    costs = {
        chosen: skew_s(chosen) + age_weight * (now_s - oldest_s(chosen))
        for chosen in sets
        if oldest_s(chosen) >= newest_s - extra_s
        and now_s - oldest_s(chosen) <= age_s
        and skew_s(chosen) <= most_skew_s
    }
    chosen = latest_common(
        rows, now_s, age_weight=age_weight, max_extra_age_s=extra_s, max_age_s=age_s, max_skew_s=most_skew_s
    )
    if chosen is None:
        assert not costs
        return
    assert costs[chosen] == pytest.approx(min(costs.values()), abs=1e-12)


def test_of_equally_skewed_sets_the_newest_is_taken_even_if_age_costs_nothing() -> None:
    for offset_s in (0.0, 0.03125):
        rows = [[stamp(place, 0.125 * place + shift_s) for place in range(3)] for shift_s in (0.0, offset_s)]
        for weight in (0.0, 0.07):
            chosen = latest_common(rows, 1.0, age_weight=weight)
            assert chosen is not None
            assert [frame.frame_id for frame in chosen] == [2, 2]


def test_without_limits_there_is_always_a_set() -> None:
    rows = [[stamp(1, 0.0)], [stamp(7, 50.0)]]
    assert latest_common(rows, 60.0, age_weight=0.07) == (rows[0][0], rows[1][0])
    assert latest_common(rows, 60.0, age_weight=0.07, max_skew_s=49.0) is None
    assert latest_common(rows, 60.0, age_weight=0.07, max_age_s=59.0) is None


def test_nearest_takes_what_is_nearest_to_the_camera_furthest_behind() -> None:
    rows = [
        [stamp(1, 9.90), stamp(2, 9.95), stamp(3, 10.0)],
        [stamp(7, 9.93), stamp(8, 9.96)],
        [stamp(4, 9.955), stamp(5, 9.965), stamp(6, 9.99)],
    ]
    assert [chosen.frame_id for chosen in nearest(rows)] == [2, 8, 5]


@given(rows_of_stamps(), st.floats(0.0, 0.35), st.integers(0, 5))
def test_usable_frames_are_neither_future_nor_older_than_the_last(
    rows: list[list[FrameStamp]], now_s: float, used_id: int
) -> None:
    for row in rows:
        used = row[used_id] if used_id < len(row) else None
        kept = usable(row, used, now_s)
        assert all(frame.captured_s <= now_s + 1e-6 for frame in kept)
        assert all(used is None or frame.frame_id >= used.frame_id for frame in kept)
        expected = [f for f in row if f.captured_s <= now_s + 1e-6 and (used is None or f.frame_id >= used.frame_id)]
        assert kept == expected


def test_frames_out_of_order_are_left_out() -> None:
    row = [stamp(4, 1.0), stamp(6, 1.1), stamp(5, 1.2), stamp(6, 1.1), stamp(7, 1.05), stamp(8, 1.3)]
    assert [kept.frame_id for kept in usable(row, None, 2.0)] == [4, 6, 8]
