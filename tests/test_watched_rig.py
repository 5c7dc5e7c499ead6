"""A station that is only looked at, with its real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perception.rig_look import RigLook
from robot.arm_lock import ArmLock
from robot.errors import BadInputError
from teleop.cli import read_station
from teleop.watched_rig import WatchedRig
from tests.playback_station import playback_station
from tests.rehearsed_rig import WALL
from tests.scripts import BRIDGE, LAUNCH, STATION

PATIENCE_S = 40.0
# a machine that tests on both cores may delay the simulated arm by more than a real controller ever is
PATIENT = [("arm.servo.max_state_age_s", "0.2"), ("arm.servo.arm_age_s", "1.0")]


def until(rig: WatchedRig, claim: Callable[[RigLook], object]) -> RigLook:
    ends_s = time.monotonic() + PATIENCE_S
    while True:
        look = rig.look()
        if claim(look):
            return look
        assert time.monotonic() < ends_s, look


def test_cameras_come_at_full_size_the_arm_stands_and_a_camera_that_dies_comes_back() -> None:
    crop = [("camera.front.height", "120"), ("camera.front.width", "160"), ("camera.wrist.stream", "lossless")]
    with WatchedRig(read_station(STATION, [*PATIENT, *crop])) as rig:
        look = until(rig, lambda look: len(look.frames) == 2 and bool(look.arm))
        assert rig.sizes == {"front": (120, 160), "wrist": (84, 84)}
        assert {name: frame.rgb.shape for name, frame in look.frames.items()} == {
            "front": (120, 160, 3),
            "wrist": (84, 84, 3),
        }
        first = look.arm[0]
        later = until(rig, lambda look: bool(look.arm) and look.arm[-1].measured_s > first.measured_s + 0.5).arm[-1]
        np.testing.assert_allclose(later.T_base_tcp, first.T_base_tcp, atol=1e-6)
        # one that dies is told, and comes back
        os.kill(rig.pids()["camera wrist"], signal.SIGKILL)
        news: list[str] = []
        until(rig, lambda look: news.extend(look.news) or "wrist" in look.silent_s)
        until(rig, lambda look: news.extend(look.news) or "wrist" in look.frames)
        assert news == ["camera wrist ended by signal 9 and was started again"]


def test_an_arm_that_another_run_has_is_said_with_what_to_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    station = playback_station(tmp_path, {"front": [WALL] * 20}, "franka_sim.toml", drop="simulator = ")
    with ArmLock("franka-127.0.0.1"):
        with (
            pytest.raises(BadInputError, match=r"Where another run has the arm: end it, .* or .* with --no-arm"),
            WatchedRig(read_station(station)),
        ):
            pass
        assert f"held by process {os.getpid()}" in capfd.readouterr().err
        with WatchedRig(read_station(station), arm=False) as rig:
            assert not until(rig, lambda look: "front" in look.frames).arm


@pytest.mark.parametrize(
    ("station", "cameras", "said"),
    [
        (STATION, ["frnt"], "--camera frnt: .* has no such camera; did you mean 'front'?"),
        (STATION, ["top"], "allowed front, wrist"),
        (BRIDGE, [], "an arm of kind 'recorded' has no camera that a board could be held in front of"),
        (LAUNCH / "stations" / "panda_push.toml", [], "an arm of kind 'gymnasium' has no camera"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_anything_starts(station: Path, cameras: list[str], said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        WatchedRig(read_station(station), cameras=cameras)


def test_simulated_cameras_want_their_arm() -> None:
    with pytest.raises(BadInputError, match="leave --no-arm out"), WatchedRig(read_station(STATION), arm=False):
        pass
