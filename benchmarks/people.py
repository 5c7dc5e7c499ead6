#!/usr/bin/env python3
"""How often the scripted expert, and the simulated person beside the bare base, bring a task to its end; one JSON line.

.venv/bin/python benchmarks/people.py launch/stations/sim_insert.toml --layouts 200
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))

from environment import cli

from policy.wilson import wilson95
from robot.clock import VirtualClock
from robot.simulation.layout import Split
from teleop.run import Run
from teleop.run_options import OperatorKind, RunOptions
from teleop.station import LoadedStation, load_station


def main() -> int:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("station", type=Path, nargs="?", default=cli.STATIONS / "sim_place.toml")
    parser.add_argument("--layouts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--who", choices=["expert", "simulated"], nargs="+", default=["expert", "simulated"])
    args = parser.parse_args()
    loaded = load_station(args.station)
    result = {who: measure(loaded, who, args.layouts, args.seed) for who in args.who}
    print(json.dumps({"benchmark": "people", "station": loaded.station.name, "seed": args.seed, **result}))
    return 0


def measure(loaded: LoadedStation, who: OperatorKind, layouts: int, seed: int) -> dict[str, Any]:
    """Run held-out layouts with `who` at the device; the policy is the base alone."""
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(out=Path(folder) / "run", operator=who, seed=seed, split=Split.HELD_OUT)
        with Run(loaded, VirtualClock(), options) as run:
            for _ in range(layouts):
                run.episode()
            run.finish()
        successes = sum(result.outcome is not None and result.outcome.success for result in run.results)
        helped = sum(result.interventions > 0 for result in run.results)
        ticks = sum(result.ticks for result in run.results)
    return {
        "episodes": layouts,
        "successes": successes,
        "rate": round(successes / layouts, 4),
        "wilson95": [round(bound, 4) for bound in wilson95(successes, layouts)],
        "episodes_with_takeover": helped,
        "ticks_per_episode": round(ticks / layouts, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
