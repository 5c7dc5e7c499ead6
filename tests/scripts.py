"""Runs the scripts of launch/ in this process, through their own `main` and exit handling."""

from __future__ import annotations

import importlib
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from teleop import cli

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
STATION = LAUNCH / "stations" / "sim_place.toml"
BRIDGE = LAUNCH / "stations" / "bridge_recorded.toml"


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a script left: exit code, stdout, and the lines of stderr."""

    code: int
    out: str
    errors: list[str]


class Scripts:
    """Calls scripts by name; the process's arguments and signal handlers come back as they were."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch
        monkeypatch.syspath_prepend(str(LAUNCH))

    def __call__(self, name: str, *words: str | Path) -> Done:
        """Run launch/`name`.py with the arguments `words`."""
        module = importlib.import_module(name)
        self._monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
        self._capsys.readouterr()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with pytest.raises(SystemExit) as ended:
                cli.run(module.main)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        said = self._capsys.readouterr()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Done(code=code or 0, out=said.out, errors=[line for line in said.err.splitlines() if line.strip()])

    def refused(self, name: str, *words: str | Path) -> str:
        """Run a script that must end with exit code 2 and one line on stderr; return that line."""
        done = self(name, *words)
        assert done.code == cli.BAD_INPUT, done
        assert len(done.errors) == 1, done.errors
        assert done.errors[0].startswith(f"{name}.py: ")
        return done.errors[0]
