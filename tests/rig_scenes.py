"""A rig of which the truth is known: an arm, cameras beside it and on it, and a board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.rehearsal import looking, seen_from
from calibration.rig_sightings import BoardMount, RigCamera, RigSightings, Sighting
from perception.camera_model import CameraModel
from robot.geometry import inverse_pose, pose, rotvec_to_matrix
from tests.calibration_scenes import BOARD, MIDDLE, NARROW, Array

LENS = CameraModel(
    kind="brown", width=640, height=480, fx=600.0, fy=601.0, cx=321.0, cy=239.0, distortion=(-0.1, 0.05, 0.0, 0.0, 0.0)
)


CENTRE = (0.45, 0.0, 0.2)
T_HAND_CAMERA = pose(rotvec_to_matrix(np.array([0.05, -0.1, 1.5])), np.array([0.05, 0.02, -0.03]))
T_HAND_BOARD = pose(rotvec_to_matrix(np.array([0.1, -0.05, 0.3])), np.array([-0.09, -0.1, 0.04]))
FIXED = {
    "front": looking((0.85, 0.25, 0.75), CENTRE),
    "side": looking((0.5, -0.5, 0.75), CENTRE),
    "rear": looking((0.05, 0.45, 0.8), CENTRE),
}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the calibration has to find, and what it is given."""

    rig: RigSightings
    T_mount_camera: tuple[Array, ...]


def scene(
    board_mount: BoardMount,
    *,
    seed: int,
    shots: int = 20,
    fixed: Sequence[str] = ("front", "side"),
    wrist: bool = False,
    noise_px: float = 0.3,
    turn_rad: float = 0.5,
    axis: Sequence[float] | None = None,
) -> Truth:
    """Shots of a rig: the hand goes round, the board is on it, on the table, or put anywhere."""
    random = np.random.default_rng(seed)
    cameras = [RigCamera(name=name, mount="base", model=LENS) for name in fixed]
    truth = [FIXED[name] for name in fixed]
    if wrist:
        cameras.append(RigCamera(name="wrist", mount="hand", model=NARROW))
        truth.append(T_HAND_CAMERA)
    on_table = pose(np.diag([1.0, -1.0, -1.0]), np.array([0.36, 0.12, 0.0]))
    hands: list[Array | None] = []
    sightings: list[Sighting] = []
    while len(hands) < shots:
        way = np.asarray(axis) if axis is not None else random.normal(size=3)
        turn = rotvec_to_matrix(way / np.linalg.norm(way) * random.uniform(-turn_rad, turn_rad))
        T_board = _board(board_mount, random, on_table)
        T_hand = _hand(board_mount, random, turn, T_board)
        if board_mount == "hand":
            T_board = T_hand @ T_HAND_BOARD
        views = []
        for number, (camera, T) in enumerate(zip(cameras, truth, strict=True)):
            T_base_camera = T if camera.mount == "base" else T_hand @ T
            view = seen_from(camera.model, inverse_pose(T_base_camera) @ T_board, random, noise_px, BOARD)
            facing = (inverse_pose(T_base_camera) @ T_board)[2, 2]
            if view is not None and facing > 0.5:
                views.append(Sighting(camera=number, shot=len(hands), view=view))
        if len(views) >= (1 if board_mount != "free" else 2):
            sightings += views
            hands.append(T_hand)
    rig = RigSightings(
        board=BOARD,
        board_mount=board_mount,
        cameras=tuple(cameras),
        shots=tuple(f"{number:03d}" for number in range(shots)),
        T_base_hand=tuple(hands),
        sightings=tuple(sightings),
    )
    return Truth(rig=rig, T_mount_camera=tuple(truth))


def _board(board_mount: BoardMount, random: np.random.Generator, on_table: Array) -> Array:
    if board_mount != "free":
        return on_table
    # z into the paper: the printed side faces the cameras, up and to where they stand
    turn = rotvec_to_matrix(random.normal(0.0, 0.25, 3))
    R = turn @ np.diag([1.0, -1.0, -1.0]) @ rotvec_to_matrix(np.array([0.0, 0.0, random.uniform(-3.0, 3.0)]))
    return pose(R, np.array(CENTRE) + random.uniform(-0.08, 0.08, 3) - R @ MIDDLE)


def _hand(board_mount: BoardMount, random: np.random.Generator, turn: Array, T_board: Array) -> Array:
    if board_mount == "hand":
        # the board's printed side up, towards the cameras
        R = turn @ np.diag([1.0, -1.0, -1.0])
        middle = T_HAND_BOARD[:3, :3] @ MIDDLE + T_HAND_BOARD[:3, 3]
        return pose(R, np.array(CENTRE) + random.uniform(-0.1, 0.1, 3) - R @ middle)
    middle = T_board[:3, :3] @ MIDDLE + T_board[:3, 3]
    R_camera = turn @ np.diag([1.0, -1.0, -1.0])
    T_base_camera = pose(R_camera, middle - R_camera @ [0.0, 0.0, random.uniform(0.35, 0.5)])
    return T_base_camera @ inverse_pose(T_HAND_CAMERA)


def without(truth: Truth, camera: str, shots: Sequence[int]) -> RigSightings:
    """The sightings without those of one camera in some shots."""
    number = [one.name for one in truth.rig.cameras].index(camera)
    kept = [one for one in truth.rig.sightings if not (one.camera == number and one.shot in shots)]
    return replace(truth.rig, sightings=tuple(kept))
