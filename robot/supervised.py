"""What every process under the supervisor does: it shows that it lives, and ends when told to or left alone."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
from types import FrameType

from robot.process_board import ProcessBoard

_PR_SET_PDEATHSIG = 1


class Supervised:
    """The process's own end of the supervision.

    Args:
        board: file descriptor of the board.
        place: this process's place on it.
        parent: id of the supervisor.
        orphaned: signal that the kernel sends when the supervisor dies. SIGTERM lets the process come to an end in
            order; SIGKILL also ends one that stands still (SIGSTOP), and is for those that hold nothing that moves.
    """

    def __init__(self, board: int, place: int, parent: int, *, orphaned: signal.Signals) -> None:
        self.board, self.place, self._parent = ProcessBoard(board), place, parent
        self._terminated = False
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then ends the others in order
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(orphaned))
        self.beat()

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
        """Add what the supervisor appends to every command line; not `required` where it may also run by itself."""
        for name in ("--board", "--place", "--parent"):
            parser.add_argument(name, type=int, required=required, help="given by a supervisor")

    def beat(self) -> None:
        """Say that this process is alive; to be called several times within the silence that the supervisor allows."""
        self.board.beat(self.place)

    def ready(self) -> None:
        """Say that this process does its work from now on."""
        self.beat()
        self.board.places["ready"][self.place] = 1

    @property
    def stopping(self) -> bool:
        """True once this process is to come to an end: SIGTERM came, or the supervisor is gone."""
        return self._terminated or os.getppid() != self._parent

    @property
    def fault(self) -> tuple[int, float]:
        """Number and amount of the fault that this process is to show, for tests and `--inject`; 0 for none."""
        place = self.board.places[self.place]
        return int(place["fault"]), float(place["fault_value"])

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True
