#!/usr/bin/env python3
"""Trains a base policy: `clone` and `state` from demonstrations, `bridge` from a recording of a real robot."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from environment import cli

from tqdm import tqdm

from policy.bridge_judge import judge_bridge
from policy.bundle import load_bundle
from policy.bundle_writer import check_target
from robot.recording import Recording
from teleop.nominal_calibration import nominal_calibration

_EXAMPLES = [
    "train_base_policy.py clone launch/stations/sim_place.toml --demos runs/demos runs/pushed --out runs/base",
    "train_base_policy.py bridge --recording bridge_real_robot.h5 --out runs/bridge",
    "train_base_policy.py state --demos runs/push_demos --episodes 12 --out runs/panda_push",
]


def main() -> int:
    """Do what the command line says; return the exit code."""
    words = sys.argv[1:]
    if words[:1] == ["clone"]:
        return clone(words[1:])
    if words[:1] == ["bridge"]:
        return bridge(words[1:])
    if words[:1] == ["state"]:
        return state(words[1:])
    parser = cli.script(f"{__doc__}\n\n`clone --help`, `state --help` and `bridge --help` tell more.", _EXAMPLES)
    parser.add_argument("what", choices=["clone", "state", "bridge"])
    parser.read(words[:1])
    return cli.OK


def clone(words: Sequence[str]) -> int:
    """Behaviour cloning with images; goes on from its checkpoint after a crash."""
    parser = cli.script(
        "Trains a policy on demonstrations (record_demos.py) and exports it. A checkpoint is saved every\n"
        "minute beside the bundle; started again with the same options, it goes on from there.",
        [_EXAMPLES[0], f"{_EXAMPLES[0]} --updates 500   # to see that all fits"],
        station=True,
    )
    parser.prog = "train_base_policy.py clone"
    parser.add_argument("--demos", type=Path, nargs="+", required=True, metavar="DIR", help="runs or episodes folders")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--updates", type=cli.count, default=3000, metavar="N", help="gradient steps (default 3000)")
    parser.add_argument("--batch", type=cli.count, default=128, metavar="N", help="ticks per step (default 128)")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the network and of what is drawn")
    parser.add_argument("--threads", type=cli.count, default=1, help="of torch (default 1)")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="to go on from (default BUNDLE.checkpoint.safetensors)"
    )
    args = parser.read(words)
    folders = [cli.episodes_folder(folder) for folder in args.demos]
    checkpoint = args.checkpoint or args.out.with_name(f"{args.out.name}.checkpoint.safetensors")
    check_target(args.out)  # before an hour's work, and not after it
    cli.check_writable(checkpoint, "--checkpoint")
    station = args.station.station

    from policy.cloning_training import TrainingPlan, clone_demonstrations  # torch takes seconds to load

    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(unit="update", disable=None) as bar:

        def progress(done: int, total: int, doing: str) -> None:
            bar.total = total
            bar.set_description(doing, refresh=False)
            bar.update(done - bar.n)

        figures = clone_demonstrations(
            folders,
            args.out,
            plan=TrainingPlan(updates=args.updates, batch=args.batch),
            seed=args.seed,
            rate_hz=station.loop.rate_hz,
            calibration=nominal_calibration(args.station),
            threads=args.threads,
            progress=progress,
            checkpoint=checkpoint,
        )
    grasp = f"grasp missed by {figures['validation_grasp_mm']:.1f} mm, " if "validation_grasp_mm" in figures else ""
    print(
        f"on episodes kept for validation: {grasp}release missed by "
        f"{figures['validation_release_mm']:.1f} mm (median), actions by {figures['validation_action']:.3f}"
    )
    return _finish(args.out, args.json, {**figures, "checkpoint": checkpoint})


def state(words: Sequence[str]) -> int:
    """Behaviour cloning without images; it takes some seconds."""
    parser = cli.script(
        "Trains a policy without images, on demonstrations (record_demos.py) of a station without cameras.",
        [_EXAMPLES[2]],
    )
    parser.prog = "train_base_policy.py state"
    parser.add_argument("--demos", type=Path, nargs="+", required=True, metavar="DIR", help="runs or episodes folders")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--episodes", type=cli.count, metavar="N", help="take only the first N (default all)")
    parser.add_argument("--updates", type=cli.count, default=2000, metavar="N", help="gradient steps (default 2000)")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the network and of what is drawn")
    args = parser.read(words)
    folders = [cli.episodes_folder(folder) for folder in args.demos]
    check_target(args.out)
    cli.check_writable(args.out / "manifest.json", "--out")

    import torch  # takes seconds to load

    from policy.state_cloning import clone_states

    torch.set_num_threads(1)
    with tqdm(unit="update", disable=None) as bar:

        def progress(done: int, total: int, doing: str) -> None:
            bar.total = total
            bar.set_description(doing, refresh=False)
            bar.update(done - bar.n)

        figures = clone_states(
            folders, args.out, episodes=args.episodes, updates=args.updates, seed=args.seed, progress=progress
        )
    print(
        f"{figures['episodes']} demonstrations, actions missed by {figures['validation_action']:.3f} on one kept back"
    )
    return _finish(args.out, args.json, figures)


def bridge(words: Sequence[str]) -> int:
    """Behaviour cloning on recorded episodes; it takes half a minute."""
    parser = cli.script("Trains the policy for recorded WidowX episodes and exports it.", [_EXAMPLES[1]])
    parser.prog = "train_base_policy.py bridge"
    parser.add_argument("--recording", type=Path, required=True, metavar="PATH", help="HDF5 file")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the networks")
    args = parser.read(words)
    check_target(args.out)
    cli.check_writable(args.out / "manifest.json", "--out")
    recording = Recording.open(args.recording)

    import torch  # takes seconds to load

    from policy.bridge_training import train_bridge

    torch.set_num_threads(1)
    with tqdm(unit="update", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        train_bridge(args.recording, args.out, args.seed, progress)
    figures = judge_bridge(recording, load_bundle(args.out, provider="cpu"))
    for name, error in {"policy": figures["error"], **figures["baselines"]}.items():
        print(f"{name:<13} motion {error['motion']:.3f}, gripper {error['gripper']:.3f} spreads on held-out steps")
    return _finish(args.out, args.json, figures)


def _finish(out: Path, json_path: Path | None, figures: Mapping[str, object]) -> int:
    bundle = load_bundle(out, provider="cpu")
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"bundle {out}: {bundle.sha256[:12]}, {size / 1e3:.0f} kB")
    cli.write_json(json_path, {"bundle": out, "sha256": bundle.sha256, "bytes": size, **figures})
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
