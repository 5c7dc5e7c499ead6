"""The whole way in one go: measure the base, train with a person, measure again, verify, report."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.episode_header import Outcome
from policy.episode_reader import latest_revisions
from policy.manifest_file import read_manifest
from policy.observation_history import history_of
from policy.run_folder import RunFolder
from robot.clock import Clock, VirtualClock, WallClock
from robot.config import SimulatedArmConfig
from robot.environment.config import GymnasiumArmConfig
from robot.errors import BadInputError
from robot.simulation.layout import Split
from teleop.episode_digest import digest_episode
from teleop.episode_result import EpisodeResult
from teleop.evaluation import Evaluation, evaluate
from teleop.evaluation_worker import Line
from teleop.last_good import MARGIN, Kept, compare, last_good
from teleop.opening import try_operator
from teleop.progress import Progress
from teleop.replay import verify_run
from teleop.rig import Rig
from teleop.run_options import OperatorKind
from teleop.run_reach import run_reachability
from teleop.station import LoadedStation
from teleop.station_learner import check_learnable
from teleop.statistics import quarter_means
from teleop.training import TrainingResult, train_online


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """How much of everything.

    Attributes:
        layouts: held-out layouts of each measurement.
        episodes: training episodes.
        max_steps: control ticks after which no further training episode begins.
        min_transitions: the learner begins with so many, where the station asks for more; None leaves the station be.
    """

    layouts: int
    episodes: int
    max_steps: int
    min_transitions: int | None

    def applied(self, loaded: LoadedStation) -> LoadedStation:
        """Return the station as this plan runs it."""
        learner = loaded.station.learner
        if self.min_transitions is None:
            return loaded
        begins = {"min_transitions": min(learner.min_transitions, self.min_transitions)}
        station = loaded.station.model_copy(update={"learner": learner.model_copy(update=begins)})
        return loaded.model_copy(update={"station": station})


FULL = DemoPlan(layouts=60, episodes=160, max_steps=19_800, min_transitions=None)
QUICK = DemoPlan(layouts=10, episodes=8, max_steps=2_000, min_transitions=256)


def run_demo(
    loaded: LoadedStation,
    *,
    out: Path,
    plan: DemoPlan,
    seed: int,
    operator: OperatorKind,
    real_time: bool,
    command: str,
) -> dict[str, Any]:
    """Run the demo into `out`, write summary.json and report.html there and return the summary.

    Raises:
        BadInputError: something a person can mend.
        HandrailError: a part failed.
    """
    began_s = time.perf_counter()
    loaded = plan.applied(loaded)
    _check_start(loaded, out, operator)
    base = _measure(loaded, "1 base policy, alone", None, plan, seed)
    clock: Clock = WallClock() if real_time or operator in ("gamepad", "keyboard") else VirtualClock()
    training = _train(loaded, clock, out, plan, seed, operator)
    trained = _measure(loaded, "3 base + residual, alone", training.weights, plan, seed)
    found = compare(trained, base)
    kept = None if found.not_worse(MARGIN) else _kept(loaded, training, plan, seed)
    if kept is not None:
        trained = base
        if kept.message is not None:
            trained = _measure(loaded, f"3 base + weights {kept.version}", kept.message, plan, seed)
    final = training.weights if kept is None else kept.message
    summary = _summary(base, trained, training)
    summary["against_base"] = compare(trained, base).summary()
    summary["rolled_back"] = None if kept is None else {"to": kept.version, "why": kept.line(training.version, found)}
    if final is not None:
        (out / "weights.safetensors").write_bytes(final)
    summary["replay"] = _verify(training)
    manifest, _ = read_manifest(loaded.bundle_path)
    reach = run_reachability(loaded.station, manifest, latest_revisions(training.run.episodes))
    summary["reachability"], summary["advice"] = (reach.summary(), reach.lines()) if reach else ({}, [])
    history = history_of(manifest, loaded.station.residual)
    summary |= {"history": history.model_dump(), "seed": seed, "command": command, "operator": operator}
    summary["wall_s"] = round(time.perf_counter() - began_s, 1)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _report(out, summary, training)
    return summary


def _check_start(loaded: LoadedStation, out: Path, operator: OperatorKind) -> None:
    """Raise BadInputError now for what would end the demo only after the first measurement."""
    if not isinstance(loaded.station.arm, (SimulatedArmConfig, GymnasiumArmConfig)):
        raise BadInputError(
            f"station {loaded.path}: arm.kind is '{loaded.station.arm.kind}', which runs in real time or plays a "
            "recording; only a simulated station can be measured: name one, such as launch/stations/sim_place.toml"
        )
    check_learnable(loaded)
    if operator in ("gamepad", "keyboard"):
        try_operator(operator, loaded.station.operator)
    with Rig(loaded, VirtualClock(), seed=0):  # whether the bundle fits
        pass
    RunFolder.prepare(out)


def _measure(loaded: LoadedStation, name: str, weights: bytes | None, plan: DemoPlan, seed: int) -> Evaluation:
    with Progress(name, plan.layouts) as bar:
        wins, lock = 0, threading.Lock()

        def progress(line: Line) -> None:
            nonlocal wins
            with lock:  # two threads call it
                wins += line.outcome == "success"
                bar.step(f"{wins}/{bar.done + 1} succeeded")

        return evaluate(
            loaded, weights=weights, episodes=plan.layouts, seed=seed, split=Split.HELD_OUT, progress=progress
        )


def _train(
    loaded: LoadedStation, clock: Clock, out: Path, plan: DemoPlan, seed: int, operator: OperatorKind
) -> TrainingResult:
    with Progress("2 training with a person", plan.episodes) as bar:
        recent: list[EpisodeResult] = []

        def progress(number: int, result: EpisodeResult, notice: str) -> None:
            recent.append(result)
            last = recent[-20:]
            alone = sum(r.outcome is not None and r.outcome.success and not r.interventions for r in last)
            helped = sum(r.interventions > 0 for r in last)
            bar.step(f"last {len(last)}: {alone} alone, {helped} helped" + (f"; {notice}" if notice else ""))

        return train_online(
            loaded,
            clock,
            out=out,
            episodes=plan.episodes,
            seed=seed,
            operator=operator,
            progress=progress,
            max_steps=plan.max_steps,
        )


def _summary(base: Evaluation, trained: Evaluation, training: TrainingResult) -> dict[str, Any]:
    results = training.results
    quarters = quarter_means([float(result.interventions) for result in results]) or (0.0, 0.0)
    allowed = sum(
        result.outcome is not None and result.outcome.outcome in (Outcome.FAILURE, Outcome.TIMEOUT)
        for result in results
    )
    return {
        "base": base.summary(),
        "trained": trained.summary(),
        "env_steps": training.env_steps,
        "training_wall_s": round(training.wall_s, 1),
        "interventions": {
            "first_quarter_per_episode": round(quarters[0], 3),
            "last_quarter_per_episode": round(quarters[1], 3),
            "failures_allowed": allowed,
        },
        "ticks": training.times.summary(),
        "episodes": {
            "committed": training.committed,
            "unrecorded": len(results) - training.committed,
            "incomplete": training.incomplete,
        },
        "learner": {
            "updates": training.learner.get("updates", 0),
            "updates_per_s": round(float(training.learner.get("updates_per_s", 0.0)), 1),
            "accepted": training.accepted,
            "refused": training.refused,
        },
    }


def _kept(loaded: LoadedStation, training: TrainingResult, plan: DemoPlan, seed: int) -> Kept:
    """Return which weights stay where the last ones are worse than the base.

    They are chosen on layouts of their own, so that the measured ones stay unseen.
    """
    with Progress("3 going back to good weights", plan.layouts) as bar:

        def measure(weights: bytes | None) -> Evaluation:
            bar.step("one more measured")
            return evaluate(loaded, weights=weights, episodes=plan.layouts, seed=seed, split=Split.SELECTION)

        run = training.run
        versions = [version for version in run.weights_versions() if 0 < version < training.version]
        return last_good(versions, lambda version: run.weights(run.weights_sha256(version)), measure)


def _verify(training: TrainingResult) -> dict[str, int]:
    with Progress("4 replaying every decision", len(training.results)) as bar:
        report = verify_run(training.run.path, jobs=2, progress=lambda episode: bar.step())
    return {"ticks": report.ticks, "mismatches": report.mismatches}


def _report(out: Path, summary: dict[str, Any], training: TrainingResult) -> None:
    from teleop.report import write_report  # loads matplotlib, which only this needs

    files = sorted((out / "episodes").glob("*.h5"))
    log = [_line(number, result) for number, result in enumerate(training.results)]
    digests = [digest_episode(path) for path in files]
    write_report(out / "report.html", summary, digests, training.run, training.times.stages_ms(), log)


def _line(number: int, result: EpisodeResult) -> str:
    outcome = result.outcome.outcome.value if result.outcome else "-"
    return (
        f"episode {number + 1}: {outcome}, {result.ticks} ticks, "
        f"{result.human_ticks} driven by the person in {result.interventions} interventions"
    )
