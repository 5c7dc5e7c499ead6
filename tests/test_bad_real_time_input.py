"""What is wrong with a run in real time is said in one line before anything is written or moves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scripts import BRIDGE, STATION, Scripts
from tests.test_recording import EXCERPT
from tests.tiny_bundle import make_tiny_bundle

BEYOND = os.sysconf("SC_NPROCESSORS_CONF")


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cameras = {"front": (84, 84), "wrist": (84, 84)}
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", cameras=cameras)


def refused(scripts: Scripts, tmp_path: Path, *words: str | Path, station: Path = STATION) -> str:
    """The one line of a run in real time that never began."""
    out = tmp_path / "run"
    line = scripts.refused("run_robot", station, "--real-time", "--out", out, *words)
    assert not out.exists()
    return line


def without_section(tmp_path: Path, name: str) -> Path:
    """The simulated station but for one section of it."""
    head, _, rest = STATION.read_text().partition(f"[{name}]\n")
    path = tmp_path / "station.toml"
    path.write_text(head + rest[rest.index("\n[") + 1 :])
    return path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--realtime.cores", f"[0, {BEYOND}]"], f"names core {BEYOND}, this machine has 0 to {BEYOND - 1}"),
        (["--realtime.cores", "all"], "realtime.cores: Input should be a valid tuple, got 'all'"),
        (["--arm.servo.watchdog_ms", "5"], "unknown key 'arm.servo.watchdog_ms'; did you mean 'watchdog_s'?"),
        (["--arm.servo.rate_hz", "-250"], "arm.servo.rate_hz: Input should be greater than or equal to 200, got -250"),
        (["--arm.servo.watchdog_s", "nan"], "arm.servo.watchdog_s: Input should be a finite number, got nan"),
        (["--arm.home_m", "[5.0, 0.0, 0.2]"], "arm.home_m (5.0, 0.0, 0.2) is outside of the workspace"),
        (["--camera.front.rate_hz", "-20"], "rate_hz: Input should be greater than or equal to 1, got -20"),
        (["--camera.front.image", "{height=200, width=84}"], "image is 200x84, more than the camera's 84x84"),
        (["--camera.front.jpeg_quality", "0"], "jpeg_quality: Input should be greater than or equal to 1, got 0"),
        (["--camera.front.jpeg_quality", "101"], "jpeg_quality: Input should be less than or equal to 100, got 101"),
        (["--camera.side.stream", "jpeg"], "no item 'side' (allowed ['front', 'wrist'] or an index)"),
        (["--policy.endpoint", "ws://127.0.0.1:8000"], "acts itself; remove it or name a remote bundle"),
        (["--inject", "learner-garbage"], "this run has no learner; add --learner own"),
        (["--learner", "own", "--learner.algorithm.nonsense", "3"], "learner: algorithm: wrong at nonsense"),
        (["--learner", "own", "--learner.algorithm.actor_rate", "-1"], "wrong at actor_rate: Input should be greater"),
        (["--learner", "http://x"], "allowed tcp://ADDRESS:PORT"),
    ],
)
def test_a_value_that_cannot_be(scripts: Scripts, bundle: Path, tmp_path: Path, words: list[str], told: str) -> None:
    assert told in refused(scripts, tmp_path, "--policy.bundle", bundle, *words)


def test_a_station_without_a_servo(scripts: Scripts, bundle: Path, tmp_path: Path) -> None:
    station = without_section(tmp_path, "arm.servo")
    line = refused(scripts, tmp_path, "--policy.bundle", bundle, station=station)
    assert "has no [arm.servo], which real time needs; add it as in launch/stations/sim_place.toml" in line


def test_a_learner_of_the_runs_own_with_nothing_to_learn(scripts: Scripts, bundle: Path, tmp_path: Path) -> None:
    station = without_section(tmp_path, "residual")
    line = refused(scripts, tmp_path, "--policy.bundle", bundle, "--learner", "own", station=station)
    assert "has no [residual] to learn; add its scale" in line
    line = refused(scripts, tmp_path, "--recording", EXCERPT, "--learner", "own", station=BRIDGE)
    assert "learner 'own' needs an arm that moves, not a recording" in line


def test_cores_of_another_machine_are_nothing_to_lock_step(scripts: Scripts, bundle: Path, tmp_path: Path) -> None:
    words = ["--episodes", "1", "--episode.timeout_s", "0.5", "--realtime.cores", f"[{BEYOND}]"]
    done = scripts("run_robot", STATION, "--policy.bundle", bundle, "--out", tmp_path / "run", *words)
    assert done.code == 0, done.errors
