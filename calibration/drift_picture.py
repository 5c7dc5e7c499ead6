"""A picture of a check: every sighting's distance from what the calibration says, by camera and shot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from calibration.drift import CameraDrift
from calibration.extrinsics_picture import colour


def draw_drift(path: Path, drifts: Sequence[CameraDrift], limits: tuple[float, float], title: str) -> None:
    """Write one PNG: a column for each camera, [mm] above and [degrees] below; `limits` are those of the medians."""
    figure = Figure(figsize=(3.6 * max(2, len(drifts)), 6.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(2, len(drifts), squeeze=False, sharey="row")
    shots = sorted({one.shot for drift in drifts for one in drift.seen})
    others = [drift.name for drift in drifts]
    for column, drift in enumerate(drifts):
        axes[0, column].set_title(f"{drift.name}{': moved' if drift.warnings else ''}", fontsize=9, loc="left")
        for row, (unit, limit) in enumerate(zip(("mm", "degrees"), limits, strict=True)):
            plot = axes[row, column]
            for against in sorted({one.against for one in drift.seen}, key=str):
                points = [
                    (shots.index(one.shot), one.rotation_deg if row else one.translation_mm)
                    for one in drift.seen
                    if one.against == against
                ]
                seen = "#444444" if against is None else colour(others.index(against))
                label = "against the board's place" if against is None else f"against {against}"
                plot.plot(*zip(*points, strict=True), "o", ms=5, color=seen, label=label)
            plot.axhline(limit, color="#c0392b", lw=1.0, ls="--")
            plot.set(xticks=range(len(shots)), ylim=(0.0, None), xlabel="shot" if row else "")
            plot.set_xticklabels(shots, rotation=90, fontsize=7)
            if column == 0:
                plot.set_ylabel(f"off by [{unit}]; red: limit of the median")
        if drift.seen:
            axes[0, column].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
