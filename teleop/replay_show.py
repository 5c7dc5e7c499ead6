"""What happened in one episode, in words for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.observation import Verdict
from policy.episode_reader import Episode, read_episode
from robot.command import Reason
from robot.errors import BadInputError
from teleop.arbiter import HoldReason, Source
from teleop.human_input import HumanEvent

_LETTERS = {Source.POLICY: "p", Source.HUMAN: "H", Source.HOLD: "-", Source.RESET: "r"}
_STRIP = 96
_MOST_LINES = 8
_COLUMNS = (
    "tick/index", "tick/source", "tick/hold_reason", "tick/safety", "tick/events", "tick/residual_version",
    "tick/deadline_missed", "tick/latched",
)  # fmt: skip


def describe(path: Path, *, tick: int | None = None) -> tuple[list[str], dict[str, Any]]:
    """Return an episode in lines for people and as values for JSON.

    Args:
        path: a committed episode.
        tick: also tell every voice of this tick.

    Raises:
        BadInputError: the file is no sound episode, or has no such tick.
    """
    episode = read_episode(path)
    columns = {name.removeprefix("tick/"): values.astype(np.int64) for name, values in episode.arrays(_COLUMNS).items()}
    header, outcome = episode.header, episode.outcome
    sources = columns["source"]
    shares = {source.name.lower(): int((sources == source).sum()) for source in Source}
    document: dict[str, Any] = {
        "path": str(path),
        "run_id": header.run_id,
        "episode": header.episode,
        "revision": episode.revision,
        "outcome": outcome.outcome.value,
        "label_source": outcome.label_source.value,
        "complete": outcome.complete,
        "ticks": episode.length,
        "rate_hz": header.rate_hz,
        "sources": shares,
        "takeovers": _takeovers(columns),
        "holds": _holds(columns),
        "safety": _safety(columns),
        "events": _events(columns),
        "versions": _versions(columns),
        "deadline_misses": int(columns["deadline_missed"].sum()),
    }
    lines = list(_lines(episode, columns, document))
    if tick is not None:
        voices = _voices(episode, columns["index"], tick)
        document["tick"] = {"index": tick, **voices}
        lines += ["", f"tick {tick}", *(f"  {name:<16} {value}" for name, value in voices.items())]
    return lines, document


def _lines(episode: Episode, columns: dict[str, NDArray[np.int64]], document: dict[str, Any]) -> Iterator[str]:
    header, outcome = episode.header, episode.outcome
    yield f"episode {header.episode} of {header.run_id}, {header.env_args.get('env_name', 'no station named')}"
    word = f"{outcome.outcome.value} ({outcome.label_source.value})" + (
        f", label {episode.revision + 1}" * (episode.revision > 0)
    )
    length = f"{episode.length} ticks at {header.rate_hz:g} Hz, {episode.length / header.rate_hz:.1f} s"
    yield f"{word}; {length}" + ("; open loop: the arm played a recording" if header.open_loop else "")
    if not outcome.complete:
        yield f"incomplete, {outcome.dropped_ticks} ticks missing: {outcome.reason or 'no reason given'}"
    elif outcome.reason:
        yield f"because {outcome.reason}"
    total = max(1, episode.length)
    drove = [f"{name} {100 * count / total:.0f} %" for name, count in document["sources"].items() if count]
    yield f"drove: {', '.join(drove)}; {_count(len(document['takeovers']), 'takeover')}"
    yield from _strip(columns["source"], header.rate_hz)
    yield from _some("hold", [f"{_ticks(one)}: {one['reason']}" for one in document["holds"]])
    yield from _some(
        "safety filter",
        [f"{one['reason']} on {one['ticks']} ticks, first {one['first']}" for one in document["safety"]],
    )
    yield from _some("person", [f"{_ticks(one)}: {one['events']}" for one in document["events"]])
    versions = ", ".join(f"{one['version']} from tick {one['first']}" for one in document["versions"])
    bundle = f"{(header.bundle_sha256 or 'none')[:12]} on {header.inference_provider or 'no provider'}"
    yield f"residual version {versions or '-'}; bundle {bundle}"
    yield from stream_lines(episode)
    if document["deadline_misses"]:
        yield f"{document['deadline_misses']} deadlines missed"


def stream_lines(episode: Episode) -> list[str]:
    """Return a line on each stream of full-size frames."""
    lines = []
    for spec in episode.header.streams:
        stream = episode.stream(spec.name)
        codec = spec.codec.value + (f" {spec.quality}" if spec.quality is not None else "")
        lost = f", {stream.dropped} not recorded" if stream.dropped else ""
        lines.append(f"stream {spec.name}: {_count(len(stream), 'frame')}{lost}, {spec.width}x{spec.height} {codec}")
    return lines


def _strip(sources: NDArray[np.int64], rate_hz: float) -> Iterator[str]:
    """One letter per stretch of ticks: the rarest source in it, so that a short takeover is not lost."""
    if not len(sources):
        return
    cells = np.array_split(sources, min(_STRIP, len(sources)))
    counts = {source: int((sources == source).sum()) for source in Source}
    letters = [
        _LETTERS[min((Source(int(value)) for value in set(cell.tolist())), key=counts.__getitem__)] for cell in cells
    ]
    seconds = len(sources) / rate_hz
    yield "  " + "".join(letters)
    yield f"  0 s{f'{seconds:.1f} s':>{max(1, len(letters) - 3)}}   r reset, p policy, H human, - hold"


def _some(name: str, entries: Sequence[str]) -> Iterator[str]:
    for entry in entries[:_MOST_LINES]:
        yield f"{name}: {entry}"
    if len(entries) > _MOST_LINES:
        yield f"{name}: and {len(entries) - _MOST_LINES} more"


def _spans(index: NDArray[np.int64], values: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield (value, first tick, last tick) of each run of one value."""
    for value, group in groupby(zip(values.tolist(), index.tolist(), strict=True), key=lambda pair: pair[0]):
        ticks = [tick for _, tick in group]
        yield value, ticks[0], ticks[-1]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _ticks(span: dict[str, Any]) -> str:
    first, last = span["first"], span["last"]
    return f"tick {first}" if first == last else f"ticks {first} to {last}"


def _takeovers(columns: dict[str, NDArray[np.int64]]) -> list[dict[str, int]]:
    spans = _spans(columns["index"], columns["source"])
    return [{"first": first, "last": last} for value, first, last in spans if value == Source.HUMAN]


def _holds(columns: dict[str, NDArray[np.int64]]) -> list[dict[str, Any]]:
    reasons = np.where(columns["source"] == Source.HOLD, columns["hold_reason"], 0)
    return [
        {"first": first, "last": last, "reason": _names(HoldReason(value))}
        for value, first, last in _spans(columns["index"], reasons)
        if value
    ]


def _safety(columns: dict[str, NDArray[np.int64]]) -> list[dict[str, Any]]:
    found = []
    for reason in Reason:
        ticks = columns["index"][(columns["safety"] & reason.value) != 0]
        if len(ticks):
            found.append({"reason": _names(reason), "ticks": len(ticks), "first": int(ticks[0])})
    return found


def _events(columns: dict[str, NDArray[np.int64]]) -> list[dict[str, Any]]:
    return [
        {"first": first, "last": last, "events": _names(HumanEvent(value))}
        for value, first, last in _spans(columns["index"], columns["events"])
        if value
    ]


def _versions(columns: dict[str, NDArray[np.int64]]) -> list[dict[str, int]]:
    spans = _spans(columns["index"], columns["residual_version"])
    return [{"version": value, "first": first, "last": last} for value, first, last in spans]


def _voices(episode: Episode, index: NDArray[np.int64], tick: int) -> dict[str, str]:
    """Every voice of one tick, by name."""
    places = np.flatnonzero(index == tick)
    if not len(places):
        raise BadInputError(
            f"{episode.path}: has no tick {tick}; its ticks are {index.min(initial=0)} to {index.max(initial=0)}"
        )
    row = episode.rows(int(places[0]), int(places[0]) + 1)[0, ...]
    told = {"dimensions": "  ".join(f"{name:>8}" for name in episode.header.action.dims)}
    for name in ("base", "residual", "noise", "human", "reset", "commanded"):
        told[name] = _numbers(row[f"tick/{name}"])
    told["decided"] = _numbers(row["actions"])
    told["source"] = Source(int(row["tick/source"])).name.lower()
    told["hold reason"] = _names(HoldReason(int(row["tick/hold_reason"])))
    told["safety"] = _names(Reason(int(row["tick/safety"])))
    told["observation"] = Verdict(int(row["tick/verdict"])).name.lower()
    told["chunk of tick"] = str(int(row["tick/chunk_tick"]))
    told["gate"] = f"{_numbers(row['tick/gate'])}  {'open' if row['tick/gate_open'] else 'closed'}"
    told["position [m]"] = _numbers(row["tick/T_base_tcp"][:3, 3])
    told["commanded [m]"] = _numbers(row["tick/commanded_T"][:3, 3])
    return told


def _numbers(values: NDArray[np.floating[Any]]) -> str:
    return "  ".join(f"{'-':>8}" if np.isnan(value) else f"{value:8.4f}" for value in values.tolist())


def _names(flags: HoldReason | HumanEvent | Reason) -> str:
    return " + ".join(flag.name.lower().replace("_", " ") for flag in flags if flag.name) or "none"
