#!/usr/bin/env python3
"""Runs a station's policy, lets a person take over at any tick, and logs every tick."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from environment import cli

from policy.bridge_data import unseen
from policy.episode_reader import read_episode
from policy.manifest_file import read_manifest
from policy.weights_file import read_weights, weights_of_version
from robot.clock import VirtualClock, WallClock
from robot.config import RecordedArmConfig
from robot.errors import BadInputError, HardwareError
from robot.franka_config import FrankaArmConfig
from robot.recording import Recording
from teleop.inject import HELP as INJECT_HELP
from teleop.inject import read_fault
from teleop.open_loop_report import open_loop_report
from teleop.run import Run
from teleop.run_options import RunOptions
from teleop.run_report import HOW_TO_ARM, all_recorded, episode_line, process_age_s, run_summary, summary_lines

_EPISODES = 10


def main() -> int:
    """Run episodes until there are enough or the person closes the run; 1 when a recording has gaps."""
    args = _parser().read()
    station = args.station.station
    recorded = isinstance(station.arm, RecordedArmConfig)
    by_hand = args.operator in ("gamepad", "keyboard")
    manifest, _ = read_manifest(args.station.bundle_path)
    recording = _recording(args.recording, recorded, str(args.station.path))
    options = RunOptions(
        out=args.out or Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{station.name}",
        operator=args.operator or ("none" if recorded else "simulated"),
        seed=args.seed,
        learner=args.learner,
        keys=args.keys or (args.station.keys_path if args.learner else None),
        weights=read_weights(_weights_file(args), manifest, station.residual)[0] if args.weights else None,
        explore=args.learner is not None,
        resume=args.resume,
        recorded=tuple(unseen(recording, manifest.training)) if recording else (),
        faults=tuple(map(read_fault, args.inject)),
    )
    real_time = args.real_time or by_hand or isinstance(station.arm, FrankaArmConfig)
    clock = WallClock() if real_time else VirtualClock()
    with Run(args.station, clock, options, recording=recording) as run:
        first = run.folder.next_episode()
        total = args.episodes or (None if by_hand else _EPISODES)
        if recording:
            total = min(args.episodes or len(options.recorded), len(options.recorded) - first)
        print(f"ready in {process_age_s():.2f} s; {HOW_TO_ARM[options.operator]}", flush=True)
        if run.granted:
            print(run.granted, flush=True)
        for line in run.moved:
            print(f"warning: {line}", flush=True)
        failure = None
        while failure is None and (total is None or len(run.results) < total):
            done = len(run.results)
            try:
                if run.episode() is None:
                    break
            except HardwareError as error:
                failure = error
                if done == 0 and not run.results:
                    raise
                if len(run.results) == done:
                    break  # between two episodes
            result = run.results[-1]
            print(episode_line(len(run.results), total, result, run.news()), flush=True)
            if result.quit:
                break
        run.finish()
        processes = run.processes()

    document = run_summary(run) | {"processes": processes}
    print("\n".join(summary_lines(run, document)))
    if recording and run.committed:
        report = open_loop_report([read_episode(episode.path) for episode in run.committed], recording, manifest)
        print(report.text())
        document |= {**report.summary(), "verdict": report.verdict(), "recording": recording.path}
    if failure is not None:
        document["failure"] = str(failure)
        print(f"run_robot.py: {failure}", file=sys.stderr)
    cli.write_json(args.json, document)
    return cli.OK if failure is None and all_recorded(document) else cli.FAILED_CHECK


def _parser() -> cli.ScriptParser:
    parser = cli.script(
        __doc__ or "",
        [
            "run_robot.py launch/stations/sim_place.toml",
            "run_robot.py launch/stations/sim_place.toml --operator gamepad --out runs/today",
            "run_robot.py launch/stations/sim_place.toml --weights runs/learner/weights.safetensors --operator none",
            "run_robot.py launch/stations/sim_place.toml --out runs/today --resume --weights 41",
            "run_robot.py launch/stations/sim_place.toml --real-time --inject camera-kill:wrist@3",
            "run_robot.py launch/stations/franka_sim.toml --episodes 3",
            "run_robot.py launch/stations/bridge_recorded.toml --recording bridge_real_robot.h5 --json bridge.json",
        ],
        station=True,
    )
    parser.add_argument("--out", type=Path, help="run folder (default runs/<time>-<station>)")
    parser.add_argument(
        "--operator",
        choices=["gamepad", "keyboard", "simulated", "none"],
        help="whose hands are on it; gamepad and keyboard imply --real-time "
        "(default simulated; none for a recorded station)",
    )
    parser.add_argument(
        "--episodes",
        type=cli.count,
        metavar="N",
        help=f"how many (default {_EPISODES}; until you close the window; all unseen episodes of a recording)",
    )
    parser.add_argument("--seed", type=cli.seed, default=0, help="of layouts, exploration and the simulated person")
    parser.add_argument(
        "--real-time", action="store_true", help="wall clock instead of lock-step; a Franka has no other"
    )
    parser.add_argument(
        "--learner",
        metavar="ENDPOINT",
        help="learn online with run_learner.py there, such as tcp://127.0.0.1:5701; in lock-step start that with "
        "--lock-step; `own` starts one for this run, in real time",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="DIR",
        help="this robot's keys, made by make_keys.py, for a learner on another machine (default: the station's "
        "learner.keys)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE|VERSION",
        help="weights of the residual to start from; a version is one that the run in --out had, with --resume: newer "
        "ones are taken from the learner only if it makes them from now on",
    )
    parser.add_argument("--recording", type=Path, metavar="PATH", help="for a station that plays a recording")
    parser.add_argument(
        "--inject",
        action="append",
        default=[],
        metavar="FAULT",
        help="show what happens when something breaks: KIND[:TARGET][@AT][+FOR][=AMOUNT], times in seconds from the "
        f"first tick; may be given several times. {INJECT_HELP}",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, or begin it")
    return parser


def _weights_file(args: argparse.Namespace) -> Path:
    """Return the file that --weights names."""
    if not args.weights.isdecimal():
        return Path(args.weights)
    if not args.resume or args.out is None:
        raise BadInputError(f"--weights {args.weights}: a version is of a run's own; add --out RUN --resume")
    return weights_of_version(args.out, int(args.weights))


def _recording(path: Path | None, recorded: bool, station: str) -> Recording | None:
    if recorded and path is None:
        raise BadInputError(f"station {station}: plays a recording and none was given; add --recording PATH")
    if path is not None and not recorded:
        raise BadInputError(f"--recording {path}: station {station} has an arm of its own; leave it out")
    return Recording.open(path) if path else None


if __name__ == "__main__":
    cli.run(main)
