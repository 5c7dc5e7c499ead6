import os
import subprocess
import sys
from pathlib import Path

import pytest

from robot.arm_lock import ArmLock
from robot.errors import BadInputError

HOLDER = """
import sys
from pathlib import Path
from robot.arm_lock import ArmLock

with ArmLock("left", Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_owner_is_told_who_holds_the_arm_and_the_cure(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BadInputError, match=rf"arm 'left': held by process {holder.pid} .*\(kill {holder.pid}\)$"):
            ArmLock("left", tmp_path).__enter__()
        with ArmLock("right", tmp_path):
            pass  # another arm is free
        holder.kill()
        holder.wait()
        with ArmLock("left", tmp_path):
            pass  # a killed owner leaves nothing behind


def test_arm_is_free_again_after_leaving_and_the_lock_can_be_reused(tmp_path: Path) -> None:
    lock = ArmLock("left", tmp_path)
    for _ in range(2):
        with lock, pytest.raises(BadInputError, match=f"held by process {os.getpid()} "):
            ArmLock("left", tmp_path).__enter__()
    with ArmLock("left", tmp_path):
        pass


def test_arm_is_let_go_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="of the run"), ArmLock("left", tmp_path):
        raise RuntimeError("of the run")
    with ArmLock("left", tmp_path):
        pass


def test_name_of_the_arm_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with ArmLock("../../left arm", tmp_path):
        assert [path.parent for path in tmp_path.iterdir()] == [tmp_path]


def test_folder_that_cannot_be_written_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"cannot be opened \(No such file.*set XDG_RUNTIME_DIR") as raised:
        ArmLock("left", tmp_path / "absent").__enter__()
    assert "\n" not in str(raised.value)


def test_runtime_folder_of_the_user_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with ArmLock("left"):
        assert (tmp_path / "handrail-arm-left.lock").read_text() == f"{os.getpid()}\n"
