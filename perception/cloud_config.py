"""The fused view's section of a station file, and where its cameras are."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perception.camera_model import CameraModel, Kind, check_distortion
from perception.config import Finite, Name, Vector
from robot.strict import Strict

_MOST_CELLS = 30_000_000  # of the grid; 4 bytes each

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class CameraGeometry(Strict):
    """Where a camera is and how it looks, for its full-size pictures.

    A pixel's middle has whole coordinates.

    Attributes:
        mount: what it is fixed to: the base, or the arm's TCP.
        T_mount_camera: `T_base_camera` or, for a camera on the arm, `T_tcp_camera`: row-major 4x4, OpenCV axes (x
            right, y down, z forward) [m].
        fx: focal length along x [px].
        fy: focal length along y [px].
        cx: principal point, x [px].
        cy: principal point, y [px].
        lens: how it distorts, see `perception/camera_model.py`.
        distortion: OpenCV's coefficients of that lens, in its order.
    """

    mount: Literal["base", "tcp"]
    T_mount_camera: Annotated[tuple[Finite, ...], Field(min_length=16, max_length=16)]
    fx: Positive
    fy: Positive
    cx: Finite
    cy: Finite
    lens: Kind = "pinhole"
    distortion: tuple[Finite, ...] = ()

    @model_validator(mode="after")
    def _distortion_fits(self) -> Self:
        check_distortion(self.lens, self.distortion)
        return self

    def model(self, height: int, width: int) -> CameraModel:
        """Return the lens for pictures of a size [px]."""
        return CameraModel(
            kind=self.lens,
            width=width,
            height=height,
            fx=self.fx,
            fy=self.fy,
            cx=self.cx,
            cy=self.cy,
            distortion=self.distortion,
        )


class FusedViewConfig(Strict):
    """One point cloud of all depth cameras, in the base frame.

    Attributes:
        cameras: which ones; left out, all that have depth.
        workspace_min_m: least x, y, z that is kept, base frame [m].
        workspace_max_m: greatest x, y, z that is kept [m].
        voxel_m: of each cube of this edge one point is kept [m].
        points: how many there are in the cloud; where there are fewer cubes, points repeat.
        rate_hz: how often it is made, at most [Hz].
        max_skew_s: how far apart the pictures of one cloud may have been taken [s].
        min_depth_m: nearer is no measurement [m].
        max_age_s: how old a cloud may be that a policy acts on, by its oldest picture [s].
        geometry: by camera, in place of its file in `calibration.files`; a simulated camera's is known.
    """

    cameras: tuple[Name, ...] = ()
    workspace_min_m: Vector
    workspace_max_m: Vector
    voxel_m: Annotated[float, Field(ge=0.001, le=0.1)] = 0.005
    points: Annotated[int, Field(ge=16, le=65536)] = 2048
    rate_hz: Annotated[float, Field(ge=1.0, le=60.0)] = 10.0
    max_skew_s: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    min_depth_m: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    max_age_s: Annotated[float, Field(gt=0.0, le=2.0)] = 0.3
    geometry: dict[Name, CameraGeometry] = Field(default_factory=dict)

    @property
    def cells(self) -> tuple[int, int, int]:
        """Size of the grid of cubes along x, y and z."""
        x, y, z = (
            math.ceil((most - least) / self.voxel_m - 1e-9)
            for least, most in zip(self.workspace_min_m, self.workspace_max_m, strict=True)
        )
        return x, y, z

    @model_validator(mode="after")
    def _grid_is_possible(self) -> Self:
        pairs = zip(self.workspace_min_m, self.workspace_max_m, strict=True)
        if not all(least < most for least, most in pairs):
            raise ValueError(
                f"workspace_min_m {self.workspace_min_m} must be below workspace_max_m {self.workspace_max_m}"
            )
        if math.prod(self.cells) > _MOST_CELLS:
            raise ValueError(
                f"voxel_m {self.voxel_m:g} makes {math.prod(self.cells)} cubes (at most {_MOST_CELLS}); "
                "make voxel_m larger or the workspace smaller"
            )
        return self
