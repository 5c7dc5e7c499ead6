"""What a supervisor is told: which processes to keep alive, and which faults to inject."""

from __future__ import annotations

import enum
from typing import Annotated

from pydantic import Field

from robot.strict import Strict

RUN_PLACE = 0  # of the loop's own process on the board


class ChildPlan(Strict):
    """One process.

    Attributes:
        name: what the person calls it, such as "camera front".
        module: Python module that is run.
        arguments: its command line; the supervisor appends what `robot.supervised.Supervised` needs.
        files: file descriptors that it inherits, of the same numbers.
        restart: whether it may be started again. What moves the arm may not: a person has to look first.
        silence_s: without a sign of life for so long it is taken for frozen and killed [s].
        stop_order: those of the lowest number are ended first, and the next ones once they are gone.
        nice: added to its niceness.
        priority: of SCHED_FIFO, 0 for the ordinary scheduler; without the right to it the process runs all the same.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    files: tuple[int, ...] = ()
    restart: bool
    silence_s: Annotated[float, Field(gt=0.0, le=60.0)] = 1.0
    stop_order: int = 1
    nice: Annotated[int, Field(ge=-20, le=19)] = 0
    priority: Annotated[int, Field(ge=0, le=98)] = 0


class Deed(enum.StrEnum):
    """What is done to a process to see what the others make of it."""

    KILL = "kill"  # SIGKILL
    FREEZE = "freeze"  # SIGSTOP, and SIGCONT after `for_s`
    FAULT = "fault"  # it shows the fault `number` for `for_s`


class Injection(Strict):
    """A fault, some time after the first episode began.

    Attributes:
        place: of the process on the board; None for the supervisor itself.
        deed: what is done.
        at_s: when, from the first tick of the run [s].
        for_s: for how long, where it is a state and no blow [s].
        number: of the fault, for `Deed.FAULT`.
        amount: how much of it.
    """

    place: int | None
    deed: Deed
    at_s: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    for_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    number: int = 0
    amount: Annotated[float, Field(allow_inf_nan=False)] = 0.0


class LateChild(Strict):
    """One more process, told to a supervisor that runs already; it inherits no files.

    Attributes:
        place: on the board, of one of the names that the supervisor was given for others.
    """

    place: int
    child: ChildPlan


class SupervisorPlan(Strict):
    """Everything: child i has place 1 + i on the board, place 0 is the run's; later places are not supervised."""

    board: int
    children: tuple[ChildPlan, ...]
    injections: tuple[Injection, ...] = ()
