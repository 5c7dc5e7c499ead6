"""A short time slice for a process that runs often and briefly: what punctuality can be had without any privilege."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_SLICE_NS = 100_000  # the least that Linux takes
_ATTRIBUTES = struct.Struct("=IIQiIQQQII")  # struct sched_attr of linux/sched/types.h


def ask_for_short_slice() -> bool:
    """Have this process run sooner after it wakes, at the price of being interrupted sooner; return whether it will.

    Linux schedules whose request is due first (EEVDF), and a short request is due soon; it takes one from 6.12 on.
    Beside busy processes the servo was late by 11 to 20 ms in one of a hundred steps with it and by 27 to 50 ms
    without. A process that somebody has given a real-time priority keeps that and needs no more.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, niceness, 0, _SLICE_NS, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(number, 0, ctypes.create_string_buffer(attributes), 0) == 0)
