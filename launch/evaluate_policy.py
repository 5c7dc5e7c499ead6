#!/usr/bin/env python3
"""Measures how often a controller succeeds by itself, on layouts that nobody trained on."""

from __future__ import annotations

from pathlib import Path

from environment import cli

from tqdm import tqdm

from policy.manifest_file import read_manifest
from policy.weights_file import final_weights, read_weights
from policy.wilson import wilson95
from robot.config import SimulatedArmConfig
from robot.environment.config import GymnasiumArmConfig
from robot.errors import BadInputError
from robot.simulation.layout import Split
from teleop.evaluation import evaluate
from teleop.evaluation_worker import Line


def main() -> int:
    """Run the layouts in lock-step, without a person, and print the rate."""
    args = _parser().read()
    station = args.station.station
    if not isinstance(station.arm, (SimulatedArmConfig, GymnasiumArmConfig)):
        raise BadInputError(
            f"station {args.station.path}: arm.kind is '{station.arm.kind}', which runs in real time or plays a "
            "recording; only a simulated station can be evaluated: name one, such as launch/stations/sim_place.toml"
        )
    manifest, _ = read_manifest(args.station.bundle_path)
    path, weights, version = _weights(args.controller, args.weights, args.run), None, None
    if path is not None:
        if station.residual is None:
            raise BadInputError(f"station {args.station.path}: has no [residual]; add its scale")
        weights, content = read_weights(path, manifest, station.residual)
        version = content.version

    seen: list[bool] = []
    with tqdm(total=args.episodes, unit="episode", disable=None) as bar:

        def progress(line: Line) -> None:
            seen.append(line.outcome == "success")  # from two threads
            bar.set_postfix_str(f"{sum(seen) / len(seen):.0%} success", refresh=False)
            bar.update()

        result = evaluate(
            args.station,
            weights=weights,
            episodes=args.episodes,
            seed=args.seed,
            split=Split[args.split.upper()],
            progress=progress,
        )
    summary = result.summary()
    low, high = wilson95(result.successes, args.episodes)
    print(
        f"{args.controller}: {result.successes} of {args.episodes} {args.split.replace('_', '-')} layouts, "
        f"{result.successes / args.episodes:.1%} (95 % interval {low:.1%} to {high:.1%})"
    )
    outcomes = {str(layout): outcome for layout, outcome in result.outcomes.items()}
    document = {"controller": args.controller, **summary, "outcomes": outcomes, "ticks": result.ticks}
    inputs = {"station": station.name, "bundle_sha256": manifest.content_sha256, "seed": args.seed, "split": args.split}
    cli.write_json(args.json, {**document, **inputs, "weights": path, "weights_version": version})
    return cli.OK


def _weights(controller: str, path: Path | None, run: Path | None) -> Path | None:
    if controller == "base":
        if path or run:
            raise BadInputError("--controller base: takes neither --weights nor --run; say --controller residual")
        return None
    if path is None and run is None:
        raise BadInputError("--controller residual: has no weights; add --weights FILE, or --run DIR for its last")
    return path or final_weights(run or Path())


def _parser() -> cli.ScriptParser:
    parser = cli.script(
        __doc__ or "",
        [
            "evaluate_policy.py launch/stations/sim_place.toml --controller base --episodes 60 --seed 0",
            "evaluate_policy.py launch/stations/sim_place.toml --controller residual --run runs/today --json rate.json",
            "evaluate_policy.py launch/stations/sim_place.toml --controller residual --weights weights.safetensors",
        ],
        station=True,
    )
    parser.add_argument("--controller", choices=["base", "residual"], required=True, help="what drives")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of the residual")
    parser.add_argument("--run", type=Path, metavar="DIR", help="take the weights that this run ended with")
    parser.add_argument("--episodes", type=cli.count, default=60, metavar="N", help="layouts (default 60)")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the family of layouts")
    parser.add_argument(
        "--split",
        choices=[split.name.lower() for split in Split],
        default="held_out",
        help="family of layouts (default held_out; choose checkpoints on another)",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
