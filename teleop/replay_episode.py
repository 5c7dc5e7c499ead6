"""Recomputes every tick of an episode from its run folder with the loop's own stages, and compares bit for bit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from policy.episode_header import EpisodeHeader
from policy.episode_reader import Episode, read_episode
from policy.episode_schema import DIGEST_FIELD, Row, row_digest
from policy.provenance import collect_provenance
from policy.residual import ResidualHead
from robot.clock import VirtualClock
from robot.errors import HandrailError
from robot.strict import Strict
from teleop.replay_checks import lost_ticks, record_findings
from teleop.replay_chunks import LoggedChunks
from teleop.replay_finding import Finding, differing
from teleop.replay_look import LoggedLook
from teleop.replay_parts import RunParts, each_row, run_above, start_state
from teleop.replay_reward import LoggedReward
from teleop.replay_window import LoggedWindows
from teleop.rig import episode_spec
from teleop.tick import TickPipeline, TickState
from teleop.tick_row import fill_outputs, output_fields, read_inputs, read_state, views

FIRST = 5  # mismatches told in full
# no rounding reaches these from the state before a tick
_EXACT = frozenset(
    {
        *("tick/chunk_tick", "tick/source", "tick/hold_reason", "tick/arbiter"),
        *("tick/chunk_event", "tick/chunk_rejected", "tick/asked_tick"),
    }
)
# what a tick gives before the residual
_PLANNED = frozenset({"tick/features", "tick/chunk", "tick/chunk_tick", "tick/policy_failed", "tick/base"})


class Mismatch(Strict):
    """One value of a log that a replay does not give.

    Attributes:
        tick: None where the episode as a whole is meant.
        field: dataset, with the place of the first differing element.
    """

    episode: str
    tick: int | None
    field: str
    logged: str
    recomputed: str


class EpisodeReport(Strict):
    """The replay of one episode.

    Attributes:
        path: the file.
        ticks: rows replayed.
        mismatches: fields of rows that differ, all of them.
        by_field: how many in each field.
        first: the first few in full.
        gaps: ticks before which others were lost, not skipped; the replay begins anew with the state after them. Where
            the residual sees several ticks, only features and plan are compared until none that it sees is lost.
        other_machine: why bits may differ here, empty on the machine and provider that wrote the log.
        other_libraries: versions that differ from those that wrote it.
        largest_difference: on another machine, greatest difference per field; these are no mismatches.
    """

    path: str
    ticks: int
    mismatches: int
    by_field: dict[str, int]
    first: tuple[Mismatch, ...]
    gaps: tuple[int, ...]
    other_machine: tuple[str, ...]
    other_libraries: tuple[str, ...]
    largest_difference: dict[str, float]


class EpisodeReplay:
    """Replays episodes one after another and keeps what they share. Not for two threads."""

    def __init__(self) -> None:
        self._parts: dict[Path, RunParts] = {}

    def verify(self, path: Path) -> EpisodeReport:
        """Replay one committed episode.

        Raises:
            BadInputError: the file or what its run folder holds for it is missing, damaged or was changed.
        """
        episode = read_episode(path)
        run = run_above(path)
        parts = self._parts.setdefault(run.path, RunParts(run))
        pipeline = parts.pipeline(episode.header)
        other_machine, other_libraries = _elsewhere(episode.header, pipeline.bundle.provider)
        tally = _Tally(path, tolerant=bool(other_machine))
        gaps: list[int] = []
        with np.errstate(all="ignore"):
            for found in _header_findings(episode.header, parts, pipeline):
                tally.add(found)
            versions = set(episode.array("tick/residual_version").astype(np.int64).tolist())
            heads = parts.heads(episode, versions | set(episode.header.weights))
            for found in _scale_findings(episode.header, heads):
                tally.add(found)
            look = LoggedLook(
                episode.header.spec, parts.synchroniser(episode.header), parts.required_cloud_age_s(episode.header)
            )
            watch = parts.reward(episode.header)
            reward = LoggedReward(watch) if watch else None
            for found in _tick_findings(episode, pipeline, heads, look, reward, gaps):
                tally.add(found)
            for found in reward.ending(episode.labels[0]) if reward else ():
                tally.add(found)
            for found in record_findings(episode):
                tally.add(found)
        return EpisodeReport(
            path=str(path),
            ticks=episode.length,
            mismatches=sum(tally.by_field.values()),
            by_field=dict(tally.by_field),
            first=tuple(tally.first),
            gaps=tuple(gaps),
            other_machine=other_machine,
            other_libraries=other_libraries,
            largest_difference=tally.largest,
        )


class _Tally:
    def __init__(self, path: Path, *, tolerant: bool) -> None:
        self._name, self._tolerant = path.name, tolerant
        self.by_field: Counter[str] = Counter()
        self.first: list[Mismatch] = []
        self.largest: dict[str, float] = {}

    def add(self, found: Finding) -> None:
        field = found.field.partition("[")[0]
        if found.arithmetic and self._tolerant and math.isfinite(found.difference):
            self.largest[field] = max(self.largest.get(field, 0.0), found.difference)
            return
        self.by_field[field] += 1
        if len(self.first) < FIRST:
            self.first.append(
                Mismatch(
                    episode=self._name,
                    tick=found.tick,
                    field=found.field,
                    logged=found.logged,
                    recomputed=found.expected,
                )
            )


def _tick_findings(
    episode: Episode,
    pipeline: TickPipeline,
    heads: dict[int, ResidualHead],
    look: LoggedLook,
    reward: LoggedReward | None,
    gaps: list[int],
) -> Iterator[Finding]:
    """Yield what differs, tick by tick.

    Every tick begins with the recomputed state of the one before. After a difference it begins with the logged
    state, so that one changed value is not counted in every later tick.
    """
    spec = episode.header.spec
    kinds = spec.row_dtype()
    redone: Row = np.zeros((), np.dtype([(name, kinds[name]) for name in output_fields(spec)]))
    redone_views = views(redone)
    state: TickState | None = start_state(episode.header)
    before, all_known = -1, lost_ticks(episode) == 0
    chunks = LoggedChunks(pipeline.bundle) if spec.asynchronous else None
    windows = LoggedWindows(pipeline.history)
    for row in each_row(episode):
        tick = int(row["tick/index"])
        if row_digest(row) != int(row[DIGEST_FIELD]):
            yield Finding(
                tick=tick,
                field=DIGEST_FIELD,
                logged=f"{int(row[DIGEST_FIELD]):016x}",
                expected=f"{row_digest(row):016x}",
            )
        if tick != before + 1 and not all_known:
            gaps.append(tick)
            state = None
            look.restart()
            windows.restart()
            if chunks:
                chunks.restart()
            if reward:
                reward.restart()
        before, seen = tick, windows.known
        try:
            inputs = read_inputs(row, spec)
            windows.see(row, inputs)
            yield from look.findings(row, inputs)
            if chunks:
                yield from chunks.findings(row, inputs)
            if reward:
                yield from reward.findings(row, inputs)
            version = int(row["tick/residual_version"])
            if version not in heads:
                yield Finding(
                    tick=tick,
                    field="tick/residual_version",
                    logged=str(version),
                    expected="weights that the episode names",
                )
                state = replace(read_state(row), window=windows.window)
            elif state is None:  # first row after a gap: the state before it is not known
                state = replace(read_state(row), window=windows.window)
            else:
                state, outputs = pipeline.step(state, inputs, heads[version])
                fill_outputs(redone_views, outputs, state)
                differences = [found for found in _differences(row, redone, tick) if seen or _planned(found)]
                yield from differences
                if differences or not seen:
                    state = replace(read_state(row), window=windows.window)
        except (HandrailError, ValueError, LookupError, ArithmeticError) as error:
            # values that no loop could have gone on with
            yield Finding(
                tick=tick, field="tick", logged="a tick that ran", expected=f"{type(error).__name__}: {error}"
            )
            state = None
            windows.restart()


def _planned(found: Finding) -> bool:
    return found.field.partition("[")[0] in _PLANNED


def _differences(row: Row, redone: Row, tick: int) -> Iterator[Finding]:
    for name in redone.dtype.names or ():
        found = differing(name, row[name], redone[name], tick=tick, arithmetic=name not in _EXACT)
        if found:
            yield found


def _header_findings(header: EpisodeHeader, parts: RunParts, pipeline: TickPipeline) -> Iterator[Finding]:
    """Yield where the header contradicts the station, the bundle and the run that it names."""
    manifest, station = pipeline.bundle.manifest, parts.station(header)
    for field, logged, expected in (
        ("header.run_id", header.run_id, parts.run.run_id),
        ("header.rate_hz", header.rate_hz, station.loop.rate_hz),
        ("header.action", header.action, manifest.action),
        (
            "header.spec",
            header.spec,
            # rows of a Franka have had its wrench only since there is a field for it
            episode_spec(pipeline.bundle, header.spec.joint_count, station, dict(header.spec.readings)).model_copy(
                update={"wrench": header.spec.wrench}
            ),
        ),
    ):
        if logged != expected:
            yield Finding(tick=None, field=field, logged=str(logged), expected=str(expected))


def _scale_findings(header: EpisodeHeader, heads: dict[int, ResidualHead]) -> Iterator[Finding]:
    """Yield where the weights in force at the start have another bound than the header says."""
    for version in header.weights:
        expected = tuple(float(value) for value in heads[version].scale)
        if header.residual_scale not in ((), expected):
            yield Finding(
                tick=None, field="header.residual_scale", logged=str(header.residual_scale), expected=str(expected)
            )


def _elsewhere(header: EpisodeHeader, provider: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Say why bits may differ here, and which libraries do."""
    here = collect_provenance(VirtualClock(), operator=None)
    there = header.provenance
    reasons = []
    if there.cpu != here.cpu:
        reasons.append(f"recorded on {there.cpu}, replayed on {here.cpu}")
    if header.inference_provider is not None and header.inference_provider != provider:
        reasons.append(f"recorded with {header.inference_provider}, replayed with {provider}")
    names = sorted(there.libraries.keys() | here.libraries.keys())
    pairs = ((name, there.libraries.get(name), here.libraries.get(name)) for name in names)
    return tuple(reasons), tuple(f"{name} {old} there, {new} here" for name, old, new in pairs if old != new)
