#!/usr/bin/env python3
"""What a tick costs besides the base network, the physics and the rendering; prints one JSON line.

The simulated station in lock-step as `run_robot.py` runs it: two 84x84 cameras, the simulated operator, a residual of
2x128 of the shape that the learner publishes, the recorder in its own process. The same again with the value gate
switched on, whose two critics then judge every tick. Also how soon `run_robot.py` is ready for its first tick, and the
residual head alone. Run it on an otherwise idle machine.

    .venv/bin/python benchmarks/bench_tick_overhead.py --repetitions 5 --ticks 1500
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))

from environment import cli

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import cpu_name
from benchmarks.policy_inference import percentiles_ms, random_tensors
from policy.bundle import Bundle, load_bundle
from policy.residual import Dims
from policy.weights import Expected, pack, unpack
from robot.clock import VirtualClock
from teleop.run import Run
from teleop.run_options import RunOptions
from teleop.station import LoadedStation, load_station
from teleop.tick_times import NOT_OVERHEAD, TickTimes

Array = NDArray[np.float64]

_LAUNCH = Path(__file__).resolve().parents[1] / "launch"
_WIDTH, _GATE_HEADS = 128, 2
_TARGETS = {"overhead_p50_ms": 0.6, "overhead_p99_ms": 2.0, "ready_s": 2.0, "head_ms": 0.2}


class TimedClock(VirtualClock):
    """A virtual clock that notes when the loop begins to wait, so that nothing between two ticks is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.times = TickTimes()
        self.waits: list[tuple[int, float]] = []  # ticks so far, real time [s]

    def sleep_until(self, deadline_s: float) -> None:
        """Note the real time, then jump."""
        self.waits.append((len(self.times), time.perf_counter()))
        super().sleep_until(deadline_s)

    def cycles_ms(self) -> dict[int, float]:
        """Number of a tick in the run -> time from the wait before it to the wait after it [ms]."""
        pairs = itertools.pairwise(self.waits)
        return {first: (end_s - start_s) * 1e3 for (first, start_s), (last, end_s) in pairs if last == first + 1}


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """One run of the robot.

    Attributes:
        overhead_ms: per tick, `TickTimes.overhead_ms`.
        cycle_ms: per tick, from the wait before it to the wait after it, less network and simulation.
        stages_ms: per stage and tick.
    """

    overhead_ms: Array
    cycle_ms: Array
    stages_ms: dict[str, Array]


def main() -> int:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--ticks", type=int, default=1500, help="at least, per repetition")
    parser.add_argument("--starts", type=int, default=5, help="of run_robot.py")
    args = parser.parse_args()
    path = cli.STATIONS / "sim_place.toml"
    loaded = load_station(path)
    load_before = os.getloadavg()[0]
    bundle = load_bundle(loaded.bundle_path, loaded.station.policy.provider, loaded.station.policy.threads)
    message = learned_message(loaded, bundle)
    repetitions = [repetition(loaded, message, args.ticks, seed) for seed in range(args.repetitions)]
    p50, p99 = (_median([r.overhead_ms for r in repetitions], share) for share in (50, 99))
    gated = load_station(path, [("residual.gate", "true")])
    judged = [repetition(gated, message, args.ticks, seed) for seed in range(args.repetitions)]
    head = head_ms(bundle, message)
    ready = ready_s(path, args.starts)
    result = {
        "benchmark": "tick_overhead",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "threads": {"blas": os.environ["OMP_NUM_THREADS"], "onnxruntime": loaded.station.policy.threads},
        "head": f"2x{_WIDTH}, gate of {_GATE_HEADS} heads",
        "repetitions": args.repetitions,
        "ticks": sum(len(r.overhead_ms) for r in repetitions),
        "overhead_ms": {"p50": p50, "p99": p99, "p99_worst": _worst([r.overhead_ms for r in repetitions], 99)},
        "overhead_with_gate_ms": {f"p{share}": _median([r.overhead_ms for r in judged], share) for share in (50, 99)},
        "cycle_ms": {f"p{share}": _median([r.cycle_ms for r in repetitions], share) for share in (50, 99)},
        "not_overhead": NOT_OVERHEAD,
        "stages_ms": {
            stage: {f"p{share}": _median([r.stages_ms[stage] for r in repetitions], share) for share in (50, 99)}
            for stage in repetitions[0].stages_ms
        },
        "head_alone": head,
        "ready_s": {"median": round(float(np.median(ready)), 3), "worst": max(ready), "starts": len(ready)},
        "targets": _TARGETS,
        "reached": {
            "overhead_p50_ms": p50 <= _TARGETS["overhead_p50_ms"],
            "overhead_p99_ms": p99 <= _TARGETS["overhead_p99_ms"],
            "ready_s": max(ready) <= _TARGETS["ready_s"],
            "head_ms": head["residual_and_gate"]["p99_ms"] <= _TARGETS["head_ms"],
        },
    }
    print(json.dumps(result))
    return 0


def learned_message(loaded: LoadedStation, bundle: Bundle) -> bytes:
    """A weights message of the size that the learner publishes, with a small residual that never is zero."""
    assert loaded.station.residual is not None
    dims = _dims(bundle)
    scale = np.array(loaded.station.residual.scale, np.float32)
    tensors = random_tensors(dims, np.random.default_rng(0), width=_WIDTH, gate_heads=_GATE_HEADS, scale=scale)
    return pack(version=1, run_id="benchmark", bundle_sha256=bundle.sha256, dims=dims, tensors=tensors)


def repetition(loaded: LoadedStation, message: bytes, ticks: int, seed: int) -> Repetition:
    """Run episodes until there are `ticks` ticks."""
    clock = TimedClock()
    cycles_ms: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(out=Path(folder) / "run", operator="simulated", seed=seed, weights=message)
        with Run(loaded, clock, options) as run:
            times = clock.times = run.loop.times
            while len(times) < ticks:
                clock.waits.clear()  # a commit lies between the waits of two episodes
                run.episode()
                cycles_ms |= clock.cycles_ms()
            run.finish()
    stages = times.stages_ms()
    outside = np.sum([stages[stage] for stage in NOT_OVERHEAD], axis=0)
    cycle_ms = np.array([span_ms - outside[i] for i, span_ms in cycles_ms.items()])
    return Repetition(overhead_ms=times.overhead_ms(), cycle_ms=cycle_ms, stages_ms=stages)


def head_ms(bundle: Bundle, message: bytes) -> dict[str, dict[str, float]]:
    """Time the head as a tick calls it, on random features."""
    dims = _dims(bundle)
    head = unpack(message, Expected(dims=dims, bundle_sha256=bundle.sha256, max_scale=(1.0,) * dims.action)).head
    rng = np.random.default_rng(1)
    features = rng.normal(size=dims.features).astype(np.float32)
    proprio = rng.normal(size=dims.proprio).astype(np.float32)
    base = rng.uniform(-0.5, 0.5, dims.action).astype(np.float32)

    def residual_and_gate() -> object:
        residual = head.residual(features, proprio, base)
        return head.values(features, proprio, np.stack([base, base + residual]))

    return {
        "residual": percentiles_ms(lambda: head.residual(features, proprio, base), 5000),
        "residual_and_gate": percentiles_ms(residual_and_gate, 5000),
    }


def ready_s(station: Path, starts: int) -> list[float]:
    """Start `run_robot.py` anew each time; seconds from its start to the line that says it is ready."""
    taken = []
    for _ in range(starts):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(_LAUNCH / "run_robot.py"), str(station), "--episodes", "1"]
            began_s = time.perf_counter()
            with subprocess.Popen([*command, "--out", f"{folder}/run"], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                line = process.stdout.readline()
                taken.append(round(time.perf_counter() - began_s, 3))
                if not re.match(r"ready in ", line):
                    raise SystemExit(f"run_robot.py said {line!r} instead of being ready")
                process.stdout.read()
    return taken


def _dims(bundle: Bundle) -> Dims:
    return Expected.of(bundle.manifest, None).dims


def _median(repetitions: list[Array], share: float) -> float:
    """Median over the repetitions of a percentile [ms]."""
    return round(float(np.median([np.percentile(values, share) for values in repetitions])), 4)


def _worst(repetitions: list[Array], share: float) -> float:
    return round(float(max(np.percentile(values, share) for values in repetitions)), 4)


if __name__ == "__main__":
    sys.exit(main())
