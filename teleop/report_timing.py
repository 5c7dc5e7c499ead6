"""The figure of where a tick's time goes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from teleop.report_svg import FAINT, INK, LINE, PAGE, drawn, new_figure
from teleop.tick_times import NOT_OVERHEAD

_LEAST_MS = 1e-3  # a logarithmic axis has no zero, and the clock is no finer


@drawn("Time of a tick, whole and by stage")
def timing_figure(times: Mapping[str, NDArray[np.floating]]) -> Figure:
    """Return the overhead's histogram, and per stage the median, the 99th percentile and the worst tick [ms]."""
    figure, (left, right) = new_figure(1, 3.0, columns=2)
    overhead = np.sum([values for stage, values in times.items() if stage not in NOT_OVERHEAD], axis=0)
    shown = np.maximum(overhead, _LEAST_MS)
    edges = np.geomspace(shown.min() * 0.95, shown.max() * 1.05, 50)
    left.hist(shown, edges.tolist(), color=FAINT, alpha=0.6)
    top = left.get_ylim()[1]
    middle, tail = (float(value) for value in np.percentile(shown, [50, 99]))
    for percent, value, leftwards in zip((50, 99), (middle, tail), _sides(middle, tail, edges), strict=True):
        ha, aside_pt = ("right", -3) if leftwards else ("left", 3)
        left.plot([value, value], [0, top], color=INK, linewidth=1.0)
        words, place = f"p{percent} {value:.2f} ms", (value, top * 1.02)
        left.annotate(words, place, (aside_pt, 0), textcoords="offset points", ha=ha, va="bottom")
    left.set_xscale("log")
    left.set_ylim(0, top * 1.14)
    left.set_xlabel("overhead of a tick [ms]", loc="left")
    left.set_ylabel("ticks")
    _log_ticks(left)

    for row, (stage, values) in enumerate(times.items()):
        p50, p99, worst = (max(float(x), _LEAST_MS) for x in (*np.percentile(values, [50, 99]), values.max()))
        colour = LINE if stage in NOT_OVERHEAD else FAINT
        right.plot([p50, p99], [row, row], color=colour, linewidth=5.0, solid_capstyle="butt")
        right.plot(p50, row, "o", color=INK, markersize=5, markeredgecolor=PAGE)
        right.plot(worst, row, "|", color=FAINT, markersize=8)
        right.text(1.02, row, f"{p50:.3f} / {p99:.3f}", va="center", transform=right.get_yaxis_transform())
    names = [f"{stage} *" if stage in NOT_OVERHEAD else stage for stage in times]
    right.set_yticks(range(len(times)), names)
    right.tick_params(axis="y", length=0, labelcolor=INK)
    right.set_ylim(len(times) - 0.5, -0.5)
    right.set_xscale("log")
    _log_ticks(right)
    right.spines["left"].set_visible(False)
    right.set_title("p50 / p99 [ms]", loc="right", color=FAINT)
    right.set_xlabel("one stage [ms]: dot p50, bar to p99, tick worst", loc="left")
    return figure


def _log_ticks(axes: Axes) -> None:
    """Label a logarithmic axis at 1, 2 and 5 of each decade where it is short, else at 1; nothing between."""
    low, high = axes.get_xlim()
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()


def _sides(middle: float, tail: float, edges: NDArray[np.float64]) -> tuple[bool, bool]:
    """Tell whether the words at the median and at the 99th percentile stand to the left of their lines.

    They stand outside, away from each other, unless that leads across the edge of the plot and there is room inside.
    """
    span = np.log(edges[-1] / edges[0])
    low, high = np.log(middle / edges[0]) / span, np.log(tail / edges[0]) / span
    roomy = high - low > 0.5
    return not (low < 0.35 and roomy), bool(high > 0.65 and roomy)
