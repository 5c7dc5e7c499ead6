"""How much later one signal shows what another did: a commanded and an observed one, by cross-correlation.

The correlation coefficient is taken at every lag of a grid from sums over blocks of time, and the best lag refined by a
parabola; intervals come from drawing the blocks anew (block bootstrap: H. Künsch, "The jackknife and the bootstrap for
general stationary observations", 1989), so noise that goes on for a while counts as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from calibration.refused import CalibrationRefusedError
from robot.errors import BadInputError

Array = NDArray[np.float64]
_BLOCKS = 24
_LEAST_STEP_S = 2.5e-3  # of the grid that lags are tried on; between two of its points a parabola tells
_DRAWS = 400
_LEAST_SAMPLES = 50
LEAST_CORRELATION = 0.6
_RIVAL = 0.97
_LEAST_SECONDS = 5.0
_STILL = 1e-6  # of what the liveliest channel does; less is rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Signal:
    """Samples of one or more channels.

    Attributes:
        t_s: shape (N,), rising [s]; of one clock for both signals.
        values: shape (N, channels), in any unit.
    """

    t_s: Array
    values: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Delay:
    """How late the observed signal is.

    Attributes:
        delay_s: positive when it comes after the commanded one [s].
        interval_95_s: lower and upper end [s].
        correlation: at that lag, 0 to 1.
        lags_s, correlations: the whole curve, both (K,).
        residual: shape (M, channels), observed less what the command predicts at that lag, in deviations of the
            observed signal.
        residual_t_s: shape (M,) [s]; of several recordings, as if each began where the one before ends.
    """

    delay_s: float
    interval_95_s: tuple[float, float]
    correlation: float
    lags_s: Array
    correlations: Array
    residual: Array
    residual_t_s: Array


def find_delay(
    commanded: Signal, observed: Signal, *, longest_s: float = 0.5, speed: bool = True, seed: int = 0
) -> Delay:
    """Return how much later `observed` shows what `commanded` did; see `find_common_delay`."""
    return find_common_delay([(commanded, observed)], longest_s=longest_s, speed=speed, seed=seed)


def find_common_delay(
    recordings: Sequence[tuple[Signal, Signal]], *, longest_s: float = 0.5, speed: bool = True, seed: int = 0
) -> Delay:
    """Return the one delay of several recordings, between which time may jump.

    Args:
        recordings: of each, what was asked for and what was seen, all of as many channels.
        longest_s: greatest delay that is looked for; the other way too.
        speed: compare rates of change, which slow drifts and offsets do not touch; False for signals that are rates.
        seed: of the bootstrap.

    Raises:
        BadInputError: too few samples, or no common stretch of time.
        CalibrationRefusedError: the signals do not tell: nothing moves, they do not look alike, the motion repeats
            itself, or the delay is beyond `longest_s`.
    """
    for number, name in enumerate(("commanded", "observed")):
        _check(name, [pair[number] for pair in recordings])
    channels = [signal.values.shape[1] for pair in recordings for signal in pair]
    if len(set(channels)) != 1:
        raise BadInputError(f"commanded has {channels[0]} channels, observed {channels[1]}; give the same")
    step = max(float(np.median(np.concatenate([np.diff(pair[side].t_s) for pair in recordings]))) for side in (0, 1))
    step = max(0.5 * step, _LEAST_STEP_S)
    spans = [_shared(commanded, observed, longest_s) for commanded, observed in recordings]
    shared_s, needed_s = sum(last - first for first, last in spans), max(_LEAST_SECONDS, 4.0 * longest_s)
    if shared_s < needed_s:
        raise BadInputError(
            f"the signals share {shared_s:.1f} s besides {longest_s:g} s at both ends; at least {needed_s:g} s are "
            "needed, record longer, or check that both use one clock"
        )
    times = [np.arange(first, last, step) for first, last in spans]
    width = max(step * 4.0, 0.04)
    seen = np.concatenate([_at(pair[1], t, width, speed=speed) for pair, t in zip(recordings, times, strict=True)])
    moved = seen.std(axis=0)
    if not (moved > 0.0).any():
        raise CalibrationRefusedError("the observed signal does not change; move, and record again")
    lags = np.arange(-longest_s, longest_s + 0.5 * step, step)

    def asked_at(lag: float) -> Array:
        pairs = zip(recordings, times, strict=True)
        return np.concatenate([_at(commanded, t - lag, width, speed=speed) for (commanded, _), t in pairs])

    spreads, blocks = [], []
    for lag in lags.tolist():  # one after another: all of them at once may be more than the memory
        asked = asked_at(lag)
        spreads.append(asked.std(axis=0))
        blocks.append(_block_sums(asked, seen))
    asks = np.min(spreads, axis=0)
    live = (asks > _STILL * asks.max()) & (moved > _STILL * moved.max())
    if not live.any():
        raise CalibrationRefusedError("the commanded signal does not change; move, and record again")
    sums = np.stack(blocks)[:, :, live]
    curve = _correlation(sums.sum(axis=1))
    at = int(np.argmax(curve))
    _check_curve(curve, lags, at, longest_s)
    random = np.random.default_rng(seed)
    count = sums.shape[1]
    drawn = np.array(
        [_peak(_correlation(sums[:, random.integers(0, count, count)].sum(axis=1)), lags) for _ in range(_DRAWS)]
    )
    delay = _peak(curve, lags)
    # a peak between grid points is no surer than the grid's parabola
    low, high = np.quantile(drawn, [0.025, 0.975])
    floor = 0.05 * step
    end_to_end: Array = step * np.arange(len(seen), dtype=np.float64)
    return Delay(
        delay_s=delay,
        interval_95_s=(float(min(low, delay - floor)), float(max(high, delay + floor))),
        correlation=float(curve[at]),
        lags_s=lags,
        correlations=curve,
        residual=_residual(asked_at(delay), seen),
        residual_t_s=times[0] if len(times) == 1 else end_to_end,
    )


def _check(name: str, signals: Sequence[Signal]) -> None:
    count = sum(len(signal.t_s) for signal in signals)
    if count < _LEAST_SAMPLES:
        raise BadInputError(f"{name} has {count} samples; at least {_LEAST_SAMPLES} are needed, record longer")
    for signal in signals:
        if not (np.isfinite(signal.t_s).all() and np.isfinite(signal.values).all()):
            raise BadInputError(f"{name} holds NaN or infinity; leave those rows out")
        if not (np.diff(signal.t_s) > 0.0).all():
            row = int(np.argmin(np.diff(signal.t_s))) + 2
            raise BadInputError(f"{name}: time does not rise at sample {row}; sort the rows, each time once")


def _shared(commanded: Signal, observed: Signal, longest_s: float) -> tuple[float, float]:
    """First and last time at which both are known at every lag; nothing where they are too short for it."""
    first = max(float(commanded.t_s[0]) + longest_s, float(observed.t_s[0]))
    return first, max(first, min(float(commanded.t_s[-1]) - longest_s, float(observed.t_s[-1])))


def _at(signal: Signal, t: Array, width_s: float, *, speed: bool) -> Array:
    """The signal, or its rate of change over `width_s`, at times (M,)."""

    def value(at: Array) -> Array:
        return np.stack([np.interp(at, signal.t_s, channel) for channel in signal.values.T], axis=1)

    return (value(t + 0.5 * width_s) - value(t - 0.5 * width_s)) / width_s if speed else value(t)


def _block_sums(asked: Array, seen: Array) -> Array:
    """Sums that correlation needs, (blocks, channels, 6): count, x, y, xx, yy, xy."""
    edges = np.linspace(0, seen.shape[0], _BLOCKS + 1).astype(int)
    found = np.zeros((_BLOCKS, seen.shape[1], 6))
    for block, (a, b) in enumerate(pairwise(edges.tolist())):
        x, y = asked[a:b], seen[a:b]
        found[block, :, 0] = b - a
        found[block, :, 1], found[block, :, 2] = x.sum(axis=0), y.sum(axis=0)
        found[block, :, 3], found[block, :, 4] = (x**2).sum(axis=0), (y**2).sum(axis=0)
        found[block, :, 5] = (x * y).sum(axis=0)
    return found


def _correlation(sums: Array) -> Array:
    """Correlation (lags,) from sums (lags, channels, 6): that of all channels together, each to its own mean."""
    count, x, y, xx, yy, xy = (sums[..., i] for i in range(6))
    both, of_x, of_y = xy - x * y / count, xx - x**2 / count, yy - y**2 / count
    # channels of different units weigh as they vary
    scale = np.sqrt(np.maximum(of_x.mean(axis=0) * of_y.mean(axis=0), 1e-300))
    joint: Array = (both / scale).sum(axis=1) / np.sqrt(
        np.maximum((of_x / of_x.mean(axis=0)).sum(axis=1) * (of_y / of_y.mean(axis=0)).sum(axis=1), 1e-300)
    )
    return joint


def _peak(curve: Array, lags: Array) -> float:
    at = int(np.argmax(curve))
    if at in (0, len(curve) - 1):
        return float(lags[at])
    left, middle, right = curve[at - 1 : at + 2]
    bend = left - 2.0 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0.0 else 0.0
    return float(lags[at] + np.clip(shift, -0.5, 0.5) * (lags[1] - lags[0]))


def _check_curve(curve: Array, lags: Array, at: int, longest_s: float) -> None:
    if curve[at] < LEAST_CORRELATION:
        opposite = "; they look alike with the sign turned" if curve.min() < -LEAST_CORRELATION else ""
        raise CalibrationRefusedError(
            f"the signals do not look alike (correlation {curve[at]:.2f}, {LEAST_CORRELATION:g} needed){opposite}"
            "; move faster and in all directions, and check that the columns belong together"
        )
    if at in (0, len(curve) - 1):
        raise CalibrationRefusedError(
            f"the delay is beyond {1e3 * longest_s:g} ms; give a longer one, or check that both signals use one clock"
        )
    # a rival is another hilltop, not the flank of the best one
    tops = np.flatnonzero((curve[1:-1] >= curve[:-2]) & (curve[1:-1] > curve[2:])) + 1
    rivals = [top for top in tops if abs(int(top) - at) > 2 and curve[top] > _RIVAL * curve[at]]
    if rivals:
        raise CalibrationRefusedError(
            f"the motion repeats itself: a delay of {1e3 * lags[rivals[0]]:.0f} ms explains it as well as one of "
            f"{1e3 * lags[at]:.0f} ms; move irregularly"
        )


def _residual(asked: Array, seen: Array) -> Array:
    x, y = asked - asked.mean(axis=0), seen - seen.mean(axis=0)
    gain = (x * y).sum(axis=0) / np.maximum((x**2).sum(axis=0), 1e-300)
    spread = np.where(y.std(axis=0) > 0.0, y.std(axis=0), 1.0)
    residual: Array = (y - gain * x) / spread
    return residual
