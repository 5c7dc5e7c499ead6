"""What the learner gets of an episode: the numbers of its ticks, without images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from policy.episode_header import EpisodeOutcome, Outcome
from policy.episode_reader import Episode

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

POLICY, HUMAN, HOLD, RESET = range(4)  # values of tick/source
SUCCESS_REWARD = 1.0
COLUMNS = (
    "rewards",
    "terminated",
    "truncated",
    "tick/index",
    "tick/features",
    "tick/base",
    "tick/commanded",
    "tick/human",
    "tick/engaged",
    "tick/source",
    "tick/reset",
    "tick/held",
)


class EpisodeKey(NamedTuple):
    """Identity of an episode; a late label makes a new revision of it."""

    run_id: str
    episode: int
    revision: int


@dataclass(frozen=True, kw_only=True)
class EpisodeArrays:
    """What the learner gets of one committed episode: T ticks, no images.

    Attributes:
        key: identity.
        outcome: the label in force.
        complete: False when the recorder lost ticks or the run died.
        open_loop: True when the arm played a recording and did not follow `executed`.
        demonstration: True when a person drove it to show the task.
        bundle_sha256: content hash of the base policy that `features` and `base` are of; None where none ran.
        index: tick number, (T,) int64; neighbours differ by one unless ticks are missing.
        features: of the base policy, (T, F).
        proprio: in the bundle's order, (T, P).
        base: the base policy's action, (T, A); NaN where it proposed none.
        executed: the safe command mapped back to action space, (T, A).
        human: the person's action, (T, A); NaN where not engaged.
        engaged: drive button held, (T,) bool.
        source: 0 policy, 1 human, 2 hold, 3 reset, (T,) int8.
        rewards: (T,).
        terminated, truncated: (T,) bool.
    """

    key: EpisodeKey
    outcome: Outcome
    complete: bool
    open_loop: bool
    demonstration: bool
    bundle_sha256: str | None
    index: Ints
    features: Floats
    proprio: Floats
    base: Floats
    executed: Floats
    human: Floats
    engaged: Mask
    source: NDArray[np.int8]
    rewards: Floats
    terminated: Mask
    truncated: Mask

    @property
    def ticks(self) -> int:
        """Number of ticks T."""
        return len(self.source)

    @property
    def driven(self) -> Mask:
        """Ticks (T,) on which a person's action was at work."""
        driven: Mask = (self.source == HUMAN) & self.engaged & np.isfinite(self.human).all(axis=1)
        return driven


def of_episode(episode: Episode, *, demonstration: bool = False) -> EpisodeArrays:
    """Return what the learner gets of a committed episode. Raises BadInputError when the file is damaged."""
    proprio = [key for key, _ in episode.header.spec.proprio]
    return of_columns(
        episode.arrays([*COLUMNS, *(f"obs/{key}" for key in proprio)]),
        key=EpisodeKey(*episode.identity),
        proprio=proprio,
        labels=episode.labels,
        open_loop=episode.header.open_loop,
        bundle_sha256=episode.header.bundle_sha256,
        demonstration=demonstration,
    )


def of_columns(
    columns: Mapping[str, NDArray[Any]] | NDArray[np.void],
    *,
    key: EpisodeKey,
    proprio: Sequence[str],
    labels: Sequence[EpisodeOutcome],
    open_loop: bool,
    bundle_sha256: str | None,
    demonstration: bool = False,
) -> EpisodeArrays:
    """Return what the learner gets of the rows of an episode.

    Args:
        columns: `COLUMNS` and the proprioception by dataset path, (T, ...); rows of `EpisodeSpec.row_dtype` will do.
        key: identity.
        proprio: keys in the bundle's order.
        labels: every outcome given so far, the one in force last.
        open_loop: the arm played a recording.
        bundle_sha256: of the base policy that ran.
        demonstration: a person drove it to show the task.
    """
    source = np.array(columns["tick/source"], dtype=np.int8)
    source[columns["tick/held"] != 0] = HOLD  # the filter refused: nobody's action was at work
    source[np.isfinite(columns["tick/reset"]).any(axis=1)] = RESET  # also where a person drove meanwhile
    rewards = np.array(columns["rewards"], dtype=np.float32)
    terminated, truncated = columns["terminated"] != 0, columns["truncated"] != 0
    outcome = labels[-1].outcome
    if outcome is not labels[0].outcome:
        _relabel(outcome, rewards, terminated, truncated)
    ticks = len(source)
    seen = [columns[f"obs/{name}"] for name in proprio]
    parts = [np.reshape(values, (ticks, int(np.prod(values.shape[1:])))) for values in seen]  # also without a tick
    return EpisodeArrays(
        key=key,
        outcome=outcome,
        complete=labels[-1].complete,
        open_loop=open_loop,
        demonstration=demonstration,
        bundle_sha256=bundle_sha256,
        index=np.array(columns["tick/index"], dtype=np.int64),
        features=np.array(columns["tick/features"], dtype=np.float32),
        proprio=np.concatenate([np.zeros((ticks, 0)), *parts], axis=1).astype(np.float32),
        base=np.array(columns["tick/base"], dtype=np.float32),
        executed=np.array(columns["tick/commanded"], dtype=np.float32),
        human=np.array(columns["tick/human"], dtype=np.float32),
        engaged=columns["tick/engaged"] != 0,
        source=source,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
    )


def _relabel(outcome: Outcome, rewards: Floats, terminated: Mask, truncated: Mask) -> None:
    """Write a late label where the tick that ended the episode would have had it.

    The file keeps what the tick knew, but a learner must not be paid for what turned out a failure.
    """
    rewards[terminated] = 0.0
    terminated[:] = truncated[:] = False
    if len(rewards) == 0:
        return
    terminated[-1] = outcome in (Outcome.SUCCESS, Outcome.FAILURE)
    truncated[-1] = not terminated[-1]
    if outcome is Outcome.SUCCESS:
        rewards[-1] = SUCCESS_REWARD
