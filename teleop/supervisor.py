"""The run's end of the supervision: it starts the supervisor, hears how its processes do, and knows when to stop."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self

from robot.errors import BadInputError, HardwareError
from robot.process_board import Ended, ProcessBoard
from teleop.supervision import RUN_PLACE, ChildPlan, Injection, LateChild, SupervisorPlan

_READY_S = 30.0
_END_S = 15.0


class Supervisor:
    """Starts the processes of a run under a supervisor of their own, which outlives neither the run nor its death.

    Args:
        children: what it keeps alive.
        others: names of processes that are somebody else's, only to have a place on the board.
        injections: faults, by place on the board; see `place`.
    """

    def __init__(
        self, children: Sequence[ChildPlan], others: Sequence[str] = (), injections: Sequence[Injection] = ()
    ) -> None:
        self._children, self._others, self._injections = tuple(children), tuple(others), tuple(injections)
        self._process: subprocess.Popen[bytes] | None = None
        self._starts: dict[int, int] = {}  # by place
        self._late: dict[int, ChildPlan] = {}

    def __enter__(self) -> Self:
        """Start it; the processes need a second, see `wait_ready`. Raises BadInputError where there is no memory."""
        try:
            self.board = ProcessBoard.new(1 + len(self._children) + len(self._others))
        except OSError as error:
            raise BadInputError(f"supervisor: no shared memory ({error}); free some") from None
        try:
            files = {self.board.file, *(file for child in self._children for file in child.files)}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "teleop.supervisor_process"],
                stdin=subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                pass_fds=tuple(files),
                start_new_session=True,  # Ctrl-C is for the run, which then ends all in order
            )
            self.board.places["pid"][RUN_PLACE] = os.getpid()
            plan = SupervisorPlan(board=self.board.file, children=self._children, injections=self._injections)
            self._tell(plan.model_dump_json())
        except OSError as error:
            self.__exit__(None, None, None)
            self.board.close()
            raise BadInputError(f"supervisor: cannot be started ({error}); it needs memory and processes") from None
        self._starts = dict.fromkeys(self._places(), 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything in order: what moves the arm first."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()  # the kernel then tells the others
            process.wait()
        self._process = None
        self.board.close()

    def add(self, child: ChildPlan) -> None:
        """Start one more process, whose name is one of `others`, and keep it alive like the rest."""
        late = LateChild(place=self.place(child.name), child=child)
        self._late[late.place] = child
        self._starts[late.place] = 1
        try:
            self._tell(late.model_dump_json())
        except BrokenPipeError:
            raise HardwareError("the supervisor is gone; look at the arm, start again") from None

    def _tell(self, line: str) -> None:
        """Give the supervisor a line of JSON. Raises BrokenPipeError when it is gone."""
        assert self._process is not None
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), line.encode() + b"\n")

    def place(self, name: str) -> int:
        """Return the place of a process on the board. Raises KeyError for a name that is not there."""
        names = [child.name for child in self._children] + list(self._others)
        if name not in names:
            raise KeyError(name)
        return RUN_PLACE + 1 + names.index(name)

    def wait_ready(self, names: Collection[str] | None = None) -> None:
        """Wait until every process does its work, or those of `names` do.

        Raises:
            BadInputError: one refused its input; it said why.
            HardwareError: one did not get there.
        """
        deadline_s = time.monotonic() + _READY_S
        while True:
            self.check()
            waited = [
                child.name
                for i, child in enumerate(self._children)
                if not self.board.places["ready"][i + 1] and (names is None or child.name in names)
            ]
            if not waited:
                return
            if time.monotonic() > deadline_s:
                raise HardwareError(f"{waited[0]}: not ready within {_READY_S:g} s; see what it said above")
            time.sleep(0.01)

    def tell(self, name: str, pid: int | None) -> None:
        """Say which process has one of the names of `others` now, for injections."""
        self.board.places["pid"][self.place(name)] = pid or 0

    def pids(self) -> dict[str, int]:
        """Return the ids of the processes that run now, by name, the supervisor's own included."""
        pids = self.board.places["pid"]
        found = {child.name: int(pids[place]) for place, child in self._places().items() if pids[place] > 0}
        return found | ({"supervisor": self._process.pid} if self._process is not None else {})

    def begin(self) -> None:
        """The first episode runs: injections count from here."""
        self.board.places["ready"][RUN_PLACE] = 1

    def check(self) -> None:
        """Look whether all that must live does; a few microseconds, for every tick.

        What was added later is not looked at: the arm is led without it, see `check_added`.

        Raises:
            BadInputError: a process refused what the person gave it, and said why.
            HardwareError: the supervisor is gone, or a process that may not be started again.
        """
        if self._process is None or self._process.poll() is not None:
            raise HardwareError("the supervisor is gone, and with it cameras and servo; look at the arm, start again")
        ended = self.board.places["ended"].tolist()  # no view: an error would keep it, and the board could not close
        for place, child in enumerate(self._children, RUN_PLACE + 1):
            word = ended[place]
            match word & 0xFFFF:
                case Ended.REFUSED:
                    raise _refusal(child)
                case Ended.GIVEN_UP:
                    raise HardwareError(f"{child.name} {_status(word)}; look at the arm, then start the run anew")

    def check_added(self) -> None:
        """Look between two episodes whether what was added later works. Raises BadInputError for what refused."""
        for place, child in self._late.items():
            if int(self.board.places["ended"][place]) & 0xFFFF == Ended.REFUSED:
                raise _refusal(child)

    def news(self) -> list[str]:
        """Return what was started anew since the last call, a line each."""
        lines = []
        for place, child in self._places().items():
            starts = int(self.board.places["starts"][place])
            if starts > self._starts[place]:
                self._starts[place] = starts
                word = int(self.board.places["ended"][place])
                why = "was silent" if word & 0xFFFF == Ended.SILENT else _status(word)
                lines.append(f"{child.name} {why} and was started again")
        return lines

    def condemn(self, name: str) -> None:
        """Have a process that hangs ended; the supervisor starts it anew."""
        self.board.places["condemned"][self.place(name)] = 1

    def _places(self) -> dict[int, ChildPlan]:
        """What is supervised, by place on the board."""
        return {RUN_PLACE + 1 + i: child for i, child in enumerate(self._children)} | self._late


def _refusal(child: ChildPlan) -> BadInputError:
    return BadInputError(f"{child.name}: could not be opened; it said why above")


def _status(word: int) -> str:
    """How a process ended, in words, from the board's word."""
    status = (word >> 16) & 0xFFFF
    if status > 0x7FFF:
        return f"ended by signal {0x10000 - status}"
    return f"ended with status {status}"
