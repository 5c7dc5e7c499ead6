from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.device_clock import ArrivalClock, Captured, DeviceClock, Refusal, Refused

LATENCY_S = 0.01
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Frames with what only a simulation knows: capture on the host's clock, stamp on the device's, arrival."""

    taken_s: Array
    device_s: Array
    arrived_s: Array

    def __iter__(self) -> Iterator[tuple[float, float, float]]:
        return iter(zip(self.taken_s.tolist(), self.device_s.tolist(), self.arrived_s.tolist(), strict=True))


def frames(
    seed: int,
    *,
    drift: float = 0.0,
    delay_s: float = 0.003,
    spikes: float = 0.1,
    drops: float = 0.0,
    rate_hz: float = 30.0,
    seconds: float = 40.0,
    silence: tuple[float, float] = (0.0, 0.0),
    begin_s: float = 1000.0,
) -> Truth:
    """Exponential delays, a share of `spikes` with tens of milliseconds more, drops, and a silence (when, how long)."""
    rng = np.random.default_rng(seed)
    count = int(rate_hz * seconds)
    taken_s = begin_s + np.arange(count) / rate_hz
    taken_s[taken_s > begin_s + silence[0]] += silence[1]
    late_s = rng.exponential(delay_s, count) + np.where(rng.random(count) < spikes, rng.exponential(0.04, count), 0.0)
    arrived_s = np.maximum.accumulate(taken_s + LATENCY_S + late_s)
    kept = rng.random(count) >= drops
    device_s = 77.0 + (taken_s - begin_s) * (1.0 + drift)
    return Truth(taken_s=taken_s[kept], device_s=device_s[kept], arrived_s=arrived_s[kept])


def mapped(clock: DeviceClock, truth: Truth) -> tuple[Array, Array, Array]:
    """Error of each accepted frame, its stated uncertainty and its capture time."""
    found = []
    for taken_s, device_s, arrived_s in truth:
        result = clock.captured(device_s, arrived_s)
        assert isinstance(result, Captured), result
        assert result.captured_s <= arrived_s
        found.append((result.captured_s - taken_s, result.uncertainty_s, result.captured_s))
    errors, uncertainties, captured = np.array(found).T
    return errors, uncertainties, captured


def settled(seed: int = 0, **how: float) -> tuple[DeviceClock, Truth]:
    """A clock with 20 s of frames behind it, and them; none came so late that it would overlap with what follows."""
    clock, truth = DeviceClock(latency_s=LATENCY_S), frames(seed, seconds=20.0, spikes=0.0, **how)  # type: ignore[arg-type]
    mapped(clock, truth)
    return clock, truth


@settings(max_examples=40, deadline=None, derandomize=True)  # of random delays some are worse than any bound
@given(
    seed=st.integers(0, 10_000),
    drift=st.floats(-4.5e-4, 4.5e-4),
    drops=st.floats(0.0, 0.3),
    rate_hz=st.sampled_from([10.0, 15.0, 30.0, 60.0]),
    delay_s=st.floats(0.0, 0.006),
)
def test_capture_times_are_true_within_what_is_said_and_never_go_back(
    seed: int, drift: float, drops: float, rate_hz: float, delay_s: float
) -> None:
    truth = frames(seed, drift=drift, drops=drops, rate_hz=rate_hz, delay_s=delay_s)
    errors, uncertainties, captured = mapped(DeviceClock(latency_s=LATENCY_S), truth)
    assert (np.diff(captured) > 0.0).all()
    # how late the very first frame was cannot be known, nor those that came together with it; one in a hundred first
    # frames here is later than five times the guess
    later = truth.arrived_s > truth.arrived_s[0]
    assert (np.abs(errors) <= 5.0 * uncertainties)[later].all()
    assert np.mean(np.abs(errors) <= uncertainties) > 0.9
    late = captured > captured[0] + 20.0
    assert np.abs(errors[late]).max() < 0.005


@pytest.mark.parametrize("drift", [5e-4, -5e-4, 3e-5])
def test_spikes_of_a_loaded_machine_hardly_move_the_map(drift: float) -> None:
    errors, _, captured = mapped(DeviceClock(latency_s=LATENCY_S), frames(1, drift=drift, spikes=0.3, drops=0.3))
    late = np.abs(errors[captured > captured[0] + 10.0])
    assert np.median(late) < 2e-4
    assert late.max() < 1e-3


def test_uncertainty_is_large_at_first_and_shrinks() -> None:
    _, uncertainties, _ = mapped(DeviceClock(latency_s=LATENCY_S), frames(2))
    assert uncertainties[0] > 0.01
    assert uncertainties[30] < uncertainties[0] / 3.0
    assert uncertainties[-1] < 0.002


def test_a_first_frame_that_came_late_does_not_stay_the_measure() -> None:
    truth = frames(3, spikes=0.0)
    truth.arrived_s[0] += 0.03
    errors, uncertainties, _ = mapped(DeviceClock(latency_s=LATENCY_S), truth)
    assert errors[0] > 0.02
    assert np.abs(errors[0]) < 3.0 * uncertainties[0]
    assert np.abs(errors[100:]).max() < 0.002


@pytest.mark.parametrize("silent_s", [10.0, 600.0, 3600.0])
def test_a_long_silence_widens_the_uncertainty_and_the_frames_after_it_are_taken(silent_s: float) -> None:
    truth = frames(4, drift=2e-4, silence=(20.0, silent_s))
    errors, uncertainties, _ = mapped(DeviceClock(latency_s=LATENCY_S), truth)
    after = truth.taken_s > 1020.1
    assert (np.abs(errors) <= 5.0 * uncertainties)[after].all()
    clock, before = settled(4, drift=2e-4)
    last = before.device_s[-1]
    results = [clock.captured(last + gap_s, before.arrived_s[-1] + gap_s) for gap_s in (1.0, 1.0 + silent_s)]
    widths = [result.uncertainty_s for result in results if isinstance(result, Captured)]
    assert len(widths) == 2
    assert widths[1] > widths[0]


@pytest.mark.parametrize(
    ("device_s", "late_s", "reason"),
    [
        (0.0, 0.0, Refusal.BACKWARD),  # the same stamp again
        (-0.5, 0.0, Refusal.BACKWARD),
        (-1e9, 0.0, Refusal.BACKWARD),
        (0.2, 0.0, Refusal.FUTURE),
        (1e9, 0.0, Refusal.FUTURE),
        (0.03, 2.0, Refusal.OUTLIER),
        (0.03, -1.0, Refusal.BACKWARD),  # it arrived before the last one did
        (float("nan"), 0.0, Refusal.NOT_FINITE),
        (float("inf"), 0.0, Refusal.NOT_FINITE),
        (0.03, float("nan"), Refusal.NOT_FINITE),
    ],
)
def test_a_wild_stamp_is_refused_and_changes_nothing(device_s: float, late_s: float, reason: Refusal) -> None:
    more = frames(6, begin_s=1020.0, seconds=10.0)
    expected = []
    for wild in (False, True):
        clock, truth = settled(5)
        last_device_s, last_arrived_s = float(truth.device_s[-1]), float(truth.arrived_s[-1])
        if wild:
            result = clock.captured(last_device_s + device_s, last_arrived_s + 0.03 + late_s)
            assert result == Refused(reason=reason)
        expected.append([clock.captured(stamp + 20.0, arrived) for _, stamp, arrived in more])
    assert expected[0] == expected[1]
    assert all(isinstance(result, Captured) for result in expected[0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(allow_nan=True), st.integers(0, 599)), max_size=40))
def test_scattered_wild_stamps_never_stop_or_bend_the_map(wild: list[tuple[float, int]]) -> None:
    truth, clock = frames(7, seconds=20.0), DeviceClock(latency_s=LATENCY_S)
    planted: dict[int, float] = {place: value for value, place in wild if not 50.0 < value < 120.0}
    for place, (taken_s, device_s, arrived_s) in enumerate(truth):
        if place in planted and place > 0:
            assert isinstance(clock.captured(planted[place], arrived_s), Refused)
        result = clock.captured(device_s, arrived_s)
        assert isinstance(result, Captured)
        if place > 300:
            assert abs(result.captured_s - taken_s) < 0.001


@pytest.mark.parametrize("jump_s", [-70.0, -3.0, -0.7, 0.3, 5.0, 1e6])
def test_a_clock_that_was_set_anew_is_refused_for_a_while_and_then_taken_up_again(jump_s: float) -> None:
    clock, _ = settled(8)
    more = frames(9, begin_s=1020.0, seconds=20.0)
    since_s, errors = None, []
    last_s = 0.0
    for taken_s, device_s, arrived_s in more:
        result = clock.captured(device_s + 20.0 + jump_s, arrived_s)
        if isinstance(result, Captured):
            since_s = taken_s if since_s is None else since_s
            assert last_s < result.captured_s <= arrived_s
            assert abs(result.captured_s - taken_s) < 5.0 * result.uncertainty_s
            last_s = result.captured_s
            errors.append(abs(result.captured_s - taken_s))
        else:
            assert since_s is None
    assert since_s is not None
    assert 1020.9 <= since_s < 1021.3
    assert max(errors[300:]) < 0.001


def test_a_clock_that_shows_a_new_line_for_less_than_the_stated_time_is_not_followed() -> None:
    clock, _ = settled(10)
    for place, (taken_s, device_s, arrived_s) in enumerate(frames(11, begin_s=1020.0, seconds=10.0)):
        away = 30 <= place < 55  # 0.8 s
        result = clock.captured(device_s + 20.0 + (3.0 if away else 0.0), arrived_s)
        assert isinstance(result, Refused) == away
        if isinstance(result, Captured):
            assert abs(result.captured_s - taken_s) < 0.001


def test_a_clock_that_stands_still_or_jumps_about_is_never_followed() -> None:
    clock, truth = settled(12)
    rng = np.random.default_rng(1)
    for _, _, arrived_s in frames(13, begin_s=1020.0, seconds=10.0):
        assert clock.captured(float(truth.device_s[-1]), arrived_s) == Refused(reason=Refusal.BACKWARD)
    for _, device_s, arrived_s in frames(14, begin_s=1030.0, seconds=10.0):
        assert isinstance(clock.captured(device_s + 30.0 + rng.choice([-1, 1]) * rng.uniform(2, 9), arrived_s), Refused)


def test_a_wild_first_stamp_is_overcome() -> None:
    clock, truth = DeviceClock(latency_s=LATENCY_S), frames(15)
    assert isinstance(clock.captured(1e12, float(truth.arrived_s[0])), Captured)
    results = [(taken_s, clock.captured(device_s, arrived_s)) for taken_s, device_s, arrived_s in truth]
    late = [(taken_s, result) for taken_s, result in results if taken_s > 1001.5]
    assert all(isinstance(result, Captured) for _, result in late)
    taken_s, last = late[-1]
    assert isinstance(last, Captured)
    assert abs(last.captured_s - taken_s) < 0.001


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("late_s", [0.7, 2.0])
def test_frames_of_a_backlog_never_count_as_fresh_and_prompt_ones_after_it_do(late_s: float, reopened: bool) -> None:
    clock, _ = settled(16)
    if reopened:
        clock.reopened()
    for _, device_s, arrived_s in frames(17, begin_s=1020.0, seconds=30.0, spikes=0.0):
        assert clock.captured(device_s + 20.0, arrived_s + late_s) == Refused(reason=Refusal.OUTLIER)
    for taken_s, device_s, arrived_s in frames(18, begin_s=1053.0, seconds=5.0):
        result = clock.captured(device_s + 53.0, arrived_s)
        assert isinstance(result, Captured)
        assert abs(result.captured_s - taken_s) < 0.005


def test_a_stamp_that_comes_twice_does_not_make_a_backlog_fresh() -> None:
    clock, truth = settled(19)
    assert clock.captured(float(truth.device_s[-1]), float(truth.arrived_s[-1]) + 0.6) == Refused(
        reason=Refusal.BACKWARD
    )
    for _, device_s, arrived_s in frames(20, begin_s=1020.0, seconds=5.0, spikes=0.0):
        assert clock.captured(device_s + 20.0, arrived_s + 0.7) == Refused(reason=Refusal.OUTLIER)


def test_frames_that_all_come_later_are_in_the_uncertainty_when_the_window_has_forgotten_the_prompt_ones() -> None:
    clock, _ = settled(21)
    errors, uncertainties, lifted = [], [], 0
    for taken_s, device_s, arrived_s in frames(22, begin_s=1020.0, seconds=110.0, spikes=0.0):
        result = clock.captured(device_s + 20.0, arrived_s + 0.3)
        assert isinstance(result, Captured)
        errors.append(abs(result.captured_s - taken_s))
        uncertainties.append(result.uncertainty_s)
        lifted += errors[-1] > 0.25
    assert lifted > 900, "for half a minute the old line is forgotten"
    assert (np.array(errors) <= 5.0 * np.array(uncertainties)).all()


def test_a_device_that_is_opened_again_keeps_the_map_of_a_clock_that_went_on() -> None:
    clock, _ = settled(23, drift=2e-4)
    clock.reopened()
    for taken_s, device_s, arrived_s in frames(24, begin_s=1025.0, seconds=1.0, drift=2e-4):
        result = clock.captured(device_s + 25.0 * (1.0 + 2e-4), arrived_s)
        assert isinstance(result, Captured)
        assert abs(result.captured_s - taken_s) < 0.002
        assert result.uncertainty_s < 0.005


@pytest.mark.parametrize("jump_s", [-70.0, 0.3, 1e6])
def test_a_device_that_is_opened_again_with_another_clock_is_followed_at_once(jump_s: float) -> None:
    clock, _ = settled(25)
    clock.reopened()
    for taken_s, device_s, arrived_s in frames(26, begin_s=1022.0, seconds=1.0):
        result = clock.captured(device_s + 22.0 + jump_s, arrived_s)
        assert isinstance(result, Captured)
        assert abs(result.captured_s - taken_s) < 5.0 * result.uncertainty_s


def test_stamps_are_needed_of_a_device_that_is_said_to_have_a_clock() -> None:
    assert DeviceClock(latency_s=0.0).captured(None, 5.0) == Refused(reason=Refusal.NOT_FINITE)


def test_without_a_device_clock_it_is_arrival_less_latency() -> None:
    clock = ArrivalClock(latency_s=0.02, uncertainty_s=0.005)
    first = clock.captured(None, 5.0)
    assert first == Captured(captured_s=4.98, uncertainty_s=0.005)
    assert clock.captured(3.0, 5.0) == Refused(reason=Refusal.BACKWARD)
    assert clock.captured(None, float("nan")) == Refused(reason=Refusal.NOT_FINITE)
    assert isinstance(clock.captured(None, 5.03), Captured)
