"""Where everything is roughly, in closed form: what ties the cameras to the arm first, then one thing by another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.board_pose import BoardPose
from calibration.closed_forms import kronecker
from calibration.refused import CalibrationRefusedError
from calibration.rig_sightings import RigSightings
from robot.geometry import inverse_pose, rotation_angle

Array = NDArray[np.float64]
LEAST_SHOTS = 5  # an unknown pose on each side takes 3 poses of the arm; with 5 one may be wrong
_DRAWS, _DRAWN = 60, 4
_METRES_PER_RAD = 0.5


class RigStart:
    """Poses of cameras on their mounts and of the board, None as long as unknown.

    Args:
        rig: sightings, all usable.
        seen: the board's pose in each, by that picture alone.
    """

    def __init__(self, rig: RigSightings, seen: Sequence[BoardPose | None]) -> None:
        self._rig = rig
        self._clear = {
            (one.camera, one.shot): pose.T_camera_target
            for one, pose in zip(rig.sightings, seen, strict=True)
            if pose is not None and not pose.ambiguous
        }
        self.cameras: list[Array | None] = [None] * len(rig.cameras)
        self.boards: list[Array | None] = [None] * rig.board_count

    def find(self) -> tuple[list[Array], list[Array | None]]:
        """Return the cameras' poses and the board's, None for a board that no usable picture shows.

        Raises:
            CalibrationRefusedError: a camera is tied to the arm by nothing; names all that are not.
        """
        rig = self._rig
        blind = [camera.name for number, camera in enumerate(rig.cameras) if not self._shots_of(number)]
        if blind:
            raise CalibrationRefusedError(f"{_cameras(blind)} never saw the board (well enough); show it to all")
        if rig.board_mount == "free":
            self._tie_by_shared_shots()
        else:
            self._tie_by_board()
        self._spread()
        loose = [camera.name for camera, T in zip(rig.cameras, self.cameras, strict=True) if T is None]
        if loose:
            tied = [camera.name for camera, T in zip(rig.cameras, self.cameras, strict=True) if T is not None]
            raise CalibrationRefusedError(self._why_loose(loose, tied))
        return [T for T in self.cameras if T is not None], self.boards

    def _why_loose(self, loose: list[str], tied: list[str]) -> str:
        if tied:
            return (
                f"{_cameras(loose)} shared no shot with {', '.join(tied)}; take shots in which both see the board"
                " at once"
            )
        mounts = {camera.mount for camera in self._rig.cameras}
        if self._rig.board_mount == "free" and mounts == {"base"}:
            cure = "add a camera on the hand, or let the arm hold the board"
        elif self._rig.board_mount == "free":
            cure = (
                f"take {LEAST_SHOTS} shots or more, with the arm's pose known and the hand turned each time, that one "
                "on the hand and one beside the arm share; or leave the board where it is"
            )
        elif self._rig.board_mount == "hand" and mounts == {"hand"}:
            cure = "a camera on the hand sees a board on the hand always alike; put the board down"
        elif self._rig.board_mount == "base" and mounts == {"base"}:
            cure = "nothing moves; add a camera on the hand, or let the arm hold the board"
        else:
            cure = f"take {LEAST_SHOTS} shots or more with the arm's pose known and the hand turned each time"
        return f"nothing ties {_cameras(loose)} to the arm; {cure}"

    def _shots_of(self, camera: int) -> list[int]:
        return sorted(shot for number, shot in self._clear if number == camera)

    def _tie_by_board(self) -> None:
        """A board that stays on its mount: A X = Y B with the camera that moves against it and saw most."""
        moving = [number for number in range(len(self.cameras)) if self._rig.needs_arm(number)]
        for number in sorted(moving, key=lambda number: -len(self._shots_of(number))):
            shots = self._shots_of(number)
            T = [self._rig.T_between(number, shot) for shot in shots]
            seen = [self._clear[number, shot] for shot in shots]
            # C^-1 A B = T  <=>  A B = C T
            found = _robust(np.array(T), np.array(seen)) if len(shots) >= LEAST_SHOTS else None
            if found is not None:
                self.boards[0], self.cameras[number] = found
                return

    def _tie_by_shared_shots(self) -> None:
        """A board that is put anywhere: cameras beside the arm among each other, then with one on the hand."""
        rig = self._rig
        beside = [number for number, camera in enumerate(rig.cameras) if camera.mount == "base"]
        on_hand = [number for number, camera in enumerate(rig.cameras) if camera.mount == "hand"]
        best: tuple[int, int, Array, Array] | None = None
        for first in beside:
            in_first = self._relative(first, beside)
            for wrist in on_hand:
                pairs = [
                    (T_hand, T_first_board @ inverse_pose(self._clear[wrist, shot]))
                    for shot in self._shots_of(wrist)
                    if (T_first_board := in_first.get(shot)) is not None
                    and (T_hand := rig.T_base_hand[shot]) is not None
                ]
                if len(pairs) < LEAST_SHOTS or (best is not None and best[0] >= len(pairs)):
                    continue
                # A_hand C_wrist = C_first (T_first_board T_wrist_board^-1)
                found = _robust(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))
                if found is not None:
                    best = len(pairs), first, found[1], found[0]
                    self.cameras = [None] * len(rig.cameras)
                    self.cameras[first], self.cameras[wrist] = found[1], found[0]

    def _relative(self, first: int, beside: Sequence[int]) -> dict[int, Array]:
        """The board's pose in camera `first`'s frame for every shot that it or its neighbours saw."""
        placed = {first: np.eye(4)}
        boards: dict[int, Array] = {}
        while True:
            for (number, shot), T in self._clear.items():
                if number in placed:
                    boards.setdefault(shot, placed[number] @ T)
            reached = {
                number: estimates
                for number in beside
                if number not in placed
                and (
                    estimates := [
                        boards[shot] @ inverse_pose(self._clear[number, shot])
                        for shot in self._shots_of(number)
                        if shot in boards
                    ]
                )
            }
            if not reached:
                return boards
            nearest = max(reached, key=lambda number: len(reached[number]))
            placed[nearest] = middle_pose(reached[nearest])

    def _spread(self) -> None:
        """From what is known to what it was seen with, until nothing is added."""
        rig = self._rig
        grown = True
        while grown:
            grown = False
            for board in range(len(self.boards)):
                if self.boards[board] is not None:
                    continue
                estimates = [
                    inverse_pose(rig.T_between(number, shot)) @ T_camera @ T
                    for (number, shot), T in self._clear.items()
                    if rig.board_number(shot) == board and (T_camera := self.cameras[number]) is not None
                ]
                if estimates:
                    self.boards[board] = middle_pose(estimates)
                    grown = True
            for number in range(len(self.cameras)):
                if self.cameras[number] is not None:
                    continue
                estimates = [
                    rig.T_between(number, shot) @ T_board @ inverse_pose(self._clear[number, shot])
                    for shot in self._shots_of(number)
                    if (T_board := self.boards[rig.board_number(shot)]) is not None
                ]
                if estimates:
                    self.cameras[number] = middle_pose(estimates)
                    grown = True


def middle_pose(poses: Sequence[Array]) -> Array:
    """Return the pose (4, 4) of several that is nearest to all others; single wrong ones do not move it."""
    costs = [sum(_apart(a, b) for b in poses) for a in poses]
    return poses[int(np.argmin(costs))]


def _robust(A: Array, B: Array) -> tuple[Array, Array] | None:
    """Return X and Y of A X = Y B that most of the pairs (n, 4, 4) agree on; None where they leave it open."""
    random = np.random.default_rng(0)
    best: tuple[float, Array, Array] | None = None
    draws = [np.arange(len(A))] + [random.choice(len(A), _DRAWN, replace=False) for _ in range(_DRAWS)]
    for draw in draws:
        X, Y = kronecker(A[draw], B[draw])
        if not (np.isfinite(X).all() and np.isfinite(Y).all()):
            continue
        apart = [_apart(a @ X, Y @ b) for a, b in zip(A, B, strict=True)]
        middle = float(np.median(apart))
        if best is None or middle < best[0]:
            best = middle, X, Y
    if best is None:
        return None
    near = [_apart(a @ best[1], best[2] @ b) <= 2.0 * best[0] + 1e-9 for a, b in zip(A, B, strict=True)]
    X, Y = kronecker(A[near], B[near]) if sum(near) >= _DRAWN else best[1:]
    return X, Y


def _apart(a: Array, b: Array) -> float:
    """Distance and angle of two poses as one figure [m]."""
    return float(np.linalg.norm(a[:3, 3] - b[:3, 3])) + _METRES_PER_RAD * rotation_angle(a[:3, :3], b[:3, :3])


def _cameras(names: Sequence[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names)
    return f"camera {listed}" if len(names) == 1 else f"cameras {listed}"
