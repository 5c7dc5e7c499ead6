#!/usr/bin/env python3
"""Exports a policy as a bundle: `clone` from a checkpoint, `blank` holds still, `remote` runs on a policy server.

`pictures` adds to a bundle what a small encoder can be fine-tuned on while the robot works.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from environment import cli

from perception.config import EnvironmentCameraConfig, LiveCameraConfig
from policy.bundle import load_bundle
from policy.manifest import CameraInput, ProprioInput
from policy.observation_history import MAX_TICKS, HistoryTicks
from robot.environment.config import GymnasiumArmConfig
from robot.errors import BadInputError
from teleop.environment_parts import environment_keys
from teleop.nominal_calibration import nominal_calibration

_EXAMPLES = [
    "export_policy.py clone runs/base.checkpoint.safetensors --out runs/base",
    "export_policy.py blank launch/stations/sim_place.toml --out runs/blank",
    "export_policy.py remote pi0_droid.toml --out runs/pi0",
    "export_policy.py pictures policy/bundles/sim_insert --out runs/pictures",
]


def main() -> int:
    """Do what the command line says; return the exit code."""
    words = sys.argv[1:]
    kinds = {"clone": clone, "blank": blank, "remote": remote, "pictures": pictures}
    if words and words[0] in kinds:
        return kinds[words[0]](words[1:])
    parser = cli.script(f"{__doc__}\nEach tells more with --help, e.g. `clone --help`.", _EXAMPLES)
    parser.add_argument("what", choices=[*kinds])
    parser.read(words[:1])
    return cli.OK


def clone(words: Sequence[str]) -> int:
    """Write the bundle of a checkpoint of train_base_policy.py, finished or not."""
    parser = cli.script(
        "Exports a checkpoint of train_base_policy.py clone, finished or not.",
        [_EXAMPLES[0], f"{_EXAMPLES[0]} --proprio-ticks 4"],
    )
    parser.prog = "export_policy.py clone"
    parser.add_argument("checkpoint", type=Path, help="safetensors file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the bundle")
    ticks = range(1, MAX_TICKS + 1)
    for name, what in (("features", "features"), ("proprio", "proprioception")):
        said = f"ticks of {what} that a residual on it sees, 1 to {MAX_TICKS} (default 1)"
        parser.add_argument(f"--{name}-ticks", type=int, choices=ticks, default=1, metavar="N", help=said)
    args = parser.read(words)
    if not args.checkpoint.is_file():
        raise BadInputError(f"checkpoint {args.checkpoint}: no such file; train_base_policy.py clone writes one")

    from policy.cloning_export import export_checkpoint  # torch takes seconds to load

    history = HistoryTicks(features_ticks=args.features_ticks, proprio_ticks=args.proprio_ticks)
    known = export_checkpoint(args.checkpoint, args.out, history if history.longest > 1 else None)
    return _finish(args.out, args.json, known)


def blank(words: Sequence[str]) -> int:
    """Write a policy that holds still, with which demonstrations can be recorded on a new station."""
    parser = cli.script(
        "Exports a policy that holds still, for a station that has no policy yet: with it, its demonstrations\n"
        "can be recorded. Its actions are TCP deltas x, y, z, yaw and an open or closed gripper; for a Gymnasium\n"
        "environment they are what the environment's own actions move.",
        [
            _EXAMPLES[1],
            f"{_EXAMPLES[1]} --policy.bundle anything   # which need not exist",
            f"{_EXAMPLES[1]} --encode-of policy/bundles/sim_place   # to learn from scratch, learner.method rlpd",
        ],
        station=True,
    )
    parser.prog = "export_policy.py blank"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the bundle")
    parser.add_argument(
        "--encode-of", type=Path, metavar="DIR", help="bundle whose features it shows and whose actions it takes"
    )
    args = parser.read(words)
    station = args.station.station
    encode_of = load_bundle(args.encode_of, "cpu") if args.encode_of is not None else None
    cameras = []
    for camera in station.camera:
        if isinstance(camera, LiveCameraConfig):
            height, width = camera.image_size
            cameras.append(CameraInput(name=camera.name, height=height, width=width, crop=camera.crop))
        elif isinstance(camera, EnvironmentCameraConfig):
            cameras.append(CameraInput(name=camera.name, height=camera.height, width=camera.width))

    from policy.blank_bundle import PROPRIO, actuations, tcp_steps, write_blank_bundle  # needs onnx, only export does

    widths = {"gripper_open_m": station.safety.gripper_max_m, "gripper_closed_m": station.safety.gripper_min_m}
    action, proprio = tcp_steps(**widths), list(PROPRIO)
    if isinstance(station.arm, GymnasiumArmConfig):
        keys = environment_keys(args.station, station.arm)
        proprio = [ProprioInput(key=key, size=size) for key, size in keys.proprio.items()]
        dims = keys.motion_dims
        action = actuations(keys.actuators) if dims is None else tcp_steps(dims, **widths)
    elif not cameras:
        raise BadInputError(f"station {args.station.path}: its cameras play a recording, nobody can drive its arm")

    write_blank_bundle(
        args.out,
        name=args.out.name,
        rate_hz=station.loop.rate_hz,
        cameras=cameras,
        calibration=nominal_calibration(args.station),
        action=action,
        proprio=proprio,
        encode_of=encode_of,
        **widths,
    )
    return _finish(args.out, args.json, {"training": "none, holds still"})


def remote(words: Sequence[str]) -> int:
    """Write the bundle of a policy that a server runs, from a description of it."""
    parser = cli.script(
        "Exports a policy that runs on an openpi policy server, from a TOML description of what it takes and gives\n"
        "(docs/slow_policies.md has one). Without --encode the residual's features come from a small frozen encoder.",
        [_EXAMPLES[2], f"{_EXAMPLES[2]} --encode encoder.onnx"],
    )
    parser.prog = "export_policy.py remote"
    parser.add_argument("description", type=Path, help="TOML file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the bundle")
    parser.add_argument("--encode", type=Path, metavar="FILE", help="ONNX encoder: <camera>_image, proprio -> features")
    args = parser.read(words)

    from policy.remote_bundle import read_description, write_remote_bundle  # needs onnx, which only export does

    description = read_description(args.description)
    try:
        encode = args.encode.read_bytes() if args.encode else None
    except OSError as error:
        raise BadInputError(f"{args.encode}: cannot be read ({error.strerror}); name an ONNX file") from None
    write_remote_bundle(args.out, description, encode)
    return _finish(args.out, args.json, {"training": "elsewhere"})


def pictures(words: Sequence[str]) -> int:
    """Write a bundle that acts like another one and shows small pictures as well."""
    parser = cli.script(
        "Exports a bundle that acts like another one, with small grey pictures of its cameras behind its features.\n"
        "On it, learner.algorithm.fine_tune_encoder = true lets the residual learn an encoder of its own.",
        [_EXAMPLES[3], f"{_EXAMPLES[3]} --size 42   # finer, and larger logs"],
    )
    parser.prog = "export_policy.py pictures"
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new one")
    parser.add_argument("--size", type=int, metavar="PX", help="of a picture's edge (default 32, or what fits)")
    args = parser.read(words)

    from policy.picture_bundle import write_picture_bundle  # needs onnx, which only export does

    write_picture_bundle(args.out, load_bundle(args.bundle, "cpu"), edge=args.size)
    return _finish(args.out, args.json, {"pictures_of": args.bundle})


def _finish(out: Path, json_path: Path | None, facts: dict[str, object]) -> int:
    bundle = load_bundle(out, provider="cpu")
    print(f"bundle {out}: '{bundle.manifest.name}' {bundle.sha256[:12]}, {bundle.manifest.feature_size} features")
    cli.write_json(json_path, {"bundle": out, "sha256": bundle.sha256, **facts})
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
