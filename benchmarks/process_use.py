"""How much processor time and memory each process of a run takes, read from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path


class ProcessUse:
    """Counts from its making.

    Args:
        processes: name -> process id.
    """

    def __init__(self, processes: Mapping[str, int]) -> None:
        self._processes = dict(processes)
        self._began_s = time.monotonic()
        self._before = {name: _cpu_s(pid) for name, pid in processes.items()}

    def update(self, processes: Mapping[str, int]) -> None:
        """Take over the ids of processes that were started anew meanwhile."""
        for name, pid in processes.items():
            if self._processes.get(name) != pid:
                self._processes[name] = pid
                self._before[name] = 0.0

    def since(self) -> dict[str, dict[str, float]]:
        """Return per process `cpu_percent` of one core since then, and `memory_mb` now."""
        passed_s = time.monotonic() - self._began_s
        memory = self.memory_mb()
        return {
            name: {
                "cpu_percent": round(100.0 * (_cpu_s(pid) - self._before[name]) / passed_s, 1),
                "memory_mb": memory[name],
            }
            for name, pid in self._processes.items()
        }

    def memory_mb(self) -> dict[str, float]:
        """Return the memory that each process has for itself alone (not shared with others) [MB]."""
        return {name: _memory_mb(pid) for name, pid in self._processes.items()}


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    kilobytes = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return round(kilobytes / 1024.0, 1)
