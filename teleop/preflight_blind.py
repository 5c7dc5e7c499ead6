"""Blind test: each camera of logged ticks is masked, frozen, shifted and turned; how far the policy's action moves.

A policy that does as well without a camera may have learned to do without it, or never to look; either way nobody
should trust that camera to keep it right. That a camera matters is no proof that it is used well.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy.bundle import Bundle, check_fits
from policy.episode_reader import Episode, read_episode
from robot.errors import BadInputError
from teleop.replay_parts import episode_files

Image = NDArray[np.uint8]
Array = NDArray[np.float64]

IGNORED = 0.1  # of the action's spread: a camera whose p90 stays below under every fault is not looked at
SHIFT_SHARE = 0.1  # of the width
TURN_DEG = 10.0
_STILL = 0.01  # normalised; a dimension that varies less says nothing
_LEAST_TICKS = 10


class CameraFault(enum.StrEnum):
    """What is done to one camera's pictures; the others stay as they were logged."""

    MASK = "mask"  # all of it the picture's mean colour
    FREEZE = "freeze"  # the episode's first picture
    SHIFT = "shift"  # a tenth of its width to the right, the edge drawn out
    ROTATE = "rotate"  # ten degrees about its middle, the edges drawn out


@dataclass(frozen=True, kw_only=True, eq=False)
class Moved:
    """How far one fault of one camera moves the action, in spreads: root mean square over the dimensions that vary.

    Attributes:
        distances: of each tick (N,).
    """

    camera: str
    fault: CameraFault
    distances: Array

    @property
    def median(self) -> float:
        """Of the ticks."""
        return float(np.median(self.distances))

    @property
    def p90(self) -> float:
        """Where 9 of 10 ticks end."""
        return float(np.quantile(self.distances, 0.9))


@dataclass(frozen=True, kw_only=True)
class BlindReport:
    """What became of the policy's action.

    Attributes:
        ticks: that were looked at.
        episodes: they are from so many.
        spread: of the action per dimension, standard deviation over these ticks [normalised action].
        moved: by camera and fault.
    """

    bundle: str
    bundle_sha256: str
    episodes: int
    ticks: int
    spread: Mapping[str, float]
    moved: tuple[Moved, ...]

    @property
    def ignored(self) -> list[str]:
        """Cameras under none of whose faults the action moves."""
        cameras = dict.fromkeys(one.camera for one in self.moved)
        return [name for name in cameras if all(one.p90 < IGNORED for one in self.moved if one.camera == name)]

    def lines(self) -> list[str]:
        """Return the table and the verdict."""
        still = [name for name, spread in self.spread.items() if spread < _STILL]
        lines = [
            f"how far the action of '{self.bundle}' {self.bundle_sha256[:12]} moves on {self.ticks} ticks of "
            f"{self.episodes} episodes, in its own spread:",
            f"{'camera':<18}" + "".join(f"{fault.value:>18}" for fault in CameraFault),
            f"{'':<18}" + f"{'median     p90':>18}" * len(CameraFault),
        ]
        for camera in dict.fromkeys(one.camera for one in self.moved):
            cells = {one.fault: one for one in self.moved if one.camera == camera}
            figures = "".join(f"{cells[fault].median:>11.3f}{cells[fault].p90:>7.3f}" for fault in CameraFault)
            lines.append(f"{camera:<18}{figures}")
        if still:
            lines.append(f"not counted, as they never vary here: {', '.join(still)}")
        for camera in self.ignored:
            lines.append(
                f"FAILED: the policy ignores camera '{camera}': whatever becomes of its pictures, 9 of 10 actions move "
                f"less than {IGNORED:g} spreads; leave it out, or train on scenes that need it"
            )
        if not self.ignored:
            lines.append("the policy looks at every camera")
        return lines

    def document(self) -> dict[str, object]:
        """Return the JSON document."""
        return {
            "bundle": self.bundle,
            "bundle_sha256": self.bundle_sha256,
            "episodes": self.episodes,
            "ticks": self.ticks,
            "spread": dict(self.spread),
            "unit": "standard deviations of the action over these ticks, root mean square over dimensions that vary",
            "moved": [
                {"camera": one.camera, "fault": one.fault.value, "median": one.median, "p90": one.p90}
                for one in self.moved
            ],
            "ignored_limit": IGNORED,
            "ignored": self.ignored,
            "passed": not self.ignored,
        }


@dataclass(frozen=True, kw_only=True)
class _Tick:
    """What the policy saw at a tick, and per camera the first picture of its episode."""

    images: Mapping[str, Image]
    first: Mapping[str, Image]
    proprio: NDArray[np.float32]
    cloud: NDArray[np.float32] | None


def blind_test(
    bundle: Bundle, paths: Sequence[Path], *, ticks: int = 200, progress: Callable[[], object] | None = None
) -> BlindReport:
    """Ask the policy again on logged ticks, with one camera broken at a time.

    The action is the first of the chunk. Its spread is that over the same ticks, so that 1 is as far as the action
    differs from its mean on an ordinary tick.

    Args:
        bundle: the policy.
        paths: run folders, episodes folders or episode files of a rig that the bundle fits.
        ticks: at most so many, spread evenly over all.
        progress: called after each tick.

    Raises:
        BadInputError: the policy runs elsewhere, has no camera or does not fit the log; or there are too few ticks on
            which it saw anything; or its action is always the same.
    """
    manifest = bundle.manifest
    where = f"bundle {bundle.folder}"
    if manifest.remote is not None:
        raise BadInputError(f"{where}: its policy runs elsewhere and cannot be asked here; name one that acts itself")
    if not manifest.cameras:
        raise BadInputError(f"{where}: takes no camera, there is nothing to blind")
    cameras = [camera.name for camera in manifest.cameras]
    looked = _ticks(bundle, episode_files(list(paths)), ticks)
    clean: list[Array] = []
    moved: dict[tuple[str, CameraFault], list[Array]] = {
        (camera, fault): [] for camera in cameras for fault in CameraFault
    }
    for _, tick in looked:
        clean.append(_action(bundle, tick, tick.images))
        for (camera, fault), actions in moved.items():
            picture = broken(tick.images[camera], fault, tick.first[camera])
            actions.append(_action(bundle, tick, {**tick.images, camera: picture}))
        if progress:
            progress()
    truth = np.array(clean)
    spread = truth.std(axis=0)
    if not (spread >= _STILL).any():
        raise BadInputError(f"{where}: its action is the same on all {len(looked)} ticks; blinding it shows nothing")
    return BlindReport(
        bundle=manifest.name,
        bundle_sha256=bundle.sha256,
        episodes=len({path for path, _ in looked}),
        ticks=len(looked),
        spread=dict(zip(manifest.action.dims, spread.tolist(), strict=True)),
        moved=tuple(
            Moved(camera=camera, fault=fault, distances=_distances(np.array(actions), truth, spread))
            for (camera, fault), actions in moved.items()
        ),
    )


def broken(image: Image, fault: CameraFault, first: Image) -> Image:
    """Return what a camera with `fault` would show in place of `image` (H, W, 3); `first` is where it froze."""
    height, width = image.shape[:2]
    match fault:
        case CameraFault.MASK:
            masked: Image = np.broadcast_to(np.rint(image.mean(axis=(0, 1))).astype(np.uint8), image.shape).copy()
            return masked
        case CameraFault.FREEZE:
            return first
        case CameraFault.SHIFT:
            columns = np.arange(width) - max(1, round(SHIFT_SHARE * width))
            return image[:, np.maximum(columns, 0)]
        case CameraFault.ROTATE:
            turn = np.radians(TURN_DEG)
            y, x = np.mgrid[:height, :width].astype(np.float64)
            x, y = x - (width - 1) / 2.0, y - (height - 1) / 2.0
            columns = np.rint(np.cos(turn) * x + np.sin(turn) * y + (width - 1) / 2.0)
            rows = np.rint(np.cos(turn) * y - np.sin(turn) * x + (height - 1) / 2.0)
            turned: Image = image[
                np.clip(rows, 0, height - 1).astype(np.intp), np.clip(columns, 0, width - 1).astype(np.intp)
            ]
            return turned


def _ticks(bundle: Bundle, files: Sequence[Path], most: int) -> list[tuple[Path, _Tick]]:
    """Return ticks on which the policy saw every camera, with the file each is from."""
    usable: list[tuple[Episode, NDArray[np.intp]]] = []
    for path in files:
        episode = read_episode(path)
        _check_fits(bundle, episode)
        logged = episode.arrays(["tick/frame_id", "tick/features", "tick/reset"])
        seen = (logged["tick/frame_id"].astype(np.int64) >= 0).all(axis=1)
        seen &= np.isfinite(logged["tick/features"].astype(np.float64)).all(axis=1)
        if bundle.manifest.point_cloud is not None:
            seen &= episode.array("tick/cloud_count").astype(np.int64) >= 0
        seen &= np.isnan(logged["tick/reset"].astype(np.float64)).all(axis=1)  # on the way home it is not asked
        if seen.any():
            usable.append((episode, np.flatnonzero(seen)))
    total = sum(len(rows) for _, rows in usable)
    if total < _LEAST_TICKS:
        raise BadInputError(
            f"{files[0].parent}: {total} ticks on which a policy saw every camera (at least {_LEAST_TICKS}); name a "
            "run whose policy was asked"
        )
    chosen = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(np.intp))
    found: list[tuple[Path, _Tick]] = []
    begin = 0
    for episode, rows in usable:
        own = rows[chosen[(chosen >= begin) & (chosen < begin + len(rows))] - begin]
        begin += len(rows)
        if len(own):
            found += [(episode.path, tick) for tick in _read(bundle, episode, int(rows[0]), own)]
    return found


def _read(bundle: Bundle, episode: Episode, first: int, rows: NDArray[np.intp]) -> list[_Tick]:
    manifest = bundle.manifest
    begin = episode.rows(first, first + 1)[0]
    pictures = [camera.name for camera in manifest.cameras]
    found = []
    for row in rows.tolist():
        logged = episode.rows(row, row + 1)[0]
        values = [np.atleast_1d(logged[f"obs/{entry.key}"]) for entry in manifest.proprio]
        found.append(
            _Tick(
                images={name: logged[f"obs/{name}_image"].copy() for name in pictures},
                first={name: begin[f"obs/{name}_image"] for name in pictures},
                proprio=np.concatenate(values).astype(np.float32) if values else np.zeros(0, np.float32),
                cloud=logged["obs/point_cloud"].copy() if manifest.point_cloud is not None else None,
            )
        )
    return found


def _check_fits(bundle: Bundle, episode: Episode) -> None:
    """Raise BadInputError where the log does not hold what the bundle takes."""
    spec = episode.header.spec
    check_fits(
        bundle,
        cameras={name: (height, width) for name, height, width in spec.cameras},
        rate_hz=episode.header.rate_hz,
        joint_count=spec.joint_count,
        readings=dict(spec.readings),
        station=f"the log {episode.path.name}",
    )
    missing = [entry.key for entry in bundle.manifest.proprio if (entry.key, entry.size) not in spec.proprio]
    cloud = bundle.manifest.point_cloud
    if cloud is not None and spec.cloud_points != cloud.points:
        missing.append(f"point_cloud of {cloud.points} points")
    if missing:
        raise BadInputError(
            f"{episode.path}: holds no {missing[0]}, which bundle {bundle.folder} takes; name a log of its own kind"
        )


def _action(bundle: Bundle, tick: _Tick, images: Mapping[str, Image]) -> Array:
    """Return the chunk's first action (A,)."""
    features = bundle.encode(images, tick.proprio, tick.cloud)
    action: Array = bundle.act(features, tick.proprio)[0].astype(np.float64)
    return action


def _distances(actions: Array, truth: Array, spread: Array) -> Array:
    """Return per tick how far (N, A) actions are from the truth, in spreads."""
    varies = spread >= _STILL
    distances: Array = np.sqrt((((actions - truth)[:, varies] / spread[varies]) ** 2).mean(axis=1))
    return distances
