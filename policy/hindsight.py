"""What a takeover says about the ticks before it: the way that the person drove ends where the policy should have gone.

A correction shows what to do from where the person took over, and by then it has gone wrong for a while: a person needs
time to see it and to react. A policy that learns from corrections alone therefore comes down beside its goal as the
base does and corrects late, and whoever stands beside it takes over again. So the ticks in which it began to go wrong
are taught as well, from what was seen only later (as in hindsight experience replay, Andrychowicz et al. 2017): the
goal is where the person had brought the arm when they handed back, or when they first worked the gripper; how they
steered towards it, where they were in relation to it, is how the policy should have steered before.

Only across the table, in x and y of a translation per tick in the base frame. There people close what is left in
proportion to it; how high to be meanwhile depends on how far off one is, and is left to the corrections themselves.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from policy.episode_header import Outcome
from policy.learner_episode import POLICY, EpisodeArrays, Floats, Mask
from policy.manifest import ActionSpec
from robot.command import CommandKind
from robot.strict import Strict

_LEAST_TICKS = 3  # shorter drives tell no goal
_LEAST_WAY_M = 0.001  # who goes less far across the table only lifts, or works the gripper
_GREATEST_GAIN = 0.5  # of what is left, per tick
_LEVEL = ("x", "y")

Index = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class LevelMotion(Strict):
    """Where an action says how far the arm moves across the table in its tick: `scale_m * action + offset_m`.

    Attributes:
        dims: of x and y in the action.
        scale_m, offset_m: of these two [m].
        gripper: dimension of a gripper that is open or closed, None without one.
    """

    dims: tuple[Index, Index]
    scale_m: tuple[Positive, Positive]
    offset_m: tuple[FiniteFloat, FiniteFloat] = (0.0, 0.0)
    gripper: Index | None = None

    @classmethod
    def of(cls, spec: ActionSpec) -> LevelMotion | None:
        """Return that of a bundle's actions; None where they do not move the TCP by x and y in the base frame."""
        if spec.kind is not CommandKind.TCP_DELTA or spec.frame != "base" or not set(_LEVEL) <= set(spec.dims):
            return None
        x, y = (spec.dims.index(name) for name in _LEVEL)
        return cls(
            dims=(x, y),
            scale_m=(spec.scale[x], spec.scale[y]),
            offset_m=(spec.offset[x], spec.offset[y]),
            gripper=spec.dims.index("gripper") if spec.gripper == "binary" else None,
        )


def hindsight(episode: EpisodeArrays, motion: LevelMotion, doubt_ticks: int) -> tuple[Mask, Floats]:
    """Return the ticks (T,) of the policy that a later takeover puts right, and what it should have done there (T, A).

    The ticks are up to `doubt_ticks` before each takeover of an episode that ended in success, as far as the policy
    acted without a break and the gripper's command stayed the same. The actions are NaN in the dimensions of which
    nothing is said and on all other ticks, and may be out of a residual's reach.
    """
    told = np.zeros(episode.ticks, np.bool_)
    actions = np.full_like(episode.executed, np.nan)
    if episode.demonstration or episode.outcome is not Outcome.SUCCESS:
        return told, actions
    dims = list(motion.dims)
    steps_m = episode.executed[:, dims].astype(np.float64) * motion.scale_m + motion.offset_m
    # a tick and its successor are of one stretch
    goes_on = np.diff(episode.index) == 1
    goes_on &= np.isfinite(steps_m[1:]).all(axis=1)
    if motion.gripper is not None:
        opens = episode.executed[:, motion.gripper] >= 0.0
        goes_on &= opens[1:] == opens[:-1]
    drives = episode.driven & np.isfinite(steps_m).all(axis=1)
    for start in np.flatnonzero(drives & ~np.r_[False, drives[:-1]]).tolist():
        end = start + _length(drives[start:], goes_on[start:])  # the tick at which the goal is reached
        first = start - _length((episode.source == POLICY)[:start][::-1], goes_on[: start - 1][::-1], doubt_ticks)
        if end - start < _LEAST_TICKS or first == start or not goes_on[start - 1]:
            continue
        left_m = np.cumsum(steps_m[first:end][::-1], axis=0)[::-1]  # from each tick on, to the goal
        # a person who is near already goes slowly: no bound for a policy that comes from afar
        fastest_m = float(np.linalg.norm(steps_m[first:end], axis=1).max())
        wanted_m = _steered(left_m[: start - first], left_m[start - first :], steps_m[start:end], fastest_m)
        if wanted_m is not None:
            actions[first:start, dims] = (wanted_m - motion.offset_m) / motion.scale_m
            told[first:start] = True
    return told, actions


def _length(fits: Mask, goes_on: Mask, most: int | None = None) -> int:
    """Return how many of the first ticks fit and follow each other, at most `most`."""
    whole = fits.copy()
    whole[1:] &= goes_on[: max(0, len(fits) - 1)]
    count = len(whole) if whole.all() else int(np.argmin(whole))
    return count if most is None else min(count, most)


def _steered(
    left_m: NDArray[np.float64], driven_left_m: NDArray[np.float64], driven_m: NDArray[np.float64], fastest_m: float
) -> NDArray[np.float64] | None:
    """Return the steps (K, 2) of one who steers as the person did, with `left_m` (K, 2) to go [m].

    The person's own N steps, `driven_m` with `driven_left_m` to go, give their gain, by least squares; no step is
    longer than `fastest_m`. None where they had nowhere to go.
    """
    if np.linalg.norm(driven_left_m, axis=1).max() < _LEAST_WAY_M:
        return None
    gain = float((driven_m * driven_left_m).sum() / (driven_left_m**2).sum())
    wanted_m: NDArray[np.float64] = min(gain, _GREATEST_GAIN) * left_m
    lengths_m = np.linalg.norm(wanted_m, axis=1, keepdims=True)
    wanted_m *= np.minimum(1.0, fastest_m / np.maximum(lengths_m, 1e-12))
    return wanted_m
