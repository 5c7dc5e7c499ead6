"""The residuals of a hand-eye calibration as one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from calibration.hand_eye import MOST_ROTATION_RAD, MOST_TRANSLATION_M, Calibrated
from calibration.time_offset import OffsetCurve
from robot.errors import BadInputError

Array = NDArray[np.float64]
_GOOD, _BAD, _INK, _FAINT = "#1b7f5c", "#c4472b", "#2b2f36", "#9aa0aa"
_SHOWN_S = 1.5


def draw_hand_eye(path: Path, found: Calibrated) -> None:
    """Write a PNG: held-out errors over time with outliers marked, and the correlation against the time offset.

    Raises:
        BadInputError: it cannot be written.
    """
    figure = Figure(figsize=(12.5, 4.0), dpi=90, layout="constrained")
    grid = figure.add_gridspec(2, 3)
    over_time = [figure.add_subplot(grid[row, :2]) for row in (0, 1)]
    aside = figure.add_subplot(grid[:, 2])
    judged, seen = found.held_out, found.seen
    at = seen.t_s - seen.t_s[0] if seen.track is not None else seen.t_s
    _errors(over_time[0], at, 1e3 * judged.translation_m, judged.inlier, 1e3 * MOST_TRANSLATION_M, "position [mm]")
    _errors(
        over_time[1], at, np.rad2deg(judged.rotation_rad), judged.inlier, np.rad2deg(MOST_ROTATION_RAD), "turn [deg]"
    )
    over_time[0].set_title(
        "held-out error of each sighting (red: outlier; line: median allowed)", fontsize=8.5, loc="left"
    )
    over_time[1].set_xlabel("time [s]" if seen.track is not None else "view", fontsize=8)
    if found.curve is not None:
        _correlation(aside, found.curve, found.fit.estimate.offset_s)
    else:
        _components(aside, found)
    for axes in (*over_time, aside):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    told = f"{len(seen)} sightings, no inliers"
    if judged.inlier.any():
        mm = 1e3 * float(np.median(judged.translation_m[judged.inlier]))
        degrees = np.rad2deg(float(np.median(judged.rotation_rad[judged.inlier])))
        told = (
            f"{len(seen)} sightings, {int(judged.inlier.sum())} inliers: {mm:.2f} mm, {degrees:.3f} degrees (medians)"
        )
    figure.suptitle(told, fontsize=9, color=_INK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
    except OSError as error:
        raise BadInputError(f"picture {path}: cannot be written ({error.strerror}); name another file") from None


def _errors(axes: Axes, at: Array, error: Array, inlier: NDArray[np.bool_], allowed: float, name: str) -> None:
    axes.plot(at[inlier], error[inlier], ".", color=_GOOD, markersize=3.0, alpha=0.6)
    axes.plot(at[~inlier], error[~inlier], "x", color=_BAD, markersize=4.0, alpha=0.8)
    axes.axhline(allowed, color=_INK, lw=1.0, ls=(0, (4, 3)))
    # gross outliers stand at the upper edge instead of flattening the rest
    top = 1.3 * max(allowed, float(np.quantile(error, 0.97)))
    axes.plot(at[error > top], np.full((error > top).sum(), 0.98 * top), "^", color=_BAD, markersize=4.0)
    axes.set_ylim(0.0, top)
    axes.set_ylabel(name, fontsize=8)


def _correlation(axes: Axes, curve: OffsetCurve, offset_s: float) -> None:
    near = np.abs(curve.offset_s - offset_s) < _SHOWN_S
    axes.plot(1e3 * curve.offset_s[near], curve.correlation[near], color=_INK, lw=1.2)
    axes.axvline(1e3 * offset_s, color=_GOOD, lw=1.2)
    axes.set_xlabel("time offset [ms]", fontsize=8)
    axes.set_title(f"correlation of angular speeds (green: the fit, {1e3 * offset_s:.1f} ms)", fontsize=8.5, loc="left")


def _components(axes: Axes, found: Calibrated) -> None:
    fit = found.fit
    scaled = fit.residuals / fit.noise.scale
    for place in range(6):
        axes.plot(np.full(len(scaled), place), scaled[:, place], ".", color=_FAINT, markersize=4.0)
    axes.axhline(0.0, color=_INK, lw=0.8)
    axes.set_xticks(range(6), ["turn x", "turn y", "turn z", "x", "y", "z"], fontsize=7)
    axes.set_title("fitted residuals in camera axes, in units of their noise", fontsize=8.5, loc="left")
