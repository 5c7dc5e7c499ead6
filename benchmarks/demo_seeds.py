#!/usr/bin/env python3
"""The demo's learning over several seeds, measured on held-out layouts without a person; one JSON line.

Per seed: the base alone and the trained residual. For the first seed also three controls, fitted on the very episodes
of its run: the best constant residual, a residual that cannot see the image features, and plain imitation of the
corrections.

    .venv/bin/python benchmarks/demo_seeds.py --seeds 0 1 2 3 4 --layouts 200 --out runs/seeds
    .venv/bin/python benchmarks/demo_seeds.py --station launch/stations/sim_insert.toml --out runs/insert_seeds
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))

from environment import cli

import numpy as np

from policy.bundle import load_bundle
from policy.episode_reader import latest_revisions
from policy.learner_process import run_learner
from policy.residual import zero_tensors
from policy.weights import Expected, pack
from robot.clock import VirtualClock
from robot.simulation.layout import Split
from teleop.demo import FULL, QUICK
from teleop.evaluation import evaluate
from teleop.station import LoadedStation, load_station
from teleop.station_learner import learner_settings
from teleop.statistics import quarter_means
from teleop.training import TrainingResult, train_online

_CONSTANT_SEED = 1_000  # selection layouts on which the constant is chosen
_CONSTANT_LAYOUTS = 24


def main() -> int:
    """Train and measure each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--station", type=Path, default=cli.STATIONS / "sim_place.toml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--layouts", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="few episodes and layouts: only the machinery")
    parser.add_argument("--no-controls", action="store_true", help="leave the three controls out")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    loaded = load_station(args.station)
    layouts = 4 if args.quick else args.layouts
    seeds = []
    for seed in args.seeds:
        controls = seed == args.seeds[0] and not args.no_controls
        row = _one_seed(loaded, seed, layouts, args.quick, args.out / f"seed{seed}", controls=controls)
        seeds.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    rates = [row["trained"]["rate"] for row in seeds]
    result = {
        "benchmark": "demo_seeds",
        "station": loaded.station.name,
        "layouts": layouts,
        "trained_mean": round(float(np.mean(rates)), 4),
        "trained_least": min(rates),
        "base_mean": round(float(np.mean([row["base"]["rate"] for row in seeds])), 4),
        "threads": {"loop": 1, "learner": 1},
        "seeds": seeds,
    }
    print(json.dumps(result))
    return 0


def _one_seed(
    loaded: LoadedStation, seed: int, layouts: int, quick: bool, out: Path, *, controls: bool
) -> dict[str, Any]:
    plan = QUICK if quick else FULL
    loaded = plan.applied(loaded)
    began_s = time.perf_counter()
    training = train_online(
        loaded,
        VirtualClock(),
        out=out,
        episodes=plan.episodes,
        seed=seed,
        operator="simulated",
        progress=lambda number, result, notice: None,
        max_steps=plan.max_steps,
    )
    trained_s = time.perf_counter() - began_s

    def measure(weights: bytes | None) -> dict[str, Any]:
        return evaluate(loaded, weights=weights, episodes=layouts, seed=seed, split=Split.HELD_OUT).summary()

    quarters = quarter_means([float(result.interventions) for result in training.results])
    row: dict[str, Any] = {
        "seed": seed,
        "base": measure(None),
        "trained": measure(training.weights),
        "episodes": len(training.results),
        "env_steps": training.env_steps,
        "training_s": round(trained_s, 1),
        "updates": training.learner.get("updates"),
        "interventions_by_quarter_ends": quarters,
    }
    if controls:
        constant, residual = _best_constant(loaded, training, quick)
        row |= {
            "constant": measure(constant) | {"residual": residual},
            "blind": measure(_offline(loaded, training, seed, out / "blind", {"use_features": False})),
            "imitation": measure(
                _offline(
                    loaded,
                    training,
                    seed,
                    out / "imitation",
                    {"q_weight": 0.0, "q_filter": False, "approval_weight": 0.0},
                )
            ),
        }
    return row


def _offline(
    loaded: LoadedStation, training: TrainingResult, seed: int, folder: Path, changes: dict[str, Any]
) -> bytes:
    """Train with other switches on the run's own episodes, with as many updates as the run made."""
    settings = learner_settings(loaded, state_dir=folder, run_id=folder.name, seed=seed, lock_step=True, endpoint=None)
    settings = settings.model_copy(
        update={
            "algorithm": settings.algorithm | changes,
            "episodes": (training.run.episodes,),
            "offline_updates": int(training.learner["updates"]),
        }
    )
    run_learner(settings, stop=lambda: False)
    return (folder / "weights.safetensors").read_bytes()


def _best_constant(loaded: LoadedStation, training: TrainingResult, quick: bool) -> tuple[bytes, list[float]]:
    """The constant residual that does best on selection layouts, and its message.

    Tried are the mean correction of this run and multiples of it, a grid over the three axes that no run asked for,
    and then, round the best of those, one axis at a time: the best of its kind and not of one data set.
    """
    assert loaded.station.residual is not None
    scale = np.array(loaded.station.residual.scale, np.float32)
    corrections = []
    for episode in latest_revisions(training.run.episodes):
        arrays = episode.arrays(["tick/human", "tick/base"])
        wanted = np.asarray(arrays["tick/human"]) - np.asarray(arrays["tick/base"])
        corrections.append(wanted[np.isfinite(wanted).all(axis=1)])
    mean = np.concatenate(corrections).mean(axis=0) if corrections else np.zeros_like(scale)
    candidates = [factor * mean for factor in (0.25, 0.5, 1.0)]
    if quick:
        candidates = candidates[:1]
    else:
        grid = itertools.product((-0.06, 0.0, 0.06), (-0.08, -0.04, 0.0, 0.04, 0.08), (0.0, -0.1, -0.2))
        candidates += [_offset(scale, *offset) for offset in grid]

    def successes(residual: np.ndarray) -> int:
        count = 2 if quick else _CONSTANT_LAYOUTS
        message = _constant(loaded, residual, scale)
        return evaluate(loaded, weights=message, episodes=count, seed=_CONSTANT_SEED, split=Split.SELECTION).successes

    limit = 0.95 * scale
    found = [(successes(residual), residual) for residual in (np.clip(c, -limit, limit) for c in candidates)]
    most, best = max(found, key=lambda pair: pair[0])
    for axis, step in itertools.product(range(0 if quick else 3), (-0.03, 0.03)):
        residual = np.clip(best + step * np.eye(len(scale))[axis], -limit, limit)
        if (count := successes(residual)) > most:
            most, best = count, residual
    return _constant(loaded, best, scale), [round(float(value), 4) for value in best]


def _offset(scale: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
    """A residual (A,) that only translates, share of the action's range."""
    residual = np.zeros(len(scale))
    residual[:3] = x, y, z
    return residual


def _constant(loaded: LoadedStation, residual: np.ndarray, scale: np.ndarray) -> bytes:
    """A weights message whose head gives `residual` (A,) whatever it sees."""
    bundle = load_bundle(loaded.bundle_path)
    manifest = bundle.manifest
    dims = Expected.of(manifest, loaded.station.residual).dims
    tensors = zero_tensors(dims, scale)
    share = np.divide(residual, scale, out=np.zeros_like(residual), where=scale > 0)
    tensors["actor.out.bias"] = np.arctanh(share).astype(np.float32)
    return pack(version=1, run_id="constant", bundle_sha256=bundle.sha256, dims=dims, tensors=tensors)


if __name__ == "__main__":
    sys.exit(main())
