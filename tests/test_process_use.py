"""Processor time and memory of processes, of those that ended as well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.process_use import ProcessUse

_BUSY = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"


def test_a_process_that_ended_has_used_what_it_had_and_no_less() -> None:
    with subprocess.Popen([sys.executable, "-c", _BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        use = ProcessUse({"busy": process.pid, "own": os.getpid()})
        process.stdout.readline()
        use.update({"own": os.getpid()})
        process.communicate(b"\n")
    found = use.since()["busy"]
    assert found["cpu_percent"] > 0.0
    assert found["memory_mb"] == 0.0


def test_one_that_ends_while_it_is_read_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use = ProcessUse({"own": os.getpid()})

    def ended(self: Path) -> str:
        raise ProcessLookupError

    monkeypatch.setattr(Path, "read_text", ended)
    assert use.since()["own"]["memory_mb"] == 0.0
    assert use.since()["own"]["cpu_percent"] >= 0.0


def test_what_a_predecessor_used_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = {1: 10.0, 2: 3.0}
    monkeypatch.setattr("benchmarks.process_use._cpu_s", spent.get)
    monkeypatch.setattr("benchmarks.process_use._memory_mb", lambda pid: 1.0)
    now_s = iter([0.0, 10.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now_s))
    use = ProcessUse({"camera": 1})
    spent[1] = 12.0
    use.update({"camera": 1})
    del spent[1]
    use.update({"camera": 2})
    assert use.since()["camera"]["cpu_percent"] == 50.0
