"""From the ticks of an episode to what a learner may be trained on.

The rules, and why:

* Hold and reset ticks are left out, as actions and as bootstrap states: nobody's action was at work, and what was
  seen may be stale. So are ticks without a proposal of the base, for the target of a bootstrap needs one.
* A window of n steps holds one source only and bootstraps at the first tick of the next: what a person earns
  from here on is no return of the policy's action.
* A timeout bootstraps, success and failure do not. The observation after the last tick is not logged, so the last
  tick of a timed-out episode is dropped and serves as the bootstrap state of the ticks before it. To bootstrap that
  tick on itself would teach V = r + gamma V, a value that no return stands behind.
* A gap in the ticks, a hold and the open end of an aborted or incomplete episode end a window likewise: at the last
  tick before them, never across.
* The ending that a person declares while the robot holds belongs to the last acting tick, or the reward of every
  episode that is judged in peace would be lost. A late loop holds and skips ticks; in a complete episode, and no
  other has an ending, a missing number is such a tick and no lost row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.episode_header import Outcome
from policy.hindsight import LevelMotion, hindsight
from policy.learner_episode import HOLD, HUMAN, POLICY, EpisodeArrays, Floats, Ints, Mask
from policy.observation_history import previous_ticks
from robot.errors import BadInputError


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """M frames and N transitions between them; no frame is stored twice.

    Attributes:
        features, proprio, base: of the frames, (M, F), (M, P), (M, A).
        previous: row of the frame before each in its window, (M,); its own where the window begins.
        frame, next_frame: rows of the above, (N,); equal where the episode ended and nothing is bootstrapped.
        action: executed at `frame`, (N, A).
        reward: discounted sum over the window, (N,).
        discount: of the bootstrapped value, (N,): gamma to the number of steps, 0 after success or failure.
        human: True where a person's action was at work, (N,).
        human_action: what the person asked for, (N, A), in ticks of `hindsight` what they would have, NaN in dimensions
            of which they said nothing; 0 on other ticks.
        hindsight: True where a later takeover put right what the policy did, (N,), see `policy.hindsight`.
        demonstration: of the episode.
        approved: the policy acted, the person let it, and the episode ended in success, (N,).
    """

    features: Floats
    proprio: Floats
    base: Floats
    previous: Ints
    frame: Ints
    next_frame: Ints
    action: Floats
    reward: Floats
    discount: Floats
    human: Mask
    human_action: Floats
    hindsight: Mask
    demonstration: bool
    approved: Mask

    @property
    def size(self) -> int:
        """Number of transitions N."""
        return len(self.frame)


def transitions(
    episode: EpisodeArrays,
    *,
    n_step: int,
    discount: float,
    doubt_ticks: int = 0,
    cut_at_handover: bool = True,
    level: LevelMotion | None = None,
) -> Transitions:
    """Return what may be learned from `episode` with windows of up to `n_step` ticks.

    What a policy does while a person watches and lets it is approved; the last `doubt_ticks` before a takeover, which
    made them take over, are not (after Liu et al. 2022, "Robot learning on the job"); where `level` says how actions
    move the arm, these are told what would have been right. `cut_at_handover` False lets windows run on over takeover
    and handback.

    Raises:
        BadInputError: the episode is open-loop, so that its commands were not what moved the arm.
    """
    if episode.open_loop:
        run_id, number, _ = episode.key
        raise BadInputError(
            f"run {run_id} episode {number}: it is open_loop, the arm did not follow these commands "
            "(allowed: episodes of an arm that follows); leave it out of the learner's episodes"
        )
    acting = _acting(episode)
    if episode.outcome is Outcome.RERECORD:
        acting = np.zeros_like(acting)
    rewards, terminated = _endings(episode, acting)
    boots, over = _windows(episode, acting, terminated, n_step, cut_at_handover)
    rows = np.flatnonzero(acting & ((boots > np.arange(episode.ticks)) | over))
    last = np.where(over[rows], boots[rows] + 1, boots[rows])  # first tick after the window
    steps = last - rows
    total = np.zeros(len(rows))
    for step in range(n_step):
        inside = steps > step
        total[inside] += discount**step * rewards[rows[inside] + step]
    place = np.cumsum(acting) - 1  # tick -> frame
    human = episode.driven
    asked = np.where(human[:, None], episode.human, np.float32(0.0))
    told = np.zeros_like(human)
    if level is not None:
        told, better = hindsight(episode, level, doubt_ticks)
        asked = np.where(told[:, None], better, asked)
    return Transitions(
        features=episode.features[acting],
        proprio=episode.proprio[acting],
        base=episode.base[acting],
        previous=place[seen_before(episode)[acting]],
        frame=place[rows],
        next_frame=np.where(over[rows], place[rows], place[boots[rows]]),
        action=episode.executed[rows],
        reward=total.astype(np.float32),
        discount=np.where(over[rows], 0.0, discount ** steps.astype(np.float64)).astype(np.float32),
        human=human[rows],
        human_action=asked[rows],
        hindsight=told[rows],
        demonstration=episode.demonstration,
        approved=_approved(episode, doubt_ticks)[rows],
    )


def seen_before(episode: EpisodeArrays) -> Ints:
    """Return for each tick (T,) the one before it in what the robot's residual saw, see `observation_history`."""
    return previous_ticks(_acting(episode), episode.index)


def _approved(episode: EpisodeArrays, doubt_ticks: int) -> Mask:
    """Ticks (T,) of the policy that led to success and to no takeover."""
    if episode.outcome is not Outcome.SUCCESS:
        return np.zeros_like(episode.engaged)
    approved: Mask = episode.source == POLICY
    for takeover in np.flatnonzero(episode.engaged & ~np.r_[False, episode.engaged[:-1]]):
        before = episode.index[takeover] - episode.index
        approved &= (before <= 0) | (before > doubt_ticks)
    return approved


def _acting(episode: EpisodeArrays) -> Mask:
    """Ticks (T,) on which the policy or the person acted and everything was there."""
    acting: Mask = (episode.source == POLICY) | (episode.source == HUMAN)
    for values in (episode.features, episode.proprio, episode.base, episode.executed):
        acting = acting & np.isfinite(values).all(axis=1)
    return acting & np.isfinite(episode.rewards)


def _endings(episode: EpisodeArrays, acting: Mask) -> tuple[NDArray[np.float64], Mask]:
    """Rewards and terminations (T,), with an ending declared during a hold moved to the last acting tick."""
    rewards = episode.rewards.astype(np.float64)
    if episode.outcome not in (Outcome.SUCCESS, Outcome.FAILURE) or not episode.complete:
        return rewards, np.zeros_like(episode.terminated)  # nobody saw the end: no tick of it is terminal
    terminated = episode.terminated.copy()
    for end in np.flatnonzero(terminated & (episode.source == HOLD)):
        before = np.flatnonzero(episode.source[:end] != HOLD)
        last = int(before[-1]) if len(before) else -1
        if last >= 0 and acting[last]:
            rewards[last] += np.nansum(rewards[last + 1 : end + 1])
            terminated[last] = True
    return rewards, terminated


def _windows(episode: EpisodeArrays, acting: Mask, terminated: Mask, n_step: int, cut: bool) -> tuple[Ints, Mask]:
    """Return, per tick, the tick to bootstrap at and whether the window ends in a termination instead.

    A window that may not bootstrap anywhere points at its own start; one that terminates, at its last tick.
    """
    ticks = np.arange(episode.ticks)
    follows = np.zeros_like(acting)  # the next row is this tick's successor
    follows[:-1] = acting[:-1] & acting[1:] & (np.diff(episode.index) == 1)
    follows &= ~(terminated | episode.truncated)
    handover = np.zeros_like(acting)
    handover[:-1] = cut & follows[:-1] & (episode.source[1:] != episode.source[:-1])
    # last tick of the stretch of one source that each tick lies in
    ends = np.where(~follows | handover, ticks, episode.ticks)
    end = np.minimum.accumulate(ends[::-1])[::-1].astype(np.int64)
    over = acting & terminated[end] & (ticks + n_step > end)
    furthest = np.where(handover[end], end + 1, end)
    return np.where(over, end, np.minimum(ticks + n_step, furthest)), over
