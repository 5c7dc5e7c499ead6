"""The blind test as one picture: how far each fault of each camera moves the policy's action."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robot.errors import BadInputError
from teleop.preflight_blind import IGNORED, BlindReport, CameraFault, Moved

ENDINGS = (".png", ".svg")
_INK, _FAINT, _LINE, _SEEN, _IGNORED = "#1b2028", "#6b7280", "#c4c9d1", "#2a6fbb", "#b3261e"
_STYLE = {
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _INK,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "blind",  # or ids are random and the same report gives another file
}
_FAULTS = {
    CameraFault.MASK: "masked",
    CameraFault.FREEZE: "frozen",
    CameraFault.SHIFT: "shifted by a tenth",
    CameraFault.ROTATE: "turned by 10 degrees",
}
_TICKS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_HALF = 0.17  # of a row's height, over which its dots are strewn


def check_ending(path: Path) -> None:
    """Raise BadInputError for a file that is neither PNG nor SVG by its name."""
    if path.suffix.lower() not in ENDINGS:
        raise BadInputError(f"--picture {path}: must end in {' or '.join(ENDINGS)}")


def draw_blind(report: BlindReport, path: Path) -> None:
    """Draw a report to a PNG or SVG file, as its name says.

    Raises:
        BadInputError: another ending, or it cannot be written.
    """
    check_ending(path)
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = _figure(report)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        except OSError as error:
            raise BadInputError(f"--picture {path}: cannot be written ({error.strerror}); name another file") from None


def _figure(report: BlindReport) -> Figure:
    """One panel a camera, one row a fault: a dot for each tick, a bar from the median to where 9 of 10 end."""
    cameras = list(dict.fromkeys(one.camera for one in report.moved))
    figure = Figure(figsize=(9.0, 1.35 + 1.45 * len(cameras)), layout="constrained")
    ignored = report.ignored
    verdict = f"ignores {', '.join(ignored)}" if ignored else "looks at every camera"
    figure.suptitle(f"Blind test: '{report.bundle}' {verdict}", fontsize=11, fontweight="bold", x=0.01, ha="left")
    most = max(float(np.max(one.distances)) for one in report.moved)
    panels = figure.subplots(len(cameras), 1, sharex=True, squeeze=False)[:, 0]
    for axes, camera in zip(panels, cameras, strict=True):
        own = [one for one in report.moved if one.camera == camera]
        _camera(axes, camera, own, ignored=camera in ignored)
        axes.set_xlim(0.0, max(1.25 * most, 2.0 * IGNORED))
        axes.set_xticks([tick for tick in _TICKS if tick <= max(1.25 * most, 2.0 * IGNORED)])
        axes.xaxis.set_major_formatter("{x:g}")
    panels[-1].set_xlabel(
        f"how far the action moves, in its own spread over these {report.ticks} ticks of {report.episodes} episodes "
        f"(linear up to {IGNORED:g}, logarithmic beyond)\ndot: a tick   |: median   bar: up to where 9 of 10 end   "
        "grey: too little to count",
        loc="left",
        color=_FAINT,
    )
    return figure


def _camera(axes: Axes, camera: str, moved: list[Moved], *, ignored: bool) -> None:
    colour = _IGNORED if ignored else _SEEN
    axes.set_xscale("symlog", linthresh=IGNORED, linscale=0.6)
    axes.minorticks_off()
    axes.axvspan(0.0, IGNORED, color=_LINE, alpha=0.45, linewidth=0)
    random = np.random.default_rng(0)
    for row, one in enumerate(moved):
        strewn = row + random.uniform(-_HALF, _HALF, len(one.distances))
        axes.plot(one.distances, strewn, ".", color=colour, alpha=0.4, markersize=4, markeredgewidth=0)
        axes.plot([one.median, one.p90], [row, row], color=colour, linewidth=3.0, solid_capstyle="butt")
        axes.plot(one.median, row, "|", color=colour, markersize=13, markeredgewidth=2.2)
    axes.set_yticks(range(len(moved)), [_FAULTS[one.fault] for one in moved])
    axes.set_ylim(len(moved) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    words = f"camera '{camera}'" + (": ignored, whatever becomes of its pictures" if ignored else "")
    axes.set_title(words, loc="left", fontsize=9.5, color=colour, fontweight="bold" if ignored else "normal")
