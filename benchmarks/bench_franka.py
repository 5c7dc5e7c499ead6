"""Shared control of a Franka in real time, against franky-sim over libfranka's own protocol; one JSON line.

    .venv/bin/python benchmarks/bench_franka.py --seconds 60

The shipped station runs with its policy and the simulated operator until its episodes have so many seconds of ticks,
homing included. SCHED_FIFO is used where the system allows it (root, or `ulimit -r`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import cpu_name
from policy.episode_reader import Episode, latest_revisions
from robot.clock import WallClock
from teleop.arbiter import Source
from teleop.run import Run
from teleop.run_options import RunOptions
from teleop.station import load_station

ROOT = Path(__file__).parents[1]
STATION = ROOT / "launch" / "stations" / "franka_sim.toml"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of ticks at least")
    parser.add_argument("--seed", type=int, default=0, help="of layouts and the simulated operator")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="of the station")
    options = parser.parse_args()
    loaded = load_station(STATION, [(key, value) for key, value in options.set])
    period_s = loaded.station.period_s
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        wanted = RunOptions(out=Path(folder) / "run", operator="simulated", seed=options.seed)
        with Run(loaded, WallClock(), wanted) as run:
            ticks = 0
            while ticks * period_s < options.seconds:
                run.episode()
                ticks += run.results[-1].rows
                print(f"{ticks * period_s:5.1f} of {options.seconds:g} s", file=sys.stderr, flush=True)
            run.finish()
            granted = run.granted
        found = figures(latest_revisions(Path(folder) / "run" / "episodes"), period_s)
    result: dict[str, object] = {
        "benchmark": "franka",
        "machine": f"{cpu_name()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "load_before": round(load, 1),
        "granted": granted,
        **found,
    }
    print(json.dumps(result))
    return 0


def figures(episodes: list[Episode], period_s: float) -> dict[str, object]:
    """What the episodes' rows say."""
    start_s, due_s, state_s = (_all(episodes, f"tick/{name}") for name in ("start_s", "due_s", "state_s"))
    source, force_n = _all(episodes, "tick/source"), _all(episodes, "tick/force_n")
    # where the measured arm is against what was to be reached by then: two ticks before, for delay and travel
    pairs = [(_all([each], "tick/q_rad"), _all([each], "tick/commanded_q")) for each in episodes]
    off_rad = np.concatenate([np.abs(q_rad[2:] - goal_rad[:-2]).max(axis=1) for q_rad, goal_rad in pairs])
    return {
        "seconds": round(len(start_s) * period_s, 1),
        "ticks": len(start_s),
        "skipped_ticks": sum(episode.outcome.skipped_ticks for episode in episodes),
        "deadlines_missed": int(_all(episodes, "tick/deadline_missed").sum()),
        "tick_late_ms": _quantiles(1e3 * (start_s - (due_s - period_s))),
        "state_age_ms": _quantiles(1e3 * (start_s - state_s)),
        "tracking_rad": _quantiles(off_rad),
        # of the ticks at which the arm could tell
        "force_n": _quantiles(force_n[np.isfinite(force_n)]),
        "ticks_by": {each.name.lower(): int((source == each).sum()) for each in Source},
        "outcomes": Counter(episode.outcome.outcome.value for episode in episodes),
        "faults": sorted({episode.outcome.reason for episode in episodes if episode.outcome.reason}),
    }


def _all(episodes: list[Episode], name: str) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(episode.array(name), np.float64) for episode in episodes])


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    p50, p99, most = np.percentile(values, [50, 99, 100])
    return {"p50": round(float(p50), 4), "p99": round(float(p99), 4), "max": round(float(most), 4)}


if __name__ == "__main__":
    sys.exit(main())
