#!/usr/bin/env python3
"""How well the synchroniser chooses, and how well capture times are known; prints one JSON line.

Free-running cameras in virtual time: no devices, no threads, no waiting. Each has a clock of its own with another drift
and phase, irregular captures, late arrivals, and drops. Its frames' capture times are what `DeviceClock` makes of its
stamps; the real `Synchroniser` chooses at every tick among what has arrived by then. Skews and ages are counted by
the true capture times, which only the simulation knows, and compared with

- `hindsight`: the least true skew of any set of frames that had arrived by then and was not stale, however old;
- `hindsight_in_age`: the same among sets that are no more than the station's bound older than the newest set;
- `least_age`: the age of the newest set that could be had, whatever its skew.

Sets are as old as their oldest frame. Means are compared, since the best skew of a single tick comes as near to 0 as
one likes, over the fresh ticks after the clocks have settled: what makes the loop hold is no choice. `fresh` is their
share, `possible` the share of ticks on which hindsight knows of any set within the limits of age and skew.
`observe_us` is the time of one `observe` with images that cost nothing to copy. `clock` is the error of the capture
times alone, for several ways in which arrivals are late, once settled and in the first seconds.

    .venv/bin/python benchmarks/bench_sync.py --seconds 120 --repetitions 3
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    drops: float
    delays: str
    extra_age_s: float | None = None  # of the synchroniser; None: its default
    history: int = 4  # of the synchroniser


_SCENES = {
    "two": Scene(rates_hz=(30.0, 30.0), drops=0.05, delays="loaded"),
    "three": Scene(rates_hz=(30.0, 30.0, 30.0), drops=0.05, delays="loaded"),
    "four": Scene(rates_hz=(30.0,) * 4, drops=0.05, delays="loaded"),
    "three_idle": Scene(rates_hz=(30.0, 30.0, 30.0), drops=0.0, delays="idle"),
    "three_drops": Scene(rates_hz=(30.0, 30.0, 30.0), drops=0.3, delays="loaded"),
    "mixed": Scene(rates_hz=(30.0, 20.0, 15.0), drops=0.05, delays="loaded"),
    "mixed_patient": Scene(rates_hz=(30.0, 20.0, 15.0), drops=0.05, delays="loaded", extra_age_s=0.2, history=8),
    "mixed_drops": Scene(rates_hz=(30.0, 20.0, 15.0), drops=0.3, delays="loaded"),
}


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Frames of a camera that arrived, in order: true capture, the device's stamp, arrival [s]."""

    taken_s: Array
    device_s: Array
    arrived_s: Array


def take(rng: np.random.Generator, rate_hz: float, seconds: float, drops: float, delays: str) -> Taken:
    """Let a camera run. Its clock drifts by up to 100 ppm and its captures are irregular by 0.3 ms."""
    drift, phase_s = rng.uniform(-1e-4, 1e-4), rng.uniform(0.0, 1.0 / rate_hz)
    count = int(seconds * rate_hz)
    device_s = phase_s + np.arange(count) / rate_hz + rng.normal(0.0, 0.0003, count)
    taken_s = _BEGIN_S + device_s * (1.0 + drift)
    arrived_s = np.maximum.accumulate(taken_s + _LATENCY_S + _DELAYS[delays](rng, count))
    kept = rng.random(count) >= drops
    return Taken(taken_s=taken_s[kept], device_s=device_s[kept] + 5e4, arrived_s=arrived_s[kept])


class VirtualCamera:
    """Gives what has arrived, as a ring of eight frames does."""

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
    """What came of each settled tick [s]."""

    skew: list[float]
    age: list[float]
    hindsight: list[float]
    hindsight_in_age: list[float]
    least_age: list[float]
    observe: list[float]
    possible: int
    verdicts: Counter[str]


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
        least_s = least_skew_s(there, -np.inf)
        ticks.possible += least_s <= config.max_skew_s
        if look.verdict is not Verdict.FRESH:
            continue
        chosen = [float(camera.taken.taken_s[look.frame_ids[camera.name]]) for camera in cameras]
        newest_s = min(float(times[-1]) for times in there)
        ticks.skew.append(max(chosen) - min(chosen))
        ticks.age.append(now_s - min(chosen))
        ticks.hindsight.append(least_s)
        ticks.hindsight_in_age.append(least_skew_s(there, newest_s - config.extra_age_s))
        ticks.least_age.append(now_s - newest_s)


def _there(camera: VirtualCamera, now_s: float, max_age_s: float) -> Array:
    """True capture times of the frames that had arrived and were not stale."""
    taken = camera.taken
    end = int(np.searchsorted(taken.arrived_s, now_s, side="right"))
    begin = int(np.searchsorted(taken.taken_s, now_s - max_age_s))
    times: Array = taken.taken_s[begin:end]
    return times


def least_skew_s(there: Sequence[Array], oldest_s: float) -> float:
    """Least skew of all combinations, tried one by one, whose oldest frame is not older than `oldest_s`."""
    rows: list[list[float]] = [row.tolist() for row in there]
    return min(max(times) - min(times) for times in itertools.product(*rows) if min(times) >= oldest_s)


def scene_figures(scene: Scene, policy: str, seconds: float, repetitions: int) -> dict[str, Any]:
    """Every figure of one scene with one policy, over all repetitions."""
    config = SynchroniserConfig.model_validate(
        {
            "max_skew_s": 1.0 / min(scene.rates_hz),
            "max_age_s": 3.0 / min(scene.rates_hz),
            "max_repeats": 5,
            "policy": policy,
            "max_extra_age_s": scene.extra_age_s,
            "history": scene.history,
        }
    )
    ticks = Ticks(
        skew=[], age=[], hindsight=[], hindsight_in_age=[], least_age=[], observe=[], possible=0, verdicts=Counter()
    )
    for seed in range(repetitions):
        run(scene, config, seconds, seed, ticks)
    mean = {
        name: float(np.mean(getattr(ticks, name)))
        for name in ("skew", "age", "hindsight", "hindsight_in_age", "least_age")
    }
    return {
        "ticks": ticks.verdicts.total(),
        "fresh": round(ticks.verdicts[Verdict.FRESH.name] / ticks.verdicts.total(), 4),
        "possible": round(ticks.possible / ticks.verdicts.total(), 4),
        "verdicts": dict(ticks.verdicts),
        "mean_ms": {name: round(value * 1e3, 3) for name, value in mean.items()},
        "skew_to_hindsight": round(mean["skew"] / mean["hindsight"], 3),
        "skew_to_hindsight_in_age": round(mean["skew"] / mean["hindsight_in_age"], 3),
        "skew_ms": _percentiles(ticks.skew, 1e3),
        "age_ms": _percentiles(ticks.age, 1e3),
        "observe_us": _percentiles(ticks.observe, 1e6),
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


def _percentiles(values: Sequence[float], scale: float) -> dict[str, float]:
    return {
        "p50": round(float(np.percentile(values, 50)) * scale, 3),
        "p99": round(float(np.percentile(values, 99)) * scale, 3),
        "max": round(max(values) * scale, 3),
    }


def main() -> int:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of virtual time, per scene and repetition")
    parser.add_argument("--repetitions", type=int, default=3, help="each with another seed")
    args = parser.parse_args()
    load_before = os.getloadavg()[0]
    scenes = {
        name: {
            policy: scene_figures(scene, policy, args.seconds, args.repetitions)
            for policy in ("latest_common", "nearest")
        }
        for name, scene in _SCENES.items()
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
        "clock": {name: clock_figures(name, args.seconds, args.repetitions) for name in _DELAYS},
        "target": {"skew_to_hindsight": 1.1, "observe_us_three_cameras": 100.0},
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
