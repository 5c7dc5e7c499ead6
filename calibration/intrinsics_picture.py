"""Pictures of a lens calibration: every residual, and what the views cover."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from calibration.board import BoardView
from calibration.coverage import COLUMNS, ENOUGH_CORNERS, ROWS, TILT_DEG, Coverage
from calibration.intrinsics import Intrinsics
from perception.camera_model import Array, CameraModel

_INK, _BLUE, _ORANGE, _GREY = "#222222", "#2a6fbb", "#d9720b", "#999999"


def draw_intrinsics(path: Path, views: Sequence[BoardView], found: Intrinsics, covered: Coverage, title: str) -> None:
    """Write one PNG with four panels.

    Held-out residuals where they were seen, all of them about zero, by view, and what is covered.
    """
    figure = Figure(figsize=(13.0, 9.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(2, 2)
    _where(axes[0, 0], views, found)
    _about_zero(axes[0, 1], found)
    _by_view(axes[1, 0], found)
    _covered(axes[1, 1], views, found.fit.model, covered)
    figure.savefig(path, dpi=110)


def draw_coverage(path: Path, views: Sequence[BoardView], covered: Coverage, title: str) -> None:
    """Write a PNG of what the views cover, and of the advice."""
    figure = Figure(figsize=(12.0, 5.2), layout="constrained")
    figure.suptitle("\n".join([title, *covered.advice]), fontsize=9)
    left, right = figure.subplots(1, 2)
    _covered(left, views, None, covered)
    _tilts(right, covered)
    figure.savefig(path, dpi=110)


def _where(axes: Axes, views: Sequence[BoardView], found: Intrinsics) -> None:
    pixels = np.concatenate([view.pixels for view in views])
    off = np.concatenate(found.held_out.residuals)
    scale = 0.03 * views[0].size[1] / max(found.held_out.p90_px, 1e-6)
    axes.quiver(
        *(pixels[:, 0], pixels[:, 1], off[:, 0] * scale, off[:, 1] * scale),
        angles="xy", scale_units="xy", scale=1.0, width=0.0012, color=_BLUE,
    )  # fmt: skip
    _frame(axes, views[0].size)
    axes.set_title(f"held-out residuals where they were seen, {scale:.0f} times as long", fontsize=9, loc="left")


def _about_zero(axes: Axes, found: Intrinsics) -> None:
    off = np.concatenate(found.held_out.residuals)
    limit = max(3.0 * found.held_out.p90_px, 0.1)
    axes.scatter(off[:, 0], off[:, 1], s=3, color=_BLUE, linewidths=0)
    for radius, words in ((found.held_out.median_px, "median"), (found.held_out.p90_px, "p90")):
        turn = np.linspace(0.0, 2.0 * np.pi, 100)
        axes.plot(radius * np.cos(turn), radius * np.sin(turn), color=_INK, lw=0.9)
        axes.annotate(f"{words} {radius:.2f} px", (0.0, radius), fontsize=8, va="bottom", ha="center")
    outside = int((~(np.abs(off) <= limit).all(axis=1)).sum())
    axes.set(xlim=(-limit, limit), ylim=(limit, -limit), aspect="equal", xlabel="x [px]", ylabel="y [px]")
    axes.set_title(f"all held-out residuals; {outside} of {len(off)} lie outside", fontsize=9, loc="left")


def _by_view(axes: Axes, found: Intrinsics) -> None:
    out = [np.sqrt(np.mean(np.sum(one**2, axis=1))) for one in found.held_out.residuals]
    fitted = [np.sqrt(np.mean(np.sum(one**2, axis=1))) for one in found.fit.residuals]
    at = np.arange(len(out))
    axes.bar(at, out, color=_BLUE, width=0.8, label="held out")
    axes.plot(at, fitted, ".", color=_ORANGE, label="fitted")
    axes.set(xlabel="view", ylabel="root mean square [px]")
    axes.set_title("by view", fontsize=9, loc="left")
    axes.legend(fontsize=8)


def _covered(axes: Axes, views: Sequence[BoardView], model: CameraModel | None, covered: Coverage) -> None:
    height, width = views[0].size if views else (ROWS, COLUMNS)
    for row in range(ROWS):
        for column in range(COLUMNS):
            count = int(covered.cells[row, column])
            bare = count < ENOUGH_CORNERS
            corner = (column * width / COLUMNS - 0.5, row * height / ROWS - 0.5)
            axes.add_patch(
                Rectangle(corner, width / COLUMNS, height / ROWS, facecolor="#f6d5b8" if bare else "#dcebf7", lw=0)
            )
            axes.text(corner[0] + 0.5 * width / COLUMNS, corner[1] + 0.5 * height / ROWS, str(count),
                      ha="center", va="center", fontsize=9, color=_INK)  # fmt: skip
    for view in views:
        axes.plot(view.pixels[:, 0], view.pixels[:, 1], ".", ms=1.5, color=_GREY)
    if model is not None:
        _bend(axes, model)
    _frame(axes, (height, width))
    axes.set_title("corners in each part of the picture; orange: too few", fontsize=9, loc="left")


def _bend(axes: Axes, model: CameraModel) -> None:
    """How the lens bends a net of straight lines, as far as the picture reaches."""
    edge = model.rays(_border(model))
    edge = edge[np.isfinite(edge).all(axis=1)]
    if not len(edge):
        return
    x0, y0 = np.clip(edge.min(axis=0), -4.0, 4.0).tolist()
    x1, y1 = np.clip(edge.max(axis=0), -4.0, 4.0).tolist()
    for x in np.linspace(x0, x1, 11):
        _line(axes, model, np.stack([np.full(80, x), np.linspace(y0, y1, 80)], axis=1))
    for y in np.linspace(y0, y1, 9):
        _line(axes, model, np.stack([np.linspace(x0, x1, 80), np.full(80, y)], axis=1))


def _line(axes: Axes, model: CameraModel, rays: Array) -> None:
    pixels = model.project(np.concatenate([rays, np.ones((len(rays), 1))], axis=1))
    inside = np.all((pixels > -1.0) & (pixels < [model.width, model.height]), axis=1)
    shown = np.where(inside[:, None], pixels, np.nan)
    axes.plot(shown[:, 0], shown[:, 1], color=_INK, lw=0.4)


def _border(model: CameraModel) -> Array:
    x, y = np.linspace(0, model.width - 1, 40), np.linspace(0, model.height - 1, 40)
    sides = [(x, 0 * x), (x, 0 * x + model.height - 1), (0 * y, y), (0 * y + model.width - 1, y)]
    return np.concatenate([np.stack(side, axis=1) for side in sides])


def _tilts(axes: Axes, covered: Coverage) -> None:
    axes.scatter(covered.tilts_deg[:, 0], covered.tilts_deg[:, 1], s=14, color=_BLUE)
    axes.add_patch(Rectangle((-TILT_DEG, -TILT_DEG), 2 * TILT_DEG, 2 * TILT_DEG, facecolor="#f6d5b8", lw=0, zorder=0))
    axes.set(xlim=(-60, 60), ylim=(60, -60), aspect="equal")
    axes.set(xlabel="right side further away [deg]", ylabel="lower side further away [deg]")
    axes.set_title("tilts of the board; views on all four sides of the square are needed", fontsize=9, loc="left")


def _frame(axes: Axes, size: tuple[int, int]) -> None:
    axes.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5), aspect="equal", xlabel="x [px]", ylabel="y [px]")
