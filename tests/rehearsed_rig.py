"""A rig that shows what a test made, on a clock of its own: nothing waits, and looks are a fifth of a second apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from calibration.board_rendering import BoardRenderer
from perception.frame import Frame
from perception.rig_look import RigLook
from robot.arm_state import ArmState
from robot.geometry import inverse_pose, pose, rotvec_to_matrix
from tests.calibration_scenes import BOARD, MIDDLE, NARROW

Array = NDArray[np.float64]
Image8 = NDArray[np.uint8]
LOOK_S, STATE_S = 0.2, 0.02
EYE = BoardRenderer(BOARD, NARROW, samples=2)
WALL = np.full((480, 640, 3), 90, np.uint8)
T_HAND_CAMERA = pose(rotvec_to_matrix(np.array([0.05, -0.1, 1.5])), np.array([0.05, 0.02, -0.03]))
T_BASE_BOARD = pose(np.diag([1.0, -1.0, -1.0]), np.array([0.4, 0.1, 0.02]))


def colour(grey: Image8) -> Image8:
    return np.stack([grey] * 3, axis=-1)


def state(time_s: float, T: Array) -> ArmState:
    zeros = np.zeros(7)
    return ArmState(
        measured_s=time_s, q_rad=zeros, dq_rad_s=zeros, T_base_tcp=T, tcp_velocity=np.zeros(6), gripper_width_m=0.0
    )


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is there for some time.

    Attributes:
        pictures: what each camera shows; one that is missing is silent.
        T_base_hand: where the hand is; None: the arm says nothing.
        for_s: how long [s].
        moves: the hand goes on by so much in each second, along x [m/s].
    """

    pictures: Mapping[str, Image8] = field(default_factory=lambda: {"wrist": WALL})
    T_base_hand: Array | None = field(default_factory=lambda: np.eye(4))
    for_s: float = 1.0
    moves_m_s: float = 0.0


class RehearsedRig:
    """Plays scenes one after another; after the last one a look is an error of the test."""

    station = "rehearsal"

    def __init__(self, scenes: Sequence[Scene], *, cameras: Sequence[str] = ("wrist",), arm: bool = True) -> None:
        self.sizes = dict.fromkeys(cameras, (480, 640))
        self.has_arm = arm
        self._looks = self._play(scenes)
        self.opened = 0

    def __enter__(self) -> Self:
        self.opened += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.opened -= 1

    def look(self) -> RigLook:
        return next(self._looks)

    def _play(self, scenes: Sequence[Scene]) -> Iterator[RigLook]:
        number = 0
        for scene in scenes:
            for _ in range(round(scene.for_s / LOOK_S)):
                number += 1
                now_s = 100.0 + number * LOOK_S
                taken_s = now_s - 0.03
                frames = {
                    name: Frame(camera=name, frame_id=number, captured_s=taken_s, arrived_s=now_s - 0.01, rgb=rgb)
                    for name, rgb in scene.pictures.items()
                }
                silent = {name: 9.0 for name in self.sizes if name not in frames}
                states = []
                if self.has_arm and scene.T_base_hand is not None:
                    for step in range(round(LOOK_S / STATE_S)):
                        time_s = now_s - LOOK_S + (step + 1) * STATE_S
                        T = np.array(scene.T_base_hand)
                        T[0, 3] += scene.moves_m_s * time_s
                        states.append(state(time_s, T))
                problem = "servo: arm state is 900 ms old" if self.has_arm and scene.T_base_hand is None else None
                yield RigLook(now_s=now_s, frames=frames, silent_s=silent, arm=states, arm_problem=problem)


def hand_poses(count: int, seed: int = 0) -> list[Array]:
    """T_base_hand from which the camera on the hand sees the board, turned about three axes."""
    random, found = np.random.default_rng(seed), []
    middle = T_BASE_BOARD[:3, :3] @ MIDDLE + T_BASE_BOARD[:3, 3]
    for _ in range(count):
        axis = random.normal(size=3)
        turn = rotvec_to_matrix(axis / np.linalg.norm(axis) * random.uniform(0.3, 0.6))
        R = turn @ np.diag([1.0, -1.0, -1.0])
        T_base_camera = pose(R, middle - R @ [0.0, 0.0, random.uniform(0.32, 0.45)])
        found.append(T_base_camera @ inverse_pose(T_HAND_CAMERA))
    return found


def seen_from_hand(T_base_hand: Array, seed: int) -> Image8:
    """What the camera on the hand sees."""
    T_camera_board = inverse_pose(T_base_hand @ T_HAND_CAMERA) @ T_BASE_BOARD
    return colour(EYE.render(T_camera_board, random=np.random.default_rng(seed)))
