from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perception.frame import FrameStamp
from perception.simulated_camera import SimulatedCamera
from policy.bundle import load_bundle
from policy.learner_link import LearnerLink
from policy.link_keys import make_keys
from robot.arm_state import ArmState
from robot.clock import VirtualClock
from robot.config import RecordedArmConfig
from robot.errors import HardwareError
from robot.recording import Recording
from robot.simulation.simulated_arm import SimulatedArm
from teleop import cli, preflight
from teleop.preflight import PreflightOptions
from teleop.preflight_check import Check, Result
from teleop.preflight_streams import CameraStream
from teleop.station import LoadedStation, load_station
from tests.environment_bench import panda_station
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_reward import make_tiny_reward
from tests.virtual_pad import VirtualPad

ROOT = Path(__file__).resolve().parents[1]
SIM = cli.STATIONS / "sim_place.toml"
CAMERAS = {"front": (84, 84), "wrist": (84, 84)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(preflight, "_LATENESS_SLEEPS", 2)
    monkeypatch.setattr(preflight, "_LATENCY_RUNS", 8)
    monkeypatch.setattr(preflight, "_PROBE_MB", 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"), cameras=CAMERAS)


def station(bundle: Path, *overrides: tuple[str, str]) -> LoadedStation:
    # whichever port is free, so that tests in parallel do not meet
    return load_station(SIM, [("policy.bundle", str(bundle)), ("learner.endpoint", "tcp://127.0.0.1:*"), *overrides])


def check(loaded: LoadedStation, out: Path = Path(), **options: Any) -> list[Check]:
    return list(preflight.preflight(loaded, VirtualClock(), PreflightOptions(**{"out": out, "watch_s": 1.0} | options)))


def failures(checks: list[Check]) -> dict[str, str]:
    return {entry.part: entry.found for entry in checks if entry.result is Result.FAILED}


def test_a_sound_station_passes_every_check(bundle: Path, tmp_path: Path) -> None:
    checks = check(station(bundle), tmp_path / "runs" / "new")
    assert failures(checks) == {}
    parts = [
        "station",
        "real time",
        "clock",
        "bundle",
        "golden action",
        "policy latency",
        "trained with",  # of each camera: the tiny bundle says that they stood at the base
        "trained with",
        "fit",
        "arm",
        "camera 'front'",
        "camera 'wrist'",
    ]
    assert [entry.part for entry in checks] == [*parts, "observation", "disk", "gamepad", "learner port"]
    assert list(tmp_path.iterdir()) == []


def test_all_misfits_are_listed_and_the_cameras_are_tried_all_the_same(tmp_path: Path) -> None:
    other = make_tiny_bundle(tmp_path / "other", cameras={"front": (84, 84), "side": (84, 84)}, rate_hz=10.0)
    checks = check(station(other))
    misfits = [entry.found for entry in checks if entry.part == "fit"]
    assert len(misfits) == 2
    assert "needs camera 'side'" in misfits[0]
    assert "was trained at 10 Hz" in misfits[1]
    assert {"camera 'front'", "camera 'wrist'"} <= {entry.part for entry in checks if entry.result is Result.PASSED}


def test_a_missing_bundle_does_not_hide_the_rest(tmp_path: Path) -> None:
    checks = check(station(tmp_path / "nothing"))
    assert set(failures(checks)) == {"bundle"}
    assert [entry.result for entry in checks if entry.part == "fit"] == [Result.SKIPPED]
    assert "camera 'front'" in {entry.part for entry in checks}


def test_a_camera_that_drops_frames_is_named_with_its_rate(bundle: Path) -> None:
    failed = failures(check(station(bundle, ("camera.wrist.drop_rate", "0.5"))))
    assert "camera 'front'" not in failed
    assert "(station says 20 Hz); check its USB link" in failed["camera 'wrist'"]


def test_a_camera_without_frames_is_no_zero_rate(bundle: Path) -> None:
    failed = failures(check(station(bundle, ("camera.wrist.drop_rate", "0.999999"))))
    assert failed["camera 'wrist'"].startswith("0 frames in 1 s")
    assert failed["observation"].startswith("fresh in 0 of 0 ticks")


def test_frames_that_the_loop_would_refuse_are_told_by_its_own_verdict(bundle: Path) -> None:
    failed = failures(check(station(bundle, ("camera.wrist.latency_s", "0.16"))))
    assert set(failed) == {"observation"}
    assert "(STALE " in failed["observation"]


@pytest.mark.parametrize(
    ("old_s", "fault", "found"),
    [(0.2, None, "state at most 200.0 ms old at a tick (limit 50 ms)"), (0.0, "reflex", "reports 'reflex'")],
)
def test_an_arm_that_is_slow_or_refuses_is_found(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, old_s: float, fault: str | None, found: str
) -> None:
    state = SimulatedArm.state

    def altered(arm: SimulatedArm) -> ArmState:
        true = state(arm)
        return replace(true, measured_s=true.measured_s - old_s, fault=fault)

    monkeypatch.setattr(SimulatedArm, "state", altered)
    failed = failures(check(station(bundle)))
    assert set(failed) == {"arm"}
    assert found in failed["arm"]


def test_an_arm_that_does_not_open_is_found_and_the_rest_is_tried(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(arm: SimulatedArm) -> SimulatedArm:
        raise HardwareError("arm 'a': no answer from 10.0.0.2; check its cable")

    monkeypatch.setattr(SimulatedArm, "__enter__", gone)
    checks = check(station(bundle))
    assert failures(checks) == {"arm": "arm 'a': no answer from 10.0.0.2; check its cable"}
    assert {entry.part: entry.result for entry in checks}["cameras"] is Result.SKIPPED
    assert checks[-1].part == "learner port"


def test_the_arm_is_never_sent_anything(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    monkeypatch.setattr(SimulatedArm, "send", lambda arm, command: sent.append(command))
    monkeypatch.setattr(SimulatedArm, "clear_fault", lambda arm: sent.append("clear"))
    check(station(bundle))
    assert sent == []


def test_a_policy_slower_than_the_tick_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = load_bundle(bundle)
    measured = replace(slow.warm_up(8), encode_ms=(60.0,) * 8)
    monkeypatch.setattr(type(slow), "warm_up", lambda bundle, runs: measured)
    assert "of a tick of 50 ms; lower loop.rate_hz" in failures(check(station(bundle)))["policy latency"]


def test_an_output_folder_that_cannot_hold_a_run_fails(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert failures(check(station(bundle), tmp_path / "file"))["disk"].endswith("is a file; name a folder with --out")
    assert "cannot be written" in failures(check(station(bundle), Path("/proc/handrail")))["disk"]
    monkeypatch.setattr(preflight, "MIN_FREE_MB", math.inf)
    assert "must be free, make room" in failures(check(station(bundle), tmp_path))["disk"]


def test_a_gamepad_is_required_only_when_asked_for(bundle: Path) -> None:
    ours = station(bundle, ("operator.gamepad.pad", "Preflight Pad"))
    result = {entry.part: entry.result for entry in check(ours)}
    assert result["gamepad"] is Result.NOTE
    assert set(failures(check(ours, operator="gamepad"))) == {"gamepad"}
    with VirtualPad("Preflight Pad"):
        assert {entry.part: entry.result for entry in check(ours, operator="gamepad")}["gamepad"] is Result.PASSED


def test_a_port_in_use_fails(bundle: Path) -> None:
    with LearnerLink("tcp://127.0.0.1:*") as link:
        failed = failures(check(station(bundle, ("learner.endpoint", link.endpoint))))
    assert failed["learner port"].endswith("stop what listens there or choose another port")


def test_a_learner_of_other_machines_is_tried_with_its_keys_and_a_robot_with_its_own(
    bundle: Path, tmp_path: Path
) -> None:
    make_keys(tmp_path / "keys", ["rig"])

    def told(part: str, endpoint: str) -> Check:
        keys = ("learner.keys", json.dumps(str(tmp_path / "keys" / part)))
        loaded = station(bundle, ("learner.endpoint", json.dumps(endpoint)), keys)
        return next(entry for entry in check(loaded) if entry.part == "learner port")

    assert told("learner", "tcp://*:*").result is Result.PASSED
    assert told("rig", "tcp://10.0.0.7:5701").result is Result.NOTE
    assert "allowed for a robot" in told("rig", "tcp://*:5701").found
    assert told("nobody", "tcp://10.0.0.7:5701").result is Result.FAILED


def test_the_view_of_an_environment_is_watched_like_a_camera(tmp_path: Path) -> None:
    view = '[{ kind = "gymnasium", name = "view", height = 32, width = 40 }]'
    size = ("arm.options", "{ max_episode_steps = 4, render_width = 48, render_height = 40 }")
    loaded = panda_station(tmp_path, size, ("camera", view), ("learner.endpoint", "tcp://127.0.0.1:*"))
    proprio = {"tcp_position_m": 3}
    make_tiny_bundle(
        tmp_path / "bundle", cameras={"view": (32, 40)}, proprio=proprio, dims=("x", "y", "z"), rate_hz=25.0
    )
    found = check(loaded, tmp_path)
    assert failures(found) == {}
    assert "camera 'view'" in [entry.part for entry in found if entry.result is Result.PASSED]


def test_a_recorded_station_is_watched_like_a_live_one(tmp_path: Path) -> None:
    recording = Recording.open(ROOT / "tests" / "data" / "bridge_excerpt.h5")
    size = recording.views["image_0"]
    bundle = make_tiny_bundle(tmp_path, cameras={"front": size}, rate_hz=recording.rate_hz)
    simulated = station(bundle).station
    values = simulated.model_dump(exclude={"residual"}) | {
        "arm": RecordedArmConfig(kind="recorded", gripper_open_m=0.08, gripper_closed_m=0.0).model_dump(),
        "camera": [{"kind": "recorded", "name": "front", "view": "image_0"}],
        "loop": {"rate_hz": recording.rate_hz},
        "synchroniser": {"max_skew_s": 0.2, "max_age_s": 0.6, "max_repeats": 2},
    }
    loaded = LoadedStation(station=type(simulated).model_validate(values), path=SIM)
    assert failures(check(loaded, recording=recording)) == {}
    assert failures(check(loaded))["arm and cameras"].endswith("none was given; add --recording PATH")


def test_the_script_exits_with_1_and_writes_what_it_found(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    script = ROOT / "launch" / "check_station.py"
    words: list[str | Path] = [
        sys.executable,
        script,
        SIM,
        "--policy.bundle",
        tmp_path / "none",
        "--json",
        path,
        "--out",
        tmp_path,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1].startswith("station 'sim_place': not ready, see bundle")
    document = json.loads(path.read_text())
    assert document["ready"] is False
    assert {"part": "fit", "result": "skipped", "found": "no bundle to compare with"} in document["checks"]


def test_a_reward_model_is_tried_and_one_of_other_cameras_is_told(bundle: Path, tmp_path: Path) -> None:
    fits = make_tiny_reward(tmp_path / "fits", cameras={"front": (84, 84)})
    other = make_tiny_reward(tmp_path / "other", cameras={"front": (32, 40)})
    found = check(station(bundle, ("reward.path", str(fits))))
    (passed,) = (entry for entry in found if entry.part == "reward model")
    assert passed.result is Result.PASSED
    assert passed.found.startswith("'tiny' ")
    assert "looks on, p50 " in passed.found
    told = failures(check(station(bundle, ("reward.path", str(other)))))["reward model"]
    assert "takes camera 'front' at 40x32, the policy of station 'sim_place' sees 84x84" in told
    assert not [entry for entry in check(station(bundle)) if entry.part == "reward model"]


def stream(captured_s: list[float]) -> CameraStream:
    return CameraStream(
        name="front",
        height=8,
        width=8,
        expected_hz=10.0,
        captured_s=captured_s,
        arrived_s=captured_s,
        frame_ids=list(range(len(captured_s))),
    )


def test_the_worst_second_of_a_camera_counts_and_not_only_the_mean() -> None:
    steady = [0.1 * index for index in range(100)]
    assert stream(steady).held_hz == pytest.approx(10.0)
    paused = steady[:50] + [time_s + 0.9 for time_s in steady[50:]]
    assert stream(paused).rate_hz > 9.0
    assert stream(paused).held_hz < 6.0
    assert stream(steady[:3]).held_hz == pytest.approx(10.0)


def test_a_camera_that_falls_silent_while_it_is_watched_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recent = SimulatedCamera.recent

    def silent(camera: SimulatedCamera, now_s: float, count: int) -> Sequence[FrameStamp]:
        return recent(camera, min(now_s, 1.2) if camera.name == "wrist" else now_s, count)

    monkeypatch.setattr(SimulatedCamera, "recent", silent)
    failed = failures(check(station(bundle), watch_s=2.0))
    assert "then none for 0.8 s; check its cable" in failed["camera 'wrist'"]
    assert "camera 'front'" not in failed


def test_real_parts_are_watched_in_real_time_and_others_need_not_be() -> None:
    assert not preflight.needs_real_time(load_station(SIM).station)
    assert preflight.needs_real_time(load_station(cli.STATIONS / "franka_sim.toml").station)
