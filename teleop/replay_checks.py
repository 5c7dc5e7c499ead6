"""What must hold between the fields of a log, whatever the policy: the part of a replay that needs no stage."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from policy.episode_file import DEMO, header_attributes, label_attributes, open_episode, text_sha256
from policy.episode_header import EpisodeOutcome, Outcome
from policy.episode_measured import measured
from policy.episode_reader import Episode
from policy.stream_reader import read_stream
from robot.errors import BadInputError
from teleop.replay_finding import Finding, differing

Column = NDArray[np.generic]

_COLUMNS = (
    "rewards", "dones", "terminated", "truncated", "tick/index", "tick/start_s", "tick/end_s", "tick/due_s",
    "tick/stage_ms", "tick/deadline_missed", "tick/overrun", "tick/captured_s", "tick/arrived_s", "tick/frame_id",
    "tick/uncertainty_s", "tick/state_s", "tick/polled_s", "tick/reset",
)  # fmt: skip
_OVERRUNS_TO_HOLD = 3
_ROUNDING_S = 2e-6  # two ways to the same instant: sums of periods, and a recording's head start


def record_findings(episode: Episode) -> Iterator[Finding]:
    """Yield every contradiction between the rows, their order, the outcome and the derived datasets."""
    columns = episode.arrays(_COLUMNS)
    index = columns["tick/index"].astype(np.int64)
    yield from _gaps(index, episode.labels[0])
    if episode.length:
        yield from _ends(columns, index, episode.labels[0])
        yield from _times(columns, index, 1.0 / episode.header.rate_hz, every_tick_known=not lost_ticks(episode))
        yield from _frames(columns, index)
    yield from _measured(episode, index)
    yield from _attributes(episode)
    yield from stream_findings(episode)


def lost_ticks(episode: Episode) -> int:
    """How many ticks ran before the last row and are not in the log: numbers missing that no late loop skipped."""
    index = episode.array("tick/index")
    last = int(index[-1]) if len(index) else -1
    return last + 1 - len(index) - episode.labels[0].skipped_ticks


def _gaps(index: NDArray[np.int64], outcome: EpisodeOutcome) -> Iterator[Finding]:
    """Ticks count up by one; what is missing was declared."""
    before, missing = -1, 0
    for now in index.tolist():
        if now <= before:
            yield Finding(tick=now, field="tick/index", logged=str(now), expected=f"more than {before}")
        missing += max(0, now - before - 1)
        before = now
    if missing > outcome.dropped_ticks + outcome.skipped_ticks:
        yield Finding(
            tick=None,
            field="dropped_ticks",
            logged=f"{outcome.dropped_ticks}, {outcome.skipped_ticks} skipped",
            expected=f"{missing}, the ticks missing between the rows",
        )
    if missing < outcome.skipped_ticks and outcome.complete:
        yield Finding(
            tick=None, field="skipped_ticks", logged=str(outcome.skipped_ticks), expected=f"{missing}, by tick/index"
        )


def _ends(columns: dict[str, Column], index: NDArray[np.int64], outcome: EpisodeOutcome) -> Iterator[Finding]:
    """Reward and ends stand in the last row and are what the outcome says."""
    ended = outcome.outcome in (Outcome.SUCCESS, Outcome.FAILURE)
    last = {
        "rewards": float(outcome.outcome is Outcome.SUCCESS),
        "dones": 1.0,
        "terminated": float(ended),
        "truncated": float(not ended),
    }
    for name, at_end in last.items():
        values = columns[name].astype(np.float64)
        for row in np.flatnonzero(values[:-1]):
            yield _wrong(index[row], name, values[row], "0 before the last row")
        if outcome.complete and values[-1] != at_end:
            yield _wrong(index[-1], name, values[-1], f"{at_end:g}, as the outcome is {outcome.outcome.value}")
    if not outcome.complete:  # the last row may be missing, or the outcome alone
        reward, done, terminated, truncated = (float(columns[name][-1]) for name in last)
        sound = done == terminated + truncated and reward in (0.0, terminated) and done in (0.0, 1.0)
        if not sound:
            yield _wrong(index[-1], "dones", done, f"terminated {terminated:g} + truncated {truncated:g}")


def _times(
    columns: dict[str, Column], index: NDArray[np.int64], period_s: float, *, every_tick_known: bool
) -> Iterator[Finding]:
    """Clocks go forward, deadlines are missed when they are, and lock-step is exact."""
    start_s, end_s, due_s, state_s, polled_s, stage_ms = (
        columns[name].astype(np.float64)
        for name in ("tick/start_s", "tick/end_s", "tick/due_s", "tick/state_s", "tick/polled_s", "tick/stage_ms")
    )
    missed, overrun = columns["tick/deadline_missed"].astype(bool), columns["tick/overrun"].astype(bool)
    lock_step = np.isnan(stage_ms)
    adjoining = np.r_[False, np.diff(index) == 1]
    rules = [
        ("tick/end_s", end_s, ~(end_s >= start_s), "not before tick/start_s"),
        ("tick/deadline_missed", missed, missed != (end_s > due_s), "tick/end_s > tick/due_s"),
        ("tick/due_s", due_s, ~(start_s >= due_s - period_s - _ROUNDING_S), "at most a period after tick/start_s"),
        ("tick/state_s", state_s, ~(state_s <= start_s + _ROUNDING_S), "not after tick/start_s"),
        ("tick/polled_s", polled_s, ~(polled_s <= start_s + _ROUNDING_S), "not after tick/start_s"),
        ("tick/stage_ms", stage_ms[:, 0], lock_step.any(axis=1) != lock_step.all(), "measured in all rows or in none"),
        ("tick/stage_ms", stage_ms.min(axis=1), (stage_ms < 0.0).any(axis=1), "0 or more"),
    ]
    off_s = np.r_[0.0, np.diff(due_s) - np.diff(index) * period_s]
    rules.append(("tick/due_s", due_s, ~(np.abs(off_s) <= _ROUNDING_S), "a period for each step of tick/index"))
    for name, values in (("tick/start_s", start_s), ("tick/due_s", due_s)):
        rules.append((name, values, ~(np.diff(values, prepend=-np.inf) > 0.0), "later than in the row before"))
    rules.append(("tick/state_s", state_s, ~(np.diff(state_s, prepend=-np.inf) >= 0.0), "not before the last row's"))
    if lock_step.all():
        rules.append(("tick/end_s", end_s, end_s != start_s, "tick/start_s, in lock-step"))
        begun = adjoining & (start_s != np.r_[np.nan, due_s[:-1]])
        rules.append(("tick/start_s", start_s, begun, "tick/due_s of the row before, in lock-step"))
    for name, values, wrong, expected in rules:
        for row in np.flatnonzero(wrong):
            yield _wrong(index[row], name, values[row], expected)
    follows = adjoining | every_tick_known
    follows[:1] = False
    yield from _overruns(missed.tolist(), overrun.tolist(), follows.tolist(), index)


def _overruns(
    missed: list[bool], overrun: list[bool], follows: list[bool], index: NDArray[np.int64]
) -> Iterator[Finding]:
    """An overrun is three missed deadlines in a row; those before the first row are not in the log."""
    in_row, known = 0, False  # known: how many there were before is certain
    for row, held in enumerate(overrun):
        if not follows[row]:
            in_row, known = 0, False
        expected = in_row >= _OVERRUNS_TO_HOLD
        if held != expected and (known or expected):
            yield _wrong(index[row], "tick/overrun", float(held), f"{expected:d}, {in_row} deadlines missed before")
        in_row = in_row + 1 if missed[row] else 0
        known = known or not missed[row]


def _frames(columns: dict[str, Column], index: NDArray[np.int64]) -> Iterator[Finding]:
    """Frames arrive after they are taken and before they are used; an absent one has no times."""
    captured_s, arrived_s = columns["tick/captured_s"].astype(float), columns["tick/arrived_s"].astype(float)
    ids, start_s = columns["tick/frame_id"].astype(np.int64), columns["tick/start_s"].astype(float)[:, None]
    there = ids >= 0
    later = np.r_[np.zeros((1, ids.shape[1]), bool), np.diff(ids, axis=0) < 0] & there
    same = np.r_[np.zeros((1, ids.shape[1]), bool), np.diff(ids, axis=0) == 0] & there
    uncertainty_s = columns["tick/uncertainty_s"].astype(float)
    moved, doubted = (same & (np.r_[values[:1], values[:-1]] != values) for values in (captured_s, uncertainty_s))
    rules = (
        ("tick/captured_s", captured_s, np.isfinite(captured_s) != there, "a time where there is a frame"),
        ("tick/arrived_s", arrived_s, np.isfinite(arrived_s) != there, "a time where there is a frame"),
        ("tick/arrived_s", arrived_s, there & ~(arrived_s >= captured_s), "not before tick/captured_s"),
        ("tick/arrived_s", arrived_s, there & ~(arrived_s <= start_s + _ROUNDING_S), "not after tick/start_s"),
        ("tick/captured_s", captured_s, moved, "that of the same frame in the row before"),
        ("tick/uncertainty_s", uncertainty_s, np.isfinite(uncertainty_s) != there, "a time where there is a frame"),
        ("tick/uncertainty_s", uncertainty_s, there & (uncertainty_s < 0.0), "0 or more"),
        ("tick/uncertainty_s", uncertainty_s, doubted, "that of the same frame in the row before"),
        (
            "tick/frame_id",
            ids,
            (later & np.r_[there[:1], there[:-1]]) | (ids < -1),
            "never less than in the row before",
        ),
    )
    for name, values, wrong, expected in rules:
        for row in np.flatnonzero(wrong.any(axis=1)):
            camera = int(np.flatnonzero(wrong[row])[0])
            yield _wrong(index[row], f"{name}[{camera}]", values[row, camera], expected)
    reset = np.isnan(columns["tick/reset"].astype(float))
    for row in np.flatnonzero(reset.any(axis=1) != reset.all(axis=1)):
        yield _wrong(index[row], "tick/reset", np.nan, "a whole action or NaN throughout")


def _measured(episode: Episode, index: NDArray[np.int64]) -> Iterator[Finding]:
    """What the arm then did is the next row's state, derived once more as the commit did."""
    with open_episode(episode.path) as file:
        demo = file[DEMO]
        for name, expected in measured(demo, episode.header, index).items():
            logged = demo[name][:]
            if logged.tobytes() == expected.tobytes():
                continue
            for row in range(len(expected)):
                found = differing(
                    name, logged[row], expected[row], tick=int(index[row]), arithmetic=name == "tick/measured"
                )
                if found:
                    yield found


def stream_findings(episode: Episode) -> Iterator[Finding]:
    """Every full-size frame has the bytes and the stamp of its digest, and each stream is what header and index say."""
    for spec in episode.header.streams:
        name = f"streams/{spec.name}"
        try:
            stream = read_stream(episode.path, spec, whole=False)
        except BadInputError as error:
            yield Finding(tick=None, field=name, logged=str(error), expected="the stream of the header")
            continue
        if not stream.whole:
            yield Finding(
                tick=None,
                field=name,
                logged=f"{len(stream)} frames and {stream.dropped} dropped that are not those of the index's digest",
                expected="no digest" if stream.index_digest is None else f"{stream.index_digest:016x}",
            )
        for frame in stream.unsound():
            yield Finding(
                tick=None,
                field=f"{name}[{frame}]",
                logged="bytes or a stamp that are not those of the digest",
                expected=f"{int(stream.digest[frame]):016x}",
            )


def _attributes(episode: Episode) -> Iterator[Finding]:
    """Header and labels are the very texts that were written, and what stands beside them says the same."""
    with open_episode(episode.path) as file:
        data, demo = dict(file["data"].attrs), dict(file[DEMO].attrs)
    expected = {
        **{f"{name}_sha256": text_sha256(demo[name]) for name in ("header", "labels")},
        **header_attributes(episode.header),
        **label_attributes(episode.labels),
        "total": episode.length,
        "env_args": json.dumps(episode.header.env_args),
    }
    found = demo | data
    for name, value in expected.items():
        if name not in found or not np.array_equal(found[name], value):
            yield Finding(tick=None, field=name, logged=str(found.get(name, "absent")), expected=str(value))
    if episode.header.bundle_sha256 is None and "bundle_sha256" in found:
        yield Finding(tick=None, field="bundle_sha256", logged=str(found["bundle_sha256"]), expected="absent")


def _wrong(tick: np.int64, field: str, logged: object, expected: str) -> Finding:
    return Finding(tick=int(tick), field=field, logged=str(logged), expected=expected)
