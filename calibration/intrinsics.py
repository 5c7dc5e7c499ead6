"""From views of the board to a lens model, with what it predicts on pictures that it has not seen.

Seeds come from trying focal lengths, with and without the bend of a fisheye, not from homographies (Z. Zhang, "A
flexible new technique for camera calibration", 2000): those take a picture of a plane for a projective one, which that
of a wide lens is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardView
from calibration.board_pose import BoardPose, board_pose
from calibration.reprojection import Block, Free, Reprojection, Solution, State, UnsolvableError
from perception.camera_model import DISTORTION, CameraModel, Kind
from robot.errors import BadInputError

Array = NDArray[np.float64]
KINDS: tuple[Kind, ...] = ("brown", "fisheye", "rational")  # in the order in which a model is preferred
LEAST_VIEWS = 6
FOLDS = 5
_HUBER_PX = 1.0
_SEED_VIEWS = 10
_PLAIN_FOV_DEG = (25.0, 35.0, 45.0, 55.0, 65.0, 75.0, 85.0, 95.0, 110.0, 125.0)
_ROUND_FOV_DEG = (70.0, 90.0, 110.0, 130.0, 150.0, 170.0, 190.0)
_NOT_BETTER = 1.03
_OUTLIER_PX = 2.0
_OUTLIER_SIGMAS = 6.0
_TWO_SIDED_95 = 1.96


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """One lens model fitted to views.

    Attributes:
        model: the lens.
        covariance: shape (n, n), of `model.values`.
        poses: `T_camera_target` (4, 4) of each view.
        kept: which corners (N,) of each view count; the others lie too far off to be the corners that they seem.
        residuals: shape (N, 2) per view, seen less predicted, all corners [px].
        sigma_px: standard deviation of one coordinate of a corner [px].
    """

    model: CameraModel
    covariance: Array
    poses: tuple[Array, ...]
    kept: tuple[NDArray[np.bool_], ...]
    residuals: tuple[Array, ...]
    sigma_px: float

    @property
    def half_widths(self) -> Array:
        """Half of the 95 % interval of each of `model.values`."""
        half: Array = _TWO_SIDED_95 * np.sqrt(np.diag(self.covariance))
        return half

    @property
    def rms_px(self) -> float:
        """Root mean square distance of the corners that count [px]."""
        return _rms(self.residuals, self.kept)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """What models fitted without a view say about it; its pose alone is fitted to it.

    Attributes:
        residuals: shape (N, 2) per view [px]; NaN where no pose was found.
    """

    residuals: tuple[Array, ...]

    @property
    def distances_px(self) -> Array:
        """Of all corners [px]."""
        lengths: Array = np.linalg.norm(np.concatenate(self.residuals), axis=1)
        return np.where(np.isfinite(lengths), lengths, np.inf)

    @property
    def rms_px(self) -> float:
        """Root mean square of the distances [px], without the worst hundredth, which single false corners make."""
        lengths = np.sort(self.distances_px)
        return float(np.sqrt(np.mean(lengths[: math.ceil(0.99 * len(lengths))] ** 2)))

    @property
    def median_px(self) -> float:
        """Median distance [px]."""
        return float(np.median(self.distances_px))

    @property
    def p90_px(self) -> float:
        """Nine of ten corners are nearer [px]."""
        return float(np.quantile(self.distances_px, 0.9, method="higher"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Intrinsics:
    """The chosen fit, and what was tried: held-out root mean square [px] by kind of model."""

    fit: Fit
    held_out: HeldOut
    tried: dict[Kind, float]


def calibrate(
    board: Board,
    views: Sequence[BoardView],
    kinds: Sequence[Kind] = KINDS,
    progress: Callable[[str], None] = lambda line: None,
) -> Intrinsics:
    """Fit each kind of lens and take the first whose held-out error no other beats by more than 3 %.

    Args:
        board: what the views show.
        views: all of one size.
        kinds: models to try, the preferred first.
        progress: is told what is being done.

    Raises:
        BadInputError: too few views.
        UnsolvableError: the views do not determine a lens.
    """
    if len(views) < LEAST_VIEWS:
        raise BadInputError(f"{len(views)} usable views of the board; at least {LEAST_VIEWS} are needed, take more")
    seeds = seed_lenses(board, views)
    if not seeds:
        raise UnsolvableError("no lens explains the views even roughly; is this the board in the pictures?")
    found: dict[Kind, tuple[Fit, HeldOut]] = {}
    failures: list[str] = []
    for kind in kinds:
        progress(f"fitting the {kind} model")
        try:
            fit = fit_kind(board, views, kind, seeds)
            found[kind] = fit, held_out(board, views, fit, progress)
        except UnsolvableError as error:
            failures.append(f"{kind}: {error}")
    if not found:
        raise UnsolvableError("; ".join(failures))
    tried = {kind: out.rms_px for kind, (_, out) in found.items()}
    best = min(tried.values())
    chosen = next(kind for kind in kinds if kind in tried and tried[kind] <= _NOT_BETTER * best + 1e-3)
    return Intrinsics(fit=found[chosen][0], held_out=found[chosen][1], tried=tried)


def held_out(
    board: Board, views: Sequence[BoardView], fit: Fit, progress: Callable[[str], None] = lambda line: None
) -> HeldOut:
    """Return what models that never saw a view say about it, in `FOLDS` rounds. Raises UnsolvableError."""
    residuals: list[Array] = [np.full(view.pixels.shape, np.nan) for view in views]
    folds = min(FOLDS, len(views))
    for fold in range(folds):
        progress(f"holding out part {fold + 1} of {folds}, {fit.model.kind}")
        rest = [index for index in range(len(views)) if index % folds != fold]
        solution, _ = _solve(board, [views[i] for i in rest], fit.model, [fit.poses[i] for i in rest])
        for index in range(fold, len(views), folds):
            found = board_pose(solution.state.models[0], board, views[index])
            if found is not None:
                residuals[index] = found.residuals_px
    return HeldOut(residuals=tuple(residuals))


def fit_lens(board: Board, views: Sequence[BoardView], model: CameraModel, poses: Sequence[Array]) -> Fit:
    """Fit a lens from a start that is near. Raises UnsolvableError."""
    solution, kept = _solve(board, views, model, poses)
    clean = [
        BoardView(ids=view.ids[keep], pixels=view.pixels[keep], size=view.size)
        for view, keep in zip(views, kept, strict=True)
    ]
    problem = Reprojection(_blocks(board, clean), Free(intrinsics=True, cameras=False), _HUBER_PX)
    solution = problem.solve(solution.state)
    state = solution.state
    own = len(state.models[0].names)
    covariance = problem.covariance(solution, range(len(views)))[:own, :own]
    everything = Reprojection(_blocks(board, views), Free(intrinsics=True, cameras=False), None)
    return Fit(
        model=state.models[0],
        covariance=covariance,
        poses=state.boards,
        kept=tuple(kept),
        residuals=everything.residuals(state),
        sigma_px=solution.sigma_px,
    )


def fit_kind(board: Board, views: Sequence[BoardView], kind: Kind, seeds: Sequence[CameraModel]) -> Fit:
    """Fit one kind of lens from the best of `seeds`. Raises UnsolvableError."""
    best: Fit | None = None
    failure = UnsolvableError(f"the {kind} model fits from no start")
    for seed in seeds:
        if kind == "fisheye" and seed.kind != "fisheye":
            continue
        poses = [board_pose(seed, board, view) for view in views]
        there = [pose for pose in poses if pose is not None]
        if len(there) < max(LEAST_VIEWS, len(views) // 2):
            continue
        start = _as_kind(seed, kind)
        placed = [(view, pose.T_camera_target) for view, pose in zip(views, poses, strict=True) if pose is not None]
        try:
            first, _ = _solve(board, [view for view, _ in placed], start, [T for _, T in placed])
            all_poses = [board_pose(first.state.models[0], board, view) for view in views]
            if any(pose is None for pose in all_poses):
                raise UnsolvableError(f"the {kind} model cannot show every view")
            fit = fit_lens(board, views, first.state.models[0], [pose.T_camera_target for pose in all_poses if pose])
        except UnsolvableError as error:
            failure = error
            continue
        if best is None or fit.sigma_px < best.sigma_px:
            best = fit
    if best is None:
        raise failure
    return best


def _solve(
    board: Board, views: Sequence[BoardView], model: CameraModel, poses: Sequence[Array]
) -> tuple[Solution, list[NDArray[np.bool_]]]:
    state = State(models=(model,), cameras=(np.eye(4),), boards=tuple(poses))
    solution = Reprojection(_blocks(board, views), Free(intrinsics=True, cameras=False), _HUBER_PX).solve(state)
    lengths = [np.linalg.norm(one, axis=1) for one in solution.residuals]
    # a corner's distance has two coordinates; its median is 1.18 of one's deviation where errors are normal
    typical = float(np.median(np.concatenate(lengths))) / 1.18
    limit = max(_OUTLIER_PX, _OUTLIER_SIGMAS * typical)
    kept = [length <= limit for length in lengths]
    return solution, [keep if keep.sum() >= 4 else np.ones(len(keep), dtype=bool) for keep in kept]


def _blocks(board: Board, views: Sequence[BoardView]) -> list[Block]:
    corners = board.corners_m
    return [
        Block(camera=0, board=number, T_between=np.eye(4), points=corners[view.ids], pixels=view.pixels)
        for number, view in enumerate(views)
    ]


def seed_lenses(board: Board, views: Sequence[BoardView]) -> list[CameraModel]:
    """The best undistorted lens that keeps straight lines, and the best that bends them as a fisheye."""
    most = sorted(views, key=lambda view: -len(view.ids))[: 3 * _SEED_VIEWS]
    some = most[:: max(1, len(most) // _SEED_VIEWS)][:_SEED_VIEWS]
    height, width = views[0].size
    best = []
    for kind, angles in (("pinhole", _PLAIN_FOV_DEG), ("fisheye", _ROUND_FOV_DEG)):
        scored = []
        for angle_deg in angles:
            half = math.radians(0.5 * angle_deg)
            focal = 0.5 * width / (math.tan(half) if kind == "pinhole" else half)
            model = CameraModel(
                kind="pinhole" if kind == "pinhole" else "fisheye",
                width=width,
                height=height,
                fx=focal,
                fy=focal,
                cx=0.5 * (width - 1),
                cy=0.5 * (height - 1),
                distortion=() if kind == "pinhole" else (0.0,) * 4,
            )
            poses: list[BoardPose | None] = [board_pose(model, board, view) for view in some]
            costs = [0.1 * width if pose is None else min(pose.rms_px, 0.1 * width) for pose in poses]
            scored.append((float(np.mean(costs)), angle_deg, model))
        cost, _, model = min(scored, key=lambda one: one[:2])
        if cost < 0.09 * width:
            best.append(model)
    return best


def _as_kind(seed: CameraModel, kind: Kind) -> CameraModel:
    """The same lens as another kind of model; a fisheye's bend is the first term of its series in the other."""
    distortion = [0.0] * len(DISTORTION[kind])
    if seed.kind == "fisheye" and kind != "fisheye" and distortion:
        distortion[0] = -0.1
    return CameraModel(
        kind=kind,
        width=seed.width,
        height=seed.height,
        fx=seed.fx,
        fy=seed.fy,
        cx=seed.cx,
        cy=seed.cy,
        distortion=tuple(distortion),
    )


def _rms(residuals: Sequence[Array], kept: Sequence[NDArray[np.bool_]]) -> float:
    lengths = np.concatenate([np.sum(one[keep] ** 2, axis=1) for one, keep in zip(residuals, kept, strict=True)])
    return float(np.sqrt(np.mean(lengths)))


def rough_poses(board: Board, views: Sequence[BoardView]) -> list[Array]:
    """Return `T_camera_target` (4, 4) of each view by the best lens without distortion; good enough for advice."""
    seeds = seed_lenses(board, views) if views else []
    for seed in seeds:
        poses = [board_pose(seed, board, view) for view in views]
        if all(pose is not None for pose in poses):
            return [pose.T_camera_target for pose in poses if pose is not None]
    facing = np.eye(4)
    facing[2, 3] = 1.0
    return [facing for _ in views]
