"""Which pictures of a recorded drive make shots, and where the hand was in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.pose_file import one_sign
from calibration.pose_track import PoseTrack
from calibration.stillness import STILL_S, same_place
from robot.geometry import pose

Array = NDArray[np.float64]
_SETTLE_S = 0.2  # of a rest that has just begun
_APART_S = 10.0  # between two drives in one file: more than any gap that a track would be led over
_DECIMALS = 6


class Drive(Protocol):
    """One recorded drive; see `teleop.recorded_drive.RecordedDrive`."""

    @property
    def where(self) -> Path: ...  # noqa: D102
    @property
    def station(self) -> str: ...  # noqa: D102
    @property
    def captured_s(self) -> Mapping[str, Array]: ...  # noqa: D102
    @property
    def arm_s(self) -> Array: ...  # noqa: D102
    @property
    def T_base_tcp(self) -> Array: ...  # noqa: D102
    @property
    def lossy(self) -> tuple[str, ...]: ...  # noqa: D102

    def picture(self, camera: str, index: int) -> NDArray[np.uint8]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, eq=False)
class DriveShot:
    """Pictures that are one shot.

    Attributes:
        t_s: its name, the time of its row.
        pictures: index of the picture by camera.
        T_base_hand: where the hand was, (4, 4).
    """

    t_s: float
    pictures: Mapping[str, int]
    T_base_hand: Array


def starts_s(drives: Sequence[Drive]) -> list[float]:
    """Return what to take from each drive's times, so that all follow each other from 0 on in one file [s]."""
    found, end_s = [], -_APART_S
    for drive in drives:
        found.append(float(drive.arm_s[0]) - (end_s + _APART_S))
        end_s = float(drive.arm_s[-1]) - found[-1]
    return found


def shots_at_rest(drive: Drive, first: int, every_s: float | None) -> Iterator[DriveShot]:
    """Yield a shot for each time that the hand rests, named by numbers from `first` on.

    Each camera's picture is the one nearest to the middle of the rest.

    Args:
        drive: that is looked at.
        first: name of the first shot.
        every_s: in a longer rest, so often; None for once.
    """
    track = _track(drive)
    for begin_s, end_s in rests(drive.arm_s, drive.T_base_tcp):
        begin_s += _SETTLE_S
        count = 1 if every_s is None else max(1, int((end_s - begin_s) / every_s))
        for at_s in begin_s + (np.arange(count) + 0.5) * (end_s - begin_s) / count:
            pictures = {}
            for camera, captured_s in drive.captured_s.items():
                inside = np.flatnonzero((captured_s >= begin_s) & (captured_s <= end_s))
                if len(inside):
                    pictures[camera] = int(inside[np.argmin(np.abs(captured_s[inside] - at_s))])
            if pictures:
                yield DriveShot(t_s=float(first), pictures=pictures, T_base_hand=_at(track, float(at_s)))
                first += 1


def shots_in_motion(drive: Drive, start_s: float, every_s: float) -> Iterator[DriveShot]:
    """Yield a shot for each picture, named by its time, with where the hand was at that very time.

    Pictures from before the first or after the last state of the arm are left out.

    Args:
        drive: that is looked at.
        start_s: is taken from all times [s].
        every_s: least time between two pictures of a camera; 0 for all [s].
    """
    track = _track(drive)
    shots = []
    for camera, captured_s in drive.captured_s.items():
        last_s = -np.inf
        for index, time_s in enumerate(captured_s.tolist()):
            if time_s - last_s >= every_s - 1e-9 and track.covers(np.array([time_s]))[0]:
                t_s = round(time_s - start_s, _DECIMALS)
                shots.append(DriveShot(t_s=t_s, pictures={camera: index}, T_base_hand=_at(track, time_s)))
                last_s = time_s
    yield from sorted(shots, key=lambda shot: shot.t_s)


def rests(arm_s: Array, T_base_hand: Array) -> list[tuple[float, float]]:
    """Return from when to when the hand rests, for `STILL_S` and more [s]."""
    found, begin = [], 0
    while begin < len(arm_s):
        end = begin
        while end + 1 < len(arm_s) and same_place(T_base_hand[end + 1], T_base_hand[begin]):
            end += 1
        if arm_s[end] - arm_s[begin] >= STILL_S:
            found.append((float(arm_s[begin]), float(arm_s[end])))
            begin = end + 1
        else:
            begin += 1
    return found


def _track(drive: Drive) -> PoseTrack:
    quat_xyzw = one_sign(Rotation.from_matrix(drive.T_base_tcp[:, :3, :3]).as_quat())
    return PoseTrack(drive.arm_s, drive.T_base_tcp[:, :3, 3], quat_xyzw)


def _at(track: PoseTrack, time_s: float) -> Array:
    motion = track.at(np.array([time_s]))
    return pose(motion.R[0], motion.p[0])
