"""The supervisor with real processes: what dies comes back, or everything stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robot.errors import BadInputError, HardwareError
from teleop.supervision import ChildPlan, Deed, Injection
from teleop.supervisor import Supervisor

ROOT = Path(__file__).parents[1]
WAIT_S = 20.0  # a safety net; each step takes a fraction of a second


def child(name: str, *arguments: str, restart: bool = True, order: int = 1, files: tuple[int, ...] = ()) -> ChildPlan:
    return ChildPlan(
        name=name,
        module="tests.supervised_stand_in",
        arguments=arguments or ("live",),
        restart=restart,
        silence_s=0.5,
        stop_order=order,
        files=files,
    )


def until(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """True once a process is no more, or only waits to be counted by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def pid_of(supervisor: Supervisor, name: str) -> int:
    return int(supervisor.board.places["pid"][supervisor.place(name)])


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("number", "why"), [(signal.SIGKILL, "ended by signal 9"), (signal.SIGSTOP, "was silent")])
def test_a_killed_or_frozen_process_is_started_again_and_the_person_hears_of_it(number: int, why: str) -> None:
    with Supervisor([child("camera front"), child("camera wrist")]) as supervisor:
        supervisor.wait_ready()
        first, other = pid_of(supervisor, "camera front"), pid_of(supervisor, "camera wrist")
        assert supervisor.news() == []
        os.kill(first, number)
        until(lambda: pid_of(supervisor, "camera front") not in (0, first))
        supervisor.wait_ready()
        assert supervisor.news() == [f"camera front {why} and was started again"]
        assert supervisor.news() == []
        assert pid_of(supervisor, "camera wrist") == other
        assert gone(first)


def test_a_process_that_moves_the_arm_is_not_started_again_and_the_run_hears_at_once() -> None:
    with Supervisor([child("servo", restart=False)]) as supervisor:
        supervisor.wait_ready()
        supervisor.check()
        servo = pid_of(supervisor, "servo")
        os.kill(servo, signal.SIGKILL)
        until(lambda: pid_of(supervisor, "servo") == 0)
        with pytest.raises(HardwareError, match="servo ended by signal 9; look at the arm"):
            supervisor.check()
        assert int(supervisor.board.places["starts"][1]) == 1


def test_a_process_that_refuses_its_input_is_bad_input_and_is_not_tried_again() -> None:
    with Supervisor([child("operator", "refuse")]) as supervisor:
        with pytest.raises(BadInputError, match="operator: could not be opened; it said why above"):
            supervisor.wait_ready()
        assert int(supervisor.board.places["starts"][1]) == 1


def test_a_process_that_dies_at_once_is_started_ever_more_slowly() -> None:
    with Supervisor([child("camera", "die")]) as supervisor:
        until(lambda: int(supervisor.board.places["starts"][1]) == 3)
        assert any("camera ended with status 5 and was started again" in line for line in supervisor.news())
        supervisor.check()  # the run goes on without it


def test_a_condemned_process_is_ended_and_started_again() -> None:
    with Supervisor([child("policy")]) as supervisor:
        supervisor.wait_ready()
        first = pid_of(supervisor, "policy")
        supervisor.condemn("policy")
        until(lambda: pid_of(supervisor, "policy") not in (0, first))
        supervisor.wait_ready()
        assert supervisor.news() == ["policy was silent and was started again"]


def test_when_the_supervisor_is_killed_everything_ends_and_the_run_hears() -> None:
    with Supervisor([child("camera"), child("servo", restart=False)]) as supervisor:
        supervisor.wait_ready()
        pids = [pid_of(supervisor, "camera"), pid_of(supervisor, "servo")]
        os.kill(pids[0], signal.SIGSTOP)  # even one that stands still
        assert supervisor._process is not None
        supervisor._process.kill()
        until(lambda: all(map(gone, pids)))
        with pytest.raises(HardwareError, match="the supervisor is gone"):
            supervisor.check()


def test_when_the_run_is_killed_everything_ends() -> None:
    script = textwrap.dedent("""
        import time
        from tests.test_supervisor import child, pid_of
        from teleop.supervisor import Supervisor
        with Supervisor([child("camera"), child("servo", restart=False)]) as supervisor:
            supervisor.wait_ready()
            print(supervisor._process.pid, pid_of(supervisor, "camera"), pid_of(supervisor, "servo"), flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pids = [int(word) for word in run.stdout.readline().split()]
        assert len(pids) == 3
        run.kill()
        until(lambda: all(map(gone, pids)))


def test_processes_end_in_their_order_and_a_frozen_one_does_not_hold_up_the_end() -> None:
    reader, writer = os.pipe()
    plans = [
        child("world", "live", "--file", str(writer), order=2, files=(writer,)),
        child("servo", "live", "--file", str(writer), order=1, files=(writer,)),
        child("camera", order=1),
    ]
    with Supervisor(plans) as supervisor:
        supervisor.wait_ready()
        frozen = pid_of(supervisor, "camera")
        os.kill(frozen, signal.SIGSTOP)
    os.close(writer)
    assert os.read(reader, 1000) == b"end2;end1;"
    os.close(reader)
    assert gone(frozen)


def test_injections_kill_freeze_and_make_a_process_fail_once_the_run_has_begun() -> None:
    reader, writer = os.pipe()
    injections = [
        Injection(place=1, deed=Deed.KILL, at_s=0.0),
        Injection(place=2, deed=Deed.FAULT, at_s=0.0, for_s=0.1, number=7, amount=0.25),
        Injection(place=3, deed=Deed.FREEZE, at_s=0.0, for_s=0.3),
    ]
    plans = [child("a"), child("b", "live", "--file", str(writer), files=(writer,))]
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    state = Path(f"/proc/{bystander.pid}/stat")
    with Supervisor(plans, ["loop"], injections) as supervisor:
        supervisor.wait_ready()
        supervisor.board.places["pid"][supervisor.place("loop")] = bystander.pid
        first = pid_of(supervisor, "a")
        assert supervisor.news() == []
        supervisor.begin()
        until(lambda: state.read_text().split()[2] == "T")
        until(lambda: pid_of(supervisor, "a") not in (0, first))
        until(lambda: state.read_text().split()[2] != "T")
        until(lambda: int(supervisor.board.places["fault"][2]) == 0)
    os.close(writer)
    assert b"7:0.25;" in os.read(reader, 10_000)
    os.close(reader)
    bystander.communicate(b"\n", timeout=WAIT_S)


def test_a_process_that_comes_later_is_kept_alive_like_the_others() -> None:
    with Supervisor([child("camera")], ["learner"]) as supervisor:
        supervisor.wait_ready()
        supervisor.add(child("learner"))
        until(lambda: pid_of(supervisor, "learner") != 0)
        first = pid_of(supervisor, "learner")
        assert supervisor.news() == []
        os.kill(first, signal.SIGKILL)
        until(lambda: pid_of(supervisor, "learner") not in (0, first))
        assert supervisor.news() == ["learner ended by signal 9 and was started again"]
    assert gone(first)


def test_a_process_that_is_refused_only_at_a_later_start_is_tried_again(tmp_path: Path) -> None:
    once = tmp_path / "once"
    with Supervisor([child("policy", "once", "--mark", str(once))]) as supervisor:
        supervisor.wait_ready()
        os.kill(pid_of(supervisor, "policy"), signal.SIGKILL)
        until(lambda: int(supervisor.board.places["starts"][1]) >= 3)
        supervisor.check()  # the run goes on without it


def test_a_process_that_comes_later_and_refuses_ends_no_tick_and_is_not_tried_again() -> None:
    with Supervisor([child("camera")], ["learner"]) as supervisor:
        supervisor.wait_ready()
        supervisor.add(child("learner", "refuse"))
        place = supervisor.place("learner")
        until(lambda: int(supervisor.board.places["ended"][place]) != 0)
        supervisor.check()  # as at every tick
        with pytest.raises(BadInputError, match="learner: could not be opened; it said why above"):
            supervisor.check_added()
        assert int(supervisor.board.places["starts"][place]) == 1
        assert supervisor.news() == []


def test_a_process_that_dies_first_and_refuses_then_is_not_tried_for_ever(tmp_path: Path) -> None:
    once = tmp_path / "once"
    with Supervisor([child("policy", "dies-once", "--mark", str(once))]) as supervisor:
        with pytest.raises(BadInputError, match="policy: could not be opened"):
            supervisor.wait_ready()
        assert int(supervisor.board.places["starts"][1]) == 2
