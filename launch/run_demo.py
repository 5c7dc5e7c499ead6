#!/usr/bin/env python3
"""Watches a frozen policy that fails half the time become reliable, by a person's corrections and online learning.

No robot, no GPU, no display: a simulated arm, two ray-cast cameras, a real policy, a real learner.
"""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from environment import cli

from teleop.demo import FULL, QUICK, run_demo
from teleop.run_report import all_recorded


def main() -> int:
    """Run the demo; 1 when a replayed decision differs from the log."""
    parser = cli.script(
        __doc__ or "",
        [
            "./launch/demo.sh",
            "./launch/demo.sh --quick --out /tmp/demo",
            "./launch/demo.sh --operator gamepad   # you correct the robot yourself, in real time",
            "./launch/demo.sh --operator none      # learning from reward alone",
        ],
        station=True,
        default_station="sim_place.toml",
    )
    parser.add_argument("--quick", action="store_true", help="a minute and a half, to see that everything works")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder, made anew (default runs/demo-<UTC>)")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of layouts, networks and the simulated person")
    parser.add_argument("--real-time", action="store_true", help="train against the wall clock")
    parser.add_argument("--operator", choices=["simulated", "gamepad", "keyboard", "none"], default="simulated")
    args = parser.read()
    out = args.out or Path("runs") / f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}"

    summary = run_demo(
        args.station,
        out=out,
        plan=QUICK if args.quick else FULL,
        seed=args.seed,
        operator=args.operator,
        real_time=args.real_time,
        command=shlex.join(["./launch/demo.sh", *sys.argv[1:]]),
    )

    base, trained, replay = summary["base"], summary["trained"], summary["replay"]
    print(f"base alone          {base['successes']}/{base['episodes']} = {base['rate']:.0%}")
    print(f"base + residual     {trained['successes']}/{trained['episodes']} = {trained['rate']:.0%}")
    print(
        f"interventions       {summary['interventions']['first_quarter_per_episode']:.2f} an episode in the first "
        f"quarter, {summary['interventions']['last_quarter_per_episode']:.2f} in the last"
    )
    if summary["rolled_back"]:
        print(f"rolled back         {summary['rolled_back']['why']}")
    for line in summary["advice"]:
        print(f"corrections         {line}")
    print(f"replayed            {replay['ticks']} ticks, {replay['mismatches']} mismatches")
    print(f"took                {summary['wall_s']:.0f} s, {summary['env_steps']} ticks of training")
    print(f"open                {out / 'report.html'}")
    cli.write_json(args.json, summary)
    return cli.OK if replay["mismatches"] == 0 and all_recorded(summary["episodes"]) else cli.FAILED_CHECK


if __name__ == "__main__":
    cli.run(main)
