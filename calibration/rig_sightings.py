"""Several cameras, one board, one arm: who saw the board when, and what is on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardView
from calibration.board_pose import BoardPose, board_pose
from calibration.reprojection import Block
from perception.camera_model import CameraModel
from robot.geometry import inverse_pose

Array = NDArray[np.float64]
Mount = Literal["base", "hand"]
BoardMount = Literal["base", "hand", "free"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RigCamera:
    """A camera beside the arm (`base`) or on it (`hand`), and its lens.

    `lens_root_px` says how sure the lens is, see `LensPrior`; None for one that is known exactly.
    """

    name: str
    mount: Mount
    model: CameraModel
    lens_root_px: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Sighting:
    """The board as one camera saw it in one shot; both by their number."""

    camera: int
    shot: int
    view: BoardView


@dataclass(frozen=True, kw_only=True, eq=False)
class RigSightings:
    """Everything that was seen.

    Attributes:
        board: which.
        board_mount: `base`, it stayed where it was; `hand`, the arm held it; `free`, it was elsewhere in each shot.
        cameras: all.
        shots: names; while one was taken, nothing moved.
        T_base_hand: the arm's pose (4, 4) of each shot, None where it is not known.
        sightings: by camera and shot.
    """

    board: Board
    board_mount: BoardMount
    cameras: tuple[RigCamera, ...]
    shots: tuple[str, ...]
    T_base_hand: tuple[Array | None, ...]
    sightings: tuple[Sighting, ...]

    @property
    def middle_m(self) -> Array:
        """The middle (3,) of the board in its own frame [m]."""
        return np.array([0.5 * self.board.size_m[0], 0.5 * self.board.size_m[1], 0.0])

    def needs_arm(self, camera: int) -> bool:
        """Whether a sighting of this camera says anything only together with the arm's pose."""
        return (self.cameras[camera].mount == "hand") != (self.board_mount == "hand")

    def usable(self) -> RigSightings:
        """Return the same without sightings that lack the arm's pose."""
        kept = [
            one for one in self.sightings if self.T_base_hand[one.shot] is not None or not self.needs_arm(one.camera)
        ]
        return self.with_sightings(kept)

    def with_sightings(self, sightings: Sequence[Sighting]) -> RigSightings:
        """Return the same with other sightings."""
        return replace(self, sightings=tuple(sightings))

    def with_lenses(self, models: Sequence[CameraModel]) -> RigSightings:
        """Return the same with other lenses, one per camera."""
        cameras = tuple(
            RigCamera(name=camera.name, mount=camera.mount, model=model, lens_root_px=camera.lens_root_px)
            for camera, model in zip(self.cameras, models, strict=True)
        )
        return replace(self, cameras=cameras)

    def T_between(self, camera: int, shot: int) -> Array:
        """Return the pose (4, 4) of the board's mount in the camera's mount, as far as the arm says it."""
        if not self.needs_arm(camera):
            return np.eye(4)
        T = self.T_base_hand[shot]
        assert T is not None  # `usable` left none
        return T if self.cameras[camera].mount == "base" else inverse_pose(T)

    def board_number(self, shot: int) -> int:
        """Which unknown pose of the board holds in a shot."""
        return shot if self.board_mount == "free" else 0

    @property
    def board_count(self) -> int:
        """How many unknown poses of the board there are."""
        return len(self.shots) if self.board_mount == "free" else 1

    def blocks(self, numbers: dict[int, int]) -> list[Block]:
        """Return the sightings for the least squares; `numbers` maps `board_number` to those of the state."""
        corners = self.board.corners_m
        return [
            Block(
                camera=one.camera,
                board=numbers[self.board_number(one.shot)],
                T_between=self.T_between(one.camera, one.shot),
                points=corners[one.view.ids],
                pixels=one.view.pixels,
            )
            for one in self.sightings
        ]

    def poses(self) -> list[BoardPose | None]:
        """Return the board's pose in each sighting by that picture alone."""
        return [board_pose(self.cameras[one.camera].model, self.board, one.view) for one in self.sightings]
