from __future__ import annotations

import sys

import pytest

from teleop.progress import Progress


def test_a_file_gets_a_line_at_each_tenth_and_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("work", 60) as bar:
        for number in range(60):
            bar.step(f"{number + 1} good")
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("work: 0/60", "work: 6/60, 6 good", "work: 60/60, 60 good")
    assert len(lines) == 11
    assert all(character.isprintable() or character == "\n" for character in said)


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("work", 2) as bar:
        bar.step("fine")
        bar.step("finer")
    said = capsys.readouterr().err
    assert "\r" in said
    assert "2/2" in said
    assert "finer" in said
