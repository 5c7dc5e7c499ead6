"""What a run tells the person who started it: how to arm, a line per episode, a summary."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy.episode_commit import Committed
from policy.episode_header import Outcome
from policy.episode_reader import read_episode
from robot.command import Reason
from teleop.episode_result import EpisodeResult
from teleop.learned_weights import LearnedWeights
from teleop.reward_agreement import reward_agreement
from teleop.reward_watch import RewardWatch
from teleop.run import Run
from teleop.run_options import OperatorKind
from teleop.run_reach import run_reachability

HOW_TO_ARM: dict[OperatorKind, str] = {
    "gamepad": "disarmed: press Start to arm, hold RB to drive, B holds, Back stops",
    "keyboard": "disarmed: click on the window and press F1 to arm, hold Space to drive, H holds, Escape stops",
    "simulated": "the simulated operator arms and supervises",
    "expert": "the scripted expert arms and drives",
    "none": "nobody supervises; this script arms",
}


def process_age_s() -> float:
    """Return how long ago this process was started, to 10 ms [s]; Linux only."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    ticks_per_s = 100  # USER_HZ, the unit of /proc, is 100 on every architecture that Linux runs on for long now
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / ticks_per_s


def episode_line(number: int, total: int | None, result: EpisodeResult, notice: str) -> str:
    """One line about a finished episode; `notice` is what else there is to tell."""
    assert result.outcome is not None
    of = "" if total is None else f"/{total}"
    line = f"episode {number}{of}: {result.outcome.outcome.value}, {result.ticks} ticks"
    if result.interventions:
        line += f", {result.interventions} interventions ({result.human_ticks} ticks)"
    failures, why = result.policy_failures
    if failures:
        line += f"; the base policy failed in {failures} ticks ({why})"
    if result.outcome.reason:
        line += f"; {result.outcome.reason}"
    return f"{line}; {notice}" if notice else line


def run_summary(run: Run) -> dict[str, object]:
    """Return the JSON document of a finished run."""
    results, committed = run.results, run.committed
    outcomes = Counter(result.outcome.outcome.value for result in results if result.outcome)
    document: dict[str, object] = {
        "run": str(run.folder.path),
        "run_id": run.folder.run_id,
        "episodes": len(results),
        "ticks": sum(result.ticks for result in results),
        "reset_ticks": sum(result.reset_ticks for result in results),
        "outcomes": dict(outcomes),
        "labels": _labels(results),
        "interventions": sum(result.interventions for result in results),
        "human_ticks": sum(result.human_ticks for result in results),
        "timing": run.loop.times.summary(),
        "safety": safety_reasons([episode.path for episode in committed]),
        "committed": len(committed),
        "unrecorded": len(results) - run.recorded,
        "incomplete": sum(not episode.outcome.complete for episode in committed),
        "weights_version": run.weights.version,
        "calibration_warnings": run.moved,
    }
    if isinstance(run.weights, LearnedWeights):
        weights = run.weights
        document["weights"] = {
            "accepted": weights.accepted,
            "refused": weights.refused,
            "withdrawn": weights.withdrawn,
            "lacking": weights.lacking(),
        }
    reach = run_reachability(
        run.rig.station, run.rig.bundle.manifest, [read_episode(episode.path) for episode in committed]
    )
    if reach is not None:
        document["reachability"] = reach.summary()
        document["advice"] = reach.lines()
    if run.rig.reward is not None:
        document["reward_model"] = _reward_model(run.rig.reward, committed)
    return document


def _reward_model(reward: RewardWatch, committed: Sequence[Committed]) -> dict[str, object]:
    """Return what there is to say of the reward model; where it only looked on, how often it agreed."""
    said: dict[str, object] = {"sha256": reward.model.sha256, "judges": reward.judges, "unusable": reward.unusable}
    if reward.judges:
        return said
    found = reward_agreement([read_episode(episode.path) for episode in committed], reward.rule)
    return said | dataclasses.asdict(found) | {"told": found.line}


def _labels(results: Sequence[EpisodeResult]) -> dict[str, int]:
    """Count who said how the episodes ended."""
    return dict(Counter(result.outcome.label_source.value for result in results if result.outcome))


def safety_reasons(paths: Sequence[Path]) -> dict[str, int]:
    """Count in how many ticks of the logged episodes the safety filter had each reason."""
    counts: Counter[str] = Counter()
    for path in paths:
        masks = read_episode(path).array("tick/safety").astype(np.int64)
        for reason in Reason:
            found = int(np.count_nonzero(masks & int(reason)))
            if found:
                counts[reason.name or str(int(reason))] += found
    return dict(counts)


def summary_lines(run: Run, document: dict[str, object]) -> list[str]:
    """Return the summary for people."""
    results, times = run.results, run.loop.times
    successes = sum(result.outcome is not None and result.outcome.outcome is Outcome.SUCCESS for result in results)
    outcomes = Counter(result.outcome.outcome.value for result in results if result.outcome)
    told = ", ".join(f"{count} {name}" for name, count in outcomes.most_common()) or "none"
    told_by = {"none": "nobody"} | {name: name.replace("_", " ") for name in _labels(results) if name != "none"}
    labels = ", ".join(f"{count} by {told_by[name]}" for name, count in _labels(results).items())
    lines = [
        f"{len(results)} episodes: {told}" + (f" ({successes / len(results):.0%} success)" if successes else ""),
        f"labelled: {labels or 'none'}",
        f"{sum(r.interventions for r in results)} interventions, {sum(r.human_ticks for r in results)} of "
        f"{sum(r.ticks for r in results)} ticks by the person",
        f"tick overhead {_tails(times.overhead_ms())}; {times.deadline_misses} deadlines missed",
    ]
    if run.granted:  # on a virtual clock nothing is late, and frames are as old as the station says
        lines.append(f"ticks late by {_tails(times.late_ms())}")
        lines.append(f"from the oldest frame's capture to the command {_tails(times.age_ms())}")
    reasons = document["safety"]
    if isinstance(reasons, dict) and reasons:
        lines.append("safety filter: " + ", ".join(f"{name.lower()} {count} ticks" for name, count in reasons.items()))
    reward = document.get("reward_model")
    if isinstance(reward, dict) and "told" in reward:
        lines.append(reward["told"])
    if isinstance(run.weights, LearnedWeights) and (lacking := run.weights.lacking()):
        lines.append(lacking)
    advice = document.get("advice")
    lines += advice if isinstance(advice, list) else []
    return [*lines, *recording_lines(run, document), f"run: {run.folder.path}"]


def _tails(values_ms: NDArray[np.float64]) -> str:
    """Return p50, p99, p99.9 and the greatest value in words [ms]."""
    if not len(values_ms):
        return "not measured"
    p50, p99, p99_9, worst = np.percentile(values_ms, [50, 99, 99.9, 100])
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, p99.9 {p99_9:.2f} ms, worst {worst:.2f} ms"


def recording_lines(run: Run, document: dict[str, object]) -> list[str]:
    """Return what is missing of the run's recording and why, for people; nothing when all is there."""
    lines = []
    if document["incomplete"]:
        lines.append(f"{document['incomplete']} episodes have gaps in their recording")
    if document["unrecorded"]:
        lines.append(f"{document['unrecorded']} episodes are not on disk")
    return [*lines, *dict.fromkeys(run.problems)]


def all_recorded(document: dict[str, object]) -> bool:
    """Return whether every episode of a run is on disk without gaps."""
    return not (document["incomplete"] or document["unrecorded"])
