"""Which frames of logged episodes show success and which do not, and which episodes are kept apart.

A success is seen in the last frames before its end; everything else, failures and the rest of successes, shows none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.observation import Verdict
from policy.episode_header import LabelSource, Outcome
from policy.episode_reader import Episode, latest_revisions
from policy.reward_marks import Mark
from robot.errors import BadInputError

SUCCESS, NONE, UNUSED = 1, 0, -1  # what a frame shows
MIN_EPISODES = 10  # of each outcome, so that each split has two
NEAR_END_S = 1.5  # frames of every kind in this time before the end are all kept: there it is decided
_STRIDE = 3  # of the others, every third
_SHARES = (0.6, 0.2)  # for training and for calibration; the rest is held out
_ROUNDING_S = 1e-6

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabelledEpisode:
    """One episode and what its frames show.

    Attributes:
        success: its label in force; None where nobody knows how it ended, so that only marked frames count.
        rows: those on which a reward model would be asked, (N,).
        label: `SUCCESS`, `NONE` or `UNUSED` for each of them, (N,).
        to_end_s: time from each of them to the last row, (N,) [s].
    """

    episode: Episode
    success: bool | None
    rows: Ints
    label: Ints
    to_end_s: NDArray[np.float64]

    @property
    def group(self) -> str:
        """Episodes of one group show the same scene: the same layout where it is known, otherwise themselves."""
        header = self.episode.header
        return json.dumps(header.layout, sort_keys=True) if header.layout else f"{header.run_id} {header.episode}"

    def kept(self) -> Ints:
        """Return the places of the frames to train on: neighbours far from the end are all but equal."""
        every_third = np.arange(len(self.rows)) % _STRIDE == 0
        return np.flatnonzero((self.label >= NONE) & (every_third | (self.to_end_s < NEAR_END_S)))

    def repeated(self, cameras: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of `rows` have the pictures of the tick before, from all of `cameras`, (N,)."""
        names = [name for name, _, _ in self.episode.header.spec.cameras]
        ids = self.episode.array("tick/frame_id").astype(np.int64)[:, [names.index(name) for name in cameras]]
        same = np.zeros(len(ids), np.bool_)
        same[1:] = (ids[1:] == ids[:-1]).all(axis=1)
        return same[self.rows]

    def inputs(
        self, cameras: Sequence[str], proprio: Sequence[str], places: Ints | None = None
    ) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float32]]:
        """Return what a reward model would see: images (M, H, W, 3) by camera, proprioception (M, P).

        Args:
            cameras: whose images.
            proprio: whose values, one key after another.
            places: which of `rows`; all when left out.
        """
        rows = self.rows if places is None else self.rows[places]
        found = self.episode.arrays([*(f"obs/{name}_image" for name in cameras), *(f"obs/{key}" for key in proprio)])
        images = {name: found[f"obs/{name}_image"][rows].astype(np.uint8, copy=False) for name in cameras}
        parts = [np.reshape(found[f"obs/{key}"][rows], (len(rows), -1)) for key in proprio]
        return images, np.concatenate([np.zeros((len(rows), 0)), *parts], axis=1).astype(np.float32)


class Splits(NamedTuple):
    """Episodes to train on, to choose the threshold on, and to report on; no layout is in two of them."""

    training: list[LabelledEpisode]
    calibration: list[LabelledEpisode]
    held_out: list[LabelledEpisode]


def label_episodes(
    folders: Sequence[Path], *, positive_s: float, margin_s: float, marks: Mapping[str, Sequence[Mark]]
) -> tuple[list[LabelledEpisode], Counter[str]]:
    """Label the frames of all episodes in `folders`; return them and why how many others were left out.

    Args:
        folders: of episode files; of each episode the newest revision counts, so a person's late label does.
        positive_s: how long before the end of a success its frames show it [s].
        margin_s: frames so long before those are not used, as nobody can tell [s].
        marks: by file name, what a person said of single ticks; it wins over the episode's outcome.

    Raises:
        BadInputError: the folders hold no episode, the episodes differ in what they show, or a mark has none.
    """
    episodes = [episode for folder in folders for episode in latest_revisions(folder)]
    if not episodes:
        raise BadInputError(f"{', '.join(map(str, folders))}: no episodes; name run folders or episodes folders")
    for episode in episodes:
        _check_same(episode, episodes[0])
    unknown = sorted(marks.keys() - {episode.path.name for episode in episodes})
    if unknown:
        raise BadInputError(f"--frames: marks {unknown[0]}, which is in none of the folders; add its folder")
    labelled, left_out = [], Counter[str]()
    for episode in episodes:
        success, why = _success(episode)
        said = marks.get(episode.path.name, ())
        if success is None and not said:
            left_out[why] += 1
            continue
        labelled.append(_labelled(episode, success, positive_s, margin_s, said))
    return labelled, left_out


def split_episodes(episodes: Sequence[LabelledEpisode], seed: int) -> Splits:
    """Draw which episodes are for training, calibration and the report: each outcome 60, 20 and 20 %.

    Raises:
        BadInputError: too few successes or failures to learn from and to judge by, or no frames of them.
    """
    counts = Counter(episode.success for episode in episodes)
    if min(counts[True], counts[False]) < MIN_EPISODES:
        raise BadInputError(
            f"reward model: {counts[True]} successes and {counts[False]} failures, {MIN_EPISODES} of each are needed "
            "to train and to judge it; record more, or label those that nobody labelled"
        )
    groups: dict[str, list[LabelledEpisode]] = {}
    for episode in episodes:
        groups.setdefault(episode.group, []).append(episode)
    splits = Splits([], [], [])
    rng = np.random.default_rng(seed)
    for outcome in (True, False, None):
        names = sorted(name for name, members in groups.items() if members[0].success is outcome)
        names = [names[place] for place in rng.permutation(len(names))]
        ends = np.round(np.cumsum(_SHARES) * len(names)).astype(int)
        for place, name in enumerate(names):
            splits[int(np.searchsorted(ends, place, side="right"))].extend(groups[name])
    for part, members in zip(Splits._fields, splits, strict=True):
        kinds = {episode.success for episode in members}
        if not {True, False} <= kinds:
            lacks = "failures" if True in kinds else "successes"
            raise BadInputError(
                f"reward model: no {lacks} among the episodes for {part.replace('_', '-')}, as too many of them "
                "show the same layout; record other layouts"
            )
        frames = {label for episode in members for label in episode.label[episode.kept()].tolist()}
        if not {SUCCESS, NONE} <= frames:
            shows = "no success" if SUCCESS in frames else "success"
            raise BadInputError(
                f"reward model: no frame that shows {shows} among the {len(members)} episodes for "
                f"{part.replace('_', '-')}, as all were marked otherwise, late or without a fresh picture; record "
                "more, or mark fewer in --frames"
            )
    return splits


def _success(episode: Episode) -> tuple[bool | None, str]:
    """Return how an episode ended, None and why where it is not known."""
    outcome = episode.outcome
    if not outcome.complete:
        return None, "incomplete"
    by_model = episode.header.reward_sha256 is not None and outcome.label_source is LabelSource.NONE
    if outcome.label_source is LabelSource.REWARD_MODEL or (by_model and outcome.outcome is Outcome.TIMEOUT):
        return None, "judged by a reward model alone"
    if outcome.outcome in (Outcome.ABORT, Outcome.RERECORD, Outcome.INCOMPLETE):
        return None, outcome.outcome.value
    return outcome.success, ""


def _labelled(
    episode: Episode, success: bool | None, positive_s: float, margin_s: float, marks: Sequence[Mark]
) -> LabelledEpisode:
    columns = episode.arrays(["tick/index", "tick/start_s", "tick/verdict", "tick/reset", "tick/overrun"])
    asked = np.isnan(columns["tick/reset"].astype(np.float64)).all(axis=1)
    asked &= (columns["tick/verdict"] == Verdict.FRESH) & (columns["tick/overrun"] == 0)
    start_s = columns["tick/start_s"].astype(np.float64)
    to_end_s = start_s.max(initial=0.0) - start_s
    label = np.full(episode.length, UNUSED if success is None else NONE, np.int64)
    if success:
        label[to_end_s < positive_s + margin_s - _ROUNDING_S] = UNUSED
        label[to_end_s < positive_s - _ROUNDING_S] = SUCCESS
    index = columns["tick/index"].astype(np.int64)
    for mark in marks:
        label[(mark.first <= index) & (index <= mark.last)] = mark.label
    rows = np.flatnonzero(asked)
    return LabelledEpisode(episode=episode, success=success, rows=rows, label=label[rows], to_end_s=to_end_s[rows])


def _check_same(episode: Episode, first: Episode) -> None:
    one, other = episode.header, first.header
    if (one.spec.cameras, one.spec.proprio, one.rate_hz) != (other.spec.cameras, other.spec.proprio, other.rate_hz):
        raise BadInputError(
            f"episode {episode.path}: cameras, proprioception or rate differ from {first.path}; "
            "train on episodes of one station"
        )
