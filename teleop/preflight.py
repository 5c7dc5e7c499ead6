"""Tries every part of a station before a run, and says what is wrong with each."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from perception.camera import Camera
from policy.bundle import Bundle, load_bundle
from policy.learner_link import LearnerLink
from policy.link_keys import is_robot, learner_keys, robot_keys
from policy.link_security import check_endpoint
from policy.reward_model import load_reward_model
from robot.arm import Arm
from robot.clock import Clock
from robot.errors import BadInputError, HandrailError
from robot.recording import Recording
from teleop.gamepad import Gamepad
from teleop.preflight_check import Check, Result, failed, noted, passed
from teleop.preflight_streams import CameraStream, Watched, watch
from teleop.preflight_trust import calibrations, golden, rights
from teleop.reward_watch import check_cost, misfits_of
from teleop.rig import Rig
from teleop.rig_misfits import rig_misfits
from teleop.sdl import close_display, open_display
from teleop.station import LoadedStation, Station

MIN_FREE_MB = 256
_PROBE_MB = 16
_LATENESS_SLEEPS = 100
_LATENESS_PERIOD_S = 0.002
_LATENCY_RUNS = 50
_HELD_SHARE = 0.7  # of a camera's rate that its worst second must reach
_SILENT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class PreflightOptions:
    """What the run to come will need.

    Attributes:
        out: folder that it will write to; need not exist.
        operator: device that must be there, None to report only.
        recording: of a station that plays one.
        watch_s: how long arm and cameras are watched [s].
        progress: told while they are, with the share that is done.
    """

    out: Path
    operator: Literal["gamepad", "keyboard"] | None = None
    recording: Recording | None = None
    watch_s: float = 10.0
    progress: Callable[[float], None] | None = None


def needs_real_time(station: Station) -> bool:
    """Whether it has parts that no virtual clock drives; simulated and recorded ones need no waiting."""
    kinds = {station.arm.kind, *(camera.kind for camera in station.camera)}
    return bool(kinds - {"simulated", "recorded", "gymnasium"})


def preflight(loaded: LoadedStation, clock: Clock, options: PreflightOptions) -> Iterator[Check]:
    """Try part after part; a broken one does not keep the others from being tried. The arm is never moved."""
    station = loaded.station
    yield passed("station", f"'{station.name}', {station.loop.rate_hz:g} Hz, {len(station.camera)} cameras")
    yield rights(loaded)
    yield _timing(station)
    bundle: Bundle | None = None
    try:
        bundle = load_bundle(loaded.bundle_path, station.policy.provider, station.policy.threads)
        yield passed("bundle", f"'{bundle.manifest.name}' {bundle.sha256[:12]} on {bundle.provider}")
        yield golden(bundle)
        yield _latency(bundle, station)
    except HandrailError as error:
        yield failed("bundle", error)
    yield from calibrations(loaded, bundle)
    yield from _rig(loaded, clock, options, bundle)
    yield _disk(station, options.out)
    yield from _operator(station, options.operator)
    yield _learner(loaded)


def _rig(loaded: LoadedStation, clock: Clock, options: PreflightOptions, bundle: Bundle | None) -> Iterator[Check]:
    """Whether arm and cameras are there, fit the bundle, and keep up."""
    if bundle is None and not clock.virtual:
        yield Check(part="arm and cameras", result=Result.SKIPPED, found="in real time not opened without a bundle")
        return
    rig = Rig(loaded, clock, seed=0, recording=options.recording)
    with ExitStack() as stack:
        try:
            arm, cameras = rig.parts(stack, bundle)
        except HandrailError as error:
            yield failed("arm and cameras", error)
            return
        yield from _fit(loaded, bundle, arm, cameras, rig.readings)
        yield from _reward(loaded, bundle)
        try:
            rig.supervise(stack)
        except HandrailError as error:
            yield failed("arm and cameras", error)
            return
        yield from _streams(rig, arm, cameras, options)


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
        return failed("clock", f"{found}; the clock must tell 1 ms apart")
    if p99_s > station.period_s / 2:
        return Check(part="clock", result=Result.NOTE, found=f"{found}; ticks will be missed under this load")
    return passed("clock", found)


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
        return failed("policy latency", f"{found}; lower loop.rate_hz with a bundle trained for it, or use a GPU")
    if worst_ms > tick_ms / 2:
        return Check(part="policy latency", result=Result.NOTE, found=f"{found}; little is left for the rest")
    return passed("policy latency", found)


def _fit(
    loaded: LoadedStation, bundle: Bundle | None, arm: Arm, cameras: list[Camera], readings: Mapping[str, int]
) -> Iterator[Check]:
    if bundle is None:
        yield Check(part="fit", result=Result.SKIPPED, found="no bundle to compare with")
        return
    lines = rig_misfits(loaded, bundle, arm, cameras, readings)
    yield from (failed("fit", line) for line in lines)
    if not lines:
        yield passed("fit", "the bundle's cameras, rate, proprioception and action fit the station")


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
        yield failed("reward model", error)
        return
    p50_ms = float(np.median(model.warm_up(_LATENCY_RUNS)))
    judges = "judges" if station.reward.source == "model" else "looks on"
    yield passed("reward model", f"'{model.manifest.name}' {model.sha256[:12]} {judges}, p50 {p50_ms:.2f} ms a tick")


def _streams(rig: Rig, arm: Arm, cameras: list[Camera], options: PreflightOptions) -> Iterator[Check]:
    """Open arm and cameras and watch them."""
    recording = options.recording
    with ExitStack() as stack:
        try:
            stack.enter_context(arm)
        except HandrailError as error:
            yield failed("arm", error)
            yield Check(part="cameras", result=Result.SKIPPED, found="not watched without the arm's state")
            return
        opened = []
        for camera in cameras:
            try:
                opened.append(stack.enter_context(camera))
            except HandrailError as error:
                yield failed(f"camera '{camera.name}'", error)
        if recording is not None:
            recording.select(0, rig.clock.now_s())
        try:
            seen = watch(
                rig.station, rig.clock, arm, opened, recording,
                least_s=options.watch_s, check=rig.check, progress=options.progress,
            )  # fmt: skip
        except HandrailError as error:
            yield failed("arm", error)
            return
    yield _arm(seen, arm.joint_count, rig.station.period_s)
    for stream in seen.cameras:
        yield _camera(stream, seen)
    if not opened:
        return
    found = f"fresh in {seen.fresh} of {seen.ticks} ticks, skew at most {seen.skew_s * 1e3:.1f} ms"
    if seen.ticks == 0 or seen.fresh < 0.95 * seen.ticks:
        why = ", ".join(f"{name} {count}" for name, count in seen.verdicts.items() if name != "FRESH")
        yield failed("observation", f"{found} ({why or 'no ticks'}); see [synchroniser] and the cameras above")
    else:
        yield passed("observation", found)


def _arm(seen: Watched, joint_count: int, period_s: float) -> Check:
    age_ms, limit_ms = seen.arm_age_s * 1e3, period_s * 1e3
    found = f"{joint_count} joints, state at most {age_ms:.1f} ms old at a tick"
    if seen.arm_fault is not None:
        return failed("arm", f"reports {seen.arm_fault!r}; clear it at the arm")
    if age_ms > limit_ms:
        return failed("arm", f"{found} (limit {limit_ms:g} ms); check its network link")
    return passed("arm", found)


def _camera(stream: CameraStream, seen: Watched) -> Check:
    part = f"camera '{stream.name}'"
    if len(stream.captured_s) < 2:
        return failed(
            part, f"{len(stream.captured_s)} frames in {seen.span_s:g} s; check its cable and that nobody else has it"
        )
    found = (
        f"{stream.width}x{stream.height} at {stream.rate_hz:.1f} Hz, frames arrive {stream.latency_s * 1e3:.0f} ms "
        f"after capture, {stream.dropped} dropped"
    )
    silent_s = seen.ended_s - stream.arrived_s[-1]
    if silent_s > max(_SILENT_S, 3.0 / stream.expected_hz):
        return failed(part, f"{found}, then none for {silent_s:.1f} s; check its cable and that it keeps its rate")
    if stream.rate_hz < 0.9 * stream.expected_hz:
        return failed(part, f"{found} (station says {stream.expected_hz:g} Hz); check its USB link or rate_hz")
    if stream.held_hz < _HELD_SHARE * stream.expected_hz:
        return failed(
            part, f"{found}, in its worst second {stream.held_hz:.1f} Hz; check its USB link and what shares it"
        )
    return passed(part, found)


def _disk(station: Station, out: Path) -> Check:
    """Space and speed where the run will write: one file written, flushed to the disk and removed."""
    if out.exists() and not out.is_dir():
        return failed("disk", f"{out}: is a file; name a folder with --out")
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
        return failed("disk", f"{place}: cannot be written ({error.strerror}); name another folder with --out")
    images = sum(getattr(camera, "height", 480) * getattr(camera, "width", 640) * 3 for camera in station.camera)
    needed_mb_s = images * station.loop.rate_hz / 1e6
    found = f"{place}: {free_mb / 1e3:.1f} GB free, writes {speed_mb_s:.0f} MB/s, a run at most {needed_mb_s:.1f} MB/s"
    if free_mb < MIN_FREE_MB:
        return failed("disk", f"{found}; {MIN_FREE_MB} MB must be free, make room")
    if speed_mb_s < needed_mb_s:
        return failed("disk", f"{found}; name a folder on a faster disk with --out")
    return passed("disk", found)


def _operator(station: Station, needed: Literal["gamepad", "keyboard"] | None) -> Iterator[Check]:
    """The pad is always looked for; a display only where the keyboard is wanted, as it opens a window."""
    if needed != "keyboard":
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # a pad can be found without a window
    try:
        open_display((320, 200), "Handrail preflight")
    except BadInputError as error:
        yield failed("display", error) if needed else Check(part="display", result=Result.NOTE, found=str(error))
        return
    pad = Gamepad(station.operator.gamepad)
    try:
        pad.open()
        yield passed("gamepad", "there, with every button that supervising needs")
    except BadInputError as error:
        result = Result.FAILED if needed == "gamepad" else Result.NOTE
        yield Check(part="gamepad", result=result, found=str(error).removeprefix("gamepad: "))
    finally:
        pad.close()
        close_display()
    if needed == "keyboard":
        yield passed("display", "opens a window")


def _learner(loaded: LoadedStation) -> Check:
    """Whether the learner could listen at its endpoint, or, with a robot's keys, whether they can be used."""
    part, endpoint, folder, keys = "learner port", loaded.station.learner.endpoint, loaded.keys_path, None
    try:
        if folder is not None and is_robot(folder):
            robot_keys(folder)
            check_endpoint(endpoint, keys=True, robot=True)
            return noted(part, f"{endpoint} is another machine's; the robot's keys in {folder} are sound")
        if folder is not None:
            keys = learner_keys(folder)
        with LearnerLink(endpoint, keys=keys):
            return passed(part, f"{endpoint} is free")
    except BadInputError as error:
        return failed(part, error)
