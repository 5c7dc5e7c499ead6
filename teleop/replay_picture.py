"""One episode as a picture: what the cameras saw, who drove, and what every voice wanted."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from policy.episode_reader import Episode, read_episode
from robot.errors import BadInputError
from teleop.arbiter import Source
from teleop.report_svg import RESIDUAL, SOURCE_HEX

Floats = NDArray[np.float64]

_WIDTH_IN, _LEFT_IN, _RIGHT_IN = 11.0, 0.95, 0.25
_MOMENTS = 10
_GREY, _INK = "#8a919c", "#1b2028"
_STYLE = {
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": "#c4c9d1",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
}
_DRIVERS = {
    Source.POLICY: "policy drives",
    Source.HUMAN: "human drives",
    Source.HOLD: "hold",
    Source.RESET: "reset",
}
_VOICES = (("base", SOURCE_HEX[Source.POLICY]), ("residual", RESIDUAL), ("human", SOURCE_HEX[Source.HUMAN]))


def draw(path: Path, png: Path) -> None:
    """Draw a committed episode to `png`.

    Raises:
        BadInputError: the file is no sound episode or has no tick, or `png` cannot be written.
    """
    episode = read_episode(path)
    if not episode.length:
        raise BadInputError(f"{path}: holds no tick, there is nothing to draw")
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = _figure(episode)
        try:
            figure.savefig(png, format="png", dpi=130)
        except OSError as error:
            raise BadInputError(f"--png {png}: cannot be written ({error.strerror}); name another file") from None


def _figure(episode: Episode) -> Figure:
    """Lay out in inches from the top: title, a row per camera, the source strip, a panel per dimension."""
    header = episode.header
    spec, dims = header.spec, header.action.dims
    cell_in = (_WIDTH_IN - _LEFT_IN - _RIGHT_IN) / _MOMENTS
    heights = [cell_in * min(1.0, height / width) for _, height, width in spec.cameras]
    panel_in, gap_in = 0.85, 0.12
    total_in = 0.85 + sum(heights) + 0.04 * len(heights) + 0.42 + len(dims) * (panel_in + gap_in) + 0.55
    figure = Figure(figsize=(_WIDTH_IN, total_in))
    top_in = 0.85

    def panel(height_in: float) -> Axes:
        left, bottom = _LEFT_IN / _WIDTH_IN, 1.0 - (top_in + height_in) / total_in
        return figure.add_axes((left, bottom, 1.0 - left - _RIGHT_IN / _WIDTH_IN, height_in / total_in))

    outcome = episode.outcome
    title = f"episode {header.episode} of {header.run_id}: {outcome.outcome.value} ({outcome.label_source.value})"
    figure.text(_LEFT_IN / _WIDTH_IN, 1.0 - 0.32 / total_in, title, fontsize=12, fontweight="bold")
    sources = episode.array("tick/source").astype(np.int64)
    _key(figure, sources, y=1.0 - 0.6 / total_in)
    seconds = np.arange(episode.length + 1) / header.rate_hz
    for (name, height, width), height_in in zip(spec.cameras, heights, strict=True):
        axes = panel(height_in)
        _pictures(
            axes, episode.array(f"obs/{name}_image").astype(np.uint8), height / width, seconds[-1], cell_in, height_in
        )
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        top_in += height_in + 0.04
    axes = panel(0.16)
    _source_strip(axes, sources, seconds[-1])
    top_in += 0.42
    voices = _read_voices(episode)
    for dim, name in enumerate(dims):
        axes = panel(panel_in)
        bound = header.residual_scale[dim] if header.residual_scale else 0.0
        _traces(axes, {voice: values[:, dim] for voice, values in voices.items()}, sources, seconds, bound)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.yaxis.set_label_coords(-0.035, 0.5)
        axes.tick_params(labelbottom=dim == len(dims) - 1)
        top_in += panel_in + gap_in
    axes.set_xlabel("time in the episode [s]", loc="left", color=_GREY)
    return figure


def _read_voices(episode: Episode) -> dict[str, Floats]:
    names = ["tick/base", "tick/residual", "tick/human", "tick/commanded"]
    voices = {name.removeprefix("tick/"): values.astype(np.float64) for name, values in episode.arrays(names).items()}
    # without a proposal nothing is corrected: the log's zeros there are no voice
    voices["residual"] = np.where(np.isfinite(voices["base"]), voices["residual"], np.nan)
    return voices


def _key(figure: Figure, sources: NDArray[np.int64], y: float) -> None:
    lines = [Line2D([], [], color=colour, linewidth=1.6, label=name) for name, colour in _VOICES]
    lines.append(Line2D([], [], color=_GREY, linewidth=4.0, alpha=0.45, label="commanded"))
    there = [source for source in Source if (sources == source).any()]
    patches = [Patch(color=SOURCE_HEX[source], label=_DRIVERS[source]) for source in there]
    figure.legend(
        handles=[*lines, *patches], loc="center left", bbox_to_anchor=(_LEFT_IN / _WIDTH_IN - 0.006, y),
        ncols=len(lines) + len(patches), frameon=False, handlelength=1.6, columnspacing=1.4,
    )  # fmt: skip


def _pictures(
    axes: Axes, images: NDArray[np.uint8], aspect: float, end_s: float, cell_in: float, height_in: float
) -> None:
    """Pictures spread evenly over the episode, each with its left edge at its time's share of the width."""
    cells = np.arange(_MOMENTS)
    ticks = np.minimum(((cells + 0.5) / _MOMENTS * len(images)).astype(int), len(images) - 1)
    width_s = end_s / _MOMENTS
    shown = min(1.0, height_in / aspect / cell_in) * 0.97
    for cell, tick in zip(cells.tolist(), ticks.tolist(), strict=True):
        middle = (cell + 0.5) * width_s
        left, right = middle - shown * width_s / 2, middle + shown * width_s / 2
        axes.imshow(images[tick], extent=(left, right, 0.0, 1.0), aspect="auto", interpolation="nearest")
    axes.set_xlim(0.0, end_s)
    axes.set_ylim(0.0, 1.0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _source_strip(axes: Axes, sources: NDArray[np.int64], end_s: float) -> None:
    colours = np.zeros((1, len(sources), 3))
    for source, colour in SOURCE_HEX.items():
        colours[0, sources == source] = mpl.colors.to_rgb(colour)
    axes.imshow(colours, extent=(0.0, end_s, 0.0, 1.0), aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_ylabel("driver", rotation=0, ha="right", va="center")


def _traces(axes: Axes, voices: dict[str, Floats], sources: NDArray[np.int64], seconds: Floats, bound: float) -> None:
    """One dimension of every voice, in normalised action units, over a tint of who drives."""
    tint = np.ones((1, len(sources), 4))
    for source, colour in SOURCE_HEX.items():
        tint[0, sources == source] = mpl.colors.to_rgba(colour, 0.0 if source is Source.POLICY else 0.13)
    axes.imshow(tint, extent=(0.0, seconds[-1], -1.2, 1.2), aspect="auto", interpolation="nearest", zorder=0)
    axes.axhline(0.0, color="#dfe2e7", linewidth=0.7, zorder=1)
    for limit in (-bound, bound) if bound else ():
        axes.axhline(limit, color=RESIDUAL, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    axes.stairs(voices["commanded"], seconds, baseline=None, color=_GREY, linewidth=3.6, alpha=0.45)
    for name, colour in _VOICES:
        if name == "residual" and not bound:
            continue  # it cannot act on this dimension
        axes.stairs(voices[name], seconds, baseline=None, color=colour, linewidth=1.3)
    axes.set_xlim(0.0, seconds[-1])
    axes.set_ylim(-1.2, 1.2)
    axes.set_yticks([-1, 0, 1])
