"""The calibration file of `hand-eye`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from calibration.result import CalibrationResult
from robot.strict import Strict

Array = NDArray[np.float64]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Row = tuple[Finite, Finite, Finite, Finite]
Range = tuple[Finite, Finite]
Ranges = tuple[Range, Range, Range]
CONVENTIONS = {
    "T_a_b": "pose of frame b in frame a, p_a = T_a_b @ p_b, row-major 4x4 [m]",
    "camera": "x right, y down, z forward (OpenCV)",
    "hand": "the frame whose poses T_base_hand the arm gave",
    "time_offset_s": "added to the target's times gives the arm's [s]",
    "intervals_95": "position_m: lower and upper end of x, y, z; rotation_deg: of the rotation vector e with "
    "R_true = exp(e) R, about the axes of frame a",
    "translation_mm": "held out: where the target's origin was seen against where the arm puts it",
    "rotation_deg": "held out: how far the target was seen turned from how the arm puts it",
}


def _rigid(rows: tuple[Row, Row, Row, Row]) -> tuple[Row, Row, Row, Row]:
    T = np.array(rows)
    R = T[:3, :3]
    if not (np.allclose(R @ R.T, np.eye(3), atol=1e-6) and np.linalg.det(R) > 0.0 and (T[3] == [0, 0, 0, 1]).all()):
        raise ValueError("is no rigid transform")
    return rows


Pose = Annotated[tuple[Row, Row, Row, Row], AfterValidator(_rigid)]


class PoseInterval(Strict):
    """95 % intervals of a pose, see `CONVENTIONS`."""

    position_m: Ranges
    rotation_deg: Ranges


class Intervals(Strict):
    """95 % intervals of what was found; a time offset that was not looked for has none."""

    T_hand_camera: PoseInterval | None = None
    T_base_target: PoseInterval | None = None
    T_base_camera: PoseInterval | None = None
    T_hand_target: PoseInterval | None = None
    time_offset_s: Range | None = None


class Spread(Strict):
    """Errors of held-out sightings."""

    median: Annotated[float, Field(ge=0.0)]
    p90: Annotated[float, Field(ge=0.0)]


class HeldOutErrors(Strict):
    """All held-out sightings, outliers among them."""

    translation_mm: Spread
    rotation_deg: Spread
    folds: Annotated[int, Field(ge=2)]


class MotionSeen(Strict):
    """How the hand turned, about the axes of `frame`, from the 5th to the 95th percentile."""

    frame: Literal["hand", "base"]
    turned_deg: tuple[Finite, Finite, Finite]


class HandEyeResult(CalibrationResult):
    """Where a camera is, on the hand or beside the arm.

    Attributes:
        setup: `eye-in-hand` gives T_hand_camera and T_base_target, `eye-to-hand` T_base_camera and T_hand_target.
        camera: the station's name of the camera, where it was told.
        time_offset_s: added to the target's times; 0 where it was not looked for.
        intervals_95: of all of these.
        translation_mm, rotation_deg: of held-out inliers.
        held_out_all: the same with the outliers.
        sightings, inliers: how many poses of the target took part, and how many of them were believed.
        covariance: of rotation [rad] and position [m] of the first pose, of the second, and of the offset [s], 13x13.
        blocks: how many independent stretches the intervals rest on.
        seed: the closed form that the fit started from.
        forced: True when it was kept though a check failed.
        warnings: what a person should know.
    """

    kind: Literal["hand-eye"] = "hand-eye"
    setup: Literal["eye-in-hand", "eye-to-hand"]
    camera: str | None = None
    T_hand_camera: Pose | None = None
    T_base_target: Pose | None = None
    T_base_camera: Pose | None = None
    T_hand_target: Pose | None = None
    time_offset_s: Finite
    time_offset_sought: bool
    intervals_95: Intervals
    translation_mm: Spread
    rotation_deg: Spread
    held_out_all: HeldOutErrors
    sightings: Annotated[int, Field(ge=1)]
    inliers: Annotated[int, Field(ge=0)]
    covariance: tuple[tuple[Finite, ...], ...]
    blocks: Annotated[int, Field(ge=1)]
    seed: str
    motion: MotionSeen
    forced: bool = False
    warnings: tuple[str, ...] = ()
    conventions: dict[str, str] = Field(default_factory=lambda: dict(CONVENTIONS))

    @model_validator(mode="after")
    def _has_its_poses(self) -> Self:
        wanted, other = ("T_hand_camera", "T_base_target"), ("T_base_camera", "T_hand_target")
        if self.setup == "eye-to-hand":
            wanted, other = other, wanted
        for name in wanted:
            if getattr(self, name) is None or getattr(self.intervals_95, name) is None:
                raise ValueError(f"{self.setup} has no {name}, or no interval of it")
        if any(getattr(self, name) is not None for name in other):
            raise ValueError(f"{self.setup} has {other[0]} or {other[1]}")
        return self

    @property
    def mount(self) -> Literal["base", "tcp"]:
        """What the camera is fixed to, in the words of a bundle's manifest; the hand's frame is the arm's TCP."""
        return "tcp" if self.setup == "eye-in-hand" else "base"

    @property
    def T_mount_camera(self) -> Array:
        """T_tcp_camera or T_base_camera (4, 4), as `mount` says."""
        return np.array(self.T_hand_camera if self.setup == "eye-in-hand" else self.T_base_camera)
