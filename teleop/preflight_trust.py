"""Preflight of what cannot be seen to be wrong: calibrations, what the policy computes here, and real-time rights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from policy.bundle import Bundle
from policy.golden import LIMIT, golden_difference
from robot.errors import BadInputError, HandrailError
from robot.franka_config import FrankaArmConfig
from robot.realtime import ask_for, check_cores, give_back
from teleop.fused_cameras import fused_cameras
from teleop.preflight_check import Check, failed, noted, passed
from teleop.station import LoadedStation
from teleop.station_calibration import MeasuredCamera, camera_poses, moved_since_training, station_calibrations

_FUTURE_DAYS = -1.0  # of a clock that was set wrong, not of time zones


def calibrations(loaded: LoadedStation, bundle: Bundle | None, now: datetime | None = None) -> Iterator[Check]:
    """Say how old each calibration file is, and which cameras are elsewhere than when the policy was trained."""
    try:
        files = station_calibrations(loaded)
    except BadInputError as error:
        yield failed("calibration", error)
        return
    now = now or datetime.now(UTC)
    limit_days = loaded.station.calibration.max_age_days
    for name, file in ((name, file) for name, measured in files.items() for file in measured.files):
        part, age_days = f"calibration '{name}'", file.age_days(now)
        found = f"{file.path.name} ({file.kind}) {file.sha256[:12]}, {max(age_days, 0.0):.1f} days old"
        if file.forced:
            yield noted(part, f"{found}; it was kept by --force though a check failed, and says which: calibrate again")
        if age_days < _FUTURE_DAYS:
            yield noted(part, f"{found}; it says {file.created.isoformat()}, which is yet to come: check this clock")
        elif age_days > limit_days:
            yield noted(part, f"{found} (limit {limit_days:g}); look again with `calibrate_rig.py check`")
        elif not file.forced:
            yield passed(part, found)
    without = [camera.name for camera in loaded.station.camera if camera.name not in files]
    if without and loaded.station.calibration.files:
        yield noted("calibration", f"no file for {', '.join(without)}; name it in calibration.files")
    yield from _fused_view(loaded, files)
    if bundle is None:
        return
    poses = camera_poses(loaded, files)
    trained = bundle.manifest.calibration
    lines = moved_since_training(loaded, poses, trained)
    yield from (noted("trained with", line) for line in lines)
    compared = sorted(poses.keys() & trained.keys())
    if compared and not lines:
        yield passed("trained with", f"the station's calibration of {', '.join(compared)}")


def _fused_view(loaded: LoadedStation, files: Mapping[str, MeasuredCamera]) -> Iterator[Check]:
    """From where the cloud has the place and the lens of each of its cameras."""
    try:
        fused = fused_cameras(loaded)
    except BadInputError as error:
        yield failed("fused view", error)
        return
    words = []
    for name, geometry in fused.items():
        names = " and ".join(file.path.name for file in files[name].files) if name in files else "the station"
        words.append(f"{name} ({geometry.mount}, {geometry.lens}) by {names}")
    if words:
        yield passed("fused view", "; ".join(words))


def golden(bundle: Bundle) -> Check:
    """Whether the golden observation gives the golden action on this machine."""
    part = "golden action"
    if bundle.manifest.golden_chunk is None:
        return noted(part, "none stored in this bundle; export it again to have one")
    try:
        difference = golden_difference(bundle)
    except HandrailError as error:
        return failed(part, error)
    assert difference is not None, "there is one"
    found = f"differs by {difference:.1e} from that of the export (limit {LIMIT:g})"
    if not difference <= LIMIT:
        return failed(part, f"{found}; this runtime or GPU computes another policy: set policy.provider to 'cpu'")
    return passed(part, found)


def rights(loaded: LoadedStation) -> Check:
    """What of `[realtime]` this machine grants. Asks for it and gives it back."""
    part, config, arm = "real time", loaded.station.realtime, loaded.station.arm
    try:
        check_cores(config, f"station {loaded.path}")
    except BadInputError as error:
        return failed(part, error)
    cores = os.sched_getaffinity(0)
    try:
        said = ask_for(config).removeprefix("real time: ")
    finally:
        give_back(config, cores)
    if isinstance(arm, FrankaArmConfig) and arm.realtime_kernel and "PREEMPT_RT" not in os.uname().version:
        return failed(part, f"{said}; the kernel is no PREEMPT_RT one ({os.uname().version}), which the arm needs")
    refused = "no SCHED_FIFO" in said or "not on" in said or "not locked" in said
    return noted(part, said) if refused else passed(part, said)
