#!/usr/bin/env python3
"""Trains a reward model from logged episodes and reports how well it judges episodes that it never saw."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from environment import cli

from tqdm import tqdm

from policy.reward_frames import label_episodes, split_episodes
from policy.reward_manifest import MAX_DEBOUNCE_TICKS, RewardCalibration
from policy.reward_marks import read_marks
from policy.reward_model import load_reward_model
from policy.reward_writer import check_reward_target
from robot.errors import BadInputError
from teleop.reward_plot import draw_calibration, words


def main() -> int:
    """Label, split, train, choose the threshold, report, export."""
    args = _parser().read()
    check_reward_target(args.out)  # before minutes of work, and not after them
    plot = args.plot or args.out.with_name(f"{args.out.name}.png")
    _check_options(args.camera, args.proprio, args.out, plot)
    cli.check_writable(args.out.with_name(f"{args.out.name}.partial"), "--out")  # it is made beside, then renamed
    cli.check_writable(plot, "--plot")
    folders = [cli.episodes_folder(folder) for folder in args.episodes]
    marks = read_marks(args.frames) if args.frames else {}
    episodes, left_out = label_episodes(folders, positive_s=args.positive_s, margin_s=args.margin_s, marks=marks)
    splits = split_episodes(episodes, args.seed)
    told = f"{len(episodes)} episodes, {sum(bool(episode.success) for episode in episodes)} successes"
    reasons = ", ".join(f"{count} {why}" for why, count in left_out.items())
    print(told + (f"; left out: {reasons}" if reasons else ""))

    from policy.reward_recipe import RewardOptions, make_reward_model  # torch takes seconds to load
    from policy.reward_training import RewardPlan

    options = RewardOptions(
        cameras=tuple(args.camera),
        proprio=tuple(args.proprio),
        positive_s=args.positive_s,
        debounce_ticks=args.debounce,
        allowed=args.false_positives,
        per=args.per,
    )
    with tqdm(unit="step", disable=None) as bar:

        def progress(done: int, total: int, doing: str) -> None:
            bar.total = total
            bar.set_description(doing, refresh=False)
            bar.update(done - bar.n)

        made = make_reward_model(
            args.out,
            splits,
            options,
            RewardPlan(updates=args.updates),
            seed=args.seed,
            threads=args.threads,
            progress=progress,
        )
    model = load_reward_model(args.out, provider="cpu")
    rate_hz = model.manifest.rate_hz
    plot.parent.mkdir(parents=True, exist_ok=True)
    draw_calibration(plot, made.held_out, made.calibration, rate_hz)
    took_ms = sorted(model.warm_up(100))
    for line in _report(made.calibration):
        print(line)
    print(f"takes {took_ms[50]:.2f} ms a tick on one core (p50), {took_ms[98]:.2f} ms (p99)")
    print(f"reward model {args.out}: {model.sha256[:12]}; plot: {plot}")
    cli.write_json(
        args.json,
        {
            "reward_model": args.out,
            "sha256": model.sha256,
            "plot": plot,
            "left_out": dict(left_out),
            "training": model.manifest.training,
            "calibration": made.calibration.model_dump(mode="json"),
            "took_ms": {"p50": took_ms[50], "p99": took_ms[98]},
        },
    )
    return cli.OK


def _check_options(cameras: Sequence[str], proprio: Sequence[str], out: Path, plot: Path) -> None:
    """Raise BadInputError for options that do not go together."""
    for option, names in (("--camera", cameras), ("--proprio", proprio)):
        for name, times in Counter(names).items():
            if times > 1:
                raise BadInputError(f"{option} {name}: named {times} times; name it once")
    if out.resolve() in (plot.resolve(), *plot.resolve().parents):
        raise BadInputError(f"--plot {plot}: is --out, a folder, or in it; name a file beside it")


def _report(found: RewardCalibration) -> list[str]:
    """Return the calibration report for people."""
    frame, episode = found.frame, found.episode
    lines = [
        f"threshold {found.threshold:.3f}, {found.debounce_ticks} ticks in a row, chosen for at most "
        f"{100 * found.allowed:g} % false positives per {found.per}",
        f"on {found.episodes} episodes that it never saw, {found.successes} of them successes (95 % intervals):",
        f"  per episode   precision {words(episode.precision)}, recall {words(episode.recall)}",
        f"                fired in failures {words(episode.false_positives)}, too early in successes "
        f"{words(episode.early)}",
        f"  per frame     precision {words(frame.precision)}, recall {words(frame.recall)}",
        f"                false positives {words(frame.false_positives)}; Brier {frame.brier:.4f}, ECE {frame.ece:.4f}",
    ]
    if (episode.recall.rate or 0.0) < 0.5:
        lines.append("  it misses most successes: record more episodes, or allow more with --false-positives")
    return lines


def _parser() -> cli.ScriptParser:
    parser = cli.script(
        f"{__doc__}\n\n"
        "The last frames before a success show success, all others none. A person's late labels count (the newest\n"
        "revision of each episode), and --frames marks single ticks. Episodes are split 60/20/20 by layout into\n"
        "training, calibration (when to stop, and the threshold) and held-out (the report).",
        [
            "train_reward_model.py runs/today runs/yesterday --out runs/reward",
            "train_reward_model.py runs/today --out runs/reward --camera wrist --false-positives 0.01 --debounce 5",
            "train_reward_model.py runs/today --out runs/reward --frames marks.csv   # episode,first,last,label",
        ],
    )
    parser.add_argument("episodes", type=Path, nargs="+", metavar="DIR", help="runs or episodes folders")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the reward model")
    parser.add_argument(
        "--camera", action="append", default=[], metavar="NAME", help="that it sees; may be repeated (default all)"
    )
    parser.add_argument(
        "--proprio", action="append", default=[], metavar="KEY", help="that it sees; may be repeated (default none)"
    )
    parser.add_argument(
        "--positive-s",
        type=_some_seconds,
        default=0.3,
        metavar="S",
        help="the frames in this time before a success's end show it (default 0.3)",
    )
    parser.add_argument(
        "--margin-s",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="frames in this time before those are not used, as nobody can tell (default 0)",
    )
    parser.add_argument(
        "--frames",
        type=Path,
        metavar="CSV",
        help="marks of single ticks, stronger than the episode's label: lines of episode,first,last,label with label "
        "success, none or unused",
    )
    parser.add_argument(
        "--false-positives", type=_share, default=0.05, metavar="RATE", help="that the threshold allows (default 0.05)"
    )
    parser.add_argument("--per", choices=["episode", "frame"], default="episode", help="whose rate (default episode)")
    parser.add_argument("--debounce", type=_ticks, default=3, metavar="TICKS", help="in a row (default 3)")
    parser.add_argument(
        "--updates", type=cli.count, default=800, metavar="N", help="gradient steps at most (default 800)"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the splits, the network and what is drawn")
    parser.add_argument("--threads", type=cli.count, default=1, help="of torch (default 1)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="of the report (default FOLDER.png)")
    return parser


def _ticks(text: str) -> int:
    number = cli.count(text)
    if number > MAX_DEBOUNCE_TICKS:
        raise ArgumentTypeError(f"got {text!r} (allowed 1 to {MAX_DEBOUNCE_TICKS}, a whole number)")
    return number


def _seconds(text: str) -> float:
    return _number(text, 0.0, 60.0)


def _some_seconds(text: str) -> float:
    return _number(text, 0.01, 60.0)


def _share(text: str) -> float:
    return _number(text, 0.0, 1.0)


def _number(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = least - 1.0
    if not least <= number <= most:
        raise ArgumentTypeError(f"got {text!r} (allowed {least:g} to {most:g})")
    return number


if __name__ == "__main__":
    cli.run(main)
