"""Recorded demonstrations as arrays to train on.

Besides the person's actions they hold where the hand will grasp and where it will let go, or end, read off each
demonstration in hindsight: nothing but the log is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy.episode_reader import Episode, latest_revisions
from robot.errors import BadInputError

Progress = Callable[[int, int, str], None]
CHUNK = 8
_HUMAN = 1


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """All usable ticks of all episodes.

    Attributes:
        images: per camera, (N, H, W, 3) uint8.
        proprio: (N, P) float32.
        chunks: what the person did in the H ticks from here, (N, H, A) float32.
        targets: xyz to the grasp and to the release from here, (N, 6) float32 [m]; NaN once it is past. Where every
            demonstration begins with a closed hand there is no grasp, and the release or the end is all, (N, 3).
        episode: which episode, (N,).
    """

    images: dict[str, NDArray[np.uint8]]
    proprio: NDArray[np.float32]
    chunks: NDArray[np.float32]
    targets: NDArray[np.float32]
    episode: NDArray[np.int64]


def load_demonstrations(folders: Sequence[Path], progress: Progress) -> tuple[Demonstrations, Episode]:
    """Read the successful episodes of `folders`; return them and the first one for its header.

    Raises:
        BadInputError: there are none, or they differ in their cameras, proprioception or actions.
    """
    episodes = [episode for folder in folders for episode in latest_revisions(folder) if episode.outcome.success]
    if not episodes:
        raise BadInputError(f"{', '.join(map(str, folders))}: no successful episodes; record some with record_demos.py")
    spec, action = episodes[0].header.spec, episodes[0].header.action
    parts: list[dict[str, NDArray[np.generic]]] = []
    for number, episode in enumerate(episodes):
        if episode.header.spec != spec or episode.header.action != action:
            raise BadInputError(
                f"episode {episode.path}: cameras, proprioception or actions differ from {episodes[0].path}; "
                "train on episodes of one station"
            )
        parts.append(_ticks(episode))
        progress(number + 1, len(episodes), "reading")
    stacked = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    count = [len(part["proprio"]) for part in parts]
    targets = stacked["targets"].astype(np.float32)
    if not np.isfinite(targets[:, :3]).any():
        targets = targets[:, 3:]
    return Demonstrations(
        images={name: stacked[name].astype(np.uint8, copy=False) for name, _, _ in spec.cameras},
        proprio=stacked["proprio"].astype(np.float32),
        chunks=stacked["chunks"].astype(np.float32),
        targets=targets,
        episode=np.repeat(np.arange(len(parts)), count),
    ), episodes[0]


def _ticks(episode: Episode) -> dict[str, NDArray[np.generic]]:
    spec = episode.header.spec
    names = [f"obs/{name}_image" for name, _, _ in spec.cameras] + [f"obs/{key}" for key, _ in spec.proprio]
    arrays = episode.arrays([*names, "tick/human", "tick/source", "tick/T_base_tcp", "tick/gripper_width_m"])
    rows = np.flatnonzero(arrays["tick/source"] == _HUMAN)
    human = np.asarray(arrays["tick/human"], np.float32)[rows]
    ahead = np.minimum(np.arange(len(rows))[:, None] + np.arange(CHUNK), len(rows) - 1)
    position = np.asarray(arrays["tick/T_base_tcp"], np.float64)[rows, :3, 3]
    ticks: dict[str, NDArray[np.generic]] = {name: arrays[f"obs/{name}_image"][rows] for name, _, _ in spec.cameras}
    ticks["proprio"] = np.concatenate(
        [np.reshape(arrays[f"obs/{key}"], (len(arrays["tick/source"]), -1))[rows] for key, _ in spec.proprio], axis=1
    )
    ticks["chunks"] = human[ahead]
    gripper = list(episode.header.action.dims).index("gripper")
    ticks["targets"] = _hindsight(position, closing=human[:, gripper] < 0.0)
    return ticks


def _hindsight(position_m: NDArray[np.float64], *, closing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Offsets (N, 6) to the last grasp and to the release after it, or the end; what is past is unknown."""
    shut = np.flatnonzero(closing)
    release = int(shut[-1]) if len(shut) else len(position_m) - 1
    before = np.flatnonzero(~closing[:release])
    grasp = int(before[-1]) + 1 if len(before) else -1  # -1: it began with the hand closed on something
    targets = np.concatenate([position_m[grasp] - position_m, position_m[release] - position_m], axis=1)
    targets[grasp + 1 :, :3] = np.nan
    targets[release + 1 :, 3:] = np.nan
    return targets
