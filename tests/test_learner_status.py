"""The status file is a help to others: what goes wrong with it stops nobody from learning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policy.learner_status import LearnerStatus, StatusFile
from tests.scripts import STATION, Scripts


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


def test_a_disk_that_is_full_leaves_the_old_status_and_the_next_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    write = StatusFile(tmp_path / "status.json", announce=False)
    write(LearnerStatus(endpoint=None, pid=1, phase="loading"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        write(LearnerStatus(endpoint=None, pid=1, phase="learning"))
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    assert json.loads((tmp_path / "status.json").read_text())["phase"] == "loading"
    write(LearnerStatus(endpoint=None, pid=1, phase="stopped"))
    assert json.loads((tmp_path / "status.json").read_text())["phase"] == "stopped"


def test_a_disk_that_fails_ends_the_script_with_one_line(
    scripts: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> LearnerStatus:
        raise OSError(28, "No space left on device")

    scripts("run_learner", "--help")  # so that it is loaded
    monkeypatch.setattr("run_learner.run_learner", failing)
    done = scripts("run_learner", STATION, "--state", tmp_path / "state")
    assert done.code == 1
    assert len(done.errors) == 1, done.errors
    assert "No space left on device; free some space in" in done.errors[0]
