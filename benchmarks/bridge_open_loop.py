"""Open-loop error of the policy for recorded WidowX episodes, with everything that it is to be judged by.

Prints one JSON line: the shipped bundle on the held-out episodes (`held_out`), and policies trained anew, over all
episodes, each predicted by one that never saw it (`leave_one_episode_out`) or any episode with its instruction
(`leave_one_instruction_out`). `repeat` (the motion measured over the last step) and `median` are harder to beat
than the three baselines of the report. `moving` leaves out the first step of each episode, where the operator's
action is zero and the arm's rest tells it.

    python benchmarks/bridge_open_loop.py --recording bridge_real_robot.h5
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from policy.bridge_data import ActionStatistics, Steps, play, unseen
from policy.bridge_judge import bundle_actions
from policy.bridge_training import CHUNK_LENGTH, fit
from policy.bundle import Bundle, load_bundle
from policy.open_loop import baseline_actions, open_loop_error
from robot.recording import Recording

ROOT = Path(__file__).parents[1]
Mask = NDArray[np.bool_]
Array = NDArray[np.float64]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=ROOT / "policy/bundles/bridge")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the cross-validations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recording = Recording.open(options.recording)
    steps = play(recording, CHUNK_LENGTH)
    bundle = load_bundle(options.bundle, provider="cpu")
    judged = unseen(recording, bundle.manifest.training)
    held_out = np.isin(steps.episode, judged)
    instructions = np.array([recording.episodes[number].instruction for number in steps.episode])
    tests = {
        "leave_one_episode_out": [steps.episode == number for number in range(len(recording.episodes))],
        "leave_one_instruction_out": [instructions == text for text in sorted(set(instructions))],
    }
    result: dict[str, object] = {
        "benchmark": "bridge_open_loop",
        "held_out": figures(
            recording, steps, [held_out], [bundle_actions(bundle, steps, held_out)], [bundle_statistics(bundle)]
        ),
        "held_out_episodes": [recording.episodes[number].name for number in judged],
    }
    for name, folds in tests.items():
        result[name] = [cross_validated(recording, steps, folds, seed) for seed in range(options.seeds)]
    print(json.dumps(result))


def bundle_statistics(bundle: Bundle) -> ActionStatistics:
    """Return the statistics that the bundle was trained with."""
    return ActionStatistics.from_training(bundle.manifest.training, f"bundle {bundle.folder}")


def cross_validated(recording: Recording, steps: Steps, folds: Sequence[Mask], seed: int) -> dict[str, object]:
    """Train without each fold and measure on it."""
    with tqdm(desc=f"{len(folds)} folds, seed {seed}", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        policies = fit(steps, [~fold for fold in folds], seed, progress)
    actions = [policy.predict(steps, fold) for policy, fold in zip(policies, folds, strict=True)]
    statistics = [
        ActionStatistics.of([recording.episodes[number] for number in np.unique(steps.episode[~fold])])
        for fold in folds
    ]
    return figures(recording, steps, folds, actions, statistics)


def figures(
    recording: Recording,
    steps: Steps,
    folds: Sequence[Mask],
    actions: Sequence[Array],
    statistics: Sequence[ActionStatistics],
) -> dict[str, object]:
    """Return the errors of policy and baselines, each fold in its own training episodes' units, mean over steps."""
    opening = np.concatenate([episode.opening for episode in recording.episodes])
    first = np.concatenate([np.arange(len(episode)) == 0 for episode in recording.episodes])
    velocity = np.concatenate([episode.tcp_velocity for episode in recording.episodes])
    sums: dict[str, Array] = {}
    moving = 0.0
    for fold, wanted, stats in zip(folds, actions, statistics, strict=True):
        operator = steps.chunk[fold, 0]
        medians = np.median(steps.chunk[~fold, 0], axis=0)
        candidates = {
            "policy": wanted,
            **baseline_actions(opening[fold], stats),
            "median": np.tile(medians, (len(operator), 1)),
            "repeat": np.concatenate([velocity[fold] / recording.rate_hz, opening[fold][:, None]], axis=1),
        }
        for name, values in candidates.items():
            sums[name] = sums.get(name, 0.0) + open_loop_error(values, operator, stats).dims * len(operator)
        later = ~first[fold]
        moving += open_loop_error(wanted[later], operator[later], stats).motion * later.sum()
    count = sum(int(fold.sum()) for fold in folds)
    later_count = sum(int((fold & ~first).sum()) for fold in folds)
    return {
        "steps": count,
        **{
            name: {"motion": round(float(dims[:6].mean() / count), 4), "gripper": round(float(dims[6] / count), 4)}
            for name, dims in sums.items()
        },
        "policy_dims": [round(float(value), 4) for value in sums["policy"] / count],
        "policy_moving_motion": round(moving / later_count, 4),
    }


if __name__ == "__main__":
    main()
