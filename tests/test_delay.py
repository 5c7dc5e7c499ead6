"""Delays between two signals, of which the truth is known."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.delay import Signal, find_delay
from calibration.refused import CalibrationRefusedError
from robot.errors import BadInputError

Array = NDArray[np.float64]


def wandering(t_s: Array, seed: int, channels: int = 3) -> Array:
    """Smooth, irregular motion (N, channels)."""
    random = np.random.default_rng(seed)
    rates = random.uniform(0.15, 1.6, (channels, 12))
    phases = random.uniform(0.0, 2.0 * np.pi, (channels, 12))
    return np.stack(
        [np.sin(2.0 * np.pi * t_s[:, None] * r + p).sum(axis=1) for r, p in zip(rates, phases, strict=True)], axis=1
    )


def pair(
    delay_s: float, seed: int, noise: float = 0.05, seconds: float = 30.0, commanded_hz: float = 20.0
) -> tuple[Signal, Signal]:
    random = np.random.default_rng(1000 + seed)
    t = np.arange(0.0, seconds, 1.0 / commanded_hz)
    seen_t = np.sort(np.arange(0.0, seconds, 1.0 / 30.0) + random.uniform(-0.003, 0.003, round(30.0 * seconds)))
    seen = 0.7 * wandering(seen_t - delay_s, seed) + 5.0 + random.normal(0.0, noise, (len(seen_t), 3))
    return Signal(t_s=t, values=wandering(t, seed)), Signal(t_s=seen_t, values=seen)


@pytest.mark.parametrize("delay_s", [0.0, 0.043, 0.31, -0.12])
def test_the_delay_is_found_to_three_milliseconds(delay_s: float) -> None:
    found = find_delay(*pair(delay_s, seed=0))
    assert found.delay_s == pytest.approx(delay_s, abs=0.003)
    assert found.correlation > 0.9


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    inside, widths = [], []
    for seed in range(40):
        found = find_delay(*pair(0.087, seed=seed, noise=0.15), seed=seed)
        low, high = found.interval_95_s
        inside.append(low <= 0.087 <= high)
        widths.append(high - low)
    assert np.mean(inside) >= 0.88
    assert np.median(widths) < 0.02


def test_logs_of_a_thousand_samples_a_second_take_no_more_memory_than_they_need() -> None:
    commanded, observed = pair(0.043, seed=5, seconds=60.0, commanded_hz=1000.0)
    t = np.arange(0.0, 60.0, 1e-3)
    each = [np.interp(t, observed.t_s, channel) for channel in observed.values.T]
    tracemalloc.start()
    found = find_delay(commanded, Signal(t_s=t, values=np.stack(each, axis=1)))
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.delay_s == pytest.approx(0.043, abs=0.003)
    assert most_bytes < 200e6


def test_rates_are_compared_as_they_are() -> None:
    commanded, observed = pair(0.06, seed=3)
    assert find_delay(commanded, observed, speed=False).delay_s == pytest.approx(0.06, abs=0.004)


def test_motion_that_repeats_itself_is_refused() -> None:
    t = np.arange(0.0, 30.0, 0.02)
    wave = np.sin(2.0 * np.pi * 4.0 * t)[:, None]
    with pytest.raises(CalibrationRefusedError, match="the motion repeats itself"):
        find_delay(Signal(t_s=t, values=wave), Signal(t_s=t, values=wave))


def test_signals_that_have_nothing_in_common_are_refused() -> None:
    commanded, _ = pair(0.0, seed=0)
    _, observed = pair(0.0, seed=1)
    with pytest.raises(CalibrationRefusedError, match="do not look alike"):
        find_delay(commanded, observed)


def test_a_turned_sign_is_named() -> None:
    commanded, observed = pair(0.05, seed=0)
    turned = Signal(t_s=observed.t_s, values=-observed.values)
    with pytest.raises(CalibrationRefusedError, match="with the sign turned"):
        find_delay(commanded, turned, longest_s=0.1)


def test_a_delay_beyond_the_search_is_refused() -> None:
    with pytest.raises(CalibrationRefusedError, match=r"beyond 100 ms|do not look alike"):
        find_delay(*pair(0.16, seed=2), longest_s=0.1)


def test_a_still_arm_is_refused() -> None:
    commanded, observed = pair(0.05, seed=0)
    still = Signal(t_s=observed.t_s, values=np.zeros_like(observed.values))
    with pytest.raises(CalibrationRefusedError, match="the observed signal does not change"):
        find_delay(commanded, still)


def test_clocks_that_do_not_meet_are_bad_input() -> None:
    commanded, observed = pair(0.05, seed=0)
    with pytest.raises(BadInputError, match="check that both use one clock"):
        find_delay(commanded, Signal(t_s=observed.t_s + 1e6, values=observed.values))


def test_time_that_stands_still_names_the_sample() -> None:
    commanded, observed = pair(0.05, seed=0)
    t = observed.t_s.copy()
    t[10] = t[9]
    with pytest.raises(BadInputError, match="observed: time does not rise at sample 11"):
        find_delay(commanded, Signal(t_s=t, values=observed.values))
