"""Least squares over camera poses, board poses and intrinsics at once, by what the pictures show.

One block of corners is seen through `p_camera = C^-1 A B p_board`: C is the pose of the camera on its mount, B that of
the board, and A what is known between the two (the arm's pose, where one of them is on the arm). Calibrating one camera
and adjusting a whole rig differ only in what is held.

Levenberg-Marquardt on poses as they are (updates R exp(w), p + v), with Huber weights renewed in every step; normal
equations are sparse, as a board's pose meets only the cameras that saw it. B. Triggs et al., "Bundle adjustment - a
modern synthesis" (2000), sections 2.2, 4 and 6; damping after K. Madsen et al., "Methods for non-linear least squares
problems" (2004), algorithm 3.16. scipy's least_squares takes no normal equations (its sparse way is LSMR) and gives
no covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.sparse import csc_array, csr_array, eye_array, vstack
from scipy.sparse.linalg import splu

from calibration.refused import CalibrationRefusedError
from perception.camera_model import CameraModel
from robot.geometry import rotvec_to_matrix

Array = NDArray[np.float64]
_MOST_STEPS = 60
_SMALL_STEP = 1e-9
_SMALL_GAIN = 1e-10


class UnsolvableError(CalibrationRefusedError):
    """The pictures leave something undetermined, or contradict each other wholly."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Corners of one board in one picture.

    Attributes:
        camera, board: their numbers in the `State`.
        T_between: what is known (4, 4) between the camera's mount and the board's.
        points: shape (N, 3), on the board [m].
        pixels: shape (N, 2), in the picture [px].
    """

    camera: int
    board: int
    T_between: Array
    points: Array
    pixels: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What is estimated.

    Attributes:
        models: one per camera.
        cameras: poses (4, 4) of the cameras on their mounts.
        boards: poses (4, 4) of the boards.
    """

    models: tuple[CameraModel, ...]
    cameras: tuple[Array, ...]
    boards: tuple[Array, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class LensPrior:
    """What is known of a camera's intrinsics beforehand.

    Attributes:
        camera: its number in the `State`.
        values: shape (n,), as `CameraModel.values`.
        root_px: shape (n, n); `root_px @ (values - truth)` has components of variance 1, times that of a corner [px].
    """

    camera: int
    values: Array
    root_px: Array


def lens_root_px(covariance: Array, sigma_px: float) -> Array:
    """Return the `root_px` (n, n) of a lens whose values have `covariance` (n, n) and whose corners had `sigma_px`."""
    scale = np.sqrt(np.diag(covariance))
    lower = np.linalg.cholesky(covariance / np.outer(scale, scale) + 1e-10 * np.eye(len(scale)))
    root: Array = sigma_px * np.linalg.inv(lower) / scale
    return root


@dataclass(frozen=True, kw_only=True)
class Free:
    """What may change: intrinsics, camera poses; board poses always do unless named as held."""

    intrinsics: bool = False
    cameras: bool = True
    boards: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Where least squares ended.

    Attributes:
        state: the best.
        residuals: per block (N, 2), seen less predicted [px].
        sigma_px: standard deviation of one coordinate of a corner, from the residuals and degrees of freedom [px].
        covariance: of the parameters that were asked for, see `covariance_of`.
    """

    state: State
    residuals: tuple[Array, ...]
    sigma_px: float


class Reprojection:
    """The problem: which blocks, and what may change.

    Args:
        blocks: all corners.
        free: what is estimated.
        huber_px: residuals beyond it count linearly; None for plain least squares.
        priors: what is known of lenses that are free.
    """

    def __init__(
        self, blocks: Sequence[Block], free: Free, huber_px: float | None, priors: Sequence[LensPrior] = ()
    ) -> None:
        self._blocks, self._free, self._huber_px = tuple(blocks), free, huber_px
        self._priors = tuple(priors) if free.intrinsics else ()

    def solve(self, start: State) -> Solution:
        """Return the best state near `start`. Raises UnsolvableError."""
        state, damping, growth = start, 1e-4, 2.0
        residuals = self.residuals(state)
        cost = self._cost(residuals, state)
        if not np.isfinite(cost):
            raise UnsolvableError("the start of the fit is not finite; are the intrinsics of another camera?")
        J = self._whole_jacobian(state)
        for _ in range(_MOST_STEPS):
            weight = self._weights(residuals)
            r = self._whole(residuals, state)
            normal = csc_array(J.T @ J.multiply(weight[:, None]))
            gradient = J.T @ (weight * r)
            scale = normal.diagonal()
            scale = np.maximum(scale, 1e-12 * max(scale.max(initial=0.0), 1e-12))
            step = _solve(normal, damping * scale, gradient)
            tried = self.moved(state, step)
            new_residuals = None if tried is None else self.residuals(tried)
            new_cost = np.inf if tried is None or new_residuals is None else self._cost(new_residuals, tried)
            if np.isfinite(new_cost) and new_cost <= cost:
                assert tried is not None
                assert new_residuals is not None
                gain = float(cost - new_cost) / max(float(step @ (damping * scale * step + gradient)) * 0.5, 1e-30)
                small = cost - new_cost <= _SMALL_GAIN * cost
                state, residuals, cost = tried, new_residuals, new_cost
                damping, growth = damping * max(1.0 / 3.0, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3), 2.0
                if small or np.abs(step * np.sqrt(scale)).max(initial=0.0) < _SMALL_STEP:
                    break
                J = self._whole_jacobian(state)
            else:
                damping, growth = damping * growth, growth * 2.0
                if damping > 1e14:
                    break
        return Solution(state=state, residuals=residuals, sigma_px=self._sigma(residuals, start))

    def residuals(self, state: State) -> tuple[Array, ...]:
        """Return seen less predicted (N, 2) [px] of every block."""
        return tuple(
            block.pixels - state.models[block.camera].project(camera_points(block, state)) for block in self._blocks
        )

    def jacobian(self, state: State) -> csr_array:
        """Return d predicted / d parameters, rows as the raveled residuals, columns as `columns`."""
        rows: list[NDArray[np.int64]] = []
        columns: list[NDArray[np.int64]] = []
        values: list[Array] = []
        base = 0
        for block in self._blocks:
            parts = self._block_jacobian(block, state)
            count = 2 * len(block.points)
            for first, part in parts:
                width = part.shape[1]
                rows.append(np.repeat(np.arange(base, base + count), width))
                columns.append(np.tile(np.arange(first, first + width), count))
                values.append(part.ravel())
            base += count
        at = (np.concatenate(rows), np.concatenate(columns))
        return csr_array((np.concatenate(values), at), shape=(base, self.size(state)))

    def _block_jacobian(self, block: Block, state: State) -> list[tuple[int, Array]]:
        model, T_camera = state.models[block.camera], state.cameras[block.camera]
        T_board = state.boards[block.board]
        R_camera_mount = T_camera[:3, :3].T
        in_camera = camera_points(block, state)
        _, by_point, by_value = model.project_with_jacobian(in_camera)
        first = self.columns(state)
        count = 2 * len(block.points)
        parts: list[tuple[int, Array]] = []
        if self._free.intrinsics:
            parts.append((first[0][block.camera], by_value.reshape(count, -1)))
        if self._free.cameras:
            # p_camera = exp(-w) R^T (q - p - v)
            by_pose = np.concatenate(
                [np.broadcast_to(-R_camera_mount, (len(in_camera), 3, 3)), skew(in_camera)], axis=2
            )
            parts.append((first[1][block.camera], (by_point @ by_pose).reshape(count, 6)))
        if self._free.boards:
            R = R_camera_mount @ block.T_between[:3, :3]
            by_pose = np.concatenate(
                [np.broadcast_to(R, (len(in_camera), 3, 3)), -(R @ T_board[:3, :3]) @ skew(block.points)], axis=2
            )
            parts.append((first[2][block.board], (by_point @ by_pose).reshape(count, 6)))
        return parts

    def columns(self, state: State) -> tuple[list[int], list[int], list[int]]:
        """Return the first column of each camera's intrinsics, each camera's pose and each board's pose.

        A pose's columns are v [m], along the axes of the mount, then w [rad], about the pose's own axes.
        """
        at = 0
        found: tuple[list[int], list[int], list[int]] = ([], [], [])
        for free, widths, firsts in (
            (self._free.intrinsics, [len(model.names) for model in state.models], found[0]),
            (self._free.cameras, [6] * len(state.cameras), found[1]),
            (self._free.boards, [6] * len(state.boards), found[2]),
        ):
            for width in widths:
                firsts.append(at)
                at += width if free else 0
        return found

    def size(self, state: State) -> int:
        """Return the number of parameters."""
        return (
            self._free.intrinsics * sum(len(model.names) for model in state.models)
            + 6 * self._free.cameras * len(state.cameras)
            + 6 * self._free.boards * len(state.boards)
        )

    def moved(self, state: State, step: Array) -> State | None:
        """Return the state after a step of the parameters; None where a camera would have no such intrinsics."""
        intrinsics, cameras, boards = self.columns(state)
        if self._free.intrinsics:
            try:
                models = tuple(
                    model.with_values(model.values + step[at : at + len(model.names)])
                    for model, at in zip(state.models, intrinsics, strict=True)
                )
            except ValidationError:
                return None
            state = replace(state, models=models)
        if self._free.cameras:
            moved = [_moved(T, step[at : at + 6]) for T, at in zip(state.cameras, cameras, strict=True)]
            state = replace(state, cameras=tuple(moved))
        if self._free.boards:
            moved = [_moved(T, step[at : at + 6]) for T, at in zip(state.boards, boards, strict=True)]
            state = replace(state, boards=tuple(moved))
        return state

    def deviations(self, solution: Solution, groups: Sequence[int]) -> Array:
        """Return the standard deviation of every parameter. Raises UnsolvableError, as `covariance`."""
        return np.sqrt(np.diag(self.covariance(solution, groups)))

    def covariance(self, solution: Solution, groups: Sequence[int]) -> Array:
        """Return the covariance of all parameters.

        Each deviation is the greater of two: that of independent noise of `sigma_px`, and that of the scatter from
        group to group, as errors of a picture's corners go together (blur, a bent board, the arm's own errors). The
        latter is the sandwich estimator by clusters (K.-Y. Liang, S. Zeger, "Longitudinal data analysis using
        generalized linear models", 1986).

        Args:
            solution: of this problem.
            groups: number of the group of each block, such as the picture's.

        Raises:
            UnsolvableError: the pictures leave a parameter undetermined.
        """
        J = self._whole_jacobian(solution.state)
        weight = self._weights(solution.residuals)
        r = self._whole(solution.residuals, solution.state)
        normal = csc_array(J.T @ J.multiply(weight[:, None]))
        scale = np.sqrt(normal.diagonal())
        if not (scale > 0.0).all():
            raise UnsolvableError("something is seen by no picture that could tell where it is")
        unit = csc_array(normal.multiply(1.0 / scale[:, None]).multiply(1.0 / scale[None, :]))
        inverse = _inverse(unit)
        _, of_block = np.unique(np.asarray(groups), return_inverse=True)
        # what was known of each lens is one more group
        known = [int(of_block.max()) + 1 + number for number in range(len(self._priors))]
        lengths = [2 * len(block.points) for block in self._blocks] + [len(one.values) for one in self._priors]
        of_row = np.repeat([*of_block, *known], lengths)
        count = int(of_row.max()) + 1
        picked = csr_array((weight * r, (np.arange(len(r)), of_row)), shape=(len(r), count))
        scores = (J.T @ picked).toarray() / scale[:, None]
        spread = inverse @ scores
        clustered = np.sum(spread**2, axis=1) * count / max(count - 1, 1)
        independent = solution.sigma_px**2 * np.diag(inverse)
        wider = np.sqrt(np.maximum(clustered / independent, 1.0)) * solution.sigma_px / scale
        covariance: Array = inverse * np.outer(wider, wider)
        return covariance

    def _whole(self, residuals: Sequence[Array], state: State) -> Array:
        """Residuals of corners, then those of what was known of the lenses."""
        known = [one.root_px @ (one.values - state.models[one.camera].values) for one in self._priors]
        return np.concatenate([*(one.ravel() for one in residuals), *known])

    def _whole_jacobian(self, state: State) -> csr_array:
        J = self.jacobian(state)
        if not self._priors:
            return J
        first = self.columns(state)[0]
        parts = []
        for one in self._priors:
            rows, columns = np.indices(one.root_px.shape)
            at = (rows.ravel(), first[one.camera] + columns.ravel())
            parts.append(csr_array((one.root_px.ravel(), at), shape=(len(one.values), J.shape[1])))
        return csr_array(vstack([J, *parts]))

    def _weights(self, residuals: Sequence[Array]) -> Array:
        lengths = np.concatenate([np.linalg.norm(one, axis=1) for one in residuals])
        known = np.ones(sum(len(one.values) for one in self._priors))
        if self._huber_px is None:
            return np.concatenate([np.ones(2 * len(lengths)), known])
        return np.concatenate([np.repeat(np.minimum(1.0, self._huber_px / np.maximum(lengths, 1e-12)), 2), known])

    def _cost(self, residuals: Sequence[Array], state: State) -> float:
        squares = np.concatenate([np.sum(one**2, axis=1) for one in residuals])
        known = 0.5 * float(np.sum(self._whole((), state) ** 2)) if self._priors else 0.0
        if self._huber_px is None:
            return known + 0.5 * float(squares.sum())
        limit = self._huber_px
        return known + 0.5 * float(
            np.where(squares <= limit**2, squares, 2.0 * limit * np.sqrt(squares) - limit**2).sum()
        )

    def _sigma(self, residuals: Sequence[Array], state: State) -> float:
        r = np.concatenate([one.ravel() for one in residuals])
        weight = self._weights(residuals)[: len(r)]
        freedom = max(len(r) - self.size(state) + sum(len(one.values) for one in self._priors), 1)
        return float(np.sqrt((weight * r**2).sum() / freedom))


def camera_points(block: Block, state: State) -> Array:
    """Return the block's points (N, 3) in the camera's frame [m]."""
    T_camera, T_board = state.cameras[block.camera], state.boards[block.board]
    T = block.T_between @ T_board
    in_mount = block.points @ T[:3, :3].T + T[:3, 3]
    points: Array = (in_mount - T_camera[:3, 3]) @ T_camera[:3, :3]
    return points


def skew(points: Array) -> Array:
    """Return the matrices (N, 3, 3) whose product with a vector is the cross product with `points` (N, 3)."""
    matrices = np.zeros((len(points), 3, 3))
    matrices[:, 0, 1], matrices[:, 0, 2], matrices[:, 1, 2] = -points[:, 2], points[:, 1], -points[:, 0]
    matrices[:, 1, 0], matrices[:, 2, 0], matrices[:, 2, 1] = points[:, 2], -points[:, 1], points[:, 0]
    return matrices


def _moved(T: Array, step: Array) -> Array:
    moved = T.copy()
    moved[:3, 3] += step[:3]
    moved[:3, :3] = T[:3, :3] @ rotvec_to_matrix(step[3:])
    return moved


def _solve(normal: csc_array, damping: Array, gradient: Array) -> Array:
    diagonal = eye_array(len(damping), format="csc").multiply(damping)
    try:
        step: Array = splu(csc_array(normal + diagonal)).solve(gradient)
    except RuntimeError:  # SuperLU: exactly singular
        return np.full(len(gradient), np.nan)
    return step


def _inverse(unit: csc_array) -> Array:
    """Inverse of normal equations whose diagonal is 1. Raises UnsolvableError where they leave a direction open."""
    dense = unit.toarray()
    values = np.linalg.eigvalsh(dense)
    if values[0] < 1e-12 * values[-1]:
        raise UnsolvableError("the pictures leave a direction open in which everything could move together")
    inverse: Array = np.linalg.inv(dense)
    return inverse
