"""The scripts of launch/, run as a person runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policy.cloning_training as cloning_training
from perception.config import SimulatedCameraConfig
from perception.simulated_camera import bump_pose
from policy.bridge_data import unseen
from policy.bundle import load_bundle
from policy.episode_reader import latest_revisions, read_episode
from policy.weights_file import read_weights
from robot.recording import Recording
from robot.safety import SafetyFilter
from teleop.demonstrations import perturbed, unbumped
from teleop.replay import verify_run
from teleop.station import ResidualConfig, load_station
from tests.scripts import BRIDGE, LAUNCH, STATION, Scripts
from tests.test_recording import EXCERPT
from tests.tiny_bundle import make_tiny_bundle

COMMANDS = [
    ("run_robot",),
    ("run_learner",),
    ("record_demos",),
    ("evaluate_policy",),
    ("train_base_policy",),
    ("train_base_policy", "clone"),
    ("train_base_policy", "bridge"),
    ("export_policy",),
    ("export_policy", "clone"),
    ("export_policy", "blank"),
]
# small pictures and short episodes: the scripts are under test, not what they run
QUICK = ["--camera.front.height", "32", "--camera.front.width", "40", "--camera.wrist.height", "32"]
QUICK += ["--camera.wrist.width", "40", "--episode.timeout_s", "1.5", "--arm.home_m", "[0.40, 0.0, 0.25]"]


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_examples_that_begin_with_the_script(scripts: Scripts, command: tuple[str, ...]) -> None:
    done = scripts(*command, "--help")
    assert done.code == 0, done.errors
    examples = done.out.partition("examples:\n")[2].splitlines()
    assert len(examples) >= 1
    assert all(example.startswith(f"  {command[0]}.py ") for example in examples)
    assert "--json PATH" in done.out


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.py") if path.stem != "environment"))
def test_scripts_can_be_started_by_themselves(script: str) -> None:
    path = LAUNCH / script
    assert path.read_text().startswith("#!/usr/bin/env python3\n")
    assert path.stat().st_mode & 0o111 == 0o111


def test_recorded_station_plays_what_the_bundle_never_saw_and_reports_the_error(
    scripts: Scripts, tmp_path: Path
) -> None:
    out, found = tmp_path / "run", tmp_path / "bridge.json"
    done = scripts("run_robot", BRIDGE, "--recording", EXCERPT, "--out", out, "--json", found)
    assert done.code == 0, done.errors
    report = document(found)
    assert (report["episodes"], report["ticks"], report["silent_ticks"]) == (2, 10, 0)
    for errors in (report["error"], *report["baselines"].values()):
        assert set(errors) == {"motion", "gripper"}
    assert list(report["baselines"]) == ["mean", "still", "hold_gripper"]
    assert all(report["error"]["motion"] < baseline["motion"] for baseline in report["baselines"].values())
    assert report["verdict"] in done.out
    assert report["safety"] == {}

    episodes = latest_revisions(out / "episodes")
    played = [episode.header.layout["recorded_episode"] for episode in episodes]
    recording = Recording.open(EXCERPT)
    training = load_bundle(LAUNCH.parent / "policy/bundles/bridge", provider="cpu").manifest.training
    assert played == [recording.episodes[number].name for number in unseen(recording, training)]
    assert all(episode.header.open_loop for episode in episodes)
    assert (verified := verify_run(out, jobs=0)).mismatches == 0
    assert verified.ticks == 10


def test_recorded_run_goes_on_where_it_ended(scripts: Scripts, tmp_path: Path) -> None:
    words = [BRIDGE, "--recording", EXCERPT, "--out", tmp_path / "run"]
    assert scripts("run_robot", *words, "--episodes", "1").code == 0
    assert "holds a run already" in scripts.refused("run_robot", *words)
    assert scripts("run_robot", *words, "--resume").code == 0
    names = [episode.header.layout["recorded_episode"] for episode in latest_revisions(tmp_path / "run" / "episodes")]
    assert names == ["episode_009", "episode_021"]


def test_limits_of_the_recorded_station_let_the_operators_own_motion_pass() -> None:
    station, recording = load_station(BRIDGE).station, Recording.open(EXCERPT)
    limits, period_s = station.safety, station.period_s
    T_base_home = recording.episodes[0].T_base_tcp[0]
    assert SafetyFilter(limits, None, period_s, T_base_home[:3, :3])
    for episode in recording.episodes:
        steps_m = np.linalg.norm(episode.action[:, :3], axis=1)
        turns_rad = np.linalg.norm(episode.action[:, 3:6], axis=1)
        assert steps_m.max() <= min(limits.max_speed_m_s, limits.max_acceleration_m_s2 * period_s) * period_s
        assert turns_rad.max() <= limits.max_rotation_speed_rad_s * period_s
        reached = episode.T_base_tcp[:, :3, 3] + episode.action[:, :3]
        assert (reached > limits.workspace_min_m).all()
        assert (reached < limits.workspace_max_m).all()


def test_run_learn_offline_and_evaluate_fit_together(scripts: Scripts, bundle: Path, tmp_path: Path) -> None:
    run, state = tmp_path / "run", tmp_path / "learner"
    words = [STATION, "--policy.bundle", bundle, *QUICK, "--episode.timeout_s", "5.0"]
    done = scripts("run_robot", *words, "--out", run, "--episodes", "12", "--json", tmp_path / "run.json")
    assert done.code == 0, done.errors
    assert done.out.count("episode ") == 12
    assert document(tmp_path / "run.json")["committed"] == 12

    learn = ["--episodes", run, "--updates", "4", "--state", state, "--learner.batch_size", "32"]
    learn += ["--learner.min_transitions", "64"]
    done = scripts("run_learner", *words, *learn, "--json", tmp_path / "l.json", "--learner.n_step", "3")
    assert done.code == 0, done.errors
    learned = document(tmp_path / "l.json")
    assert (learned["updates"], learned["version"], learned["phase"]) == (4, 1, "stopped")
    weights = Path(learned["weights"])
    manifest = load_bundle(bundle, provider="cpu").manifest
    assert read_weights(weights, manifest, ResidualConfig(scale=(0.4, 0.4, 0.5, 0.0, 0.0)))[1].version == 1

    found = tmp_path / "rate.json"
    evaluate = ["--controller", "residual", "--weights", weights, "--episodes", "2", "--json", found]
    done = scripts("evaluate_policy", *words, *evaluate)
    assert done.code == 0, done.errors
    rate = document(found)
    assert rate["controller"] == "residual"
    assert rate["episodes"] == 2 == len(rate["outcomes"])
    assert rate["rate"] == rate["successes"] / 2
    assert len(rate["wilson95"]) == 2


def test_blank_policy_lets_demonstrations_be_recorded(scripts: Scripts, tmp_path: Path) -> None:
    blank = tmp_path / "blank"
    assert scripts("export_policy", "blank", STATION, *QUICK, "--out", blank).code == 0
    loaded = load_bundle(blank, provider="cpu")
    images = {
        camera.name: np.full((camera.height, camera.width, 3), 255, np.uint8) for camera in loaded.manifest.cameras
    }
    proprio = np.ones(loaded.manifest.proprio_size, np.float32)
    assert not loaded.act(loaded.encode(images, proprio), proprio).any()
    assert loaded.manifest.calibration.keys() == {"front", "wrist"}
    assert loaded.manifest.action.headroom == 0.25

    out = tmp_path / "demos"
    words = [STATION, "--policy.bundle", blank, *QUICK, "--out", out, "--operator", "expert", "--episodes", "1"]
    done = scripts("record_demos", *words, "--perturb", "0.6", "--json", tmp_path / "demos.json")
    assert done.code == 0, done.errors
    assert document(tmp_path / "demos.json")["perturb"] == 0.6
    episode = latest_revisions(out / "episodes")[0]
    arrays = episode.arrays(["tick/source", "tick/noise", "tick/human", "actions"])
    driven = arrays["tick/source"].astype(int) == 1
    pushed = driven & (np.abs(arrays["tick/noise"].astype(float)).max(axis=1) > 0.0)
    assert driven.sum() > 10
    assert 0 < pushed.sum() < driven.sum()  # bursts, not all of the time
    np.testing.assert_array_equal(arrays["actions"][driven & ~pushed], arrays["tick/human"][driven & ~pushed])
    assert (arrays["actions"][pushed] != arrays["tick/human"][pushed]).any()
    assert verify_run(out, jobs=0).mismatches == 0


def test_unbumped_cameras_stand_where_their_calibration_says() -> None:
    loaded = load_station(Path(__file__).resolve().parents[1] / "launch" / "stations" / "sim_place.toml")
    for before, after in zip(loaded.station.camera, unbumped(loaded).station.camera, strict=True):
        assert isinstance(before, SimulatedCameraConfig)
        assert isinstance(after, SimulatedCameraConfig)
        assert not np.allclose(bump_pose(before), np.eye(4))
        np.testing.assert_array_equal(bump_pose(after), np.eye(4))
        assert after.model_copy(update={"bump": before.bump}) == before


def test_perturbing_is_one_option_within_its_range(scripts: Scripts, tmp_path: Path) -> None:
    loaded = load_station(STATION)
    assert perturbed(loaded, ("x", "y", "z", "yaw", "gripper"), 0.0) is loaded
    station = perturbed(loaded, ("yaw", "x", "gripper"), 0.5).station
    assert station.operator.perturb
    assert station.residual is not None
    assert station.residual.scale == (0.0, 0.7, 0.0)
    assert station.episode.timeout_s == 1.75 * loaded.station.episode.timeout_s
    words = ["--policy.bundle", LAUNCH, "--out", tmp_path / "o", "--operator", "expert", "--perturb", "7"]
    assert "manifest.json" in scripts.refused("record_demos", STATION, *words)
    words[1] = make_tiny_bundle(tmp_path / "tiny")
    assert "--perturb 7.0: allowed 0 to 1" in scripts.refused("record_demos", STATION, *words)


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """Two short demonstrations, both called successful by a generous task."""
    out = tmp_path_factory.mktemp("demos") / "demos"
    words = [STATION, "--policy.bundle", bundle, *QUICK, "--episode.timeout_s", "12", "--out", out]
    words = [sys.executable, LAUNCH / "record_demos.py", *words, "--operator", "expert", "--episodes", "2"]
    subprocess.run(words, check=True, capture_output=True)
    return out


def test_training_that_was_interrupted_gives_the_same_policy(
    scripts: Scripts, demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["clone", STATION, *QUICK, "--demos", demonstrations, "--updates", "6"]
    whole = scripts("train_base_policy", *words, "--out", tmp_path / "a" / "base", "--json", tmp_path / "a.json")
    assert whole.code == 0, whole.errors
    figures = document(tmp_path / "a.json")
    assert figures["bytes"] < 2_000_000
    assert {"validation_grasp_mm", "validation_release_mm", "validation_action"} <= figures.keys()

    update, made = cloning_training._Training._update, []

    def dies(training: cloning_training._Training) -> float:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(1)
        return update(training)

    monkeypatch.setattr(cloning_training._Training, "_update", dies)
    again = [*words, "--out", tmp_path / "b" / "base"]
    assert scripts("train_base_policy", *again).code == 130
    monkeypatch.setattr(cloning_training._Training, "_update", update)
    # an export takes seconds; what it is made of is in the checkpoint
    monkeypatch.setattr(cloning_training, "export_clone", lambda state, out: shutil.copytree(tmp_path / "a/base", out))
    assert scripts("train_base_policy", *again).code == 0
    checkpoint = tmp_path / "b" / "base.checkpoint.safetensors"
    assert checkpoint.read_bytes() == (tmp_path / "a" / "base.checkpoint.safetensors").read_bytes()
    assert scripts("export_policy", "clone", checkpoint, "--out", tmp_path / "c").code == 0
    assert (tmp_path / "c/act.onnx").read_bytes() == (tmp_path / "a/base/act.onnx").read_bytes()
    calibration = load_bundle(tmp_path / "c", provider="cpu").manifest.calibration
    front = load_station(STATION).station.camera[0]
    assert isinstance(front, SimulatedCameraConfig)
    assert calibration["front"].T_mount_camera[3::4][:3] == pytest.approx(front.eye_m)
    assert "made with seed 0 (now 1)" in scripts.refused("train_base_policy", *again, "--seed", "1")


def test_export_of_what_is_no_checkpoint_is_one_line(scripts: Scripts, tmp_path: Path) -> None:
    assert "no such file" in scripts.refused("export_policy", "clone", tmp_path / "none", "--out", tmp_path / "b")
    (tmp_path / "text").write_text("no safetensors")
    assert "no sound checkpoint" in scripts.refused(
        "export_policy", "clone", tmp_path / "text", "--out", tmp_path / "b"
    )


def test_learner_beside_a_robot_in_lock_step(bundle: Path, tmp_path: Path, scripts: Scripts) -> None:
    words = [STATION, "--policy.bundle", bundle, *QUICK]
    endpoint = f"ipc://{tmp_path}/learner"
    learn = ["--learner.updates_per_episode", "2", "--endpoint", endpoint, "--lock-step"]
    learn += ["--state", str(tmp_path / "state"), "--json", str(tmp_path / "learner.json")]
    command = [sys.executable, LAUNCH / "run_learner.py", *words, *learn]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as learner:
        assert learner.stdout is not None
        assert endpoint in learner.stdout.readline()  # listens
        try:
            done = scripts("run_robot", *words, "--out", tmp_path / "run", "--episodes", "3", "--learner", endpoint)
        finally:
            learner.terminate()
        assert "weights 3" in learner.stdout.read()
    assert (done.code, learner.returncode) == (0, 0), done.errors
    assert document(tmp_path / "learner.json")["episodes"] == 3
    assert (tmp_path / "state" / "checkpoint.safetensors").is_file()
    last = sorted((tmp_path / "run" / "episodes").glob("*.h5"))[-1]
    assert set(read_episode(last).array("tick/residual_version").tolist()) == {1}


def test_run_on_the_wall_clock_verifies(scripts: Scripts, bundle: Path, tmp_path: Path) -> None:
    words = [STATION, "--policy.bundle", bundle, *QUICK, "--episode.timeout_s", "0.5", "--real-time"]
    done = scripts("run_robot", *words, "--operator", "none", "--out", tmp_path / "run", "--episodes", "1")
    assert done.code == 0, done.errors
    report = verify_run(tmp_path / "run", jobs=0)
    assert (report.episodes, report.mismatches) == (1, 0), report.first
