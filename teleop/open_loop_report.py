"""How far a policy was from the operator of a recording, from the logged episodes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.bridge_data import DIMS, ActionStatistics, was_seen
from policy.episode_reader import Episode
from policy.manifest import ActionSpec, Manifest
from policy.open_loop import BASELINES, OpenLoopError, baseline_actions, open_loop_error
from robot.command import CommandKind
from robot.errors import BadInputError
from robot.recording import RecordedEpisode, Recording

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class OpenLoopReport:
    """Errors of the base policy and of the baselines on the same ticks.

    Attributes:
        episodes: logged episodes that were judged.
        ticks: ticks that were judged.
        silent_ticks: ticks of those episodes without a base action (no fresh observation); not judged.
        seen_episodes: logged episodes left out because the bundle was trained on them.
        error: of the base policy.
        baselines: by name, see `policy.open_loop.baseline_actions`.
    """

    episodes: int
    ticks: int
    silent_ticks: int
    seen_episodes: int
    error: OpenLoopError
    baselines: dict[str, OpenLoopError]

    @property
    def beats_all(self) -> bool:
        """True when the policy's motion error is below that of every baseline."""
        return all(self.error.motion < baseline.motion for baseline in self.baselines.values())

    def summary(self) -> dict[str, object]:
        """Return the JSON document's part."""
        return {
            "episodes": self.episodes,
            "ticks": self.ticks,
            "silent_ticks": self.silent_ticks,
            "seen_episodes": self.seen_episodes,
            "error": self.error.summary(),
            "baselines": {name: baseline.summary() for name, baseline in self.baselines.items()},
            "beats_all_baselines_on_motion": self.beats_all,
        }

    def verdict(self) -> str:
        """Return one plain sentence."""
        best = min(self.baselines, key=lambda name: self.baselines[name].motion)
        if self.beats_all:
            return (
                f"On {self.episodes} unseen episodes the policy is nearer to the operator's motion than all baselines:"
                f" {self.error.motion:.2f} spreads against {self.baselines[best].motion:.2f} of the best, {best}."
            )
        worst = int(np.argmax(self.error.dims[:6] - self.baselines[best].dims[:6]))
        return (
            f"On {self.episodes} unseen episodes the policy does NOT beat all baselines on motion:"
            f" {self.error.motion:.2f} spreads against {self.baselines[best].motion:.2f} of {best}; it loses most on"
            f" {DIMS[worst]} ({self.error.dims[worst]:.2f} against {self.baselines[best].dims[worst]:.2f})."
        )

    def text(self) -> str:
        """Return the verdict and a table, one line per dimension."""
        columns = {"policy": self.error, **self.baselines}
        lines = [
            self.verdict(),
            "Mean absolute error in spreads (standard deviation of the operator's actions in the training episodes):",
            f"{'':<9}" + "".join(f"{name:>14}" for name in columns),
        ]
        lines += [
            f"{dim:<9}" + "".join(f"{error.dims[row]:>14.3f}" for error in columns.values())
            for row, dim in enumerate(DIMS)
        ]
        lines.append(f"{'motion':<9}" + "".join(f"{error.motion:>14.3f}" for error in columns.values()))
        if self.silent_ticks or self.seen_episodes:
            lines.append(
                f"Not judged: {self.silent_ticks} ticks without a base action, {self.seen_episodes} episodes of the"
                " training."
            )
        return "\n".join(lines)


def open_loop_report(episodes: Sequence[Episode], recording: Recording, manifest: Manifest) -> OpenLoopReport:
    """Compare what the base policy wanted with what the operator did at the same step.

    Args:
        episodes: the logged episodes of a run on `recording`.
        recording: what was played.
        manifest: of the bundle that ran.

    Raises:
        BadInputError: the bundle was not trained on recordings, an episode is not of this recording, or nothing
            is left to judge.
    """
    where = f"bundle '{manifest.name}'"
    statistics = ActionStatistics.from_training(manifest.training, where)
    spec = manifest.action
    if spec.kind is not CommandKind.TCP_DELTA or spec.frame != "base" or spec.dims != DIMS or spec.gripper != "width":
        raise BadInputError(
            f"{where}: actions are {spec.kind.value} in the {spec.frame} frame over {spec.dims} (allowed: tcp_delta in"
            f" the base frame over {DIMS}, gripper by width); use a bundle for recorded arms"
        )
    by_name = {episode.name: episode for episode in recording.episodes}
    base, operator, opening = [], [], []
    seen = silent = 0
    for episode in episodes:
        played = by_name.get(str(episode.header.layout.get("recorded_episode")))
        start_s = episode.header.layout.get("recorded_start_s")
        if played is None or not isinstance(start_s, float):
            raise BadInputError(
                f"{episode.path}: not an episode of recording {recording.path}; give the recording that was played"
            )
        if was_seen(played, manifest.training):
            seen += 1
            continue
        rows, steps = _judged(episode, played, start_s, recording.rate_hz)
        wanted = episode.array("tick/base").astype(np.float64)[rows]
        spoke = np.isfinite(wanted).all(axis=1)
        silent += int((~spoke).sum())
        base.append(_si(wanted[spoke], spec))
        operator.append(played.action[steps[spoke]])
        opening.append(played.opening[steps[spoke]])
    if not sum(len(actions) for actions in base):
        raise BadInputError(
            f"recording {recording.path}: no tick to judge in {len(episodes)} episodes ({seen} were trained on,"
            f" {silent} ticks had no base action); play unseen episodes"
        )
    truth = np.concatenate(operator)
    baselines = baseline_actions(np.concatenate(opening), statistics)
    return OpenLoopReport(
        episodes=len(base),
        ticks=len(truth),
        silent_ticks=silent,
        seen_episodes=seen,
        error=open_loop_error(np.concatenate(base), truth, statistics),
        baselines={name: open_loop_error(baselines[name], truth, statistics) for name in BASELINES},
    )


def _judged(
    episode: Episode, played: RecordedEpisode, start_s: float, rate_hz: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows of the log that played a step, and the steps: by when the arm's state was measured."""
    logged = episode.arrays(["tick/state_s", "tick/reset"])
    played_steps = (logged["tick/state_s"].astype(np.float64) - start_s) * rate_hz
    steps = np.rint(played_steps).astype(np.intp)
    # before the playback the arm stands still at any time, in it at the steps' own times only
    playing = (steps >= 0) & (steps < len(played)) & (np.abs(played_steps - steps) < 1e-3)
    rows = np.flatnonzero(playing & np.isnan(logged["tick/reset"].astype(np.float64)).all(axis=1))
    return rows, steps[rows]


def _si(actions: Array, spec: ActionSpec) -> Array:
    """Normalised actions (N, 7) to SI units, the gripper to its opening 0 to 1."""
    si: Array = actions * np.array(spec.scale) + np.array(spec.offset)
    si[:, 6] = (actions[:, 6] + 1.0) / 2.0
    return si
