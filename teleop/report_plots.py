"""The figures of a run's report, each as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from policy.manifest import TCP_DIMS, ActionSpec
from robot.command import CommandKind
from teleop.arbiter import Source
from teleop.episode_digest import EpisodeDigest
from teleop.report_rates import BASE, TRAINED, Rate
from teleop.report_svg import FAINT, INK, LINE, PAGE, POLICY_WORDS, RESIDUAL, SOURCE_HEX, drawn, new_figure
from teleop.source_colours import SOURCE_COLOURS
from teleop.statistics import quarter_means

Floats = NDArray[np.floating]
POLICY, HUMAN = SOURCE_HEX[Source.POLICY], SOURCE_HEX[Source.HUMAN]


@drawn("Success rate of each controller with its 95 % interval")
def success_figure(rates: Sequence[Rate]) -> Figure:
    """Return one row per controller: the rate as a dot, its interval as a bar. Base and trained stand out."""
    figure, (axes,) = new_figure(1, 0.6 + 0.34 * len(rates))
    for row, rate in enumerate(rates):
        colour = {BASE: POLICY, TRAINED: RESIDUAL}.get(rate.name, FAINT)
        axes.plot([100 * rate.low, 100 * rate.high], [row, row], color=colour, linewidth=2.0)
        axes.plot(100 * rate.rate, row, "o", color=colour, markersize=7, markeredgecolor=PAGE)
        axes.text(103, row, rate.words, va="center", color=INK)
    axes.set_yticks(range(len(rates)), [rate.name for rate in rates])
    axes.set_ylim(len(rates) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlim(0, 145)
    axes.set_xticks(range(0, 101, 20))
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_bounds(0, 100)
    axes.set_xlabel("success on held-out layouts, nobody helping [%]; bar: 95 % Wilson interval", loc="left")
    axes.grid(axis="x")
    return figure


@drawn("Success and interventions over the training episodes")
def training_figure(episodes: Sequence[EpisodeDigest], base_rate: float | None) -> Figure:
    """Return success (rolling, with and without help) over interventions (dots, rolling), against the episode."""
    figure, (above, below) = new_figure(2, 4.2, sharex=True)
    numbers = np.arange(1, len(episodes) + 1)
    success = np.array([episode.success for episode in episodes], float)
    helped = np.array([episode.helped for episode in episodes])
    window = max(1, min(20, len(episodes) // 4))
    if base_rate is not None:
        level = 100 * base_rate
        above.plot([0, len(episodes) + 1], [level, level], color=POLICY, linewidth=1.0, linestyle=(0, (4, 3)))
    ends: list[tuple[float, str, str]] = []
    for name, values, colour, words in (
        ("all episodes", success, INK, INK),
        ("without help", success * ~helped, POLICY, POLICY_WORDS),
    ):
        rolling = 100 * _rolling(values, window)
        above.plot(numbers, rolling, color=colour, linewidth=1.8)
        ends.insert(0, (rolling[-1], name, words))
    if base_rate is not None:
        ends.append((100 * base_rate, "base alone, measured", POLICY_WORDS))
    _label_ends(above, len(episodes), ends, gap=11.0)
    for mask, level, colour in ((helped, -14.0, HUMAN), (success == 0.0, -26.0, FAINT)):
        above.plot(numbers[mask], np.full(int(mask.sum()), level), "|", color=colour, markersize=7, markeredgewidth=1.6)
    _label_ends(above, len(episodes), [(-14.0, "person helped", HUMAN), (-26.0, "not a success", FAINT)], gap=11.0)
    above.set_ylim(-34, 106)
    above.set_yticks(range(0, 101, 25))
    above.spines["left"].set_bounds(0, 100)
    above.set_ylabel(f"success [%], mean of\nthe last {window} episodes")
    _rules(above, range(0, 101, 25), len(episodes) + 1)

    count = np.array([episode.interventions for episode in episodes], float)
    below.plot(numbers, count, "o", color=HUMAN, markersize=3.6, alpha=0.55, markeredgewidth=0)
    below.plot(numbers, _rolling(count, window), color=HUMAN, linewidth=1.8)
    means = quarter_means(count.tolist())
    quarter = -(-len(episodes) // 4)
    top = max(1.0, float(count.max(initial=0.0)))
    if means is not None and len(episodes) >= 4:
        for mean, first in ((means[0], 1), (means[1], len(episodes) - quarter + 1)):
            below.plot([first, first + quarter - 1], [mean, mean], color=INK, linewidth=1.0)
            words = f"{'first' if first == 1 else 'last'} quarter: {mean:.2f}"
            below.text(first + (quarter - 1) / 2, top * 1.12, words, ha="center", va="bottom", color=INK)
    below.set_ylim(-0.06 * top, 1.35 * top)
    below.set_yticks(range(0, int(top) + 1, max(1, int(top) // 4)))
    below.set_ylabel("takeovers in the episode")
    below.set_xlabel("training episode", loc="left")
    for axes in (above, below):
        axes.set_xlim(0, 1.22 * (len(episodes) + 1))
        axes.spines["bottom"].set_bounds(0, len(episodes) + 1)
    ticks = [int(tick) for tick in below.get_xticks() if 0 <= tick <= len(episodes) and tick == int(tick)]
    below.set_xticks(ticks)
    _rules(below, below.get_yticks().tolist(), len(episodes) + 1)
    return figure


@drawn("Source of every tick of every training episode")
def raster_figure(episodes: Sequence[EpisodeDigest]) -> Figure:
    """Return who acted when: a row per episode, a cell per tick, its colour the source."""
    longest = max(len(episode.sources) for episode in episodes)
    cells = np.zeros((len(episodes), longest, 4), np.uint8)
    for row, episode in enumerate(episodes):
        for source, colour in SOURCE_COLOURS.items():
            cells[row, : len(episode.sources)][episode.sources == source] = (*colour, 255)
    figure, (axes,) = new_figure(1, min(6.5, max(1.6, 0.7 + 0.045 * len(episodes))))
    seconds = longest / episodes[0].rate_hz
    axes.imshow(cells, aspect="auto", interpolation="none", extent=(0.0, seconds, len(episodes) + 0.5, 0.5))
    axes.set_xlabel("time in the episode [s]", loc="left")
    axes.set_ylabel("training episode")
    axes.locator_params(axis="y", integer=True)
    return figure


@drawn("Base, residual, human and commanded action of one corrected episode")
def traces_figure(
    voices: Mapping[str, Floats], source: NDArray[np.uint8], spec: ActionSpec, bound: Sequence[float], rate_hz: float
) -> Figure:
    """Return base, residual, human and commanded action of one episode, a panel per dimension.

    Args:
        voices: `base`, `residual`, `human`, `commanded` of shape (T, A), NaN where a voice was silent.
        source: `Source` of each tick (T,).
        spec: names and scales of the dimensions.
        bound: of the residual per dimension; empty without one.
        rate_hz: nominal tick rate [Hz].
    """
    figure, panels = new_figure(spec.size, 0.5 + 0.95 * spec.size, sharex=True)
    seconds = np.arange(len(source)) / rate_hz
    for dim, (axes, name) in enumerate(zip(panels, spec.dims, strict=True)):
        for shaded in (Source.HUMAN, Source.HOLD, Source.RESET):
            for first, last in _spans(source == shaded):
                start_s, end_s = first / rate_hz, (last + 1) / rate_hz
                axes.axvspan(start_s, end_s, color=SOURCE_HEX[shaded], alpha=0.14, linewidth=0)
        for limit in {-bound[dim], bound[dim]} - {0.0} if bound else ():
            axes.axhline(limit, color=RESIDUAL, linewidth=0.7, linestyle=(0, (1, 2)))
        axes.axhline(0.0, color=LINE, linewidth=0.6)
        commanded = voices["commanded"][:, dim]
        axes.plot(seconds, commanded, color=FAINT, linewidth=3.4, alpha=0.45, drawstyle="steps-post")
        for voice, colour in (("base", POLICY), ("residual", RESIDUAL), ("human", HUMAN)):
            axes.plot(seconds, voices[voice][:, dim], color=colour, linewidth=1.3, drawstyle="steps-post")
        axes.set_ylim(-1.12, 1.12)
        axes.set_yticks([-1, 0, 1])
        axes.set_ylabel(f"{name}\n{_unit(spec, dim)}", rotation=0, ha="right", va="center", labelpad=6.0)
        axes.yaxis.label.set_color(INK)
        axes.set_xlim(0.0, len(source) / rate_hz)
    panels[-1].set_xlabel("time in the episode [s]", loc="left")
    return figure


def _unit(spec: ActionSpec, dim: int) -> str:
    """What a normalised action of 1 is in SI."""
    name, scale = spec.dims[dim], spec.scale[dim]
    if name == "gripper":
        return "1 opens"
    length = spec.kind in (CommandKind.TCP_DELTA, CommandKind.TCP_POSE) and name in TCP_DIMS[:3]
    per = "/tick" if spec.kind in (CommandKind.TCP_DELTA, CommandKind.JOINT_DELTA) else ""
    return f"1 is {1000 * scale:.3g} {'mm' if length else 'mrad'}{per}"


def _rolling(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of the last `window` values, of as many as there are at the start."""
    total = np.cumsum(np.r_[0.0, values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return np.asarray((total[ends] - total[starts]) / (ends - starts), np.float64)


def _spans(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    padded = np.r_[False, mask, False].astype(np.int8)
    change = np.diff(padded)
    return list(zip(np.flatnonzero(change == 1).tolist(), (np.flatnonzero(change == -1) - 1).tolist(), strict=True))


def _label_ends(axes: Axes, last: int, ends: list[tuple[float, str, str]], *, gap: float) -> None:
    """Write each line's name at its right end, moved apart by at least `gap` so that none covers another."""
    height = -np.inf
    for value, name, colour in sorted(ends, key=lambda end: round(end[0], 6)):  # of equals the first goes below
        height = max(value, height + gap)
        axes.text(last + 1 + 0.012 * last, height, name, va="center", color=colour)


def _rules(axes: Axes, levels: Sequence[float] | range, length: float) -> None:
    """Faint horizontal lines behind everything, up to where the labels begin."""
    for level in levels:
        axes.plot([0.0, length], [level, level], color=LINE, linewidth=0.6, zorder=0)
