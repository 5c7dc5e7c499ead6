"""A run's report: one HTML file that opens anywhere, offline, and says in words what is missing."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.run_folder import RunFolder
from robot.errors import BadInputError
from robot.whole_file import write_whole
from teleop.episode_digest import EpisodeDigest, typical_corrected
from teleop.report_episode import corrected_episode
from teleop.report_page import SOURCE_KEY, colour_key, figure, folded, page, section, table, text, tiles
from teleop.report_plots import raster_figure, success_figure, training_figure
from teleop.report_rates import BASE, TRAINED, Rate, read_rates
from teleop.report_timing import timing_figure

_UNKNOWN = "not measured"


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    episodes: Sequence[EpisodeDigest],
    run: RunFolder,
    times: Mapping[str, NDArray[np.floating]],
    log: Sequence[str],
) -> Path:
    """Write the report of a run, whole or cut short, and return its path.

    Args:
        path: of the HTML file; the folder exists.
        summary: what summary.json holds. Beside the keys that every demo writes: `controllers` (name -> the keys
            of `base`) for what was measured beside, `aborted` (why, in words), `seed` and `command`.
        episodes: the training episodes, in their order.
        run: where they lie.
        times: stage -> time of each tick [ms], as `TickTimes.stages_ms` gives them.
        log: lines that the run printed.

    Raises:
        BadInputError: the file cannot be written.
    """
    rates = read_rates(summary)
    parts = [
        _headline(summary, rates),
        _success(rates),
        _training(episodes, rates.get(BASE)),
        _corrected(episodes),
        _timing(summary, times),
        _learner(summary),
        _replay(summary),
        _episodes(summary, episodes),
        _provenance(summary, run),
        section("Log", folded(f"{len(log)} lines", f"<pre>{escape(chr(10).join(log))}</pre>")) if log else "",
    ]
    try:
        write_whole(path, page(f"Handrail: {run.run_id}", "".join(parts)).encode())
    except OSError as error:
        raise BadInputError(f"{path}: cannot be written ({error.strerror or error}); check rights and space") from None
    return path


def _headline(summary: Mapping[str, Any], rates: Mapping[str, Rate]) -> str:
    base, trained = rates.get(BASE), rates.get(TRAINED)
    shares = [f"{100 * rate.rate:.0f} %" if rate else _UNKNOWN for rate in (base, trained)]
    parts = [
        "<h1>Success of the frozen base policy, and with what it learned from corrections</h1>",
        f'<p class="headline">{escape(" → ".join(shares) if base or trained else "No success rate was measured")}</p>',
        *(text(f"{rate.name}: {rate.evidence}") for rate in (base, trained) if rate),
    ]
    if "aborted" in summary:
        parts.append(
            text(f"This run was cut short: {summary['aborted']}. What follows is what it had by then.", "warn")
        )
    if summary.get("rolled_back"):
        parts.append(text(f"{summary['rolled_back']['why'].capitalize()}.", "warn"))
    first, last = (_at(summary, "interventions", f"{quarter}_quarter_per_episode") for quarter in ("first", "last"))
    fell = None if first is None or last is None else f"{first:.2f} → {last:.2f}"
    facts = {
        "training steps of the robot": _number(_at(summary, "env_steps"), ",.0f"),
        "wall time of the training": _duration(_at(summary, "training_wall_s")),
        "takeovers per episode, first to last quarter": fell,
        "failures that the person let happen": _number(_at(summary, "interventions", "failures_allowed"), ".0f"),
        "replayed ticks that differ": _replayed(summary),
        "overhead of a tick, p99": _number(_at(summary, "ticks", "overhead_ms", "p99"), ".2f", " ms"),
    }
    return "<section>" + "".join(parts) + _tiles(facts) + "</section>\n"


def _success(rates: Mapping[str, Rate]) -> str:
    if not rates:
        return section("Success", text("No controller was measured.", "note"))
    return section("Success", figure(success_figure(list(rates.values()))))


def _training(episodes: Sequence[EpisodeDigest], base: Rate | None) -> str:
    over_time, who = "Success and interventions over time", "Who acted when"
    if not any(len(episode.sources) for episode in episodes):
        return section(over_time, text("No training episode was committed.", "note"))
    helped = sum(episode.helped for episode in episodes)
    words = (
        f"The person took over in {helped} of {len(episodes)} episodes. Exploration noise and the person's help are "
        "part of these; the rates above are measured without either."
        if helped
        else f"Nobody took over in any of the {len(episodes)} episodes."
    )
    return section(
        over_time, text(words, "note"), figure(training_figure(episodes, base.rate if base else None))
    ) + section(who, colour_key(SOURCE_KEY), figure(raster_figure(episodes)))


def _corrected(episodes: Sequence[EpisodeDigest]) -> str:
    title = "One corrected episode"
    shown = typical_corrected(episodes)
    if shown is None:
        return section(title, text("There is none: the person drove in no committed episode.", "note"))
    try:
        return section(title, *corrected_episode(shown, list(episodes).index(shown) + 1))
    except BadInputError as error:
        return section(title, text(f"It can no longer be read: {error}", "warn"))


def _timing(summary: Mapping[str, Any], times: Mapping[str, NDArray[np.floating]]) -> str:
    facts = {
        "ticks": _number(_at(summary, "ticks", "count"), ",.0f"),
        "overhead of a tick, p50": _number(_at(summary, "ticks", "overhead_ms", "p50"), ".2f", " ms"),
        "overhead of a tick, p99": _number(_at(summary, "ticks", "overhead_ms", "p99"), ".2f", " ms"),
        "missed deadlines": _number(_at(summary, "ticks", "deadline_misses"), ",.0f"),
    }
    if not times or not all(len(values) for values in times.values()):
        return section("Tick timing", _tiles(facts), text("No stage of a tick was timed.", "note"))
    stars = "* not overhead: the networks' own run time, and the arm's state, in simulation with its physics."
    return section("Tick timing", _tiles(facts), figure(timing_figure(times)), text(stars, "note"))


def _learner(summary: Mapping[str, Any]) -> str:
    if not summary.get("learner"):
        return section("Learner", text("No learner ran.", "note"))
    facts = {
        "gradient updates": _number(_at(summary, "learner", "updates"), ",.0f"),
        "updates per second": _number(_at(summary, "learner", "updates_per_s"), ".1f"),
        "weights taken over": _number(_at(summary, "learner", "accepted"), ".0f"),
        "weights refused": _number(_at(summary, "learner", "refused"), ".0f"),
    }
    return section("Learner", _tiles(facts), *_reachability(summary.get("reachability") or {}))


def _reachability(dimensions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    head = ("dimension", "bound", "corrected ticks", "beyond it", "nine in ten within", "advice")
    rows = [
        (
            name,
            _number(found["scale"], "g") or "none",
            _number(found["ticks"], ".0f") or "",
            _number(found["beyond"], ".0%") or "-",
            _number(found["wanted"], ".2f") or "-",
            str(found["advice"]),
        )
        for name, found in dimensions.items()
    ]
    said = "How far the person's corrections lay beyond what the residual may do, in units of the action's range."
    return [text(said, "note"), table(rows, head)] if rows else []


def _replay(summary: Mapping[str, Any]) -> str:
    ticks, mismatches = _at(summary, "replay", "ticks"), _at(summary, "replay", "mismatches")
    if ticks is None or mismatches is None:
        return section("Replay", text("The logs of this run were not replayed.", "warn"))
    if mismatches == 0 and ticks > 0:
        words = (
            f"All {ticks:,.0f} logged ticks were recomputed from their inputs, and every one is the same bit for bit."
        )
        return section("Replay", text(words))
    if ticks == 0:
        return section("Replay", text("There was no tick to replay.", "warn"))
    words = f"{mismatches:,.0f} of {ticks:,.0f} recomputed ticks differ from the log"
    return section("Replay", text(f"{words}; `replay_episode.py verify` says where.", "warn"))


def _episodes(summary: Mapping[str, Any], episodes: Sequence[EpisodeDigest]) -> str:
    committed, incomplete = (_at(summary, "episodes", key) for key in ("committed", "incomplete"))
    counted = committed is not None and incomplete is not None
    words = f"{committed:.0f} episodes committed in all, {incomplete:.0f} incomplete." if counted else ""
    if not episodes:
        return section("Episodes", text(words), text("No training episode was committed.", "note"))
    rows = [
        (
            str(number),
            episode.outcome.value + ("" if episode.complete else ", ticks missing"),
            episode.label_source.value.replace("_", " "),
            str(episode.ticks),
            str(episode.human_ticks),
            str(episode.interventions),
            episode.path.name,
        )
        for number, episode in enumerate(episodes, 1)
    ]
    head = ("episode", "outcome", "said by", "ticks", "person's ticks", "takeovers", "file")
    return section("Episodes", text(words), folded(f"{len(rows)} training episodes", table(rows, head)))


def _provenance(summary: Mapping[str, Any], run: RunFolder) -> str:
    made = run.info.provenance
    state = {True: ", with changes that are not committed", False: "", None: ", state unknown"}[made.modified]
    rows = [
        ("run", run.run_id),
        ("started", made.utc),
        ("commit", f"{made.commit}{state}" if made.commit else "not from a clone"),
        ("versions", ", ".join(f"{name} {version}" for name, version in made.libraries.items())),
        ("machine", f"{made.cpu}, {os.cpu_count()} cores"),
        ("operator", made.operator or "none"),
        ("seed", str(summary.get("seed", "not noted"))),
        ("command", str(summary.get("command", "not noted"))),
    ]
    return section("Provenance", table(rows))


def _replayed(summary: Mapping[str, Any]) -> str | None:
    ticks, mismatches = _at(summary, "replay", "ticks"), _at(summary, "replay", "mismatches")
    return None if ticks is None or mismatches is None else f"{mismatches:,.0f} of {ticks:,.0f}"


def _tiles(facts: Mapping[str, str | None]) -> str:
    """Show what is known and name what is not."""
    known = [(value, name) for name, value in facts.items() if value is not None]
    unknown = [name for name, value in facts.items() if value is None]
    return tiles(known) + (text(f"Not measured: {'; '.join(unknown)}.", "note") if unknown else "")


def _at(summary: object, *keys: str) -> float | None:
    """The number at a path of keys, None where there is none."""
    for key in keys:
        summary = summary.get(key) if isinstance(summary, Mapping) else None
    return summary if isinstance(summary, int | float) and math.isfinite(summary) else None


def _number(value: float | None, form: str, unit: str = "") -> str | None:
    return None if value is None else f"{value:{form}}{unit}"


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
