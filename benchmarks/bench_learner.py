"""Updates per second of our learner and of two published recipes, on the same data in the same run; one JSON line.

    .venv/bin/python benchmarks/bench_learner.py --seconds 2 --repetitions 5 --threads 2

`handrail`, `resfit_recipe` and `hilserl_recipe` run at their own network sizes, sampling, targets, actor and figures
included; an update is one of the critics. `equal_sizes` has all three on cached features, with 2 critics of (256, 256)
and with 10 of (1024, 1024). The rivals are learners of our own writing after the papers (`policy/baseline_learner.py`);
they run in eager torch, in float32. `products` says what ours multiplies here; `*_float32` are the same without that.
`handrail_encoder` learns a small encoder as well, on two pictures of 32 x 32 px. Each learner runs with one and with
`--threads` threads, and the faster counts. All are measured in turn, so that what else the machine does meets all of
them; the figures are medians. `cpu_ms_per_update` counts the time of all threads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.image_rlpd_learner import SIDE_PX, ImageRlpdLearner
from benchmarks.learner_data import ACTION, FEATURES, PROPRIO, filled_buffer
from benchmarks.machine import cpu_name
from policy.baseline_config import ResfitConfig, RlpdConfig
from policy.batch_prefetch import BatchPrefetch
from policy.device_updates import DeviceUpdates
from policy.learner_config import LearnerConfig
from policy.replay_buffer import BatchRows, ReplayBuffer
from policy.resfit_learner import ResfitLearner
from policy.residual_learner import LearnerDims, ResidualLearner, rounds_products
from policy.rlpd_learner import RlpdLearner

SCALE = (0.3,) * ACTION
SMALL, LARGE = (2, (256, 256)), (10, (1024, 1024))
IMAGE_FRAMES = 2000
PICTURES, SHOWN = (2, 32, 32), 10_000  # cameras, height, width; transitions with them
NEVER = 1 << 30
Step = Callable[[], None]
Size = tuple[int, tuple[int, ...]]


class Contestant:
    """A learner that is measured again and again."""

    def __init__(
        self, make: Callable[[], Step], *, threads: int, torch_threads: int, device: str, at_once: int
    ) -> None:
        self._make = make
        self._step: Step | None = None
        self._torch_threads, self._at_once = torch_threads, at_once
        self.threads, self.device = threads, device
        self.rates: list[float] = []
        self._cpu_s: list[float] = []

    def measure(self, seconds: float) -> None:
        """Run for `seconds` and note updates per second; a first run warms up."""
        torch.set_num_threads(self._torch_threads)
        if self._step is None:
            self._step = self._make()
            self._for(self._step, seconds)
        rate, cpu_s = self._for(self._step, seconds)
        self.rates.append(rate)
        self._cpu_s.append(cpu_s)

    def _for(self, step: Step, seconds: float) -> tuple[float, float]:
        """Return updates per second and CPU time per update [s]."""
        started_s, cpu_s, count = time.perf_counter(), time.process_time(), 0
        while count == 0 or time.perf_counter() - started_s < seconds:
            step()
            count += self._at_once
        return count / (time.perf_counter() - started_s), (time.process_time() - cpu_s) / count

    def report(self, batch_size: int) -> dict[str, object]:
        """Median, and every repetition."""
        rate = statistics.median(self.rates)
        return {
            "updates_per_s": round(rate, 2),
            "samples_per_s": round(rate * batch_size),
            "threads": self.threads,
            "device": self.device,
            "cpu_ms_per_update": round(1e3 * statistics.median(self._cpu_s), 2),
            "repetitions": [round(one, 2) for one in self.rates],
        }


def handrail(
    buffer: ReplayBuffer, batch_size: int, device: str, threads: int, size: Size, *, actor: bool = True,
    products: Literal["auto", "float32"] = "auto", pictures: tuple[int, int, int] | None = None,
) -> Contestant:  # fmt: skip
    """Our learner as the learner's process runs it; without `actor` the critics' updates alone.

    With `pictures` its actor has an encoder of its own on them.
    """
    every = 2 if actor else NEVER
    config = LearnerConfig(
        scale=SCALE,
        critics=size[0],
        critic_subset=2,
        hidden=size[1],
        actor_after=0,
        actor_every=every,
        products=products,
        pictures=pictures,
        fine_tune_encoder=pictures is not None,
    )
    features = FEATURES + (math.prod(pictures) if pictures else 0)

    def make() -> Step:
        dims = LearnerDims(feature_size=features, proprio_size=PROPRIO, action_size=ACTION)
        learner, rng = ResidualLearner(dims, config, 0, device=device), np.random.default_rng(0)
        if device != "cpu":
            updates = DeviceUpdates(learner, buffer, batch_size=batch_size)
            return lambda: sink(updates.run(50, rng))
        ahead = BatchPrefetch(buffer, batch_size, rng)
        return lambda: sink(learner.update(ahead.next()))

    return Contestant(make, threads=threads, torch_threads=threads, device=device, at_once=1 if device == "cpu" else 50)


def sink(figures: dict[str, float]) -> None:
    """Take what an update returns."""
    assert all(np.isfinite(value) for value in figures.values()), figures


def resfit(buffer: ReplayBuffer, batch_size: int, threads: int, size: Size) -> Contestant:
    """ResFiT's recipe."""

    def make() -> Step:
        config = ResfitConfig(scale=SCALE, critics=size[0], hidden=size[1])
        learner, rng = ResfitLearner(FEATURES, PROPRIO, ACTION, config, 0), np.random.default_rng(0)
        return lambda: sink(learner.update(buffer.sample(batch_size, rng)))

    return Contestant(make, threads=threads, torch_threads=threads, device="cpu", at_once=1)


def rlpd(buffer: ReplayBuffer, batch_size: int, threads: int, size: Size) -> Contestant:
    """HIL-SERL's recipe on cached features instead of images."""

    def make() -> Step:
        config = RlpdConfig(critics=size[0], hidden=size[1])
        learner, rng = RlpdLearner(FEATURES, PROPRIO, ACTION, config, 0), np.random.default_rng(0)
        return lambda: sink(learner.update(buffer.sample(batch_size, rng)))

    return Contestant(make, threads=threads, torch_threads=threads, device="cpu", at_once=1)


def hilserl(buffer: ReplayBuffer, batch_size: int, threads: int, cameras: int) -> Contestant:
    """HIL-SERL's recipe with its images."""

    def make() -> Step:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (IMAGE_FRAMES, cameras, 3, SIDE_PX, SIDE_PX), dtype=np.uint8)
        learner = ImageRlpdLearner(cameras, PROPRIO, ACTION, RlpdConfig(), 0)
        rows = BatchRows(buffer.layout, batch_size)

        def step() -> None:
            batch = buffer.sample(batch_size, rng, rows)
            at = rows.next_row % IMAGE_FRAMES
            sink(learner.update(batch, images[at - 1], images[at]))

        return step

    return Contestant(make, threads=threads, torch_threads=threads, device="cpu", at_once=1)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="at most, for every learner")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of our learner")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--cameras", type=int, default=2, help="of the HIL-SERL recipe")
    parser.add_argument("--transitions", type=int, default=100_000)
    options = parser.parse_args()
    buffer, batch, device = filled_buffer(options.transitions), options.batch, options.device
    shown = filled_buffer(SHOWN, features=FEATURES + math.prod(PICTURES))
    counts = sorted({1, options.threads})
    groups: dict[str, list[Contestant]] = {
        "handrail": [handrail(buffer, batch, device, n, SMALL) for n in counts],
        "handrail_critics_alone": [handrail(buffer, batch, device, n, SMALL, actor=False) for n in counts],
        "handrail_float32": [handrail(buffer, batch, device, n, SMALL, products="float32") for n in counts],
        "handrail_critics_alone_float32": [
            handrail(buffer, batch, device, n, SMALL, actor=False, products="float32") for n in counts
        ],
        "handrail_encoder": [handrail(shown, batch, device, n, SMALL, pictures=PICTURES) for n in counts],
        "resfit_recipe": [resfit(buffer, batch, n, LARGE) for n in counts],
        "hilserl_recipe": [hilserl(buffer, batch, n, options.cameras) for n in counts],
        "2x256x256/resfit_recipe": [resfit(buffer, batch, n, SMALL) for n in counts],
        "2x256x256/hilserl_recipe": [rlpd(buffer, batch, n, SMALL) for n in counts],
        "10x1024x1024/handrail": [handrail(buffer, batch, device, n, LARGE) for n in counts],
        "10x1024x1024/hilserl_recipe": [rlpd(buffer, batch, n, LARGE) for n in counts],
    }
    for _ in range(options.repetitions):
        for contestants in groups.values():
            for contestant in contestants:
                contestant.measure(options.seconds)
    best = {
        name: max(contestants, key=lambda one: statistics.median(one.rates)).report(batch)
        for name, contestants in groups.items()
    }
    best["2x256x256/handrail"], best["10x1024x1024/resfit_recipe"] = best["handrail"], best["resfit_recipe"]
    equal: dict[str, dict[str, object]] = {"2x256x256": {}, "10x1024x1024": {}}
    for name in [name for name in best if "/" in name]:
        size, recipe = name.split("/")
        equal[size][recipe] = best.pop(name)
    machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg(), "torch": torch.__version__}
    products = "bfloat16" if rounds_products(LearnerConfig(scale=SCALE, hidden=SMALL[1]), device) else "float32"
    settings = {
        "products": products,
        "threads": options.threads,
        "device": device,
        "batch": batch,
        "transitions": buffer.size,
    }
    print(json.dumps(best | {"equal_sizes": equal} | settings | {"machine": machine}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
