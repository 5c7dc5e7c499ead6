"""All cameras of a rig at once: one bundle adjustment, and what it says about shots that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.board_pose import BoardPose
from calibration.refused import CalibrationRefusedError
from calibration.reprojection import Free, LensPrior, Reprojection, Solution, State
from calibration.rig_sightings import RigCamera, RigSightings, Sighting
from calibration.rig_start import LEAST_SHOTS, RigStart
from robot.geometry import inverse_pose, rotation_angle

Array = NDArray[np.float64]
FOLDS = 5
LIMIT_MM, LIMIT_DEG = 5.0, 0.5
WIDEST_MM, WIDEST_DEG = 10.0, 1.0
_HUBER_PX = 1.5
_OUTLIER_PX, _OUTLIER_SIGMAS = 2.0, 6.0
_MOST_LEFT_OUT = 0.4
_TWO_SIDED_95 = 1.96


@dataclass(frozen=True, kw_only=True, eq=False)
class Disagreement:
    """How far a sighting of a held-out shot is from what the others say about it.

    Attributes:
        sighting: number in `Extrinsics.rig`.
        other: the camera that says otherwise, by number; None where the calibration of the board does.
        distance_m: between the two places of the board's middle.
        angle_rad: between its two orientations.
        residuals_px: shape (N, 2), corners seen less predicted.
    """

    sighting: int
    other: int | None
    distance_m: float
    angle_rad: float
    residuals_px: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Extrinsics:
    """Where the cameras are.

    Attributes:
        rig: the sightings that count.
        left_out: those that contradict all others.
        cameras: as given, with the lenses that the poses belong to.
        T_mount_camera: `T_base_camera` or `T_hand_camera` (4, 4) of each camera.
        half_widths: shape (cameras, 6), half of the 95 % intervals: position along the mount's axes [m], then rotation
            about the camera's own axes [rad].
        T_mount_board: pose (4, 4) of a board that stayed on its mount, None for a free one.
        residuals: shape (N, 2) per sighting of the fit [px].
        sigma_px: standard deviation of one coordinate of a corner [px].
        held_out: per sighting of a shot that was left out, in `FOLDS` rounds.
    """

    rig: RigSightings
    left_out: tuple[Sighting, ...]
    cameras: tuple[RigCamera, ...]
    T_mount_camera: tuple[Array, ...]
    half_widths: Array
    T_mount_board: Array | None
    residuals: tuple[Array, ...]
    sigma_px: float
    held_out: tuple[Disagreement, ...]

    def refusals(self) -> list[str]:
        """Return why this must not be used, one line each; none where it may."""
        lines = []
        mm = 1e3 * float(np.median([one.distance_m for one in self.held_out]))
        degrees = float(np.degrees(np.median([one.angle_rad for one in self.held_out])))
        if not (mm <= LIMIT_MM and degrees <= LIMIT_DEG):
            lines.append(
                f"held-out error {mm:.2f} mm, {degrees:.3f} degrees (medians; limits {LIMIT_MM:g} mm, {LIMIT_DEG:g} "
                "degrees): did something move within a shot, are the arm's poses those of the shots, is the board's "
                "file right?"
            )
        for camera, half in zip(self.cameras, self.half_widths, strict=True):
            widest_mm, widest_deg = 1e3 * float(half[:3].max()), float(np.degrees(half[3:].max()))
            if not (widest_mm <= WIDEST_MM and widest_deg <= WIDEST_DEG):
                lines.append(
                    f"camera '{camera.name}' is known to {widest_mm:.1f} mm and {widest_deg:.2f} degrees only (95 %; "
                    f"limits {WIDEST_MM:g} mm, {WIDEST_DEG:g} degree): more shots, the hand turned about two axes"
                )
        return lines


def adjust(
    rig: RigSightings, *, hold_lenses: bool = False, progress: Callable[[str], None] = lambda line: None
) -> Extrinsics:
    """Return where all cameras are.

    Args:
        rig: what was seen.
        hold_lenses: take the lenses as exact. Otherwise they move as far as their own calibration was unsure, which is
            what makes the intervals hold: a principal point that is 2 px off turns a camera by 0.2 degrees.
        progress: is told what is being done.

    Raises:
        CalibrationRefusedError: cameras are tied to the arm by nothing, or the shots contradict each other.
    """
    rig = rig.usable()
    progress("poses from single pictures")
    seen = rig.poses()
    cameras, boards = RigStart(rig, seen).find()
    there = [
        number
        for number, (one, pose) in enumerate(zip(rig.sightings, seen, strict=True))
        if pose is not None and boards[rig.board_number(one.shot)] is not None
    ]
    rig = rig.with_sightings([rig.sightings[i] for i in there])
    progress("bundle adjustment")
    priors = () if hold_lenses else _priors(rig)
    free = Free(intrinsics=bool(priors))
    models = tuple(camera.model for camera in rig.cameras)
    state = State(models=models, cameras=tuple(cameras), boards=tuple(T for T in boards if T is not None))
    numbers = _numbers(boards)
    solution = Reprojection(rig.blocks(numbers), free, _HUBER_PX, priors).solve(state)
    good = _believed(rig, solution)
    left_out = [one for one, keep in zip(rig.sightings, good, strict=True) if not keep]
    if left_out:
        rig = rig.with_sightings([one for one, keep in zip(rig.sightings, good, strict=True) if keep])
        boards = [T if _is_seen(rig, number) else None for number, T in enumerate(_boards(solution.state, numbers))]
        numbers = _numbers(boards)
        state = State(
            models=solution.state.models,
            cameras=solution.state.cameras,
            boards=tuple(T for T in boards if T is not None),
        )
        solution = Reprojection(rig.blocks(numbers), free, _HUBER_PX, priors).solve(state)
    _check_enough(rig, left_out)
    problem = Reprojection(rig.blocks(numbers), free, _HUBER_PX, priors)
    deviations = problem.deviations(solution, [one.shot for one in rig.sightings])
    first = problem.columns(solution.state)[1]
    half = np.array([_TWO_SIDED_95 * deviations[at : at + 6] for at in first])
    rig = rig.with_lenses(solution.state.models)
    return Extrinsics(
        rig=rig,
        left_out=tuple(left_out),
        cameras=rig.cameras,
        T_mount_camera=solution.state.cameras,
        half_widths=half,
        T_mount_board=None if rig.board_mount == "free" else solution.state.boards[0],
        residuals=solution.residuals,
        sigma_px=solution.sigma_px,
        held_out=tuple(_held_out(rig, solution.state, numbers, free, priors, progress)),
    )


def _held_out(
    rig: RigSightings,
    state: State,
    numbers: dict[int, int],
    free: Free,
    priors: Sequence[LensPrior],
    progress: Callable[[str], None],
) -> list[Disagreement]:
    shots = sorted({one.shot for one in rig.sightings})
    found: list[Disagreement] = []
    for fold in range(FOLDS):
        progress(f"holding out part {fold + 1} of {FOLDS}")
        out = set(shots[fold::FOLDS])
        rest = rig.with_sightings([one for one in rig.sightings if one.shot not in out])
        kept = {board: at for board, at in numbers.items() if _is_seen(rest, board)}
        start = State(
            models=state.models, cameras=state.cameras, boards=tuple(state.boards[at] for at in kept.values())
        )
        renumbered = {board: number for number, board in enumerate(kept)}
        fitted = Reprojection(rest.blocks(renumbered), free, _HUBER_PX, priors).solve(start).state
        T_board = None if rig.board_mount == "free" else fitted.boards[0]
        of_out = [number for number, one in enumerate(rig.sightings) if one.shot in out]
        seen = rig.with_sightings([rig.sightings[number] for number in of_out]).with_lenses(fitted.models)
        for one in disagreements(seen, seen.poses(), fitted.cameras, T_board):
            found.append(replace(one, sighting=of_out[one.sighting]))
    return found


def disagreements(
    rig: RigSightings,
    poses: list[BoardPose | None],
    T_mount_camera: tuple[Array, ...],
    T_mount_board: Array | None,
) -> list[Disagreement]:
    """Return how far each sighting is from what is said about it.

    A board that stays on its mount is where the calibration says. A free one is where the other cameras of the shot see
    it, each in turn; shots of one camera say nothing.
    """
    found = []
    for number, (one, pose) in enumerate(zip(rig.sightings, poses, strict=True)):
        if pose is None:
            continue
        if T_mount_board is not None:
            boards: list[tuple[int | None, Array]] = [(None, T_mount_board)]
        else:
            boards = [
                (
                    other.camera,
                    inverse_pose(rig.T_between(other.camera, other.shot))
                    @ T_mount_camera[other.camera]
                    @ theirs.T_camera_target,
                )
                for other, theirs in zip(rig.sightings, poses, strict=True)
                if other.shot == one.shot and other.camera != one.camera and theirs is not None and not theirs.ambiguous
            ]
        to_camera = inverse_pose(T_mount_camera[one.camera]) @ rig.T_between(one.camera, one.shot)
        found += [_apart(rig, number, other, pose, to_camera @ T_board) for other, T_board in boards]
    return found


def _apart(rig: RigSightings, number: int, other: int | None, pose: BoardPose, T_said: Array) -> Disagreement:
    view, model = rig.sightings[number].view, rig.cameras[rig.sightings[number].camera].model
    corners, middle = rig.board.corners_m[view.ids], rig.middle_m
    T = pose.T_camera_target
    place, said = (M[:3, :3] @ middle + M[:3, 3] for M in (T, T_said))
    return Disagreement(
        sighting=number,
        other=other,
        distance_m=float(np.linalg.norm(place - said)),
        angle_rad=rotation_angle(T[:3, :3], T_said[:3, :3]),
        residuals_px=view.pixels - model.project(corners @ T_said[:3, :3].T + T_said[:3, 3]),
    )


def _priors(rig: RigSightings) -> tuple[LensPrior, ...]:
    """What is known of the lenses; none where all are exact."""
    if all(camera.lens_root_px is None for camera in rig.cameras):
        return ()
    found = []
    for number, camera in enumerate(rig.cameras):
        values = camera.model.values
        exact = np.diag(1e6 / np.maximum(np.abs(values), 1.0))
        root_px = exact if camera.lens_root_px is None else camera.lens_root_px
        found.append(LensPrior(camera=number, values=values, root_px=root_px))
    return tuple(found)


def _believed(rig: RigSightings, solution: Solution) -> list[bool]:
    """Which sightings agree with the rest: a wrong pose of the arm, or a mirrored board, is far from all."""
    middle = np.array([np.median(np.linalg.norm(one, axis=1)) for one in solution.residuals])
    limit = max(_OUTLIER_PX, _OUTLIER_SIGMAS * float(np.median(middle)) / 1.18)
    return [bool(one <= limit) for one in middle]


def _check_enough(rig: RigSightings, left_out: list[Sighting]) -> None:
    total = len(rig.sightings) + len(left_out)
    if len(left_out) > _MOST_LEFT_OUT * total:
        raise CalibrationRefusedError(
            f"{len(left_out)} of {total} sightings contradict the others; did the board slip, do the arm's poses "
            "belong to these shots, or does each shot hold one moment?"
        )
    for number, camera in enumerate(rig.cameras):
        count = sum(one.camera == number for one in rig.sightings)
        if count < LEAST_SHOTS:
            raise CalibrationRefusedError(
                f"camera '{camera.name}' saw the board in {count} shots that agree with the others; at least "
                f"{LEAST_SHOTS} are needed, take more"
            )


def _numbers(boards: list[Array | None]) -> dict[int, int]:
    return {board: number for number, board in enumerate(b for b, T in enumerate(boards) if T is not None)}


def _boards(state: State, numbers: dict[int, int]) -> list[Array | None]:
    boards: list[Array | None] = [None] * (max(numbers) + 1)
    for board, number in numbers.items():
        boards[board] = state.boards[number]
    return boards


def _is_seen(rig: RigSightings, board: int) -> bool:
    return any(rig.board_number(one.shot) == board for one in rig.sightings)
