"""A whole run with a Franka, against franky-sim as its makers start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policy.blank_bundle import write_blank_bundle
from policy.bundle import load_bundle
from policy.episode_header import Outcome
from policy.episode_reader import latest_revisions
from teleop.arbiter import Source
from teleop.replay import verify_run
from teleop.station import load_station
from tests.franka_bench import PATIENCE_S, ROOT, SOFT, free_address, hurry
from tests.scripts import Scripts
from tests.test_supervisor import gone

pytestmark = pytest.mark.xdist_group("franka")

STATION = ROOT / "launch" / "stations" / "franka_sim.toml"
# of the station, for a machine that may be busy with other tests, see `franka_bench`
BUSY = {
    "arm.servo.max_state_age_s": "0.2",
    "arm.servo.arm_age_s": "0.5",
    "arm.servo.velocity_share": "0.4",
    "arm.servo.max_tracking_rad": "0.8",
    "arm.stiffness_nm_rad": json.dumps(SOFT),
}


@pytest.fixture
def simulator() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The vendor's simulator at an address of its own."""
    address = free_address()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("franky-sim")), "--simulator", "mujoco", "--hostname", address],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        hurry(process.pid)
        assert address in lines[-1], f"franky-sim does not serve at {address}: {''.join(lines)}"
        yield address, process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def still(folder: Path) -> Path:
    """A policy that holds still, so that the person beside it takes over for certain."""
    shown = load_bundle(load_station(STATION).bundle_path, "cpu")
    return write_blank_bundle(
        folder,
        name="still",
        rate_hz=20.0,
        cameras=shown.manifest.cameras,
        calibration=shown.manifest.calibration,
        gripper_open_m=0.08,
        gripper_closed_m=0.0,
        encode_of=shown,
    )


def test_a_run_is_armed_taken_over_armed_again_and_recorded_to_the_moment_in_which_the_arm_dies(
    simulator: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    address, process = simulator
    command = [sys.executable, str(ROOT / "launch" / "run_robot.py"), str(STATION), "--episodes", "60"]
    command += ["--out", str(tmp_path / "run"), "--json", str(tmp_path / "run.json"), "--inject", "arm-reflex@0.5"]
    command += ["--policy.bundle", json.dumps(str(still(tmp_path / "still"))), "--episode.timeout_s", "4"]
    command += ["--arm.address", json.dumps(address), "--arm.simulator.start", "false"]
    command += [word for key, value in BUSY.items() for word in (f"--{key}", value)]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said: list[str] = []
    assert run.stdout is not None
    for line in run.stdout:
        said.append(line)
        if line.startswith("episode 2/"):
            time.sleep(1.0)  # into the third one, on its way home
            process.kill()
    assert run.wait(PATIENCE_S) == 1
    run.stdout.close()
    text = "".join(said)
    assert "Traceback" not in text, text
    assert f"servo: franka {address}: connection lost (" in text

    document = json.loads((tmp_path / "run.json").read_text())
    assert all(map(gone, document["processes"].values()))
    assert "servo" in document["failure"], text
    episodes = latest_revisions(tmp_path / "run" / "episodes")
    assert len(episodes) == document["committed"] == document["episodes"] >= 3, text
    outcomes = [episode.outcome for episode in episodes]
    assert outcomes[0].outcome is Outcome.ABORT
    assert "injected" in (outcomes[0].reason or "")
    assert outcomes[1].outcome in (Outcome.TIMEOUT, Outcome.SUCCESS, Outcome.FAILURE)  # armed again, it went on
    sources = episodes[1].array("tick/source")
    assert {Source.RESET, Source.POLICY, Source.HUMAN} <= set(sources.tolist())
    wrench = [episode.array("tick/wrench") for episode in episodes]
    assert np.isnan(np.concatenate(wrench)).all()  # this simulator has none, which is not the same as no force
    assert np.isnan(np.concatenate([episode.array("tick/force_n") for episode in episodes])).all()
    began = np.flatnonzero(sources == Source.RESET)[-1] + 1
    off_m = np.linalg.norm(episodes[1].array("tick/T_base_tcp")[: began + 1, :3, 3] - (0.45, 0.0, 0.18), axis=1)
    assert off_m.min() < 0.004  # seen at home once, which is when the episode is laid
    assert off_m[began] < 0.02  # and near it as it began: an arm this soft hangs, and swings where it was delayed
    assert outcomes[2].outcome is Outcome.ABORT
    assert "arm state is" in (outcomes[2].reason or ""), text  # what is seen first; why, the servo says a second later
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0


def test_a_minute_of_shared_control_goes_without_a_fault() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_franka.py"), "--seconds", "60"]
    for key, value in (BUSY | {"arm.address": json.dumps(free_address())}).items():
        command += ["--set", key, value]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert found["ticks"] >= 1200
    assert set(found["outcomes"]) <= {"success", "failure", "timeout"}
    assert min(found["ticks_by"][name] for name in ("policy", "human", "reset")) > 20


def test_nobody_is_no_company_for_an_arm_that_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real.toml"
    lines = STATION.read_text().splitlines(keepends=True)
    real.write_text("".join(line for line in lines if not line.startswith("simulator")))
    scripts = Scripts(capsys, monkeypatch)
    bundle = json.dumps(str(load_station(STATION).bundle_path))
    said = scripts.refused("run_robot", real, "--operator", "none", "--policy.bundle", bundle)
    assert "--operator none has nobody at an arm that moves; use gamepad or keyboard" in said
