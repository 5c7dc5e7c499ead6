"""How often a controller succeeds by itself, over layouts drawn from a seed."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from policy.wilson import wilson95
from robot.errors import BadInputError, HandrailError
from robot.simulation.layout import Split
from teleop.evaluation_worker import Job, Line
from teleop.station import LoadedStation

_WORKERS = 2  # fixed, so that results do not depend on the number of cores


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result over a set of layouts.

    Attributes:
        outcomes: layout index -> outcome.
        ticks: control ticks, resets left out.
    """

    outcomes: dict[int, str]
    ticks: int

    @property
    def successes(self) -> int:
        """Number of layouts that ended in success."""
        return sum(outcome == "success" for outcome in self.outcomes.values())

    def summary(self) -> dict[str, object]:
        """Successes, episodes, rate and its Wilson 95 % interval."""
        count = len(self.outcomes)
        return {
            "successes": self.successes,
            "episodes": count,
            "rate": round(self.successes / count, 4) if count else 0.0,
            "wilson95": [round(bound, 4) for bound in wilson95(self.successes, count)],
        }


def evaluate(
    loaded: LoadedStation,
    *,
    weights: bytes | None,
    episodes: int,
    seed: int,
    split: Split = Split.HELD_OUT,
    progress: Callable[[Line], None] = lambda line: None,
) -> Evaluation:
    """Run layouts 0 to `episodes` - 1 in lock-step without a person, in two processes.

    Args:
        loaded: a simulated station.
        weights: message of a residual; None measures the base alone.
        episodes: number of layouts.
        seed: of the family of layouts.
        split: family of layouts.
        progress: called after each episode, from worker threads.

    Raises:
        BadInputError: the bundle or the weights do not fit the station.
        HandrailError: a worker failed; the text is its own last words.
    """
    layouts = [list(range(first, episodes, _WORKERS)) for first in range(_WORKERS)]
    jobs = [
        Job(
            station=loaded.station,
            path=loaded.path,
            weights=base64.b64encode(weights).decode() if weights else None,
            split=split,
            seed=seed,
            layouts=share,
        )
        for share in layouts
        if share
    ]
    workers: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(_WORKERS) as pool:
        try:
            lines = [line for part in pool.map(lambda job: _run(job, progress, workers), jobs) for line in part]
        except BaseException:  # Ctrl-C and SIGTERM among them; the pool would wait for every layout
            for worker in workers:
                worker.kill()
            raise
    outcomes = {line.layout: line.outcome for line in sorted(lines, key=lambda line: line.layout)}
    return Evaluation(outcomes=outcomes, ticks=sum(line.ticks for line in lines))


def _run(job: Job, progress: Callable[[Line], None], workers: list[subprocess.Popen[str]]) -> list[Line]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    lines = []
    # errors go to a file: a pipe that nobody reads while episodes come would fill up and stop the worker
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "teleop.evaluation_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as process,
    ):
        workers.append(process)
        assert process.stdin
        assert process.stdout
        with suppress(BrokenPipeError):  # a worker that died before it read: its status and its last words say why
            process.stdin.write(job.model_dump_json())
        with suppress(BrokenPipeError):
            process.stdin.close()
        for text in process.stdout:
            lines.append(Line.model_validate_json(text))
            progress(lines[-1])
        process.wait()
        errors.seek(0)
        problem = errors.read().strip()
    if process.returncode == 2:
        raise BadInputError(problem)
    if process.returncode != 0 or len(lines) != len(job.layouts):
        last = problem.splitlines()[-1] if problem else f"exit code {process.returncode}"
        raise HandrailError(f"evaluation: a worker stopped after {len(lines)} of {len(job.layouts)} episodes: {last}")
    return lines
