"""A learner that is refused at its start leaves nothing behind, and one that had worked loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.learner_process import StateTakenError
from policy.learner_settings import LearnerSettings
from policy.learner_status import LearnerStatus
from robot.errors import BadInputError
from tests.scripts import STATION, Scripts
from tests.tiny_bundle import make_tiny_bundle

CAMERAS = {"front": (84, 84), "wrist": (84, 84)}


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


def test_episodes_that_are_none_leave_no_state(scripts: Scripts, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle", cameras=CAMERAS)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "x.h5").write_bytes(b"no episode")
    there = tmp_path / "there"
    there.mkdir()
    for state, left in ((tmp_path / "new" / "learner", None), (there, there)):
        words = ["--policy.bundle", bundle, "--episodes", tmp_path / "old", "--state", state]
        assert "not an HDF5 file" in scripts.refused("run_learner", STATION, *words)
        assert state.exists() == (left is not None)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("phase", ["loading", "learning"])
@pytest.mark.parametrize("stored", [False, True])
def test_only_a_state_that_holds_nothing_yet_is_removed(
    scripts: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, stored: bool
) -> None:
    other = tmp_path / "runs" / "today" / "episode.h5"

    def refused(settings: LearnerSettings, **named: object) -> LearnerStatus:
        (settings.state_dir / "episodes").mkdir(parents=True)
        report = named["report"]
        assert callable(report)
        report(LearnerStatus(endpoint=settings.endpoint, pid=1, phase=phase))
        if stored:
            (settings.state_dir / "episodes" / "00000000-run-000000-r0.msgpack").write_bytes(b"of a robot")
        other.parent.mkdir(parents=True)  # meanwhile somebody began a run beside it
        other.write_bytes(b"rows")
        raise BadInputError("episode damaged")

    scripts("run_learner", "--help")  # so that it is loaded
    monkeypatch.setattr("run_learner.run_learner", refused)
    state = tmp_path / "runs" / "learner"
    words = ["--state", state, "--endpoint", "tcp://127.0.0.1:57993"]
    assert "episode damaged" in scripts.refused("run_learner", STATION, *words)
    assert other.read_bytes() == b"rows"
    assert state.exists() == (stored or phase == "learning")


def test_the_state_of_another_learner_is_not_touched(
    scripts: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(settings: LearnerSettings, **named: object) -> LearnerStatus:
        settings.state_dir.mkdir(parents=True)  # by the other, since we looked
        raise StateTakenError("another learner works here")

    scripts("run_learner", "--help")  # so that it is loaded
    monkeypatch.setattr("run_learner.run_learner", taken)
    assert "another learner works here" in scripts.refused("run_learner", STATION, "--state", tmp_path / "state")
    assert (tmp_path / "state").exists()
