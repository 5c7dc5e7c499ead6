"""What a report says of one episode, small enough to keep for every episode of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy.episode_header import LabelSource, Outcome
from policy.episode_reader import read_episode
from teleop.arbiter import Source


@dataclass(frozen=True, kw_only=True, eq=False)  # an array has no one truth value to compare by
class EpisodeDigest:
    """One committed episode in figures.

    Attributes:
        index: within the run, from 0.
        outcome: the label in force.
        label_source: who said so.
        complete: False when ticks are missing.
        rate_hz: nominal tick rate [Hz].
        ticks: ticks after the reset.
        human_ticks: ticks that the person drove.
        interventions: how often the person took over.
        sources: `Source` of every tick, the reset's included, (T,) uint8, read-only.
        path: the file.
    """

    index: int
    outcome: Outcome
    label_source: LabelSource
    complete: bool
    rate_hz: float
    ticks: int
    human_ticks: int
    interventions: int
    sources: NDArray[np.uint8]
    path: Path

    @property
    def success(self) -> bool:
        """True for a success, whoever said so."""
        return self.outcome is Outcome.SUCCESS

    @property
    def helped(self) -> bool:
        """True when the person drove at any tick."""
        return self.interventions > 0


def digest_episode(path: Path) -> EpisodeDigest:
    """Read one committed episode file into its digest.

    Raises:
        BadInputError: missing, damaged, or not an episode.
    """
    episode = read_episode(path)
    logged = episode.arrays(["tick/source", "tick/reset"])
    sources = logged["tick/source"].astype(np.uint8)
    sources.setflags(write=False)
    human = sources == Source.HUMAN
    resetting = np.isfinite(logged["tick/reset"].astype(np.float32)).any(axis=1)
    return EpisodeDigest(
        index=episode.header.episode,
        outcome=episode.outcome.outcome,
        label_source=episode.outcome.label_source,
        complete=episode.outcome.complete,
        rate_hz=episode.header.rate_hz,
        ticks=int((~resetting).sum()),
        human_ticks=int(human.sum()),
        interventions=int((human & ~np.r_[False, human[:-1]]).sum()),
        sources=sources,
        path=episode.path,
    )


def typical_corrected(episodes: Sequence[EpisodeDigest]) -> EpisodeDigest | None:
    """Return the corrected episode to show, None when the person never drove.

    Of those that succeeded, where there are any, the one with the median of the person's ticks; of equals the
    later, in which the residual has learned more. It is neither the best nor the worst.
    """
    helped = [episode for episode in episodes if episode.helped]
    candidates = [episode for episode in helped if episode.success] or helped
    if not candidates:
        return None
    median = float(np.median([episode.human_ticks for episode in candidates]))
    return min(candidates, key=lambda episode: (abs(episode.human_ticks - median), -episode.index))
