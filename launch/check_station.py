#!/usr/bin/env python3
"""Tries every part of a station and says what is wrong: a preflight before a run."""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from pathlib import Path

from environment import cli

from tqdm import tqdm

from policy.bundle import load_bundle
from robot.clock import VirtualClock, WallClock
from robot.errors import BadInputError
from robot.recording import Recording
from teleop.blind_picture import check_ending, draw_blind
from teleop.gamepad import Gamepad
from teleop.keyboard import Keyboard
from teleop.preflight import PreflightOptions, needs_real_time, preflight
from teleop.preflight_blind import blind_test
from teleop.preflight_check import Check, Result
from teleop.preflight_verbs import watch_verbs

_WIDTH = 100
_VERBS_S = 120.0


def main() -> int:
    """Print one table and a verdict; 1 when a check failed."""
    args = _parser().read()
    if args.blind and args.verbs:
        raise BadInputError("--blind and --verbs are two tests; give one of them")
    if args.picture and not args.blind:
        raise BadInputError("--picture: is of the blind test; add --blind PATH")
    if args.blind:
        return blind(args)
    return verbs(args) if args.verbs else check(args)


def check(args: argparse.Namespace) -> int:
    """Try every part."""
    recording = Recording.open(args.recording) if args.recording else None
    station = args.station.station
    # simulated and recorded parts stand on the clock that they are given, so they need no waiting
    clock = WallClock() if args.real_time or needs_real_time(station) else VirtualClock()
    checks: list[Check] = []
    with tqdm(total=1.0, desc="watching arm and cameras", leave=False, disable=None, bar_format="{desc} {bar}") as bar:

        def progress(share: float) -> None:
            bar.update(share - bar.n)

        options = PreflightOptions(
            out=args.out, operator=args.operator, recording=recording, watch_s=args.seconds, progress=progress
        )
        for found in preflight(args.station, clock, options):
            checks.append(found)
            lines = textwrap.wrap(found.found, _WIDTH, break_long_words=False, break_on_hyphens=False)
            bar.write("\n".join([f"{found.part:<18} {found.result:<8} {lines[0]}", *(" " * 28 + x for x in lines[1:])]))
    failed = Counter(found.part for found in checks if found.result is Result.FAILED)
    print(f"station '{station.name}': {'not ready, see ' + ', '.join(failed) if failed else 'ready'}")
    document = {
        "station": station.name,
        "path": args.station.path,
        "ready": not failed,
        "checks": [{"part": found.part, "result": found.result.lower(), "found": found.found} for found in checks],
    }
    cli.write_json(args.json, document)
    return cli.FAILED_CHECK if failed else cli.OK


def blind(args: argparse.Namespace) -> int:
    """Break each camera on logged ticks and say how far the policy's action moves."""
    if args.picture:
        check_ending(args.picture)
    policy = args.station.station.policy
    bundle = load_bundle(args.station.bundle_path, policy.provider, policy.threads)
    with tqdm(unit="tick", total=args.ticks, leave=False, disable=None) as bar:
        report = blind_test(bundle, args.blind, ticks=args.ticks, progress=bar.update)
    print("\n".join(report.lines()))
    if args.picture:
        draw_blind(report, args.picture)
        print(f"picture {args.picture}")
    cli.write_json(args.json, report.document())
    return cli.FAILED_CHECK if report.ignored else cli.OK


def verbs(args: argparse.Namespace) -> int:
    """Show each verb of the person's device as it is given."""
    config = args.station.station.operator
    device = Keyboard(config.keyboard) if args.operator == "keyboard" else Gamepad(config.gamepad)
    print(f"give each verb of the {device.name} once, those of motion and gripper while you hold the drive button;")
    print(f"no arm moves. Close the window, or wait {_VERBS_S:g} s, to end.")
    for verb, how in device.verbs.items():
        print(f"  {verb:<18} {how}")
    left = tuple(device.verbs)
    for verb, left in watch_verbs(device, limit_s=_VERBS_S, clock=WallClock()):
        print(f"{verb:<18} ok       {device.verbs[verb]}" + (f"   ({len(left)} left)" if left else ""), flush=True)
    print(f"{device.name}: {'never given: ' + '; '.join(left) if left else 'every verb works'}")
    given = {verb: verb not in left for verb in device.verbs}
    cli.write_json(args.json, {"device": device.name, "verbs": given, "passed": not left})
    return cli.FAILED_CHECK if left else cli.OK


def _parser() -> cli.ScriptParser:
    parser = cli.script(
        __doc__ or "",
        [
            "check_station.py launch/stations/sim_place.toml",
            "check_station.py launch/stations/sim_place.toml --operator gamepad --out runs/today",
            "check_station.py launch/stations/sim_place.toml --verbs",
            "check_station.py launch/stations/sim_place.toml --blind runs/today --json blind.json --picture blind.png",
            "check_station.py launch/stations/bridge_recorded.toml --recording bridge_real_robot.h5",
        ],
        station=True,
    )
    parser.add_argument("--operator", choices=["gamepad", "keyboard"], help="device that must be there")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder that the run will write to")
    parser.add_argument("--recording", type=Path, metavar="PATH", help="for a station that plays a recording")
    parser.add_argument("--seconds", type=cli.count, default=10, help="how long arm and cameras are watched")
    parser.add_argument("--real-time", action="store_true", help="also for simulated parts; others always are")
    parser.add_argument("--verbs", action="store_true", help="only show each verb of the device as it is given")
    parser.add_argument(
        "--blind", type=Path, nargs="+", metavar="PATH", help="only blind the policy on runs or episodes of this rig"
    )
    parser.add_argument("--picture", type=Path, metavar="PATH", help="PNG or SVG of what --blind found")
    parser.add_argument("--ticks", type=cli.count, default=200, help="at most so many ticks for --blind")
    return parser


if __name__ == "__main__":
    cli.run(main)
