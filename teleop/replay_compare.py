"""Runs another policy on logged observations, in step with the one that ran, and measures where they disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.proprioception import proprioception
from policy.bundle import Bundle, check_fits, load_bundle
from policy.episode_header import EpisodeHeader
from policy.episode_reader import Episode, read_episode
from policy.residual import ResidualHead
from policy.weights import window_dims
from robot.errors import BadInputError
from robot.strict import Strict
from teleop.arbiter import Source
from teleop.chunk_plan import Chunk
from teleop.replay_parts import RunParts, each_row, episode_files, run_above, start_state
from teleop.tick import TickState
from teleop.tick_row import read_inputs, read_state

Actions = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """One episode's columns, (T, A) float64 or (T,); NaN where a voice was silent."""

    name: str
    index: NDArray[np.int64]
    other: Actions
    base: Actions
    decided: Actions
    human: Actions
    person_drives: NDArray[np.bool_]
    policy_drives: NDArray[np.bool_]


class Takeover(Strict):
    """One time that a person took over from the policy, and when the other policy had first disagreed.

    Attributes:
        tick: first tick of the takeover.
        disagreed: first tick on which the two differed by more than the threshold since the policy had begun to
            drive; None when they agreed up to the takeover.
        lead_s: how long before the takeover that was [s].
    """

    episode: str
    tick: int
    disagreed: int | None
    lead_s: float | None


class Disagreement(Strict):
    """One action dimension, in units of the normalised action.

    Attributes:
        name: of the dimension.
        from_base: mean |other - logged base|.
        from_decided: mean |other - decided| while the policy or the person drove.
        from_human: mean |other - human| while the person drove; None when nobody did.
        base_from_human: the same of the logged base.
        scale: bound of the residual; None without one.
        reachable: share of ticks on which |other - base| is within that bound; None without one.
    """

    name: str
    from_base: float
    from_decided: float
    from_human: float | None
    base_from_human: float | None
    scale: float | None
    reachable: float | None


class CompareReport(Strict):
    """Another policy on the observations of one or more episodes.

    Attributes:
        ticks: on which both policies had a proposal.
        threshold: difference of a normalised action that counts as disagreement.
        reachable: share of ticks on which the residual could reach the other policy in every dimension.
    """

    bundle: str
    bundle_sha256: str
    episodes: int
    ticks: int
    threshold: float
    dimensions: tuple[Disagreement, ...]
    reachable: float | None
    takeovers: tuple[Takeover, ...]


def compare_bundle(
    bundle: Path, paths: Sequence[Path], *, threshold: float = 0.2, progress: Callable[[Path], None] | None = None
) -> CompareReport:
    """Run the bundle in folder `bundle` on every observation of the episodes in `paths`.

    It sees what the logged policy saw and plans in the same rhythm, but never drives: arbiter and safety filter
    are on each tick in the state that the log has.

    Args:
        bundle: folder of the other policy.
        paths: run folders, episodes folders or episode files.
        threshold: difference of a normalised action that counts as disagreement.
        progress: called with the path of each episode that is done.

    Raises:
        BadInputError: the bundle is damaged or does not fit the log, or the episodes have different actions.
    """
    other = load_bundle(bundle)
    parts: dict[Path, RunParts] = {}
    first: EpisodeHeader | None = None
    compared: list[_Compared] = []
    files = episode_files(list(paths))
    for path in files:
        episode = read_episode(path)
        first = first or episode.header
        if (episode.header.action, episode.header.residual_scale) != (first.action, first.residual_scale):
            raise BadInputError(f"{path}: other actions or residual bounds than {files[0]}; compare them apart")
        _check_comparable(other, episode)
        run = run_above(path)
        compared.append(_columns(episode, _proposals(episode, parts.setdefault(run.path, RunParts(run)), other)))
        if progress:
            progress(path)
    assert first is not None
    return _summary(other, first, compared, threshold)


def _check_comparable(other: Bundle, episode: Episode) -> None:
    header = episode.header
    if other.manifest.remote is not None:
        raise BadInputError(
            f"bundle {other.folder}: its policy runs elsewhere and cannot be asked here; name a bundle that acts itself"
        )
    check_fits(
        other,
        cameras={name: (height, width) for name, height, width in header.spec.cameras},
        rate_hz=header.rate_hz,
        joint_count=header.spec.joint_count,
        readings=dict(header.spec.readings),
        station=f"the log {episode.path.name}",
    )
    theirs, ours = other.manifest.action, header.action
    for name in ("kind", "frame", "dims", "scale", "offset", "gripper", "gripper_open_m", "gripper_closed_m"):
        if getattr(theirs, name) != getattr(ours, name):
            raise BadInputError(
                f"bundle {other.folder}: action {name} is {getattr(theirs, name)}, in the log it is "
                f"{getattr(ours, name)}; their numbers mean different moves and cannot be compared"
            )


def _proposals(episode: Episode, parts: RunParts, other: Bundle) -> Actions:
    """Return what the other policy wants on every row, (T, A); NaN where it has no proposal."""
    header = episode.header
    pipeline = parts.pipeline(header, other)
    manifest = other.manifest
    keys = [entry.key for entry in manifest.proprio]
    dims = window_dims(manifest, pipeline.history)
    nothing = ResidualHead.zero(dims, np.zeros(dims.action, np.float32))
    logged, before = start_state(header), -1
    chunk: Chunk | None = None
    wanted = np.full((episode.length, dims.action), np.nan)
    for place, row in enumerate(each_row(episode)):
        inputs = read_inputs(row, header.spec)
        look = replace(inputs.observation, proprio=proprioception(inputs.observation.state, keys))
        if inputs.index != before + 1:  # the state before is not known; a fresh chunk loses nothing
            logged, chunk = read_state(row), None
        state = TickState(arbiter=logged.arbiter, filter=logged.filter, chunk=chunk)
        after, outputs = pipeline.step(state, replace(inputs, observation=look), nothing)
        wanted[place] = np.nan if outputs.base is None else outputs.base
        logged, before, chunk = read_state(row), inputs.index, after.chunk
    return wanted


def _columns(episode: Episode, other: Actions) -> _Compared:
    columns = episode.arrays(["tick/index", "tick/base", "actions", "tick/human", "tick/source"])
    source = columns["tick/source"].astype(np.int64)
    driven = np.isin(source, (Source.POLICY, Source.HUMAN))
    return _Compared(
        name=episode.path.name,
        index=columns["tick/index"].astype(np.int64),
        other=other,
        base=columns["tick/base"].astype(np.float64),
        decided=np.where(driven[:, None], columns["actions"].astype(np.float64), np.nan),
        human=columns["tick/human"].astype(np.float64),
        person_drives=source == Source.HUMAN,
        policy_drives=source == Source.POLICY,
    )


def _summary(other: Bundle, header: EpisodeHeader, compared: Sequence[_Compared], threshold: float) -> CompareReport:
    theirs, base, decided, human = (
        np.concatenate([getattr(one, name) for one in compared]) for name in ("other", "base", "decided", "human")
    )
    both = np.isfinite(theirs).all(axis=1) & np.isfinite(base).all(axis=1)
    within: NDArray[np.bool_] | None = None
    if header.residual_scale and both.any():
        within = np.abs(theirs - base)[both] <= np.array(header.residual_scale)
    dimensions = tuple(
        Disagreement(
            name=name,
            from_base=_mean_gap(theirs[:, dim], base[:, dim]) or 0.0,
            from_decided=_mean_gap(theirs[:, dim], decided[:, dim]) or 0.0,
            from_human=_mean_gap(theirs[:, dim], human[:, dim]),
            base_from_human=_mean_gap(base[:, dim], human[:, dim]),
            scale=header.residual_scale[dim] if header.residual_scale else None,
            reachable=None if within is None else float(within[:, dim].mean()),
        )
        for dim, name in enumerate(header.action.dims)
    )
    return CompareReport(
        bundle=str(other.folder),
        bundle_sha256=other.sha256,
        episodes=len(compared),
        ticks=int(both.sum()),
        threshold=threshold,
        dimensions=dimensions,
        reachable=None if within is None else float(within.all(axis=1).mean()),
        takeovers=tuple(found for one in compared for found in _takeovers(one, threshold, header.rate_hz)),
    )


def _mean_gap(one: Actions, two: Actions) -> float | None:
    """Return the mean absolute difference where both are there, None where they never are."""
    gaps = np.abs(one - two)
    known = np.isfinite(gaps)
    return float(gaps[known].mean()) if known.any() else None


def _takeovers(one: _Compared, threshold: float, rate_hz: float) -> list[Takeover]:
    """Return each time that the person took over from the policy, with the first disagreement since it had begun."""
    found = []
    disagrees = (np.abs(one.other - one.base) > threshold).any(axis=1) & one.policy_drives
    since = 0
    for row in np.flatnonzero(one.person_drives).tolist():
        if one.policy_drives[since:row].any():
            places = np.flatnonzero(disagrees[since:row])
            first = int(one.index[since + places[0]]) if len(places) else None
            tick = int(one.index[row])
            lead_s = None if first is None else (tick - first) / rate_hz
            found.append(Takeover(episode=one.name, tick=tick, disagreed=first, lead_s=lead_s))
        since = row + 1
    return found
