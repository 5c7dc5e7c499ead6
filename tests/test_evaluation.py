"""What an evaluation makes of its worker processes, with a stand-in for the interpreter that runs them."""

import sys
from pathlib import Path

import pytest

from robot.errors import BadInputError, HandrailError
from teleop.evaluation import evaluate
from teleop.station import load_station
from tests.tiny_station import STATION

LOADED = load_station(STATION)
LINE = '{"layout": 0, "outcome": "success", "ticks": 7}'


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    """Workers do `body` instead; one that hangs is ended by its own alarm, so that the test ends too."""
    script = folder / "worker"
    script.write_text(f"#!{sys.executable}\nimport os, signal, sys\nsignal.alarm(10)\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_worker_may_say_more_on_stderr_than_a_pipe_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    body = f"sys.stdin.read()\nsys.stderr.write('noise ' * 50_000)\nprint('{LINE}', flush=True)"
    stand_in(monkeypatch, tmp_path, body)
    assert evaluate(LOADED, weights=None, episodes=1, seed=0).outcomes == {0: "success"}


def test_last_words_of_a_worker_that_dies_before_it_reads_its_job_are_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path, "os.close(0)\nsys.stderr.write('no such library\\n')\nsys.exit(1)")
    with pytest.raises(HandrailError, match="stopped after 0 of 1 episodes: no such library"):
        evaluate(LOADED, weights=b"w" * 300_000, episodes=1, seed=0)


def test_bad_input_that_a_worker_finds_is_bad_input_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, "sys.stdin.read()\nprint('station x: mend it', file=sys.stderr)\nsys.exit(2)")
    with pytest.raises(BadInputError, match=r"^station x: mend it$"):
        evaluate(LOADED, weights=None, episodes=1, seed=0)


def test_ctrl_c_ends_the_workers_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outlived = tmp_path / "outlived"
    body = (
        f"signal.signal(signal.SIGALRM, lambda *_: open({str(outlived)!r}, 'w').close())\n"
        "sys.stdin.read()\nos.kill(os.getppid(), signal.SIGINT)\nsignal.pause()"
    )
    stand_in(monkeypatch, tmp_path, body)
    with pytest.raises(KeyboardInterrupt):
        evaluate(LOADED, weights=None, episodes=1, seed=0)
    assert not outlived.exists()
