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
        self._seen = {name: _cpu_s(pid) or 0.0 for name, pid in processes.items()}
        self._used = dict.fromkeys(processes, 0.0)

    def update(self, processes: Mapping[str, int]) -> None:
        """Take over the ids of processes that were started anew meanwhile; what their predecessors used counts."""
        self._look()
        for name, pid in processes.items():
            if self._processes.get(name) != pid:
                self._processes[name], self._seen[name] = pid, 0.0
                self._used.setdefault(name, 0.0)
        self._look()

    def since(self) -> dict[str, dict[str, float]]:
        """Return per process `cpu_percent` of one core since then, and `memory_mb` now.

        Of a process that ended, what it had used when it was last looked at counts, and it has no memory.
        """
        self._look()
        passed_s = time.monotonic() - self._began_s
        memory = self.memory_mb()
        return {
            name: {
                "cpu_percent": round(100.0 * self._used[name] / passed_s, 1),
                "memory_mb": memory[name],
            }
            for name in self._processes
        }

    def memory_mb(self) -> dict[str, float]:
        """Return the memory that each process has for itself alone (not shared with others) [MB]."""
        return {name: _memory_mb(pid) for name, pid in self._processes.items()}

    def _look(self) -> None:
        for name, pid in self._processes.items():
            now_s = _cpu_s(pid)
            if now_s is not None:
                self._used[name] += max(0.0, now_s - self._seen[name])
                self._seen[name] = now_s


def _cpu_s(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # it ended before the file was opened, or before it was read
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    kilobytes = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return round(kilobytes / 1024.0, 1)
