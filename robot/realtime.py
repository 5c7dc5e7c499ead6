"""What the operating system grants a process that must be on time, and one line about it."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

from pydantic import Field

from robot.errors import BadInputError
from robot.strict import Strict

_MCL_CURRENT, _MCL_FUTURE = 1, 2


class RealtimeConfig(Strict):
    """What to ask the system for; what it refuses costs no more than punctuality.

    Attributes:
        priority: of SCHED_FIFO for the loop; servo and cameras get one more and one less. 0 asks for nothing.
        cores: that the loop may run on. When empty, with SCHED_FIFO it stays on the last of those that it has, where a
            rehearsal then finds its caches again; without, it may go where there is room.
        rehearse_s: how long before each tick the loop wakes, to have its code and data in the caches and to be on time;
            0 for not at all. Not more than a quarter of a period [s].
        lock_memory: keep all pages in memory (mlockall), so that none has to be fetched in the middle of a tick.
    """

    priority: Annotated[int, Field(ge=0, le=90)] = 50
    cores: tuple[Annotated[int, Field(ge=0, le=1023)], ...] = ()
    lock_memory: bool = False
    rehearse_s: Annotated[float, Field(ge=0.0, le=0.02)] = 0.003


def check_cores(config: RealtimeConfig, where: str) -> None:
    """Look whether this machine has the cores that `config` names. Raises BadInputError, `where` in front."""
    there = os.sysconf("SC_NPROCESSORS_CONF")
    absent = [core for core in config.cores if core >= there]
    if absent:
        raise BadInputError(
            f"{where}: realtime.cores names core {absent[0]}, this machine has 0 to {there - 1}; name those, or leave "
            "cores out for all"
        )


def ask_for(config: RealtimeConfig) -> str:
    """Ask for what `config` names, for this process; return one line that says what was granted and what was not."""
    said = []
    cores = config.cores
    if config.priority:
        try:
            # a process started from here later, such as a second recorder, is not to have it
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(config.priority))
            said.append(f"SCHED_FIFO {config.priority}")
            cores = cores or (max(os.sched_getaffinity(0)),)
        except PermissionError:
            said.append("no SCHED_FIFO (allow it with `ulimit -r` or CAP_SYS_NICE)")
    if cores:
        named = f"{'core' if len(cores) == 1 else 'cores'} {', '.join(map(str, cores))}"
        try:
            os.sched_setaffinity(0, cores)
            said.append(named)
        except OSError as error:
            said.append(f"not on {named} ({error.strerror})")
    if config.lock_memory:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0:
            said.append("memory locked")
        else:
            said.append(f"memory not locked ({os.strerror(ctypes.get_errno())}; allow it with `ulimit -l`)")
    return f"real time: {'; '.join(said)}" if said else "real time: nothing asked for ([realtime] in the station)"


def give_back(config: RealtimeConfig, cores: Collection[int]) -> None:
    """Be an ordinary process again after `ask_for`, on the `cores` of before."""
    if config.priority:
        # the flag may not be taken off without CAP_SYS_NICE
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    os.sched_setaffinity(0, cores)
    if config.lock_memory:
        ctypes.CDLL(None).munlockall()


def keep_up_with(thread: int) -> None:
    """Give the calling thread the real-time priority of another one of this process, and with it what it starts.

    A process is given its priority from outside, which is its first thread's only.
    """
    policy = os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK
    if policy == os.SCHED_FIFO and os.sched_getscheduler(0) != os.SCHED_FIFO:
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_getparam(thread))


@contextmanager
def without_collections() -> Iterator[None]:
    """Keep Python's garbage collector from running: a full collection takes longer than a tick (0.65 s, measured).

    What is there now is not looked at again; call `gc.collect` where there is time.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
