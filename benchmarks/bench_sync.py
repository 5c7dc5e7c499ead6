#!/usr/bin/env python3
"""How well the synchroniser chooses, and how well capture times are known; prints one JSON line.

Free-running cameras in virtual time: no devices, no threads, no waiting. Each has a clock of its own with another drift
and phase, irregular captures, late arrivals, and drops. Its frames' capture times are what `DeviceClock` makes of its
stamps; the real `Synchroniser` chooses at every tick among what has arrived by then. Skews and ages are counted by
the true capture times, which only the simulation knows. A set is as old as its oldest frame. References are

- `arrived`: the least true skew of any set of frames that had arrived by then and that the station's `max_age_s` lets
  the loop use, whatever the synchroniser remembers or showed before. Tick by tick, so it spends any age within that;
- `same_age`: the least mean skew of any choice among those sets that is no older on average than the chosen ones are,
  by someone who knows the whole run (a Lagrange multiplier for age, the same at all ticks);
- `taken`: the least skew of any set taken by then that is no older than the chosen one at that tick, with the frames
  that were still on their way and those that never came. No chooser can have it; it says what transport costs;
- `least_age`: the age of the newest set that could be had, whatever its skew.

Means are compared, since the best skew of a single tick comes as near to 0 as one likes, over the fresh ticks after the
clocks have settled: what makes the loop hold is no choice. How the cameras' phases happen to lie decides much, so many
short repetitions say more than a few long ones; `worst_repetition` is the highest ratio of any. `fresh` is the share of
fresh ticks, `possible` that of ticks on which `arrived` is within the limits of age and skew. `observe_us` is the time
of one `observe` with images that cost nothing to copy. `trade` is what `age_weight` buys with mixed rates. `clock` is
the error of the capture times alone, for several ways in which frames arrive late, once settled and in the first
seconds.

    .venv/bin/python benchmarks/bench_sync.py --seconds 10 --repetitions 24
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from perception.config import SynchroniserConfig
from perception.device_clock import Captured, DeviceClock
from perception.frame import Frame, FrameStamp
from perception.observation import Verdict
from perception.synchroniser import Synchroniser
from robot.arm_state import ArmState

Array = NDArray[np.float64]
Delays = Callable[[np.random.Generator, int], Array]

_LATENCY_S = 0.012
_SETTLED_S = 15.0
_TICK_HZ = 50.0
_BEGIN_S = 1000.0
_PICTURE = np.zeros((8, 8, 3), np.uint8)


def _idle(rng: np.random.Generator, count: int) -> Array:
    return rng.exponential(0.0005, count)


def _loaded(rng: np.random.Generator, count: int) -> Array:
    """Some milliseconds, and with one frame in ten some tens of milliseconds more."""
    return rng.exponential(0.003, count) + np.where(rng.random(count) < 0.1, rng.exponential(0.03, count), 0.0)


def _bursts(rng: np.random.Generator, count: int) -> Array:
    """Half of the time, five seconds at a stretch, no frame comes less than 5 ms late."""
    busy = (np.arange(count) // 150) % 2 == 1
    return rng.exponential(0.002, count) + np.where(busy, 0.005 + rng.exponential(0.02, count), 0.0)


def _heavy(rng: np.random.Generator, count: int) -> Array:
    """No mean to speak of: Pareto with an exponent of 1.2, cut at 0.4 s."""
    return np.minimum(0.001 * rng.pareto(1.2, count), 0.4)


_DELAYS: dict[str, Delays] = {"idle": _idle, "loaded": _loaded, "bursts": _bursts, "heavy": _heavy}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Cameras that run side by side."""

    rates_hz: tuple[float, ...]
    drops: float = 0.05
    delays: str = "loaded"
    choice: Mapping[str, float] = field(default_factory=dict)  # settings of the synchroniser beside its limits


_MIXED = Scene(rates_hz=(30.0, 20.0, 15.0))
_SCENES = {
    "two": Scene(rates_hz=(30.0, 30.0)),
    "three": Scene(rates_hz=(30.0, 30.0, 30.0)),
    "four": Scene(rates_hz=(30.0,) * 4),
    "three_idle": Scene(rates_hz=(30.0, 30.0, 30.0), drops=0.0, delays="idle"),
    "three_drops": Scene(rates_hz=(30.0, 30.0, 30.0), drops=0.3),
    "mixed": _MIXED,
    "mixed_drops": replace(_MIXED, drops=0.3),
    "mixed_history_4": replace(_MIXED, choice={"history": 4}),
    "mixed_two": Scene(rates_hz=(30.0, 15.0)),
    "mixed_close": Scene(rates_hz=(30.0, 25.0)),
    "mixed_six": Scene(rates_hz=(30.0, 30.0, 30.0, 30.0, 15.0, 15.0)),
    "mixed_far": Scene(rates_hz=(60.0, 25.0, 10.0)),
    "mixed_far_history_24": Scene(rates_hz=(60.0, 25.0, 10.0), choice={"history": 24}),
}
_AGE_WEIGHTS = (0.0, 0.03, 0.07, 0.15, 0.3, 1.0)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Frames of a camera that arrived, in order: true capture, the device's stamp, arrival [s]."""

    taken_s: Array
    device_s: Array
    arrived_s: Array
    all_s: Array  # true captures with those that never came


def take(rng: np.random.Generator, rate_hz: float, seconds: float, drops: float, delays: str) -> Taken:
    """Let a camera run. Its clock drifts by up to 100 ppm and its captures are irregular by 0.3 ms."""
    drift, phase_s = rng.uniform(-1e-4, 1e-4), rng.uniform(0.0, 1.0 / rate_hz)
    count = int(seconds * rate_hz)
    device_s = phase_s + np.arange(count) / rate_hz + rng.normal(0.0, 0.0003, count)
    taken_s = _BEGIN_S + device_s * (1.0 + drift)
    arrived_s = np.maximum.accumulate(taken_s + _LATENCY_S + _DELAYS[delays](rng, count))
    kept = rng.random(count) >= drops
    return Taken(taken_s=taken_s[kept], device_s=device_s[kept] + 5e4, arrived_s=arrived_s[kept], all_s=taken_s)


class VirtualCamera:
    """Gives the newest frames that have arrived."""

    size = _PICTURE.shape[:2]

    def __init__(self, name: str, taken: Taken) -> None:
        self.name, self.taken = name, taken
        clock = DeviceClock(latency_s=_LATENCY_S)
        self.stamps: list[FrameStamp] = []
        for frame_id, (device_s, arrived_s) in enumerate(
            zip(taken.device_s.tolist(), taken.arrived_s.tolist(), strict=True)
        ):
            known = clock.captured(device_s, arrived_s)
            if isinstance(known, Captured):
                self.stamps.append(
                    FrameStamp(
                        frame_id=frame_id,
                        captured_s=known.captured_s,
                        arrived_s=arrived_s,
                        uncertainty_s=known.uncertainty_s,
                    )
                )
        self._arrived = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def recent(self, now_s: float, count: int) -> Sequence[FrameStamp]:
        """Return the newest stamps that have arrived."""
        while self._arrived < len(self.stamps) and self.stamps[self._arrived].arrived_s <= now_s:
            self._arrived += 1
        return self.stamps[max(0, self._arrived - count) : self._arrived]

    def frame(self, stamp: FrameStamp) -> Frame:
        """Return a frame with a picture that costs nothing."""
        return Frame(
            camera=self.name,
            frame_id=stamp.frame_id,
            captured_s=stamp.captured_s,
            arrived_s=stamp.arrived_s,
            uncertainty_s=stamp.uncertainty_s,
            rgb=_PICTURE,
        )


@dataclass(kw_only=True)
class Ticks:
    """What came of each settled tick [s]; `sets` are the ages and skews that could have been had at each fresh one."""

    skew: list[float] = field(default_factory=list)
    age: list[float] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    least_age: list[float] = field(default_factory=list)
    sets: list[tuple[Array, Array]] = field(default_factory=list)
    observe: list[float] = field(default_factory=list)
    possible: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)


def run(scene: Scene, config: SynchroniserConfig, seconds: float, seed: int, ticks: Ticks) -> None:
    """Tick through one run of a scene; add to `ticks`."""
    rng = np.random.default_rng(seed)
    total_s = seconds + _SETTLED_S
    cameras = [
        VirtualCamera(f"camera_{place}", take(rng, rate_hz, total_s, scene.drops, scene.delays))
        for place, rate_hz in enumerate(scene.rates_hz)
    ]
    synchroniser = Synchroniser(cameras, config, ["tcp_position_m", "gripper_width_m"])
    state = ArmState(
        measured_s=0.0,
        q_rad=np.zeros(7),
        dq_rad_s=np.zeros(7),
        T_base_tcp=np.eye(4),
        tcp_velocity=np.zeros(6),
        gripper_width_m=0.04,
    )
    for tick in range(int(total_s * _TICK_HZ)):
        now_s = _BEGIN_S + tick / _TICK_HZ
        start = time.perf_counter()
        look = synchroniser.observe(now_s, state)
        took_s = time.perf_counter() - start
        if now_s < _BEGIN_S + _SETTLED_S:
            continue
        ticks.observe.append(took_s)
        ticks.verdicts[look.verdict.name] += 1
        there = [_there(camera, now_s, config.max_age_s) for camera in cameras]
        if any(len(times) == 0 for times in there):
            continue
        oldest_s, skews_s = least_skews(there)
        least_s = float(skews_s.min())
        ticks.possible += least_s <= config.max_skew_s
        if look.verdict is not Verdict.FRESH:
            continue
        chosen = [float(camera.taken.taken_s[look.frame_ids[camera.name]]) for camera in cameras]
        begin_s = min(chosen)
        ticks.skew.append(max(chosen) - begin_s)
        ticks.age.append(now_s - begin_s)
        ticks.arrived.append(least_s)
        ever = [_between(camera.taken.all_s, begin_s, now_s) for camera in cameras]
        ticks.taken.append(float(least_skews(ever)[1].min()))
        ticks.least_age.append(now_s - float(oldest_s.max()))
        ticks.sets.append((now_s - oldest_s, skews_s))


def _there(camera: VirtualCamera, now_s: float, max_age_s: float) -> Array:
    """True capture times of the frames that had arrived and were not stale."""
    taken = camera.taken
    arrived_s = taken.taken_s[: int(np.searchsorted(taken.arrived_s, now_s, side="right"))]
    return _between(arrived_s, now_s - max_age_s, now_s)


def _between(times_s: Array, first_s: float, last_s: float) -> Array:
    within: Array = times_s[np.searchsorted(times_s, first_s) : np.searchsorted(times_s, last_s, side="right")]
    return within


def least_skews(there: Sequence[Array]) -> tuple[Array, Array]:
    """For each time that may be a set's oldest frame, that time and the least skew of any such set [s]."""
    oldest_s = np.concatenate(there)
    oldest_s = oldest_s[oldest_s <= min(float(times[-1]) for times in there)]
    firsts_s = [times[np.searchsorted(times, oldest_s)] for times in there]
    return oldest_s, np.max(firsts_s, axis=0) - oldest_s


def least_mean_skew(sets: Sequence[tuple[Array, Array]], mean_age_s: float) -> float:
    """Least mean skew of choosing one of each tick's sets such that their mean age is at most `mean_age_s`.

    Choosing the least `skew + weight * age` at every tick is the best for the mean age that it has, whatever the
    weight (Everett 1963); between the two ages next to the wanted one, some ticks take the one, some the other.
    """
    width = max(len(ages) for ages, _ in sets)
    ages = np.array([np.pad(ages, (0, width - len(ages))) for ages, _ in sets])
    skews = np.array([np.pad(skews, (0, width - len(skews)), constant_values=np.inf) for _, skews in sets])

    def means(weight: float) -> tuple[float, float]:
        best = (skews + weight * ages).argmin(axis=1)[:, None]
        return float(np.take_along_axis(ages, best, 1).mean()), float(np.take_along_axis(skews, best, 1).mean())

    older, newer = 0.0, 1e3
    if means(older)[0] <= mean_age_s:
        return means(older)[1]
    for _ in range(40):
        middle = math.sqrt(max(older, 1e-6) * newer)
        if means(middle)[0] > mean_age_s:
            older = middle
        else:
            newer = middle
    (old_s, less_s), (new_s, more_s) = means(older), means(newer)
    share = (old_s - mean_age_s) / (old_s - new_s) if old_s > new_s else 0.0
    return less_s + min(1.0, share) * (more_s - less_s)


def scene_figures(scene: Scene, policy: str, seconds: float, repetitions: int) -> dict[str, Any]:
    """Every figure of one scene with one policy, over all repetitions."""
    slowest_s = 1.0 / min(scene.rates_hz)
    config = SynchroniserConfig.model_validate(
        {
            "max_skew_s": slowest_s,
            "max_age_s": 3.0 * slowest_s,
            "max_repeats": math.ceil(3.0 * slowest_s * _TICK_HZ),  # age decides first
            "policy": policy,
            **scene.choice,
        }
    )
    runs = [Ticks() for _ in range(repetitions)]
    for seed, ticks in enumerate(runs):
        run(scene, config, seconds, seed, ticks)
    skew, age, arrived, taken, least_age, observe = (
        np.concatenate([getattr(ticks, name) for ticks in runs])
        for name in ("skew", "age", "arrived", "taken", "least_age", "observe")
    )
    verdicts = sum((ticks.verdicts for ticks in runs), Counter[str]())
    same_age_s = least_mean_skew([each for ticks in runs for each in ticks.sets], float(age.mean()))
    mean = {
        "skew": float(skew.mean()),
        "age": float(age.mean()),
        "arrived": float(arrived.mean()),
        "same_age": same_age_s,
        "taken": float(taken.mean()),
        "least_age": float(least_age.mean()),
    }
    by_repetition = [float(np.mean(ticks.skew) / np.mean(ticks.arrived)) for ticks in runs if ticks.skew]
    return {
        "ticks": verdicts.total(),
        "fresh": round(verdicts[Verdict.FRESH.name] / verdicts.total(), 4),
        "possible": round(sum(ticks.possible for ticks in runs) / verdicts.total(), 4),
        "verdicts": dict(verdicts),
        "mean_ms": {name: round(value * 1e3, 3) for name, value in mean.items()},
        "skew_to_arrived": round(mean["skew"] / mean["arrived"], 3),
        "skew_to_arrived_worst_repetition": round(max(by_repetition), 3),
        "skew_to_same_age": round(mean["skew"] / mean["same_age"], 3),
        "skew_to_taken": round(mean["skew"] / mean["taken"], 3),
        "skew_ms": _percentiles(skew, 1e3),
        "age_ms": _percentiles(age, 1e3),
        "observe_us": _percentiles(observe, 1e6),
    }


def clock_figures(delays: str, seconds: float, repetitions: int) -> dict[str, Any]:
    """Error of the capture times of one 30 Hz camera that drops 30 %, and the time that a stamp takes."""
    errors: list[float] = []
    first_errors: list[float] = []
    shares, took = [], []
    for seed in range(repetitions):
        taken = take(np.random.default_rng(seed), 30.0, seconds + _SETTLED_S, 0.3, delays)
        clock = DeviceClock(latency_s=_LATENCY_S)
        for true_s, device_s, arrived_s in zip(
            taken.taken_s.tolist(), taken.device_s.tolist(), taken.arrived_s.tolist(), strict=True
        ):
            start = time.perf_counter()
            known = clock.captured(device_s, arrived_s)
            took.append(time.perf_counter() - start)
            if isinstance(known, Captured):
                error_s = abs(known.captured_s - true_s)
                (errors if true_s > _BEGIN_S + _SETTLED_S else first_errors).append(error_s)
                shares.append(error_s / known.uncertainty_s)
    return {
        "error_ms": _percentiles(errors, 1e3),
        "error_first_15_s_ms": _percentiles(first_errors, 1e3),
        "error_by_uncertainty": _percentiles(shares, 1.0),
        "stamp_us": _percentiles(took, 1e6),
    }


def _percentiles(values: Sequence[float] | Array, scale: float) -> dict[str, float]:
    return {
        "p50": round(float(np.percentile(values, 50)) * scale, 3),
        "p99": round(float(np.percentile(values, 99)) * scale, 3),
        "max": round(float(np.max(values)) * scale, 3),
    }


def main() -> int:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of virtual time, per scene and repetition")
    parser.add_argument("--repetitions", type=int, default=24, help="each with another seed")
    args = parser.parse_args()
    load_before = os.getloadavg()[0]
    scenes = {
        name: {
            policy: scene_figures(scene, policy, args.seconds, args.repetitions)
            for policy in ("latest_common", "nearest")
        }
        for name, scene in _SCENES.items()
    }
    trade = {
        str(weight): scene_figures(
            replace(_MIXED, choice={"age_weight": weight}), "latest_common", args.seconds, args.repetitions
        )
        for weight in _AGE_WEIGHTS
    }
    result = {
        "benchmark": "sync",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "seconds": args.seconds,
        "repetitions": args.repetitions,
        "tick_hz": _TICK_HZ,
        "scenes": scenes,
        "trade": trade,
        "clock": {name: clock_figures(name, args.seconds, args.repetitions) for name in _DELAYS},
        "target": {"skew_to_arrived": 1.1, "observe_us_three_cameras": 100.0},
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
