#!/usr/bin/env python3
"""Verifies, compares, shows and recovers logged episodes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from environment import cli

from tqdm import tqdm

from policy.episode_recovery import recover_folder
from robot.errors import BadInputError
from teleop.replay import verify_run
from teleop.replay_compare import compare_bundle
from teleop.replay_parts import episode_files
from teleop.replay_show import describe
from teleop.replay_text import compared_lines, verified_lines

_PATHS = "run folders, episodes folders or episode files (*.h5)"


def main() -> int:
    """Do what the command line says; return the exit code."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "verify": verify, "compare": compare, "show": show, "recover": recover
    }  # fmt: skip
    words = sys.argv[1:]
    if words and words[0] in commands:
        return commands[words[0]](words[1:])
    parser = cli.script(
        "Verifies, compares, shows and recovers logged episodes; COMMAND --help tells more.",
        [
            "launch/replay_episode.py verify runs/demo",
            "launch/replay_episode.py compare --bundle policy/bundles/sim_place runs/demo",
            "launch/replay_episode.py show runs/demo/episodes/*-000003.h5 --png corrected.png",
            "launch/replay_episode.py recover runs/demo",
        ],
    )
    parser.add_argument("command", choices=list(commands), metavar="verify|compare|show|recover")
    parser.read(words[:1])
    return cli.OK


def verify(words: Sequence[str]) -> int:
    """Recompute every tick and compare bit for bit."""
    parser = _parser(
        "verify",
        "Recomputes every tick from its run folder with the loop's own stages and compares it\nwith the log, "
        "bit for bit. Exits with 0 when nothing differs, with 1 when something does.",
        ["runs/demo", "runs/demo/episodes/*-000003.h5 --json verified.json", "runs/demo --jobs 4"],
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default 2)")
    options = parser.read(words)
    if not 1 <= options.jobs <= 256:
        raise BadInputError(f"--jobs {options.jobs}: allowed 1 to 256; give the number of cores to use")
    with _bar(options.paths) as bar:
        report = verify_run(options.paths, options.jobs, lambda one: _step(bar))
    print("\n".join(verified_lines(report)))
    cli.write_json(options.json, report.model_dump())
    return cli.FAILED_CHECK if report.mismatches else cli.OK


def compare(words: Sequence[str]) -> int:
    """Run another policy on the logged observations."""
    parser = _parser(
        "compare",
        "Runs another policy on the logged observations, tick by tick, and says where it\ndisagrees with the one "
        "that ran, how much of that the residual could reach, and when it\nfirst disagreed before each takeover.",
        [
            "--bundle policy/bundles/sim_place runs/demo",
            "--bundle newer_bundle runs/demo --threshold 0.3 --json c.json",
        ],
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="FOLDER", help="the other policy")
    parser.add_argument(
        "--threshold", type=float, default=0.2, metavar="X", help="difference of a normalised action (default 0.2)"
    )
    options = parser.read(words)
    if not 0.0 <= options.threshold <= 2.0:
        raise BadInputError(f"--threshold {options.threshold}: allowed 0 to 2; actions lie within -1 and 1")
    with _bar(options.paths) as bar:
        report = compare_bundle(
            options.bundle, options.paths, threshold=options.threshold, progress=lambda path: _step(bar)
        )
    print("\n".join(compared_lines(report)))
    cli.write_json(options.json, report.model_dump())
    return cli.OK


def show(words: Sequence[str]) -> int:
    """Tell what happened in an episode."""
    parser = _parser(
        "show",
        "Tells what happened in each episode: how it ended, who drove when, why it held, what the safety filter did.",
        ["runs/demo", "runs/demo/episodes/*-000003.h5 --tick 57", "runs/demo/episodes/*-000003.h5 --png corrected.png"],
    )
    parser.add_argument("--tick", type=int, metavar="N", help="also every voice of this tick")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw one episode's traces and pictures")
    options = parser.read(words)
    files = episode_files(options.paths)
    if options.png is not None:
        if len(files) > 1:
            raise BadInputError(f"--png {options.png}: draws one episode, {len(files)} are named; name one file")
        cli.check_writable(options.png, "--png")
    documents = []
    for file in files:
        lines, document = describe(file, tick=options.tick)
        print("\n".join(lines), end="\n\n")
        documents.append(document)
    if options.png is not None:
        from teleop.replay_picture import draw  # matplotlib takes half a second to import

        options.png.parent.mkdir(parents=True, exist_ok=True)
        draw(files[0], options.png)
        print(f"drawn: {options.png}")
    cli.write_json(options.json, {"episodes": documents})
    return cli.OK


def recover(words: Sequence[str]) -> int:
    """Finish the recordings that a crash left."""
    parser = _parser(
        "recover",
        "Finishes the recordings that a crash or a power cut left (*.h5.partial). Doing it\nagain does no harm. "
        "Exits with 1 when one cannot be finished; that file stays as it is.",
        ["runs/demo", "runs/demo/episodes/20261101T101530.123456Z-demo-1a2b3c4d-000012.h5.partial"],
    )
    options = parser.read(words)
    recoveries = [recover_folder(path) for path in options.paths]
    episodes = [committed for recovery in recoveries for committed in recovery.episodes]
    problems = [problem for recovery in recoveries for problem in recovery.problems]
    for committed in episodes:
        print(f"{committed.path}: {committed.rows} ticks, {committed.outcome.outcome.value}")
    for problem in problems:
        print(problem)
    print(f"recovered {len(episodes)}, not recovered {len(problems)}")
    cli.write_json(
        options.json, {"recovered": [committed.model_dump() for committed in episodes], "problems": problems}
    )
    return cli.FAILED_CHECK if problems else cli.OK


def _parser(command: str, description: str, examples: Sequence[str]) -> cli.ScriptParser:
    parser = cli.script(description, [f"launch/replay_episode.py {command} {example}" for example in examples])
    parser.prog = f"replay_episode.py {command}"
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help=_PATHS)
    return parser


def _bar(paths: Sequence[Path]) -> tqdm[NoReturn]:
    return tqdm(total=len(episode_files(list(paths))), unit="episode", leave=False, disable=None)


def _step(bar: tqdm[NoReturn]) -> None:
    bar.update()


if __name__ == "__main__":
    cli.run(main)
