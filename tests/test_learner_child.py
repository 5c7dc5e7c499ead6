"""The real process: where it listens, how it ends, what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from policy.learner_child import LearnerChild
from policy.learner_link import LearnerLink
from policy.robot_link import RobotLink
from robot.errors import BadInputError
from tests.learner_episodes import made_up
from tests.test_learner_training import content, settings, training

ROOT = Path(__file__).parent.parent
STAND_IN = "tests.learner_stand_in_process"
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_child_learns_says_so_and_leaves_a_checkpoint_when_told_to_stop(tmp_path: Path) -> None:
    chosen = settings(tmp_path / "state")
    with LearnerChild(chosen, module=STAND_IN) as child, RobotLink(child.endpoint(), run_id="run-1") as robot:
        robot.send_episode(made_up(0))
        message = robot.wait_weights(1, WAIT_S)
        assert message is not None, (robot.status, child.status())
        assert child.alive
        assert child.stop() == 0
    assert (child.status()["phase"], child.status()["updates"], child.alive) == ("stopped", 4, False)
    again = training(tmp_path / "state")  # from the checkpoint, in this process
    assert (again.updates, again.version) == (4, 1)
    assert content(again.message) == content(message)


def test_child_of_a_parent_that_is_gone_ends_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "learner.json"
    path.write_text(settings(tmp_path / "state").model_dump_json())
    command = [sys.executable, "-m", STAND_IN, "--settings", str(path), "--parent-pid", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads((tmp_path / "state" / "status.json").read_text())["phase"] == "stopped"


def test_child_that_cannot_start_tells_why_in_one_line(tmp_path: Path) -> None:
    with (
        LearnerLink("tcp://127.0.0.1:*") as first,
        LearnerChild(settings(tmp_path, endpoint=first.endpoint), module=STAND_IN) as second,
    ):
        with pytest.raises(BadInputError, match=r"learner did not start: .*address already in use") as caught:
            second.endpoint()
        assert "\n" not in str(caught.value)
        assert second.stop() == 2


def test_bad_settings_end_the_process_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "learner.json"
    path.write_text("{}")
    command = [sys.executable, "-m", "policy.learner_process", "--settings", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "wrong at state_dir: Field required" in ended.stderr


def test_robot_side_of_the_learner_does_not_import_torch() -> None:
    code = "import sys, policy.robot_link, policy.learner_child, policy.learner_process; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert ended.stdout == "False\n"
