"""The file that `extrinsics` leaves: where all cameras of a rig are, how sure that is, and what it rests on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration.board import Board
from calibration.extrinsics import Extrinsics
from calibration.hand_eye_result import Pose, Spread
from calibration.result import CalibrationResult, sealed
from perception.camera_model import CameraModel
from robot.strict import Strict

Array = NDArray[np.float64]
Width = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Widths = tuple[Width, Width, Width]
CONVENTIONS = {
    "T_a_b": "pose of frame b in frame a, p_a = T_a_b @ p_b, row-major 4x4 [m]",
    "camera": "x right, y down, z forward (OpenCV)",
    "hand": "the frame whose poses T_base_hand the arm gave",
    "board": "origin at the outer corner of the first square, x along columns, y along rows, z into the paper",
    "half_widths_95": "half of the 95 % intervals: position along the mount's axes, rotation about the camera's own",
    "held_out": "per sighting of a shot left out of the fit: the board's middle and turn as this picture alone has "
    "them, against what the calibration (board on the hand or at rest) or each other camera (free board) says",
}


class HalfWidths(Strict):
    """Half of a pose's 95 % intervals."""

    position_m: Widths
    rotation_deg: Widths


class RigCameraResult(Strict):
    """One camera; `T_mount_camera` is T_base_camera or T_hand_camera, as `mount` says."""

    mount: Literal["base", "hand"]
    T_mount_camera: Pose
    half_widths_95: HalfWidths
    lens: CameraModel
    sightings: Annotated[int, Field(ge=1)]
    rms_px: Width


class HeldOutRig(Strict):
    """Errors of sightings in shots that were left out, five rounds."""

    translation_mm: Spread
    rotation_deg: Spread
    pixels: Spread
    count: Annotated[int, Field(ge=1)]


class ExtrinsicsResult(CalibrationResult):
    """Where all cameras are.

    Attributes:
        cameras: by the station's names.
        board_mount: what the board was on.
        T_mount_board: where it was on it; absent for a board that was put anywhere.
        sigma_px: standard deviation of one coordinate of a corner [px].
        left_out: "camera/shot" of sightings that contradict the others.
        lenses_held: whether the lenses were taken as exact; otherwise they moved within what their own calibration
            leaves open, and the poses belong to these lenses.
    """

    kind: Literal["extrinsics"] = "extrinsics"
    board: Board
    board_mount: Literal["base", "hand", "free"]
    cameras: dict[str, RigCameraResult]
    T_mount_board: Pose | None = None
    held_out: HeldOutRig
    sigma_px: Width
    left_out: tuple[str, ...]
    lenses_held: bool
    conventions: dict[str, str] = Field(default_factory=lambda: dict(CONVENTIONS))

    @classmethod
    def of(cls, found: Extrinsics, inputs: dict[str, str], *, held: bool) -> ExtrinsicsResult:
        """Return the result, dated and sealed."""
        rig = found.rig
        cameras = {}
        for number, camera in enumerate(found.cameras):
            own = [r for one, r in zip(rig.sightings, found.residuals, strict=True) if one.camera == number]
            half = found.half_widths[number]
            cameras[camera.name] = {
                "mount": camera.mount,
                "T_mount_camera": rows(found.T_mount_camera[number]),
                "half_widths_95": {
                    "position_m": half[:3].tolist(),
                    "rotation_deg": np.degrees(half[3:]).tolist(),
                },
                "lens": camera.model.model_dump(),
                "sightings": len(own),
                "rms_px": float(np.sqrt(np.mean(np.sum(np.concatenate(own) ** 2, axis=1)))),
            }
        values: dict[str, Any] = {
            "inputs": inputs,
            "board": rig.board.model_dump(),
            "board_mount": rig.board_mount,
            "cameras": cameras,
            "T_mount_board": None if found.T_mount_board is None else rows(found.T_mount_board),
            "held_out": {
                "translation_mm": _spread([1e3 * one.distance_m for one in found.held_out]),
                "rotation_deg": _spread([np.degrees(one.angle_rad) for one in found.held_out]),
                "pixels": _spread(np.concatenate([np.linalg.norm(one.residuals_px, axis=1) for one in found.held_out])),
                "count": len(found.held_out),
            },
            "sigma_px": found.sigma_px,
            "left_out": [f"{rig.cameras[one.camera].name}/{rig.shots[one.shot]}" for one in found.left_out],
            "lenses_held": held,
        }
        return sealed(cls, values)


def rows(T: Array) -> list[list[float]]:
    """Return a pose (4, 4) as JSON has it."""
    listed: list[list[float]] = T.tolist()
    return listed


def _spread(values: Any) -> dict[str, float]:
    return {"median": float(np.median(values)), "p90": float(np.quantile(values, 0.9))}
