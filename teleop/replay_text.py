"""The results of a verification and of a comparison in words, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from teleop.replay import VerifyReport
from teleop.replay_compare import CompareReport, Takeover


def verified_lines(report: VerifyReport) -> Iterator[str]:
    """Yield what a verification found, the first mismatches in full."""
    yield f"episodes {report.episodes}, ticks {report.ticks}, mismatches {report.mismatches}"
    if report.first:
        yield ""
        yield f"{'tick':>6}  {'field':<28} {'logged':<24} recomputed"
    episode = ""
    for one in report.first:
        if one.episode != episode:
            episode = one.episode
            yield episode
        tick = "-" if one.tick is None else str(one.tick)
        yield f"{tick:>6}  {one.field:<28} {one.logged:<24} {one.recomputed}"
    if report.mismatches > len(report.first):
        counts = sorted(report.by_field.items(), key=lambda item: (-item[1], item[0]))
        yield "all, by field: " + ", ".join(f"{field} {count}" for field, count in counts)
    for detail in report.details:
        for gap in detail.gaps:
            yield f"{Path(detail.path).name}: ticks are missing before {gap}; begun anew with the state after it"
    for line in sorted({line for detail in report.details for line in detail.other_machine}):
        yield f"bits may differ here: {line}"
    for field, difference in sorted(report.largest_difference.items()):
        yield f"  largest difference in {field}: {difference:.3g}"
    if report.mismatches or report.largest_difference:
        for line in sorted({line for detail in report.details for line in detail.other_libraries}):
            yield f"another library: {line}"


def compared_lines(report: CompareReport) -> Iterator[str]:
    """Yield where another policy disagrees, a line per dimension and per takeover."""
    yield f"{report.bundle} on {report.ticks} ticks (episodes: {report.episodes}); mean absolute differences"
    titles = ("from base", "from decided", "from human", "(base)", "bound", "in reach")
    yield f"{'dimension':<12}" + "".join(f"{title:>14}" for title in titles)
    for one in report.dimensions:
        numbers = (one.from_base, one.from_decided, one.from_human, one.base_from_human, one.scale)
        cells = ["-" if number is None else f"{number:.3f}" for number in numbers]
        cells.append("-" if one.reachable is None else f"{100 * one.reachable:.0f} %")
        yield f"{one.name:<12}" + "".join(f"{cell:>14}" for cell in cells)
    if report.reachable is not None:
        yield f"within the residual's bound in every dimension: {100 * report.reachable:.0f} % of the ticks"
    for takeover in report.takeovers:
        yield f"{takeover.episode}: takeover at tick {takeover.tick}; {_when(takeover, report.threshold)}"


def _when(takeover: Takeover, threshold: float) -> str:
    if takeover.lead_s is None:
        return f"no difference over {threshold:g} before it"
    return f"first difference over {threshold:g} at tick {takeover.disagreed}, {takeover.lead_s:.2f} s before"
