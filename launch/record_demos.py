#!/usr/bin/env python3
"""Records demonstrations of a task, by a person or, in simulation, by a scripted expert."""

from __future__ import annotations

from pathlib import Path

from environment import cli

from tqdm import tqdm

from policy.episode_header import Outcome
from policy.manifest_file import read_manifest
from robot.clock import VirtualClock, WallClock
from robot.simulation.layout import Split
from teleop.demonstrations import perturbed, unbumped
from teleop.run import Run
from teleop.run_options import RunOptions
from teleop.run_report import HOW_TO_ARM, all_recorded, recording_lines, run_summary


def main() -> int:
    """Record episodes until there are enough or the person closes the run."""
    args = _parser().read()
    by_hand = args.operator != "expert"
    manifest, _ = read_manifest(args.station.bundle_path)
    station = unbumped(args.station) if args.unbumped else args.station
    loaded = perturbed(station, manifest.action.dims, args.perturb)
    options = RunOptions(
        out=args.out,
        operator=args.operator,
        seed=args.seed,
        split=Split.TRAINING,
        explore=args.perturb > 0.0,
        resume=args.resume,
    )
    clock = WallClock() if by_hand else VirtualClock()
    successes = 0
    with Run(loaded, clock, options) as run, tqdm(total=args.episodes, unit="episode", disable=None) as bar:
        bar.write(HOW_TO_ARM[options.operator])
        while len(run.results) < args.episodes:
            result = run.episode()
            if result is None:
                break
            successes += result.outcome is not None and result.outcome.outcome is Outcome.SUCCESS
            bar.set_postfix_str(f"{successes} shown to the end")
            bar.update()
            if result.quit:
                break
        run.finish()
    document = run_summary(run) | {"successes": successes, "perturb": args.perturb}
    print(
        f"{successes} of {len(run.results)} demonstrations succeeded, {document['ticks']} ticks: {run.folder.episodes}"
    )
    for line in recording_lines(run, document):
        print(line)
    cli.write_json(args.json, document)
    return cli.OK if all_recorded(document) else cli.FAILED_CHECK


def _parser() -> cli.ScriptParser:
    parser = cli.script(
        __doc__ or "",
        [
            "record_demos.py launch/stations/sim_place.toml --out runs/demos --operator expert --unbumped",
            "record_demos.py launch/stations/sim_place.toml --out runs/pushed --operator expert --unbumped "
            "--perturb 0.6 --seed 1",
            "record_demos.py launch/stations/sim_place.toml --out runs/mine --operator gamepad --episodes 20",
        ],
        station=True,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder")
    parser.add_argument(
        "--operator",
        choices=["expert", "gamepad", "keyboard"],
        required=True,
        help="who shows it; the expert knows the simulated scene",
    )
    parser.add_argument("--episodes", type=cli.count, default=50, metavar="N", help="how many (default 50)")
    parser.add_argument(
        "--perturb",
        type=float,
        default=0.0,
        metavar="SPREAD",
        help="push the arm at random while it is driven, 0 to 1 (default 0), so that demonstrations show the way back",
    )
    parser.add_argument("--unbumped", action="store_true", help="put simulated cameras where their calibration says")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of layouts and pushes")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, or begin it")
    return parser


if __name__ == "__main__":
    cli.run(main)
