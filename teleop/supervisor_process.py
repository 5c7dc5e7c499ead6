"""The supervisor: starts the processes of a run, watches them, starts anew what may be, and ends all with the run.

Started by `teleop.supervisor.Supervisor` as `python -m teleop.supervisor_process`; its plan comes as one line of JSON
on standard input, more processes may follow as further lines, and the end of that input means that the run is gone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

from robot.process_board import Ended, ProcessBoard
from teleop.supervision import RUN_PLACE, ChildPlan, Deed, Injection, LateChild, SupervisorPlan

_POLL_S = 0.02
_LOADING_S = 20.0  # until its first sign of life: Python and its libraries load
_STOP_S = 3.0  # to come to an end, braking included
_BACKOFF_S = (0.05, 2.0)  # between an end and the next start, doubling
_STEADY_S = 10.0  # a process that lived so long begins with the shortest again
_STATUS_BITS = 16


class Child:
    """One process and its place on the board."""

    def __init__(self, plan: ChildPlan, board: ProcessBoard, place: int) -> None:
        self.plan, self._board, self._place = plan, board, place
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._backoff_s = _BACKOFF_S[0]
        self._prioritised = self._worked = False
        self._next_start_s: float | None = 0.0  # None: never again

    @property
    def pid(self) -> int | None:
        """Id of the process while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def look(self, now_s: float) -> None:
        """Start it when that is due, and see whether it lives."""
        process = self._process
        if process is None:
            if self._next_start_s is not None and now_s >= self._next_start_s:
                self._start(now_s)
            return
        status = process.poll()
        if status is not None:
            self._gone(status, Ended.DIED, now_s)
            return
        places = self._board.places
        if not self._prioritised and places["ready"][self._place]:
            self._prioritise(process.pid)
        beat_s = float(places["beat_s"][self._place])
        loading = beat_s < self._started_s
        silent_s = now_s - (self._started_s if loading else beat_s)
        condemned = bool(places["condemned"][self._place])
        if condemned or silent_s > (_LOADING_S if loading else self.plan.silence_s):
            process.kill()
            process.wait()
            self._gone(-signal.SIGKILL, Ended.SILENT, now_s)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def stop_asking(self) -> None:
        """Ask it to come to an end, and never start it again."""
        self._next_start_s = None
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # one that was frozen could not heed it

    def wait(self, deadline_s: float) -> None:
        """Wait for its end, and end it then."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _prioritise(self, pid: int) -> None:
        """Give it its priority now that it works: loading takes a core for a second, which others may need by then."""
        self._prioritised = True
        if self.plan.priority:
            with suppress(PermissionError, ProcessLookupError):
                # with the flag, which one who has no other right than to real time may not take off
                policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
                os.sched_setscheduler(pid, policy, os.sched_param(self.plan.priority))

    def _start(self, now_s: float) -> None:
        plan, places = self.plan, self._board.places
        command = [sys.executable, "-m", plan.module, *plan.arguments]
        command += ["--board", str(self._board.file), "--place", str(self._place), "--parent", str(os.getpid())]
        places["ready"][self._place] = places["condemned"][self._place] = 0
        places["starts"][self._place] += 1
        self._prioritised = False
        self._started_s = now_s
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(self._board.file, *plan.files), start_new_session=True
            )
        except OSError as error:  # no memory or no processes left: try again like after a death
            print(f"supervisor: {plan.name} cannot be started ({error})", file=sys.stderr, flush=True)
            self._gone(1, Ended.DIED, now_s)
            return
        if plan.nice:
            with suppress(PermissionError):  # the run's report says what this machine grants
                os.setpriority(os.PRIO_PROCESS, self._process.pid, plan.nice)
        places["pid"][self._place] = self._process.pid

    def _gone(self, status: int, why: Ended, now_s: float) -> None:
        """Note its end and when it may be started again.

        A refusal of its input by one that never worked would only repeat itself; later what it needs may be back.
        """
        places, plan = self._board.places, self.plan
        self._worked = self._worked or bool(places["ready"][self._place])
        refused = status == 2 and not self._worked
        again = plan.restart and not refused and self._next_start_s is not None
        if again:
            end = why
        else:
            end = Ended.REFUSED if refused else Ended.GIVEN_UP
        places["ended"][self._place] = int(end) | (status & 0xFFFF) << _STATUS_BITS
        places["ready"][self._place] = 0
        places["pid"][self._place] = 0  # last, as it tells that the rest is there
        self._process = None
        if now_s - self._started_s > _STEADY_S:
            self._backoff_s = _BACKOFF_S[0]
        self._next_start_s = now_s + self._backoff_s if again else None
        self._backoff_s = min(2.0 * self._backoff_s, _BACKOFF_S[1])


class Injector:
    """Does the injections whose time has come."""

    def __init__(self, injections: tuple[Injection, ...], board: ProcessBoard) -> None:
        self._waiting = sorted(injections, key=lambda injection: injection.at_s)
        self._lasting: list[tuple[float, Injection, int]] = []  # until when, what, process id
        self._board = board
        self._began_s: float | None = None

    def look(self, now_s: float) -> None:
        """Begin what is due and end what is over."""
        if self._began_s is None:
            if not self._board.places["ready"][RUN_PLACE]:
                return
            self._began_s = now_s
        while self._waiting and now_s - self._began_s >= self._waiting[0].at_s:
            self._begin(self._waiting.pop(0), now_s)
        for entry in [entry for entry in self._lasting if now_s >= entry[0]]:
            self._lasting.remove(entry)
            self._end(entry[1], entry[2])

    def _begin(self, injection: Injection, now_s: float) -> None:
        place = injection.place
        pid = os.getpid() if place is None else int(self._board.places["pid"][place])
        print(f"inject: {injection.deed} process {pid}", file=sys.stderr, flush=True)
        match injection.deed:
            case Deed.KILL:
                _signal(pid, signal.SIGKILL)
            case Deed.FREEZE:
                _signal(pid, signal.SIGSTOP)
                self._lasting.append((now_s + injection.for_s, injection, pid))
            case Deed.FAULT:
                assert place is not None
                self._board.places["fault_value"][place] = injection.amount
                self._board.places["fault"][place] = injection.number
                self._lasting.append((now_s + injection.for_s, injection, pid))

    def _end(self, injection: Injection, pid: int) -> None:
        if injection.deed is Deed.FREEZE:
            _signal(pid, signal.SIGCONT)
        elif injection.place is not None:
            self._board.places["fault"][injection.place] = 0


def _signal(pid: int, number: signal.Signals) -> None:
    if pid > 0:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            print(f"inject: process {pid} is gone already", file=sys.stderr, flush=True)


def supervise(plan: SupervisorPlan, input_file: int) -> None:
    """Keep the processes of `plan` alive until `input_file` ends, SIGTERM comes or the run is gone; then end them."""
    terminated: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        terminated.append(number)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = os.getppid()
    board = ProcessBoard(plan.board)
    children = [Child(child, board, RUN_PLACE + 1 + i) for i, child in enumerate(plan.children)]
    injector = Injector(plan.injections, board)
    while not terminated and os.getppid() == run:
        now_s = time.monotonic()
        for child in children:
            child.look(now_s)
        injector.look(now_s)
        if select.select([input_file], [], [], _POLL_S)[0]:
            line = _line(input_file)
            if not line:
                break
            late = LateChild.model_validate_json(line)
            children.append(Child(late.child, board, late.place))
    for order in sorted({child.plan.stop_order for child in children}):
        group = [child for child in children if child.plan.stop_order == order]
        for child in group:
            child.stop_asking()
        deadline_s = time.monotonic() + _STOP_S
        for child in group:
            child.wait(deadline_s)
    board.close()


def _line(file: int) -> bytes:
    """Read a line and nothing behind it; empty at the end of the input."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(file, 1)
        if not piece:
            break
        line += piece
    return line


if __name__ == "__main__":
    supervise(SupervisorPlan.model_validate_json(_line(0)), 0)
