from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from robot.process_board import ProcessBoard

ROOT = Path(__file__).parents[1]
LONGEST_S = 60.0  # a safety net, not a claim

_CHILD = """
import argparse, signal, sys, time
from robot.supervised import Supervised
parser = argparse.ArgumentParser()
parser.add_argument("--orphaned", type=lambda name: signal.Signals[name], required=True)
Supervised.add_arguments(parser)
args = parser.parse_args()
watch = Supervised(args.board, args.place, args.parent, orphaned=args.orphaned)
watch.ready()
while not watch.stopping:
    watch.beat()
    if watch.fault[0]:
        sys.exit(int(watch.fault[1]))
    time.sleep(0.001)
"""
_SUPERVISOR = """
import os, subprocess, sys
child = subprocess.Popen([*sys.argv[2:], "--parent", str(os.getpid())], pass_fds=[int(sys.argv[1])])
print(child.pid, flush=True)
child.wait()
"""


def command(board: ProcessBoard, place: int, orphaned: str = "SIGTERM") -> list[str]:
    words = ["--orphaned", orphaned, "--board", str(board.file), "--place", str(place)]
    return [sys.executable, "-c", _CHILD, *words]


@contextmanager
def child(board: ProcessBoard, place: int) -> Iterator[subprocess.Popen[bytes]]:
    words = [*command(board, place), "--parent", str(os.getpid())]
    with subprocess.Popen(words, pass_fds=[board.file], cwd=ROOT) as process:
        try:
            until(lambda: board.places["ready"][place] == 1)
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"


def ended(pid: int) -> bool:
    """Whether a process that is not our child is gone, or a corpse that nobody has buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def board() -> Iterator[ProcessBoard]:
    with closing(ProcessBoard.new(3)) as board:
        yield board


def test_places_of_a_new_board_are_empty(board: ProcessBoard) -> None:
    assert len(board.places) == 3
    assert not board.places.view("i8").any()


def test_a_process_shows_at_its_own_place_that_it_lives_and_is_ready(board: ProcessBoard) -> None:
    with child(board, 1):
        beat_s = float(board.places["beat_s"][1])
        assert beat_s <= time.monotonic()
        until(lambda: board.places["beat_s"][1] > beat_s)
        for other in (0, 2):
            assert board.places["beat_s"][other] == board.places["ready"][other] == 0


def test_a_process_that_stands_still_beats_no_more_until_it_goes_on(board: ProcessBoard) -> None:
    with child(board, 0) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        beat_s = float(board.places["beat_s"][0])
        reads = [float(board.places["beat_s"][0]) for _ in range(10_000)]
        assert set(reads) == {beat_s}
        process.send_signal(signal.SIGCONT)
        until(lambda: board.places["beat_s"][0] > beat_s)


def test_sigterm_lets_a_process_come_to_an_end_in_order_and_ctrl_c_is_not_for_it(board: ProcessBoard) -> None:
    with child(board, 0) as process:
        process.send_signal(signal.SIGINT)
        beat_s = float(board.places["beat_s"][0])
        until(lambda: board.places["beat_s"][0] > beat_s)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONGEST_S) == 0


def test_a_fault_reaches_the_process_of_its_place_with_its_amount(board: ProcessBoard) -> None:
    with child(board, 0) as hit, child(board, 2) as spared:
        board.places["fault_value"][0] = 7.0
        board.places["fault"][0] = 1
        assert hit.wait(LONGEST_S) == 7
        assert spared.poll() is None


@pytest.mark.parametrize(("orphaned", "stopped"), [("SIGTERM", False), ("SIGKILL", False), ("SIGKILL", True)])
def test_a_process_ends_when_its_supervisor_is_killed(board: ProcessBoard, orphaned: str, stopped: bool) -> None:
    words = [sys.executable, "-c", _SUPERVISOR, str(board.file), *command(board, 0, orphaned)]
    with subprocess.Popen(words, pass_fds=[board.file], cwd=ROOT, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        until(lambda: board.places["ready"][0] == 1)
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        supervisor.kill()
    until(lambda: ended(pid))


def test_closing_twice_does_no_harm() -> None:
    board = ProcessBoard.new(1)
    board.close()
    board.close()
