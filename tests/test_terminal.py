"""A person's terminal, as a pseudo-terminal that the test holds the other end of."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from calibration.terminal import Terminal


@contextmanager
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input and output are a terminal; yields its other end."""
    far, near = pty.openpty()
    with os.fdopen(os.dup(near), "r") as stdin, os.fdopen(near, "w") as stdout, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", stdin)
        patched.setattr(sys, "stdout", stdout)
        yield far
    os.close(far)


def shown(far: int) -> str:
    return os.read(far, 65536).decode()


def test_single_keys_are_heard_at_once_and_the_terminal_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_a_terminal(monkeypatch) as far:
        before = termios.tcgetattr(far)
        with Terminal() as terminal:
            assert terminal.interactive
            assert terminal.keys() == ""
            os.write(far, b"q")
            assert terminal.keys() == "q"
            os.write(far, b"\r")
            assert terminal.keys() in ("\r", "\n")
            assert not termios.tcgetattr(far)[3] & termios.ICANON
        assert termios.tcgetattr(far) == before


def test_it_is_left_as_it_was_when_something_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_a_terminal(monkeypatch) as far:
        before = termios.tcgetattr(far)
        with pytest.raises(KeyboardInterrupt), Terminal():
            raise KeyboardInterrupt
        assert termios.tcgetattr(far) == before


def test_a_block_takes_the_place_of_the_last_one_and_lines_stay_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_a_terminal(monkeypatch) as far, Terminal() as terminal:
        terminal.draw(["one", "two"], "")
        assert shown(far) == "one\r\ntwo\r\n"
        terminal.draw(["three"], "")
        assert shown(far) == "\x1b[2F\x1b[Jthree\r\n"
        terminal.say("shot 1", ring=True)
        assert shown(far) == "\x1b[1F\x1b[Jshot 1\a\r\n"
        terminal.draw(["four"], "")
        assert shown(far) == "four\r\n"


def test_long_lines_are_folded_and_never_more_than_the_terminal_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "5")
    with on_a_terminal(monkeypatch) as far, Terminal() as terminal:
        terminal.draw(["missing   " + "word " * 20, *["x"] * 9], "")
        lines = shown(far).split("\r\n")[:-1]
        assert len(lines) == 4
        assert all(len(line) < 40 for line in lines)
        assert lines[1].startswith("          word")


def test_without_a_terminal_what_changed_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("calibration.terminal.time.monotonic", lambda: now_s)
    with Terminal() as terminal:
        assert not terminal.interactive
        assert terminal.keys() == ""
        for line in ("waits", "waits", "moves"):
            terminal.draw(["block"], line)
        now_s += 6.0
        terminal.draw(["block"], "moves")
        terminal.say("shot 1", ring=True)
    assert capsys.readouterr().out == "waits\nmoves\nshot 1\n"


def test_what_others_say_on_standard_error_is_shown_in_the_block_and_kept(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, subprocess, sys\n"
        "from calibration.terminal import Terminal\n"
        "with Terminal() as terminal:\n"
        "    subprocess.run(['sh', '-c', 'echo camera says >&2'])\n"
        "    terminal.draw(['block'], '')\n"
        "    terminal.draw(['again'], '')\n"
        "print('end', flush=True)\n"
        "raise SystemExit('last words')\n"
    )
    far, near = pty.openpty()
    root = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, script],
        stdin=near,
        stdout=near,
        stderr=near,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    text = shown(far)
    os.close(near)
    os.close(far)
    assert text == ("block\r\ncamera says\r\n\x1b[2F\x1b[Jagain\r\ncamera says\r\ncamera says\r\nend\r\nlast words\r\n")
