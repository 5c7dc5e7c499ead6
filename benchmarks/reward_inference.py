"""Times a reward model on random pictures, as the loop asks it once a tick; prints one JSON line.

OMP_NUM_THREADS=1 python benchmarks/reward_inference.py REWARD_MODEL --runs 2000
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import cpu_name
from policy.reward_model import RewardModel, load_reward_model


def took_ms(model: RewardModel, runs: int) -> tuple[list[float], list[float]]:
    """Return the wall-clock and the processor time of each call [ms]."""
    rng = np.random.default_rng(0)
    images = {
        camera.name: rng.integers(0, 256, (camera.height, camera.width, 3), np.uint8)
        for camera in model.manifest.cameras
    }
    proprio = rng.normal(size=model.manifest.proprio_size).astype(np.float32)
    model.warm_up(20)
    wall, processor = [], []
    for _ in range(runs):
        wall_s, processor_s = time.perf_counter(), time.thread_time()
        model.probability(images, proprio)
        wall.append((time.perf_counter() - wall_s) * 1e3)
        processor.append((time.thread_time() - processor_s) * 1e3)
    return wall, processor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=2000)
    args = parser.parse_args()
    model = load_reward_model(args.model, provider="cpu")
    wall, processor = took_ms(model, args.runs)
    document: dict[str, object] = {
        "cameras": [[camera.name, camera.height, camera.width] for camera in model.manifest.cameras],
        "runs": args.runs,
        "cpu": cpu_name(),
    }
    for name, values in (("wall_ms", wall), ("processor_ms", processor)):
        p50, p99, p99_9 = np.percentile(values, [50, 99, 99.9])
        document[name] = {"p50": round(p50, 3), "p99": round(p99, 3), "p99_9": round(p99_9, 3)}
    print(json.dumps(document))


if __name__ == "__main__":
    main()
