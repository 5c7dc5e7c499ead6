"""Tries every part of a station before a run, and says what is wrong with each."""

from __future__ import annotations

import enum
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from perception.camera import Camera
from policy.bundle import Bundle, load_bundle
from policy.learner_link import LearnerLink
from policy.reward_model import load_reward_model
from robot.arm import Arm
from robot.clock import Clock
from robot.errors import BadInputError, HandrailError
from robot.recording import Recording
from teleop.gamepad import Gamepad
from teleop.preflight_streams import CameraStream, watch
from teleop.reward_watch import check_cost, misfits_of
from teleop.rig import Rig, rig_misfits
from teleop.sdl import close_display, open_display
from teleop.station import LoadedStation, Station

MIN_FREE_MB = 256
_PROBE_MB = 16
_LATENESS_SLEEPS = 100
_LATENESS_PERIOD_S = 0.002
_LATENCY_RUNS = 50


class Result(enum.StrEnum):
    """What a check came to; only FAILED keeps a station from running."""

    PASSED = "ok"
    NOTE = "note"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One part of the station and what was found there."""

    part: str
    result: Result
    found: str


@dataclass(frozen=True, kw_only=True)
class PreflightOptions:
    """What the run to come will need.

    Attributes:
        out: folder that it will write to; need not exist.
        operator: device that must be there, None to report only.
        recording: of a station that plays one.
    """

    out: Path
    operator: Literal["gamepad", "keyboard"] | None = None
    recording: Recording | None = None


def preflight(loaded: LoadedStation, clock: Clock, options: PreflightOptions) -> Iterator[Check]:
    """Try part after part; a broken one does not keep the others from being tried. The arm is never moved."""
    station = loaded.station
    yield _passed("station", f"'{station.name}', {station.loop.rate_hz:g} Hz, {len(station.camera)} cameras")
    yield _timing(station)
    bundle: Bundle | None = None
    try:
        bundle = load_bundle(loaded.bundle_path, station.policy.provider, station.policy.threads)
        yield _passed("bundle", f"'{bundle.manifest.name}' {bundle.sha256[:12]} on {bundle.provider}")
        yield _latency(bundle, station)
    except HandrailError as error:
        yield _failed("bundle", error)
    rig = Rig(loaded, clock, seed=0, recording=options.recording)
    with ExitStack() as stack:
        try:
            arm, cameras = rig.parts(stack, bundle)
        except HandrailError as error:
            yield _failed("arm and cameras", error)
        else:
            yield from _fit(loaded, bundle, arm, cameras, rig.readings)
            yield from _reward(loaded, bundle)
            yield from _streams(station, clock, arm, cameras, options.recording)
    yield _disk(station, options.out)
    yield from _operator(station, options.operator)
    yield _learner(station)


def _timing(station: Station) -> Check:
    """Granularity of the monotonic clock, and how late this machine wakes from a sleep to an absolute deadline."""
    granularity_s = min(b - a for a, b in _reads(1000) if b > a)
    late_s = []
    deadline_s = time.monotonic()
    for _ in range(_LATENESS_SLEEPS):
        deadline_s += _LATENESS_PERIOD_S
        time.sleep(max(deadline_s - time.monotonic(), 0.0))
        late_s.append(time.monotonic() - deadline_s)
    p50_s, p99_s = np.percentile(late_s, [50, 99])
    found = (
        f"granularity {granularity_s * 1e9:.0f} ns; wakes late by p50 {p50_s * 1e3:.2f} ms, p99 {p99_s * 1e3:.2f} ms"
    )
    if granularity_s > 1e-3:
        return _failed("clock", f"{found}; the clock must tell 1 ms apart")
    if p99_s > station.period_s / 2:
        return Check(part="clock", result=Result.NOTE, found=f"{found}; ticks will be missed under this load")
    return _passed("clock", found)


def _reads(count: int) -> Iterator[tuple[float, float]]:
    before_s = time.monotonic()
    for _ in range(count):
        now_s = time.monotonic()
        yield before_s, now_s
        before_s = now_s
    yield before_s, before_s + time.get_clock_info("monotonic").resolution


def _latency(bundle: Bundle, station: Station) -> Check:
    """How long the policy takes, beside the tick that it must fit into."""
    runs = bundle.warm_up(_LATENCY_RUNS)
    ahead = station.policy.asynchronous  # then only the features are computed within the tick
    both_ms = np.add(runs.encode_ms, 0.0 if ahead else runs.act_ms)[5:]  # the first runs are slow
    p50_ms, worst_ms, tick_ms = float(np.median(both_ms)), float(both_ms.max()), station.period_s * 1e3
    found = f"p50 {p50_ms:.2f} ms, worst {worst_ms:.2f} ms of a tick of {tick_ms:g} ms"
    if p50_ms > tick_ms:
        return _failed("policy latency", f"{found}; lower loop.rate_hz with a bundle trained for it, or use a GPU")
    if worst_ms > tick_ms / 2:
        return Check(part="policy latency", result=Result.NOTE, found=f"{found}; little is left for the rest")
    return _passed("policy latency", found)


def _fit(
    loaded: LoadedStation, bundle: Bundle | None, arm: Arm, cameras: list[Camera], readings: Mapping[str, int]
) -> Iterator[Check]:
    if bundle is None:
        yield Check(part="fit", result=Result.SKIPPED, found="no bundle to compare with")
        return
    lines = rig_misfits(loaded, bundle, arm, cameras, readings)
    yield from (_failed("fit", line) for line in lines)
    if not lines:
        yield _passed("fit", "the bundle's cameras, rate, proprioception and action fit the station")


def _reward(loaded: LoadedStation, bundle: Bundle | None) -> Iterator[Check]:
    """The reward model where there is one: whether it sees what the policy sees, and what it costs."""
    if loaded.reward_path is None or bundle is None:
        return
    station = loaded.station
    try:
        model = load_reward_model(loaded.reward_path, station.policy.provider, station.policy.threads)
        for line in misfits_of(station, model.manifest, bundle.manifest):
            raise BadInputError(line)
        check_cost(model, station.period_s)
    except HandrailError as error:
        yield _failed("reward model", error)
        return
    p50_ms = float(np.median(model.warm_up(_LATENCY_RUNS)))
    judges = "judges" if station.reward.source == "model" else "looks on"
    yield _passed("reward model", f"'{model.manifest.name}' {model.sha256[:12]} {judges}, p50 {p50_ms:.2f} ms a tick")


def _streams(
    station: Station, clock: Clock, arm: Arm, cameras: list[Camera], recording: Recording | None
) -> Iterator[Check]:
    """Open arm and cameras and watch them for a second."""
    with ExitStack() as stack:
        try:
            stack.enter_context(arm)
        except HandrailError as error:
            yield _failed("arm", error)
            yield Check(part="cameras", result=Result.SKIPPED, found="not watched without the arm's state")
            return
        opened = []
        for camera in cameras:
            try:
                opened.append(stack.enter_context(camera))
            except HandrailError as error:
                yield _failed(f"camera '{camera.name}'", error)
        if recording is not None:
            recording.select(0, clock.now_s())
        try:
            seen = watch(station, clock, arm, opened, recording)
        except HandrailError as error:
            yield _failed("arm", error)
            return
    age_ms, limit_ms = seen.arm_age_s * 1e3, station.period_s * 1e3
    found = f"{arm.joint_count} joints, state at most {age_ms:.1f} ms old at a tick"
    if seen.arm_fault is not None:
        yield _failed("arm", f"reports {seen.arm_fault!r}; clear it at the arm")
    elif age_ms > limit_ms:
        yield _failed("arm", f"{found} (limit {limit_ms:g} ms); check its network link")
    else:
        yield _passed("arm", found)
    for stream in seen.cameras:
        yield _camera(stream)
    if not opened:
        return
    found = f"fresh in {seen.fresh} of {seen.ticks} ticks, skew at most {seen.skew_s * 1e3:.1f} ms"
    if seen.ticks == 0 or seen.fresh < 0.95 * seen.ticks:
        why = ", ".join(f"{name} {count}" for name, count in seen.verdicts.items() if name != "FRESH")
        yield _failed("observation", f"{found} ({why or 'no ticks'}); see [synchroniser] and the cameras above")
    else:
        yield _passed("observation", found)


def _camera(stream: CameraStream) -> Check:
    part = f"camera '{stream.name}'"
    if len(stream.captured_s) < 2:
        return _failed(
            part, f"{len(stream.captured_s)} frames in a second; check its cable and that nobody else has it"
        )
    found = (
        f"{stream.width}x{stream.height} at {stream.rate_hz:.1f} Hz, frames arrive {stream.latency_s * 1e3:.0f} ms "
        f"after capture, {stream.dropped} dropped"
    )
    if stream.rate_hz < 0.9 * stream.expected_hz:
        return _failed(part, f"{found} (station says {stream.expected_hz:g} Hz); check its USB link or rate_hz")
    return _passed(part, found)


def _disk(station: Station, out: Path) -> Check:
    """Space and speed where the run will write: one file written, flushed to the disk and removed."""
    if out.exists() and not out.is_dir():
        return _failed("disk", f"{out}: is a file; name a folder with --out")
    place = next(folder for folder in [out.absolute(), *out.absolute().parents] if folder.is_dir())
    block = os.urandom(1_000_000)
    try:
        free_mb = shutil.disk_usage(place).free / 1e6
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            begun_s = time.perf_counter()
            for _ in range(_PROBE_MB):
                file.write(block)
            os.fsync(file.fileno())
            speed_mb_s = _PROBE_MB / (time.perf_counter() - begun_s)
    except OSError as error:
        return _failed("disk", f"{place}: cannot be written ({error.strerror}); name another folder with --out")
    images = sum(getattr(camera, "height", 480) * getattr(camera, "width", 640) * 3 for camera in station.camera)
    needed_mb_s = images * station.loop.rate_hz / 1e6
    found = f"{place}: {free_mb / 1e3:.1f} GB free, writes {speed_mb_s:.0f} MB/s, a run at most {needed_mb_s:.1f} MB/s"
    if free_mb < MIN_FREE_MB:
        return _failed("disk", f"{found}; {MIN_FREE_MB} MB must be free, make room")
    if speed_mb_s < needed_mb_s:
        return _failed("disk", f"{found}; name a folder on a faster disk with --out")
    return _passed("disk", found)


def _operator(station: Station, needed: Literal["gamepad", "keyboard"] | None) -> Iterator[Check]:
    """The pad is always looked for; a display only where the keyboard is wanted, as it opens a window."""
    if needed != "keyboard":
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # a pad can be found without a window
    try:
        open_display((320, 200), "Handrail preflight")
    except BadInputError as error:
        yield _failed("display", error) if needed else Check(part="display", result=Result.NOTE, found=str(error))
        return
    pad = Gamepad(station.operator.gamepad)
    try:
        pad.open()
        yield _passed("gamepad", "there, with every button that supervising needs")
    except BadInputError as error:
        result = Result.FAILED if needed == "gamepad" else Result.NOTE
        yield Check(part="gamepad", result=result, found=str(error).removeprefix("gamepad: "))
    finally:
        pad.close()
        close_display()
    if needed == "keyboard":
        yield _passed("display", "opens a window")


def _learner(station: Station) -> Check:
    """Whether the learner could listen at its endpoint."""
    try:
        with LearnerLink(station.learner.endpoint):
            return _passed("learner port", f"{station.learner.endpoint} is free")
    except BadInputError as error:
        return _failed("learner port", error)


def _passed(part: str, found: str) -> Check:
    return Check(part=part, result=Result.PASSED, found=found)


def _failed(part: str, why: HandrailError | str) -> Check:
    return Check(part=part, result=Result.FAILED, found=str(why))
