"""A logged episode as calibration sees it: full-size pictures with their times, and where the arm was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy.episode_reader import Episode, latest_revisions, read_episode
from policy.stream_codec import Codec
from policy.stream_reader import Stream
from robot.errors import BadInputError
from teleop.cli import episodes_folder

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedDrive:
    """One episode; its pictures are read when asked for.

    Attributes:
        where: its file.
        station: name of its station.
        captured_s: when each full-size picture was taken, by camera, rising [s], (N,).
        arm_s: when the arm was measured, rising [s], (M,).
        T_base_tcp: where it was then, (M, 4, 4).
        lossy: cameras whose pictures were recorded as JPEG.
    """

    where: Path
    station: str
    captured_s: Mapping[str, Array]
    arm_s: Array
    T_base_tcp: Array
    lossy: tuple[str, ...]
    _streams: Mapping[str, Stream]
    _places: Mapping[str, NDArray[np.int64]]  # in the stream, of the pictures in order of time

    def picture(self, camera: str, index: int) -> NDArray[np.uint8]:
        """Return picture `index` of a camera, (H, W, 3), red first. Raises BadInputError where it was changed."""
        pixels = self._streams[camera].pixels(int(self._places[camera][index]))
        return np.asarray(pixels, dtype=np.uint8)


def read_drives(path: Path, cameras: Sequence[str] = ()) -> list[RecordedDrive]:
    """Open an episode, or all of a run, the newest revision of each.

    Args:
        path: a `.h5` file, a run or its episodes folder.
        cameras: those that are wanted; all with full-size pictures when empty.

    Raises:
        BadInputError: there is none, one is damaged, or has no such pictures.
    """
    if path.suffix == ".h5" or path.is_file():
        episodes = [read_episode(path)]
    else:
        episodes = latest_revisions(episodes_folder(path))
        if not episodes:
            raise BadInputError(f"{path}: holds no episode (*.h5); name a run that recorded one")
    return [_drive(episode, cameras) for episode in episodes]


def _drive(episode: Episode, cameras: Sequence[str]) -> RecordedDrive:
    there = {spec.camera: spec for spec in episode.header.streams if spec.codec is not Codec.DEPTH}
    if not there:
        names = [name for name, _, _ in episode.header.spec.cameras] or ["NAME"]
        raise BadInputError(
            f"{episode.path}: holds no full-size pictures; record again in real time with --camera.{names[0]}.stream "
            'lossless, or stream = "lossless" in the station\'s [[camera]]'
        )
    for name in cameras:
        if name not in there:
            raise BadInputError(
                f"{episode.path}: holds no full-size pictures of camera {name!r}; it has those of {', '.join(there)}"
            )
    chosen = [name for name in there if not cameras or name in cameras]
    streams = {name: episode.stream(name) for name in chosen}
    places = {name: _rising(stream.captured_s) for name, stream in streams.items()}
    arm = episode.arrays(["tick/state_s", "tick/T_base_tcp"])
    state_s, T = np.asarray(arm["tick/state_s"], np.float64), np.asarray(arm["tick/T_base_tcp"], np.float64)
    order = _rising(state_s)
    return RecordedDrive(
        where=episode.path,
        station=str(episode.header.env_args.get("env_name", "")),
        captured_s={name: streams[name].captured_s[places[name]] for name in chosen},
        arm_s=state_s[order],
        T_base_tcp=T[order],
        lossy=tuple(name for name in chosen if there[name].codec is Codec.JPEG),
        _streams=streams,
        _places=places,
    )


def _rising(times_s: Array) -> NDArray[np.int64]:
    """Return the places of finite times in order, each time once."""
    order = np.argsort(times_s, kind="stable")
    order = order[np.isfinite(times_s[order])]
    return order[np.diff(times_s[order], prepend=-np.inf) > 0.0].astype(np.int64)
