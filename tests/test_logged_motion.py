"""Delays of an arm and a gripper from logged episodes into which a motion of known delay was written."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from robot.clock import VirtualClock
from robot.errors import BadInputError
from robot.simulation.world import SimulatedWorld
from teleop import cli
from teleop.logged_motion import logged_motion
from teleop.run import Run
from teleop.run_options import RunOptions
from tests.replay_run import changed, edit_header
from tests.scripts import Scripts
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import tiny_station

Array = NDArray[np.float64]
NAME = "calibrate_rig"


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one episode of 12 s on the simulated table, in which a simulated person drives."""
    folder = tmp_path_factory.mktemp("logged")
    loaded = tiny_station(make_tiny_bundle(folder / "bundle"), ("episode.timeout_s", "12.0"))
    with Run(loaded, VirtualClock(), RunOptions(out=folder / "run", operator="simulated")) as run:
        run.episode()
        run.finish()
    return folder / "run"


def copies(recorded: Path, folder: Path, count: int) -> list[Path]:
    """As many episodes of one run, all on the same times, as those of a virtual clock are."""
    (source,) = (recorded / "episodes").glob("*.h5")
    made = []
    for number in range(count):
        made.append(folder / f"{number}.h5")
        shutil.copyfile(source, made[-1])
        edit_header(made[-1], lambda header, number=number: header.update(episode=number))  # type: ignore[misc]
    return made


def wandering(t_s: Array, seed: int) -> Array:
    """Irregular motion of the TCP (N, 3) [m]."""
    random = np.random.default_rng(seed)
    rates, phases = random.uniform(0.15, 1.2, (2, 12, 3)) * [[[1.0]], [[5.0]]]
    return 0.02 * np.sin(2.0 * np.pi * t_s[:, None, None] * rates + phases).sum(axis=1)


def write_arm(path: Path, delay_s: float, seed: int) -> None:
    """Make the arm do what it was told `delay_s` after it was due."""
    random = np.random.default_rng(100 + seed)
    with changed(path, reseal=False) as demo:
        due_s, state_s = demo["tick/due_s"][()], demo["tick/state_s"][()]
        told, did = demo["tick/commanded_T"][()], demo["tick/T_base_tcp"][()]
        told[:, :3, 3] = wandering(due_s, seed)
        did[:, :3, 3] = wandering(state_s - delay_s, seed) + random.normal(0.0, 0.0003, (len(state_s), 3))
        demo["tick/commanded_T"][...], demo["tick/T_base_tcp"][...] = told, did


def write_gripper(path: Path, wait_s: float, speed_m_s: float, seed: int) -> None:
    """Make fingers open and close by irregular orders, `wait_s` after each and at a steady speed."""
    random = np.random.default_rng(seed)
    with changed(path, reseal=False) as demo:
        end_s, state_s = demo["tick/end_s"][()], demo["tick/state_s"][()]
        turns = np.cumsum(random.uniform(1.0, 2.6, 12)) + end_s[0]
        wanted = np.where(np.searchsorted(turns, end_s) % 2 == 0, 0.08, 0.0)
        fine_s = np.arange(end_s[0] - 1.0, end_s[-1] + 1.0, 0.001)
        order = wanted[np.clip(np.searchsorted(end_s, fine_s - wait_s, side="right") - 1, 0, None)]
        width, widths = order[0], []
        for goal in order:
            width += np.clip(goal - width, -0.001 * speed_m_s, 0.001 * speed_m_s)
            widths.append(width)
        demo["tick/commanded_gripper_m"][...] = wanted
        demo["tick/gripper_width_m"][...] = np.interp(state_s, fine_s, widths)


@pytest.mark.parametrize("delay_s", [0.0, 0.083, 0.21])
def test_an_arms_delay_is_found_from_its_episodes(
    recorded: Path, tmp_path: Path, scripts: Scripts, delay_s: float
) -> None:
    paths = copies(recorded, tmp_path, 2)
    for seed, path in enumerate(paths):
        write_arm(path, delay_s, seed)
    out = tmp_path / "arm.json"
    done = scripts(NAME, "latency", "arm", "--episodes", tmp_path, "--out", out)
    assert done.code == cli.OK, done
    result = json.loads(out.read_text())
    assert result["delay_s"] == pytest.approx(delay_s, abs=0.003)
    low, high = result["interval_95_s"]
    assert low - 0.001 <= delay_s <= high + 0.001
    assert result["due_after_s"] == pytest.approx(0.05)
    assert result["columns"] == ["x_m", "y_m", "z_m"]
    assert result["inputs"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert "2 episodes, 2 stretches without a hold or a gap" in done.out
    assert "no key takes an arm's delay" in done.out
    assert out.with_suffix(".png").exists()


def test_a_grippers_delay_holds_its_wait_and_half_of_its_way(recorded: Path, tmp_path: Path, scripts: Scripts) -> None:
    for seed, path in enumerate(copies(recorded, tmp_path, 4)):
        write_gripper(path, 0.06, 0.4, seed)
    out = tmp_path / "gripper.json"
    done = scripts(NAME, "latency", "gripper", "--episodes", tmp_path, "--out", out)
    assert done.code == cli.OK, done
    # 20 widths a second, each as long after its order as all others: that does not average out
    assert json.loads(out.read_text())["delay_s"] == pytest.approx(0.06 + 0.08 / 0.4 / 2.0, abs=0.01)
    assert "no key takes a gripper's delay" in done.out


def test_the_simulated_arms_own_lag_is_what_its_joint_servos_have(
    recorded: Path, tmp_path: Path, scripts: Scripts
) -> None:
    # the truth by other means: at a steady speed a joint is its lag times that speed behind
    world, period_s, speed_rad_s = SimulatedWorld(start_s=0.0), 0.05, np.array([0.25, 0.1, 0.0, 0.15, 0.0, 0.0, 0.0])
    start = world.arm_state().q_rad.copy()
    for tick in range(1, 41):
        world.set_target(start + tick * period_s * speed_rad_s, 0.08, tick * period_s)
        world.advance(tick * period_s)
    behind = start + 40 * period_s * speed_rad_s - world.arm_state().q_rad
    lag_s = float((behind[[0, 1, 3]] / speed_rad_s[[0, 1, 3]]).mean())
    assert lag_s == pytest.approx(0.095, abs=0.002)
    out = tmp_path / "arm.json"
    done = scripts(NAME, "latency", "arm", "--episodes", recorded, "--columns", "q1_rad,q4_rad", "--out", out)
    assert done.code == cli.OK, done
    # that of the fast parts of a motion is shorter, as a servo is no pure delay
    assert 0.7 * lag_s < json.loads(out.read_text())["delay_s"] < 1.05 * lag_s


def test_held_ticks_and_gaps_end_a_stretch(recorded: Path, tmp_path: Path) -> None:
    (path,) = copies(recorded, tmp_path, 1)
    with changed(path, reseal=False) as demo:
        rows = demo["tick/index"].shape[0]
        demo["tick/held"][...] = 0
        demo["tick/held"][100:103] = 1
        demo["tick/index"][200:] = demo["tick/index"][200:] + 4
        start_s, due_s = demo["tick/start_s"][()], demo["tick/due_s"][()]
    motion = logged_motion([path], "arm")
    assert [len(one.commanded_s) for one in motion.stretches] == [100, 97, rows - 200]
    assert motion.stretches[1].commanded_s[0] == due_s[103]
    assert motion.stretches[1].measured_s[-1] <= start_s[199]
    assert motion.stretches[0].commanded.shape == (100, 3)


def test_of_an_episode_that_was_labelled_again_the_newest_counts_alone(recorded: Path, tmp_path: Path) -> None:
    (path,) = copies(recorded, tmp_path, 1)
    again = tmp_path / "again.h5"
    shutil.copyfile(path, again)
    with h5py.File(again, "r+") as file:
        attributes = file["data/demo_0"].attrs
        labels = json.loads(attributes["labels"])
        attributes["labels"] = json.dumps([*labels, labels[-1]])
        attributes["labels_sha256"] = hashlib.sha256(attributes["labels"].encode()).hexdigest()
    assert list(logged_motion([tmp_path], "arm").files) == ["again.h5"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["arm", "--episodes", "{run}", "--columns", "q9_rad"],
            "has no 'q9_rad' of arm; allowed x_m, y_m, z_m, q1_rad",
        ),
        (["gripper", "--episodes", "{run}", "--columns", "x_m"], "has no 'x_m' of gripper; allowed width_m"),
        (["camera", "--episodes", "{run}"], "for a camera give two CSV files"),
        (["arm", "--episodes", "{run}", "--rates"], "--rates: episodes hold positions; leave it out"),
        (["arm", "a.csv", "b.csv", "--episodes", "{run}"], "give two CSV files or episodes, not both"),
        (["arm", "a.csv"], "two CSV files or --episodes are needed"),
        (["arm", "--episodes", "{run}/nothing"], "nothing"),
        (["arm", "--episodes", "{run}/stations"], "holds no episode (*.h5); name a run"),
        (["arm", "--episodes", "{run}", "--latency-s", "0.1"], "--latency-s: is a camera's, not of arm"),
        (["camera", "a.csv", "b.csv", "--latency-s", "nan"], "--latency-s nan: allowed 0 to 1"),
    ],
)
def test_what_cannot_be_is_one_line(
    recorded: Path, tmp_path: Path, scripts: Scripts, words: list[str], text: str
) -> None:
    out = tmp_path / "out.json"
    line = scripts.refused(NAME, "latency", *(word.format(run=recorded) for word in words), "--out", out)
    assert text in line
    assert not out.exists()


def test_an_episode_that_the_arm_played_says_nothing_of_its_delay(recorded: Path, tmp_path: Path) -> None:
    (path,) = copies(recorded, tmp_path, 1)
    edit_header(path, lambda header: header.update(open_loop=True))
    with pytest.raises(BadInputError, match="recorded open loop, the arm did not follow its commands"):
        logged_motion([path], "arm")


def test_a_cameras_delay_names_the_key_and_its_value(tmp_path: Path, scripts: Scripts) -> None:
    t = np.arange(0.0, 20.0, 0.02)
    for name, late_s in (("arm", 0.0), ("seen", 0.035)):
        speed = np.linalg.norm(wandering(t - late_s, 3), axis=1)
        rows = "\n".join(f"{a:.3f},{b:.6f}" for a, b in zip(t, speed, strict=True))
        (tmp_path / f"{name}.csv").write_text(f"t,m_s\n{rows}\n")
    words = (NAME, "latency", "camera", tmp_path / "arm.csv", tmp_path / "seen.csv", "--rates", "--name", "front")
    done = scripts(*words, "--out", tmp_path / "a.json")
    assert "station: set latency_s = 0.0350 in camera.front" in done.out
    assert "latency_uncertainty_s = 0.00" in done.out
    done = scripts(*words, "--out", tmp_path / "b.json", "--latency-s", "0.01")
    assert "station: set latency_s = 0.0450 in camera.front" in done.out
    assert json.loads((tmp_path / "b.json").read_text())["latency_s"] == pytest.approx(0.045, abs=0.001)
    early = scripts(NAME, "latency", "camera", tmp_path / "seen.csv", tmp_path / "arm.csv", "--rates", "--out",
                    tmp_path / "c.json")  # fmt: skip
    assert early.code == cli.FAILED_CHECK
    assert "the camera would be -35.0 ms late (allowed 0 to 1000 ms)" in early.errors[-1]
