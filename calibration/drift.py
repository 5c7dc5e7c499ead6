"""Whether a rig still is as it was calibrated: a few new shots against the stored result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.board_pose import BoardPose
from calibration.extrinsics import Array, Disagreement, disagreements
from calibration.refused import CalibrationRefusedError
from calibration.rig_sightings import RigSightings
from calibration.rig_start import middle_pose
from robot.geometry import inverse_pose

DRIFT_MM, DRIFT_DEG = 5.0, 0.5
LENS_RATIO, LENS_MARGIN_PX = 2.0, 0.2
LEAST_SHOTS = 3


@dataclass(frozen=True, kw_only=True)
class SightingDrift:
    """How far one sighting is from what another camera, or the calibration, says of it.

    Attributes:
        shot: its name.
        against: the other camera; None where it is held against the board's place.
        translation_mm: between the two places of the board's middle.
        rotation_deg: between its two orientations.
    """

    shot: str
    against: str | None
    translation_mm: float
    rotation_deg: float


@dataclass(frozen=True, kw_only=True)
class CameraDrift:
    """How far one camera's sightings are from what the calibration says.

    Attributes:
        name: of the camera.
        shots: how many of its sightings could be compared.
        translation_mm, rotation_deg: medians, against the camera that agrees best or against the board's stored place;
            None where nothing could be compared.
        lens_px: root mean square of the corners about the board's best pose in each picture, median over pictures [px];
            None without one.
        lens_then_px: the same when it was calibrated.
        seen: all of its sightings that could be compared, against every other camera.
        warnings: one line each, empty where nothing moved.
    """

    name: str
    shots: int
    translation_mm: float | None
    rotation_deg: float | None
    lens_px: float | None
    lens_then_px: float
    seen: tuple[SightingDrift, ...]
    warnings: tuple[str, ...]


def check_rig(
    rig: RigSightings,
    T_mount_camera: Sequence[Array],
    T_mount_board: Array | None,
    lens_then_px: Sequence[float],
    *,
    drift_mm: float = DRIFT_MM,
    drift_deg: float = DRIFT_DEG,
) -> list[CameraDrift]:
    """Compare new sightings with a stored calibration, camera by camera.

    A board on its old mount is held against where it was then. A free one (put anywhere, also a board on a mount that
    was taken off meanwhile) is compared between cameras, and between the shots of a camera on the hand.

    Args:
        rig: the new sightings.
        T_mount_camera: stored poses (4, 4), in the order of the cameras.
        T_mount_board: stored pose of the board on its mount; None where it is elsewhere now.
        lens_then_px: root mean square of each camera's corners when it was calibrated.
        drift_mm, drift_deg: medians from which on a camera counts as moved.

    Raises:
        CalibrationRefusedError: no camera has enough that could be compared.
    """
    rig = rig.usable()
    poses = rig.poses()
    if T_mount_board is None and rig.board_mount != "free":
        T_mount_board = _where_it_lies(rig, poses, T_mount_camera)
    said = disagreements(rig, poses, tuple(T_mount_camera), T_mount_board)
    drifts = []
    for number, camera in enumerate(rig.cameras):
        own = [one for one in said if rig.sightings[one.sighting].camera == number]
        # of what other cameras say the nearest counts: one that has moved disagrees with all, the others with that one
        nearest = min((_medians(own, other) for other in {one.other for one in own}), default=None)
        mm, degrees, shots = nearest or (None, None, 0)
        alone = [
            pose.rms_px
            for one, pose in zip(rig.sightings, poses, strict=True)
            if one.camera == number and pose is not None
        ]
        lens = float(np.median(alone)) if alone else None
        warnings: list[str] = []
        if mm is not None and degrees is not None and (mm > drift_mm or degrees > drift_deg):
            warnings.append(
                f"camera '{camera.name}' is {mm:.1f} mm and {degrees:.2f} degrees from its calibration (limits "
                f"{drift_mm:g} mm, {drift_deg:g} degrees, medians of {shots} sightings); it moved, "
                "or its focus, zoom or mode was changed: calibrate anew"
            )
        limit = max(lens_then_px[number] + LENS_MARGIN_PX, LENS_RATIO * lens_then_px[number])
        if lens is None:
            warnings.append(
                f"camera '{camera.name}': none of its pictures can be used; show it the board, and give the "
                "arm's poses of all shots (--arm-poses)"
            )
        elif lens > limit:
            warnings.append(
                f"camera '{camera.name}': the lens explains the board to {lens:.2f} px only (limit {limit:.2f} px); "
                "was its focus, zoom or mode changed? calibrate its intrinsics anew"
            )
        drifts.append(
            CameraDrift(
                name=camera.name,
                shots=shots,
                translation_mm=mm,
                rotation_deg=degrees,
                lens_px=lens,
                lens_then_px=lens_then_px[number],
                seen=tuple(_seen(rig, one) for one in own),
                warnings=tuple(warnings),
            )
        )
    drifts = _with_pairs(rig, said, drifts, drift_mm, drift_deg)
    if all(one.shots < LEAST_SHOTS for one in drifts):
        raise CalibrationRefusedError(
            f"no camera has {LEAST_SHOTS} sightings that could be compared; take shots in which two cameras see the "
            "board at once, or turn the hand between shots of a camera on it while the board stays"
        )
    return drifts


def _medians(said: Sequence[Disagreement], other: int | None) -> tuple[float, float, int]:
    """Median distance [mm] and angle [degrees] to what one camera, or the calibration, says; and of how many."""
    of_it = [one for one in said if one.other == other]
    return (
        1e3 * float(np.median([one.distance_m for one in of_it])),
        float(np.degrees(np.median([one.angle_rad for one in of_it]))),
        len(of_it),
    )


def _seen(rig: RigSightings, one: Disagreement) -> SightingDrift:
    return SightingDrift(
        shot=rig.shots[rig.sightings[one.sighting].shot],
        against=None if one.other is None else rig.cameras[one.other].name,
        translation_mm=1e3 * one.distance_m,
        rotation_deg=float(np.degrees(one.angle_rad)),
    )


def _with_pairs(
    rig: RigSightings, said: Sequence[Disagreement], drifts: list[CameraDrift], drift_mm: float, drift_deg: float
) -> list[CameraDrift]:
    """Add a warning where two cameras disagree though each agrees with some other: groups have moved apart."""
    if any(one.warnings for one in drifts):
        return drifts
    for number, drift in enumerate(drifts):
        own = [one for one in said if rig.sightings[one.sighting].camera == number and one.other is not None]
        for other in sorted({one.other for one in own if one.other is not None and one.other > number}):
            mm, degrees, shots = _medians(own, other)
            if mm > drift_mm or degrees > drift_deg:
                line = (
                    f"cameras '{drift.name}' and '{drifts[other].name}' are {mm:.1f} mm and {degrees:.2f} degrees "
                    f"apart ({shots} sightings), though each agrees with another; groups of them have moved, calibrate "
                    "anew"
                )
                drifts[number] = replace(drift, warnings=(*drift.warnings, line))
    return drifts


def _where_it_lies(rig: RigSightings, poses: Sequence[BoardPose | None], T_mount_camera: Sequence[Array]) -> Array:
    """Where the board is on its mount now: the sighting that is nearest to all others."""
    found = [
        inverse_pose(rig.T_between(one.camera, one.shot)) @ T_mount_camera[one.camera] @ pose.T_camera_target
        for one, pose in zip(rig.sightings, poses, strict=True)
        if pose is not None and not pose.ambiguous
    ]
    if not found:
        raise CalibrationRefusedError("no picture shows the board well enough; show it nearer")
    return middle_pose(found)
