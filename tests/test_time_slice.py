"""The short time slice, in a process of its own: it would stay with this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = """
import json, os
from pathlib import Path
from robot.time_slice import ask_for_short_slice

os.nice(3)
granted = ask_for_short_slice()
lines = Path("/proc/self/sched").read_text().replace(" ", "").splitlines()[2:]
said = dict(line.split(":", 1) for line in lines if ":" in line)
print(json.dumps([granted, int(said["se.slice"]), int(said["policy"]), int(said["prio"])]))
"""


def test_a_short_slice_is_in_force_when_it_was_granted_and_nothing_else_changes() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    granted, slice_ns, policy, priority = json.loads(done.stdout)
    release = tuple(int(number) for number in os.uname().release.split(".")[:2])
    assert (slice_ns == 100_000) == (granted and release >= (6, 12))
    assert (policy, priority) == (os.SCHED_OTHER, 123)
