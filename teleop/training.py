"""Human-in-the-loop training in lock-step: the robot's loop and a learner beside it, one episode apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.learner_child import LearnerChild
from policy.provenance import collect_provenance
from policy.run_folder import RunFolder
from robot.clock import Clock
from robot.simulation.layout import Split
from teleop.episode_result import EpisodeResult
from teleop.learned_weights import LearnedWeights
from teleop.run import Run
from teleop.run_options import OperatorKind, RunOptions
from teleop.station import LoadedStation
from teleop.station_learner import learner_settings
from teleop.tick_times import TickTimes

Progress = Callable[[int, EpisodeResult, str], None]


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training run gave.

    Attributes:
        run: its folder.
        weights: message of the last weights in force.
        version: of these.
        results: one per episode.
        times: stage times of every tick.
        wall_s: from the first episode to the last weights [s].
        learner: the learner's last status.
        accepted, refused: versions of the weights.
        committed: episodes of `results` that are on disk.
        incomplete: episodes whose recording has gaps.
    """

    run: RunFolder
    weights: bytes
    version: int
    results: list[EpisodeResult]
    times: TickTimes
    wall_s: float
    learner: dict[str, Any]
    accepted: int
    refused: int
    committed: int
    incomplete: int

    @property
    def env_steps(self) -> int:
        """Control ticks of all episodes, resets included."""
        return sum(result.ticks + result.reset_ticks for result in self.results)


def train_online(
    loaded: LoadedStation,
    clock: Clock,
    *,
    out: Path,
    episodes: int,
    seed: int,
    operator: OperatorKind,
    progress: Progress,
    max_steps: int | None = None,
    resume: bool = False,
    demonstrations: Sequence[Path] = (),
    drives_through: bool = False,
) -> TrainingResult:
    """Run `episodes` episodes with a person and a learner of its own, in `out`.

    Args:
        episodes: of this call; a resumed run has those before, too.
        progress: called after each episode with its number, its result and news.
        max_steps: ends before an episode that would begin beyond so many control ticks.
        resume: go on with the run in `out`, its learner included.
        demonstrations: folders of episodes that show the task, for the learner to start from.
        drives_through: of the simulated person, see `RunOptions`.

    Raises:
        BadInputError: something a person can mend.
        HandrailError: the learner died or diverged.
    """
    run_folder = RunFolder.create(out, collect_provenance(clock, operator=operator), resume=resume)
    settings = learner_settings(
        loaded,
        state_dir=out / "learner",
        run_id=run_folder.run_id,
        seed=seed,
        lock_step=clock.virtual,
        endpoint="tcp://127.0.0.1:*",
        demonstrations=demonstrations,
    )
    with LearnerChild(settings) as learner:
        endpoint = learner.endpoint()
        options = RunOptions(
            out=out,
            operator=operator,
            seed=seed,
            split=Split.TRAINING,
            learner=endpoint,
            explore=True,
            resume=True,
            drives_through=drives_through,
        )
        with Run(loaded, clock, options) as run:
            started_s = time.perf_counter()
            steps = 0
            for number in range(episodes):
                if max_steps is not None and steps >= max_steps:
                    break
                result = run.episode()
                if result is None:
                    break
                steps += result.ticks + result.reset_ticks
                progress(number, result, run.news())
                if result.quit:
                    break
            run.finish()
            wall_s = time.perf_counter() - started_s
        learner.stop()  # its last word has every update, a status in between is up to a second old
        weights = run.weights
        assert isinstance(weights, LearnedWeights)
        return TrainingResult(
            run=run.folder,
            weights=weights.message,
            version=weights.version,
            results=run.results,
            times=run.loop.times,
            wall_s=wall_s,
            learner=learner.status(),
            accepted=weights.accepted,
            refused=weights.refused,
            committed=run.recorded,
            incomplete=sum(not committed.outcome.complete for committed in run.committed),
        )
