"""Whatever is wrong with what a person gives, a script says it in one line and exits with 2."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from policy.episode_reader import read_episode
from policy.episode_recovery import recording_lock
from policy.learner_episode import EpisodeArrays
from policy.link_keys import make_keys
from policy.residual import Dims
from policy.weights import pack
from robot.clock import VirtualClock
from teleop import demo, opening
from teleop.learned_weights import LearnedWeights
from teleop.run import Run
from teleop.run_options import RunOptions
from tests.replay_run import SCALE, load_tiny_station
from tests.scripts import BRIDGE, LAUNCH, STATION, Scripts
from tests.test_recording import EXCERPT
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_weights import tiny_tensors

CAMERAS = {"front": (84, 84), "wrist": (84, 84)}
DIMS = Dims(features=6, proprio=4, action=5)


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    return Scripts(capsys, monkeypatch)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", cameras=CAMERAS)


@pytest.fixture(scope="module")
def recorded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of one episode, made by the real script."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = [sys.executable, LAUNCH / "run_robot.py", BRIDGE, "--recording", EXCERPT, "--out", out, "--episodes", "1"]
    subprocess.run(words, check=True, capture_output=True)
    return out


def test_station_that_is_missing_names_those_that_are_there(scripts: Scripts, tmp_path: Path) -> None:
    line = scripts.refused("run_robot", tmp_path / "sim_plce.toml")
    assert "no such file; did you mean" in line
    assert "sim_place.toml" in line


@pytest.mark.parametrize("script", ["run_robot", "run_learner", "record_demos", "evaluate_policy", "check_station"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rate_hz = 20.0\n\n[arm]", "rate_hx = 20.0\n\n[arm]", "unknown key 'loop.rate_hx'; did you mean 'rate_hz'?"),
        (
            "max_speed_m_s = 0.5",
            "max_speed_mm_s = 500.0",
            "unknown key 'safety.max_speed_mm_s'; did you mean 'max_speed_m_s'?",
        ),
        (
            "max_speed_m_s = 0.5",
            "max_speed_m_s = 500.0",
            "safety.max_speed_m_s: Input should be less than",
        ),
        (
            "max_tilt_rad = 0.35",
            "max_tilt_rad = 20.0",
            "safety.max_tilt_rad: Input should be less than",
        ),
        ("[loop]", "[loop", "is not TOML"),
    ],
)
def test_station_with_a_wrong_key_unit_or_limit(
    scripts: Scripts, tmp_path: Path, script: str, old: str, new: str, said: str
) -> None:
    text = STATION.read_text()
    assert old in text
    path = tmp_path / "station.toml"
    path.write_text(text.replace(old, new))
    more = {
        "record_demos": ["--out", str(tmp_path / "o"), "--operator", "expert"],
        "evaluate_policy": ["--controller", "base"],
    }
    line = scripts.refused(script, path, *more.get(script, []))
    assert str(path) in line
    assert said in line


@pytest.mark.parametrize("script", ["run_robot", "evaluate_policy"])
@pytest.mark.parametrize(
    ("cameras", "said"),
    [
        ({"front": (84, 84), "side": (84, 84)}, "needs camera 'side', which station 'sim_place' lacks"),
        ({"front": (84, 84), "wrist": (64, 64)}, "takes camera 'wrist' at 64x64, station 'sim_place' gives 84x84"),
    ],
)
def test_bundle_with_another_camera_or_size(
    scripts: Scripts, tmp_path: Path, script: str, cameras: dict[str, tuple[int, int]], said: str
) -> None:
    bundle, out = make_tiny_bundle(tmp_path / "other", cameras=cameras), tmp_path / "run"
    more = ["--out", out] if script == "run_robot" else ["--controller", "base", "--episodes", "1"]
    # without `image` a camera's pictures are brought to the size that the bundle takes
    fixed = ["--camera.wrist.image", "{height = 84, width = 84}"]
    assert said in scripts.refused(script, STATION, "--policy.bundle", bundle, *fixed, *more)
    assert not out.exists()  # so that the same command works once the bundle fits


@pytest.mark.parametrize(
    ("kind", "dims"),
    [
        ("joint_delta", tuple("abcdefg")),
        ("joint_position", tuple("abcdefg")),
        ("tcp_pose", ("x", "y", "z", "roll", "pitch", "yaw")),
        ("actuation", tuple("abcdefg")),
    ],
)
def test_bundle_whose_actions_nobody_can_drive_or_lead_home(
    scripts: Scripts, tmp_path: Path, kind: str, dims: tuple[str, ...]
) -> None:
    bundle = make_tiny_bundle(tmp_path / "other", cameras=CAMERAS, kind=kind, dims=dims)
    words = ["--policy.bundle", bundle, "--residual.scale", str([0.0] * len(dims)), "--out", tmp_path / "run"]
    line = scripts.refused("run_robot", STATION, *words)
    assert f"has actions of kind '{kind}'; only 'tcp_delta' can be driven by a person and led home" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ("[0.4, 0.4, 0.5]", "residual.scale has 3 values"),
        ("[0.4, 0.4, 0.5, 0.0, 0.4]", "residual.gripper needs a gripper among the bundle's dimensions"),
    ],
)
def test_residual_that_the_bundles_actions_do_not_allow(
    scripts: Scripts, bundle: Path, tmp_path: Path, scale: str, said: str
) -> None:
    out = tmp_path / "run"
    more = ["--policy.bundle", bundle, "--residual.scale", scale, "--residual.gripper", "true", "--out", out]
    assert said in scripts.refused("run_robot", STATION, *more)
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--residual.scale", "[0.1, 0.1]"), "residual.scale has 2 values, bundle 'tiny' has 5 action dimensions"),
        (("--residual.gripper", "true", "--residual.scale", "[0.4, 0.4, 0.5, 0.0, 0.4]"), "residual.gripper needs"),
        (("--learner.algorithm", "{scale = [0.5, 0.5]}"), "learner: algorithm.scale has 2 values (allowed 5, one per"),
        (("--learner.method", "resfit", "--learner.algorithm", "{scale = [0.5]}"), "algorithm.scale has 1 values"),
    ],
)
@pytest.mark.parametrize("script", ["run_learner", "run_robot"])
def test_what_is_to_be_learned_does_not_fit_the_bundles_actions(
    scripts: Scripts, bundle: Path, tmp_path: Path, script: str, words: tuple[str, ...], said: str
) -> None:
    new = tmp_path / "new"
    more = ["--state", new] if script == "run_learner" else ["--out", new, "--real-time", "--learner", "own"]
    assert said in scripts.refused(script, STATION, "--policy.bundle", bundle, *words, *more)
    assert not new.exists()


@pytest.mark.parametrize("script", ["run_robot", "run_learner"])
def test_bundle_with_a_changed_byte(scripts: Scripts, bundle: Path, tmp_path: Path, script: str) -> None:
    changed = shutil.copytree(bundle, tmp_path / "changed")
    data = bytearray((changed / "act.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (changed / "act.onnx").write_bytes(data)
    line = scripts.refused(script, STATION, "--policy.bundle", changed)
    assert "act.onnx was changed or damaged" in line


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another_schema(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99


def no_hdf5(path: Path) -> None:
    path.write_text("tick,action\n0,1.0\n" * 100)


@pytest.mark.parametrize(
    ("command", "spoil"),
    [("show", cut), ("show", empty), ("show", of_another_schema), ("show", no_hdf5), ("verify", cut)],
)
def test_episode_file_that_is_none(
    scripts: Scripts, recorded_run: Path, tmp_path: Path, command: str, spoil: Callable[[Path], None]
) -> None:
    run = shutil.copytree(recorded_run, tmp_path / "run")
    episode = next(run.glob("episodes/*.h5"))
    assert scripts("replay_episode", command, episode).code == 0
    spoil(episode)
    line = scripts.refused("replay_episode", command, episode)
    assert episode.name in line


def test_no_gamepad_plugged_in(scripts: Scripts, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    line = scripts.refused("run_robot", STATION, "--policy.bundle", bundle, "--operator", "gamepad", "--out", out)
    assert "gamepad: none to supervise with" in line
    assert not out.exists()


def test_port_in_use(scripts: Scripts, bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        words = ["--policy.bundle", bundle, "--state", tmp_path / "l", "--endpoint", endpoint]
        line = scripts.refused("run_learner", STATION, *words)
    assert f"{endpoint}: address already in use" in line


def test_output_folder_without_rights(scripts: Scripts, bundle: Path, tmp_path: Path) -> None:
    # root may write anywhere, but neither into a file nor into /proc
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file" / "run", Path("/proc/handrail")):
        line = scripts.refused("run_robot", STATION, "--policy.bundle", bundle, "--out", out)
        assert f"{out}: cannot hold a run" in line
        line = scripts.refused("run_robot", STATION, "--json", out / "a.json")
        assert f"--json {out / 'a.json'}: cannot be written" in line
        line = scripts.refused("run_learner", STATION, "--policy.bundle", bundle, "--state", out)
        assert f"{out}: cannot be written to" in line


def test_run_that_another_one_is_recording(scripts: Scripts, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [STATION, "--policy.bundle", bundle, "--out", out, "--episodes", "1", "--operator", "none"]
    assert scripts("run_robot", *words).code == 0
    with recording_lock(out / "episodes"):
        assert "a run is still recording here; end it first" in scripts.refused("run_robot", *words, "--resume")


def test_output_folder_without_space(
    scripts: Scripts, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**9, used=10**9, free=20_000_000))
    line = scripts.refused("run_robot", STATION, "--policy.bundle", bundle, "--out", tmp_path / "run")
    assert "20 MB free on its disk, a run needs 256 MB; make room" in line
    assert not (tmp_path / "run").exists()


def test_demo_refuses_at_once_and_not_after_the_first_measurement(
    scripts: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, full = tmp_path / "run", tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("years of work")
    monkeypatch.setattr(demo, "evaluate", None)
    assert "holds other files and no run" in scripts.refused("run_demo", "--out", full)
    assert "gamepad: none to supervise with" in scripts.refused("run_demo", "--out", out, "--operator", "gamepad")
    assert "only a simulated station" in scripts.refused("run_demo", BRIDGE, "--out", out)
    other = make_tiny_bundle(tmp_path / "other", cameras={"side": (84, 84)})
    assert "needs camera 'side'" in scripts.refused("run_demo", "--out", out, "--policy.bundle", other)
    assert not out.exists()


def test_training_refuses_a_folder_of_other_files_before_it_begins(
    scripts: Scripts, recorded_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    place = ["clone", STATION, "--demos", recorded_run]
    for what in (place, ["bridge", "--recording", EXCERPT]):
        line = scripts.refused("train_base_policy", *what, "--out", tmp_path / "file")
        assert f"{tmp_path / 'file'}: holds something else than a bundle" in line


@pytest.mark.parametrize(
    ("script", "option", "folder"),
    [
        ("run_robot", "--learner", "--out"),
        ("run_learner", "--endpoint", "--state"),
        ("run_learner", "--learner.endpoint", "--state"),
    ],
)
def test_endpoint_that_is_none_leaves_no_folder(
    scripts: Scripts, bundle: Path, tmp_path: Path, script: str, option: str, folder: str
) -> None:
    words = ["--policy.bundle", bundle, option, "rig:5701", folder, tmp_path / "new"]
    assert "allowed tcp://ADDRESS:PORT" in scripts.refused(script, STATION, *words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:*",
        "tcp://127.0.0.1:0",
        "tcp://bad host:5",
        "tcp://-rig:5701",
        "tcp://_rig:5701",
        "tcp://.rig:5701",
        "tcp://rög:5701",
        "tcp://[::1:5701",
        "ipc://@",
    ],
)
def test_an_endpoint_that_a_robot_cannot_connect_to_leaves_no_folder(
    scripts: Scripts, bundle: Path, tmp_path: Path, endpoint: str
) -> None:
    make_keys(tmp_path / "keys", ["rig"])  # without them every host but this one is refused
    words = ["--policy.bundle", bundle, "--learner", endpoint, "--out", tmp_path / "new"]
    words += ["--keys", tmp_path / "keys" / "rig"]
    assert f"learner endpoint: got {endpoint!r} (allowed " in scripts.refused("run_robot", STATION, *words)
    assert not (tmp_path / "new").exists()


def test_what_no_crash_left_is_not_recovered(scripts: Scripts, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("x")
    assert "is nothing that a crash left" in scripts.refused("replay_episode", "recover", path)
    assert path.read_text() == "x"


@pytest.mark.parametrize("out", ["file/arm.json", "folder"])
def test_a_calibration_that_could_not_be_written_is_refused_before_the_work(
    scripts: Scripts, tmp_path: Path, out: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    line = scripts.refused("calibrate_rig", "latency", "arm", "a.csv", "b.csv", "--out", tmp_path / out)
    assert f"--out {tmp_path / out}: cannot be written (" in line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("script", ["run_robot", "evaluate_policy"])
def test_seed_below_zero(scripts: Scripts, script: str) -> None:
    more = ["--controller", "base"] if script == "evaluate_policy" else []
    assert "--seed: got '-1' (allowed 0 to" in scripts.refused(script, STATION, "--seed", "-1", *more)


def test_recording_that_is_missing_or_not_wanted(scripts: Scripts) -> None:
    assert "add --recording PATH" in scripts.refused("run_robot", BRIDGE)
    assert "no such file" in scripts.refused("run_robot", BRIDGE, "--recording", "nowhere.h5")
    assert "has an arm of its own" in scripts.refused("run_robot", STATION, "--recording", EXCERPT)


RUN = "learner-sim_place"  # what run_learner.py calls itself on this station


def spoilt_messages(bundle_sha256: str) -> dict[int, tuple[bytes, str]]:
    """Version at which it comes -> a weights message, and the word by which it is refused, "" for a good one."""

    def message(
        version: int, *, seed: int = 1, dims: Dims = DIMS, nan: bool = False, run_id: str = RUN, gateless: bool = False
    ) -> bytes:
        tensors = tiny_tensors(dims, seed=seed, heads=0 if gateless else 2) | {"scale": SCALE[: dims.action]}
        if nan:
            tensors["actor.out.bias"] = np.full_like(tensors["actor.out.bias"], np.nan)
        return pack(version=version, run_id=run_id, bundle_sha256=bundle_sha256, dims=dims, tensors=tensors)

    torn = bytearray(message(5, seed=5))
    torn[-3] ^= 1
    return {
        1: (message(1), ""),
        2: (message(2, dims=Dims(features=5, proprio=4, action=5)), "(shape)"),
        3: (message(1, seed=3), "they came as version 3 and are another"),
        4: (message(4, nan=True), "(not_finite)"),
        5: (bytes(torn), "(checksum)"),
        6: (message(6, seed=6), ""),
        7: (message(7, seed=7, run_id="of-another-run"), "(run)"),
        8: (message(8, gateless=True), "(out_of_range): no critics for the gate"),
    }


class SpoilingLink:
    """A learner's end that delivers `spoilt_messages` and keeps the robot's answers."""

    messages: dict[int, tuple[bytes, str]]
    answers: dict[int, str]

    def __init__(self, endpoint: str, *, run_id: str, **more: object) -> None:
        type(self).answers = {}

    def __enter__(self) -> SpoilingLink:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def begin_at(self, version: int, **more: object) -> None:
        return None

    def send_episode(self, episode: EpisodeArrays) -> None:
        return None

    def wait_weights(self, version: int, timeout_s: float) -> bytes | None:
        found = self.messages.get(version)
        return found[0] if found else None

    def answer(self, version: int, *, accepted: bool, reason: str = "") -> None:
        self.answers[version] = "" if accepted else reason


def test_weights_that_a_learner_should_not_have_sent_are_refused_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_tiny_station(make_tiny_bundle(tmp_path / "bundle"))
    bundle_sha256 = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["content_sha256"]
    SpoilingLink.messages = spoilt_messages(bundle_sha256)
    monkeypatch.setattr(opening, "RobotLink", SpoilingLink)
    options = RunOptions(out=tmp_path / "run", operator="none", learner="tcp://127.0.0.1:1")
    with Run(loaded, VirtualClock(), options) as run:
        for _ in range(10):  # version n is taken before episode n + 1
            assert run.episode() is not None
        run.finish()
        assert isinstance(run.weights, LearnedWeights)
        assert (run.weights.accepted, run.weights.refused, run.weights.version) == (2, 6, 6)
    expected = {version: word for version, (_, word) in SpoilingLink.messages.items()}
    assert SpoilingLink.answers.keys() == expected.keys()
    for version, word in expected.items():
        assert word in SpoilingLink.answers[version]
        assert bool(SpoilingLink.answers[version]) == bool(word)
    versions = [read_episode(committed.path).array("tick/residual_version") for committed in run.committed]
    assert [set(column.tolist()) for column in versions] == [{0}, {0}, {1}, {1}, {1}, {1}, {1}, {6}, {6}, {6}]


@pytest.mark.parametrize("script", ["run_robot", "evaluate_policy"])
@pytest.mark.parametrize("version", [2, 4, 5])
def test_weights_file_that_is_refused(
    scripts: Scripts, bundle: Path, tmp_path: Path, script: str, version: int
) -> None:
    sha256 = json.loads((bundle / "manifest.json").read_text())["content_sha256"]
    message, word = spoilt_messages(sha256)[version]
    path = tmp_path / "weights.safetensors"
    path.write_bytes(message)
    more = ["--controller", "residual"] if script == "evaluate_policy" else []
    line = scripts.refused(script, STATION, "--policy.bundle", bundle, "--weights", path, *more)
    assert f"weights {path}: refused {word}" in line


def test_a_bad_option_is_one_line_from_the_process_too(tmp_path: Path) -> None:
    words = [sys.executable, LAUNCH / "run_robot.py", STATION, "--operater", "gamepad"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert done.returncode == 2
    assert done.stderr == "run_robot.py: unknown option --operater; did you mean --operator?\n"
    assert list(tmp_path.iterdir()) == []
