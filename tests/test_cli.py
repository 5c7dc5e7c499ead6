from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from robot.errors import BadInputError, HardwareError
from teleop import cli

ROOT = Path(__file__).resolve().parents[1]
STATION = str(cli.STATIONS / "sim_place.toml")


def make(*, station: bool = True) -> cli.ScriptParser:
    parser = cli.script("Runs it.", ["run.py a.toml"], station=station)
    parser.add_argument("--episodes", type=int, default=1)
    return parser


def refusal(*words: str, station: bool = True) -> str:
    with pytest.raises(BadInputError) as caught:
        make(station=station).read(words)
    return str(caught.value)


def exit_code(main: Callable[[], int]) -> int:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            cli.run(main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(
    "words",
    [
        ("--loop.rate_hz", "30", STATION, "--episodes", "2"),
        (STATION, "--episodes", "2", "--loop.rate_hz=30"),
    ],
)
def test_overrides_stand_anywhere_and_are_not_taken_for_the_station(words: tuple[str, ...]) -> None:
    arguments = make().read(words)
    assert arguments.station.station.loop.rate_hz == 30.0
    assert arguments.station.path == Path(STATION)
    assert arguments.episodes == 2


def test_an_override_may_be_negative() -> None:
    arguments = make().read([STATION, "--operator.gamepad.view_yaw_rad", "-0.5"])
    assert arguments.station.station.operator.gamepad.view_yaw_rad == -0.5


def test_an_override_without_a_value_is_refused() -> None:
    assert refusal(STATION, "--loop.rate_hz") == "--loop.rate_hz: has no value; write --loop.rate_hz VALUE"
    assert refusal("--loop.rate_hz", "--episodes", "3").startswith("--loop.rate_hz: has no value")


def test_an_unknown_key_of_the_station_names_the_right_one() -> None:
    assert "unknown key 'loop.rate'; did you mean 'rate_hz'?" in refusal(STATION, "--loop.rate", "30")


def test_an_unknown_option_names_the_nearest() -> None:
    assert refusal(STATION, "--episode", "3") == "unknown option --episode; did you mean --episodes?"
    assert refusal("--zzz", station=False) == "unknown option --zzz; allowed --episodes, --help, --json"


def test_a_script_without_a_station_takes_no_overrides() -> None:
    assert refusal("--loop.rate_hz=30", station=False).startswith("unknown option --loop.rate_hz; allowed")


def test_a_bad_value_is_one_line_without_the_usage() -> None:
    line = refusal(STATION, "--episodes", "many")
    assert line.startswith("argument --episodes: invalid int value: 'many'; see ")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("read", "text", "allowed"),
    [(cli.seed, "-1", "0 to 2147483647"), (cli.seed, "9" * 20, "0 to 2147483647"), (cli.count, "0", "1 to 2147483647")],
)
def test_a_number_out_of_range_is_told_what_is_allowed(read: Callable[[str], int], text: str, allowed: str) -> None:
    parser = make(station=False)
    parser.add_argument("--number", type=read)
    with pytest.raises(BadInputError, match=f"--number: got '{text}' .allowed {allowed}, a whole number"):
        parser.read(["--number", text])
    assert parser.read(["--number", "7"]).number == 7


def test_one_argument_too_many_is_refused() -> None:
    assert refusal(STATION, "other").startswith("'other' is one argument too many; see ")


def test_a_missing_station_names_those_that_are_there() -> None:
    line = refusal("sim_plac.toml")
    assert line.startswith("station sim_plac.toml: no such file; did you mean ")
    assert line.endswith("launch/stations/sim_place.toml?")
    assert "sim_place.toml" in refusal("nowhere/zzzzzz.toml").partition("there are ")[2]


def test_a_default_station_is_taken_when_none_is_given() -> None:
    parser = cli.script("Runs it.", ["run.py"], station=True, default_station="sim_place.toml")
    assert parser.read(["--loop.rate_hz=10"]).station.station.loop.rate_hz == 10.0


def test_help_shows_the_examples_as_they_were_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        make().read(["--help"])
    assert caught.value.code == 0
    assert "examples:\n  run.py a.toml\n  run.py a.toml --episode.timeout_s 12 " in capsys.readouterr().out


def test_a_json_path_that_cannot_be_written_is_found_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal("--json", str(tmp_path), station=False).endswith(
        "cannot be written (is a folder); name another file"
    )
    below = str(tmp_path / "file" / "out.json")
    assert refusal("--json", below, station=False).startswith(f"--json {below}: cannot be written (")


def test_a_path_that_is_tried_leaves_no_folder(tmp_path: Path) -> None:
    cli.check_writable(tmp_path / "new" / "deep" / "out.json", "--json")
    assert list(tmp_path.iterdir()) == []


def test_json_is_whole_and_knows_numpy_paths_and_absence(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.json"
    cli.check_writable(path, "--json")
    cli.write_json(path, {"rate": np.float32(0.5), "each": np.array([1, 2]), "none": float("nan"), "at": Path("a")})
    assert json.loads(path.read_text()) == {"rate": 0.5, "each": [1, 2], "none": None, "at": "a"}
    assert list(path.parent.iterdir()) == [path]


def test_a_document_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    cli.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        cli.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> NoReturn:
        raise error

    return main


def test_exit_codes_say_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: cli.OK) == 0
    assert exit_code(lambda: cli.FAILED_CHECK) == 1
    assert capsys.readouterr().err == ""
    assert exit_code(raising(BadInputError("bundle x:\n  is no bundle"))) == 2
    assert capsys.readouterr().err.endswith(": bundle x: is no bundle\n")
    assert exit_code(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.endswith(": stopped by Ctrl-C\n")


def test_our_own_faults_and_those_of_hardware_keep_their_traceback() -> None:
    for error in (ZeroDivisionError(), HardwareError("arm is gone")):
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(type(error)):
            cli.run(raising(error))
        signal.signal(signal.SIGTERM, before)


def test_sigterm_leaves_the_arm_in_order() -> None:
    left = []

    def main() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 10.0)
        finally:
            left.append("arm")
        return cli.OK

    assert (exit_code(main), left) == (143, ["arm"])


def test_a_python_without_the_packages_gets_one_line() -> None:
    script = ROOT / "launch" / "environment.py"
    done = subprocess.run([sys.executable, "-I", "-S", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("run ./launch/setup.sh once, then use .venv/bin/python\n")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_while_libraries_load_is_one_line() -> None:
    words = [sys.executable, "-c", "import environment; raise KeyboardInterrupt"]
    done = subprocess.run(words, cwd=ROOT / "launch", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "-c: stopped by Ctrl-C\n")


def test_closed_outputs_are_no_reason_to_fail() -> None:
    words = f"exec {sys.executable} run_robot.py nowhere.toml >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", words], cwd=ROOT / "launch", check=False).returncode == cli.BAD_INPUT
