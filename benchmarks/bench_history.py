#!/usr/bin/env python3
"""What windows of several ticks cost, in CPU time of a tick and of an update, beside the present alone; one JSON line.

.venv/bin/python benchmarks/bench_history.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))

from environment import cli

import numpy as np
import torch

from benchmarks.learner_data import ACTION, FEATURES, PROPRIO, filled_buffer
from benchmarks.machine import cpu_name
from benchmarks.policy_inference import random_tensors
from policy.batch_prefetch import BatchPrefetch
from policy.bundle import load_bundle
from policy.learner_config import LearnerConfig
from policy.observation_history import HistoryTicks
from policy.residual_learner import LearnerDims, ResidualLearner
from policy.weights import Expected, pack
from robot.clock import VirtualClock
from teleop.run import Run
from teleop.run_options import RunOptions
from teleop.station import load_station

HISTORIES = {
    "present": HistoryTicks(),
    "proprio_4": HistoryTicks(proprio_ticks=4),
    "both_4": HistoryTicks(features_ticks=4, proprio_ticks=4),
}
_WIDTH, _GATE_HEADS, _BATCH = 256, 2, 256


class Tick:
    """The last tick of a short run on the simulated station, worked through once more, without its images' encoder."""

    def __init__(self, history: HistoryTicks, folder: Path) -> None:
        said = [(f"residual.history.{name}", str(value)) for name, value in history.model_dump().items()]
        loaded = load_station(cli.STATIONS / "sim_place.toml", [*said, ("residual.gate", "true")])
        residual, policy = loaded.station.residual, loaded.station.policy
        assert residual is not None
        bundle = load_bundle(loaded.bundle_path, policy.provider, policy.threads)
        expected = Expected.of(bundle.manifest, residual)
        tensors = random_tensors(
            expected.dims, np.random.default_rng(0), width=_WIDTH, gate_heads=_GATE_HEADS,
            scale=np.array(residual.scale, np.float32),
        )  # fmt: skip
        message = pack(
            version=1, run_id="benchmark", bundle_sha256=bundle.sha256, dims=expected.dims, tensors=tensors
        )  # fmt: skip
        options = RunOptions(out=folder / "run", operator="simulated", weights=message)
        with Run(loaded, VirtualClock(), options) as run:
            run.episode()
            loop = run.loop
            assert loop._last is not None
            self._inputs, self._state = loop._last
            self._pipeline, self._head = loop._parts.pipeline, loop._parts.weights.head
            run.finish()
        bundle = self._pipeline.bundle
        features = bundle.encode(self._inputs.observation.images, self._inputs.observation.proprio)
        bundle.encode = lambda *_: features  # type: ignore[method-assign]

    def __call__(self) -> None:
        """Work through it."""
        self._pipeline.step(self._state, self._inputs, self._head)


def updates(history: HistoryTicks, transitions: int) -> Callable[[], object]:
    """Updates of the learner, batches drawn ahead."""
    buffer = filled_buffer(transitions, history=history)
    dims = LearnerDims(
        feature_size=FEATURES * history.features_ticks, proprio_size=PROPRIO * history.proprio_ticks, action_size=ACTION
    )
    learner = ResidualLearner(dims, LearnerConfig(scale=(0.2,) * ACTION, actor_after=0), 0)
    ahead = BatchPrefetch(buffer, _BATCH, np.random.default_rng(0))
    return lambda: learner.update(ahead.next())


def draws(history: HistoryTicks, transitions: int) -> Callable[[], object]:
    """Draws into memory of their own."""
    buffer, rng = filled_buffer(transitions, history=history), np.random.default_rng(0)
    return lambda: buffer.sample(_BATCH, rng)


def cpu_us(work: Mapping[str, Callable[[], object]], repetitions: int, count: int) -> dict[str, dict[str, float]]:
    """Return CPU time of one call of each [us]: in turns, median and least of the repetitions."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for repetition in range(repetitions + 1):
        for name, call in work.items():
            started_s = time.process_time()
            for _ in range(count):
                call()
            if repetition:  # the first one warms up
                taken[name].append(1e6 * (time.process_time() - started_s) / count)
    return {
        name: {"median": round(statistics.median(each), 1), "least": round(min(each), 1)}
        for name, each in taken.items()
    }  # fmt: skip


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--ticks", type=int, default=500, help="per repetition")
    parser.add_argument("--updates", type=int, default=20, help="per repetition")
    parser.add_argument("--transitions", type=int, default=100_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ticks = {name: Tick(history, Path(folder) / name) for name, history in HISTORIES.items()}
        tick = cpu_us(ticks, args.repetitions, args.ticks)
    draw = cpu_us({name: draws(each, args.transitions) for name, each in HISTORIES.items()}, args.repetitions, 50)
    update = cpu_us(
        {name: updates(each, args.transitions) for name, each in HISTORIES.items()}, args.repetitions, args.updates
    )
    machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    print(json.dumps({"tick_us": tick, "draw_us": draw, "update_us": update, "batch": _BATCH, "machine": machine}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
