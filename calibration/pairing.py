"""From two pose files to sightings: each pose of the target with the arm's pose at its time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.pose_file import PoseFile
from calibration.pose_track import Motion, PoseTrack
from calibration.sightings import Sightings, homogeneous, still_arm
from robot.errors import BadInputError

Array = NDArray[np.float64]
_SAME_S = 2e-3
_SPARSE_S = 0.2
_LEVER_M = 0.6  # a turn of 1 rad, half of it in the quaternion, counts as 0.3 m
_SLOW_TARGET_S = 0.4
_REST_RAD_S, _REST_M_S = 0.02, 0.005
_MOST = 6000


def pair(robot: PoseFile, target: PoseFile, *, beside: bool = False) -> tuple[Sightings, tuple[str, ...]]:
    """Return the sightings of two files, with notes for people.

    A stream of arm poses is interpolated, and a time offset is looked for. Stills are rows of one time in both files,
    the arm having jumped in between; a time offset means nothing to them.

    Args:
        robot: T_base_hand.
        target: T_target_camera.
        beside: True for a camera beside the arm that sees a target on the hand.

    Raises:
        BadInputError: arm poses are too far apart to interpolate, and at other times than the target's.
    """
    notes: tuple[str, ...] = ()
    if len(robot) < 2 or len(target) < 2:
        short = robot if len(robot) < 2 else target
        raise BadInputError(f"pose file {short.path}: {len(short)} pose; a calibration needs many views")
    nearest = _nearest(robot.t_s, target.t_s)
    same = np.abs(robot.t_s[nearest] - target.t_s) <= _SAME_S
    sparse = float(np.median(np.diff(robot.t_s))) >= _SPARSE_S
    if same.sum() >= 0.5 * min(len(robot), len(target)) and (sparse or _jumps(robot)):
        if not same.all():
            notes = (f"{int((~same).sum())} target poses without an arm pose of their time left out",)
        T = homogeneous(Rotation.from_quat(robot.quat_xyzw).as_matrix(), robot.position_m)[nearest[same]]
        return _sightings(target, same, beside=beside).with_stills(still_arm(T)), notes
    if sparse:
        step = float(np.median(np.diff(robot.t_s)))
        raise BadInputError(
            f"pose file {robot.path}: arm poses are {step:.2f} s apart (allowed {_SPARSE_S:g} for a moving arm), and "
            f"not at the times of {target.path.name} as stills are; record faster, or give both files the same times"
        )
    track = PoseTrack(robot.t_s, robot.position_m, robot.quat_xyzw)
    inside = track.covers(target.t_s)
    arm = track.at(target.t_s[inside])
    if inside.any() and float(np.median(np.diff(target.t_s))) > _SLOW_TARGET_S and _rests(arm):
        notes = ("the arm stood still at the target's times: taken as stills, without a time offset",)
        seen = _sightings(target, inside, beside=beside)
        return seen.with_stills(still_arm(homogeneous(arm.R, arm.p))), notes
    kept = np.ones(len(target), bool)
    if len(target) > _MOST:
        kept = np.zeros(len(target), bool)
        kept[np.linspace(0, len(target) - 1, _MOST).round().astype(np.intp)] = True
        notes = (f"every {len(target) / _MOST:.1f}th target pose taken",)
    return _sightings(target, kept, beside=beside).with_track(track), notes


def from_views(T_base_hand: Array, T_target_camera: Array, *, beside: bool = False) -> Sightings:
    """Return the sightings of still views: both (n, 4, 4), the arm's pose and what the board detector found in it."""
    R = T_target_camera[:, :3, :3].transpose(0, 2, 1)
    return Sightings(
        t_s=np.arange(float(len(R))),
        R_camera_target=R,
        p_camera_target=-np.einsum("nij,nj->ni", R, T_target_camera[:, :3, 3]),
        stills=still_arm(T_base_hand),
        inverted=beside,
    )


def _sightings(target: PoseFile, kept: NDArray[np.bool_], *, beside: bool) -> Sightings:
    R = Rotation.from_quat(target.quat_xyzw[kept]).as_matrix().transpose(0, 2, 1)
    p = -np.einsum("nij,nj->ni", R, target.position_m[kept])
    return Sightings(t_s=target.t_s[kept], R_camera_target=R, p_camera_target=p, inverted=beside)


def _nearest(t: Array, at: Array) -> NDArray[np.intp]:
    after = np.clip(np.searchsorted(t, at), 1, len(t) - 1)
    return np.where(at - t[after - 1] < t[after] - at, after - 1, after)


def _rests(arm: Motion) -> bool:
    """Whether an arm stands still at most of some times."""
    turning, moving = np.linalg.norm(arm.omega, axis=1), np.linalg.norm(arm.v, axis=1)
    return bool(np.median(turning) < _REST_RAD_S and np.median(moving) < _REST_M_S)


def _jumps(robot: PoseFile) -> bool:
    """Whether the arm's poses lie as far from the middle of their neighbours as these lie apart: no motion does."""
    way = np.concatenate([robot.position_m, _LEVER_M * robot.quat_xyzw], axis=1)
    if len(way) < 3:
        return True
    aside = np.linalg.norm(way[1:-1] - 0.5 * (way[:-2] + way[2:]), axis=1)
    along = np.linalg.norm(way[2:] - way[:-2], axis=1)
    return bool(np.median(aside) > 0.25 * np.median(along))
