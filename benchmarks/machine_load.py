"""What competes with a robot for its two cores: a learner that trains, and processes that only compute.

python -m benchmarks.machine_load learner | busy
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np

_LEARNER_NICENESS = 5  # as `policy.learner_settings.LearnerSettings` has it
_FEATURES, _PROPRIO, _ACTION, _BATCH = 128, 4, 5, 256


@contextmanager
def loaded(busy: int = 2, *, learner: bool = True) -> Iterator[str]:
    """Keep a learner training and `busy` processes computing meanwhile; yields what runs, in words."""
    words = (["learner"] if learner else []) + ["busy"] * busy
    root = Path(__file__).resolve().parents[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.machine_load", word],
            cwd=root,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            start_new_session=True,  # as other programs, and not as a part of what is measured
        )
        for word in words
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":  # it computes from here on
                raise RuntimeError(f"the load did not start: {process.args!r}")
        yield f"{'a learner (nice 5) and ' if learner else ''}{busy} busy processes (nice 0)"
        if any(process.poll() is not None for process in processes):
            raise RuntimeError("the load ended before the measurement did")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def busy() -> NoReturn:
    """Count."""
    print("ready", flush=True)
    number = 0
    while True:
        number += 1


def learn() -> NoReturn:
    """Update a residual on random transitions, with the shapes and the rest of a real learner."""
    import torch

    from policy.learner_config import LearnerConfig
    from policy.replay_buffer import Batch
    from policy.residual_learner import LearnerDims, ResidualLearner

    torch.set_num_threads(1)
    os.nice(_LEARNER_NICENESS)
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(size=(_BATCH, *shape)).astype(np.float32)

    def mask() -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return rng.random(_BATCH) < 0.5

    batch = Batch(
        features=floats(_FEATURES),
        proprio=floats(_PROPRIO),
        base=floats(_ACTION),
        action=floats(_ACTION),
        reward=floats(),
        discount=np.full(_BATCH, 0.9, np.float32),
        next_features=floats(_FEATURES),
        next_proprio=floats(_PROPRIO),
        next_base=floats(_ACTION),
        human=mask(),
        human_action=floats(_ACTION),
        hindsight=mask(),
        approved=mask(),
        demonstration=mask(),
    )
    dims = LearnerDims(feature_size=_FEATURES, proprio_size=_PROPRIO, action_size=_ACTION)
    learner = ResidualLearner(dims, LearnerConfig(scale=(0.3,) * _ACTION), seed=0)
    learner.update(batch)
    print("ready", flush=True)
    while True:
        learner.update(batch)


if __name__ == "__main__":
    {"busy": busy, "learner": learn}[sys.argv[1]]()
