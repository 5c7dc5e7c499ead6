#!/usr/bin/env python3
"""Calibrates a rig of which the truth is known, from pictures, by a person's commands; prints one JSON line.

Two cameras stand beside the arm, one with a wide lens sits on the hand. Their pictures of a ChArUco board are made ray
by ray through known lenses, with blur and noise; then `calibrate_rig.py` runs `board`, `intrinsics` for each camera,
`extrinsics` (the board put anywhere, which ties both kinds of camera together), `check`, and `check` again with one
camera bumped by 8 mm and 0.6 degrees. Everything is left in --out, the pictures of residuals too
(docs/calibration_cameras.md shows those); pictures that are there already are taken as they are. It is no camera: no
rolling shutter, no bent board, no error of the arm.

    .venv/bin/python benchmarks/rehearse_calibration.py --out runs/rehearsal
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from calibration.board import Board
from calibration.board_rendering import BoardRenderer
from calibration.rehearsal import handheld, looking, middle_of
from perception.camera_model import CameraModel
from robot.geometry import inverse_pose, pose, rotation_angle, rotvec_to_matrix

Array = NDArray[np.float64]
SCRIPT = Path(__file__).resolve().parents[1] / "launch" / "calibrate_rig.py"
CENTRE = np.array([0.45, 0.0, 0.2])
BUMP = pose(rotvec_to_matrix(np.radians([0.6, 0.0, 0.0])), np.array([0.008, 0.0, 0.0]))
BESIDE = CameraModel(
    kind="brown", width=640, height=480, fx=600.0, fy=601.0, cx=321.0, cy=239.0, distortion=(-0.1, 0.05, 0.0, 0.0, 0.0)
)
WIDE = CameraModel(
    kind="fisheye", width=640, height=480, fx=280.0, fy=281.0, cx=318.0, cy=243.0, distortion=(0.02, -0.01, 0.003, 0.0)
)
LENSES = {"front": BESIDE, "side": BESIDE, "wrist": WIDE}
T_BASE = {"front": looking((0.85, 0.25, 0.75), CENTRE.tolist()), "side": looking((0.5, -0.5, 0.75), CENTRE.tolist())}
T_HAND_CAMERA = pose(rotvec_to_matrix(np.array([0.05, -0.1, 1.5])), np.array([0.05, 0.02, -0.03]))


def main() -> int:
    """Make the pictures, run the commands, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures and results")
    parser.add_argument("--lens-pictures", type=int, default=20)
    parser.add_argument("--shots", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(args.seed)
    begun = time.perf_counter()
    run("board", "--out", out / "board.pdf")
    board = Board.read(out / "board.json")
    if not (out / "bumped" / "arm.csv").exists():
        make_pictures(out, board, args.lens_pictures, args.shots, random)
    codes = {}
    for name in LENSES:
        codes[name] = run(
            *("intrinsics", out / "lenses" / name, "--board", out / "board.json", "--out", out / f"{name}.json")
        )
    codes["extrinsics"] = run(
        *("extrinsics", out / "shots", "--board", out / "board.json", "--board-on", "free"),
        *("--camera", f"front={out / 'front.json'}", "--camera", f"side={out / 'side.json'}"),
        *("--hand-camera", f"wrist={out / 'wrist.json'}", "--arm-poses", out / "shots" / "arm.csv"),
        *("--out", out / "rig.json"),
    )
    for later in ("later", "bumped"):
        codes[f"check {later}"] = run(
            *("check", out / "rig.json", out / later, "--board-on", "free"),
            *("--arm-poses", out / later / "arm.csv"),
        )
    seconds = time.perf_counter() - begun
    print(json.dumps({"exit_codes": codes, **compared(out), "seconds": round(seconds, 1)}))
    return 0


def make_pictures(out: Path, board: Board, lens_pictures: int, shots: int, random: np.random.Generator) -> None:
    """Write the pictures for the lenses, the shots of the rig, and later ones as it was and with one camera bumped."""
    eyes = {name: BoardRenderer(board, lens, samples=2) for name, lens in LENSES.items()}
    bar = tqdm(total=len(eyes) * (lens_pictures + shots + 10), unit="picture", disable=None)
    for name, eye in eyes.items():
        near, far = (0.12, 0.35) if name == "wrist" else (0.25, 0.6)
        for number in range(lens_pictures):
            T = handheld(LENSES[name], board, random, near_m=near, far_m=far, tilt_rad=0.8)
            save(out / "lenses" / name / f"{number:03d}.png", eye.render(T, random=random))
            bar.update()
    take_shots(out / "shots", shots, board, eyes, random, bar)
    take_shots(out / "later", 5, board, eyes, random, bar)
    take_shots(out / "bumped", 5, board, eyes, random, bar, bumped="side")
    bar.close()


def take_shots(
    folder: Path,
    count: int,
    board: Board,
    eyes: dict[str, BoardRenderer],
    random: np.random.Generator,
    bar: tqdm[NoReturn],
    bumped: str | None = None,
) -> None:
    """Write `count` shots of all cameras, and the arm's poses; the board lies elsewhere each time."""
    rows = ["t,x,y,z,qx,qy,qz,qw"]
    middle = middle_of(board)
    for shot in range(count):
        flat = np.diag([1.0, -1.0, -1.0]) @ rotvec_to_matrix(np.array([0.0, 0.0, random.uniform(-3.0, 3.0)]))
        R = rotvec_to_matrix(random.normal(0.0, 0.25, 3)) @ flat
        T_board = pose(R, CENTRE + random.uniform(-0.06, 0.06, 3) - R @ middle)
        axis = random.normal(size=3)
        R_camera = rotvec_to_matrix(axis / np.linalg.norm(axis) * random.uniform(-0.6, 0.6)) @ np.diag(
            [1.0, -1.0, -1.0]
        )
        T_camera = pose(R_camera, CENTRE - R_camera @ [0.0, 0.0, random.uniform(0.25, 0.35)])
        T_hand = T_camera @ inverse_pose(T_HAND_CAMERA)
        x, y, z, w = Rotation.from_matrix(T_hand[:3, :3]).as_quat()
        rows.append(f"{shot},{','.join(f'{value:.9f}' for value in (*T_hand[:3, 3], x, y, z, w))}")
        for name, eye in eyes.items():
            T_eye = T_camera if name == "wrist" else T_BASE[name] @ (BUMP if name == bumped else np.eye(4))
            save(folder / name / f"{shot:03d}.png", eye.render(inverse_pose(T_eye) @ T_board, random=random))
            bar.update()
    (folder / "arm.csv").write_text("\n".join(rows) + "\n")


def compared(out: Path) -> dict[str, object]:
    """How far the results are from the truth."""
    result = json.loads((out / "rig.json").read_text()) if (out / "rig.json").exists() else {"cameras": {}}
    errors = {}
    for name, camera in result["cameras"].items():
        T, true = np.array(camera["T_mount_camera"]), T_BASE.get(name, T_HAND_CAMERA)
        errors[name] = {
            "mm": round(1e3 * float(np.linalg.norm(T[:3, 3] - true[:3, 3])), 3),
            "degrees": round(float(np.degrees(rotation_angle(T[:3, :3], true[:3, :3]))), 4),
            "half_widths_mm": [round(1e3 * one, 2) for one in camera["half_widths_95"]["position_m"]],
        }
    lenses = {}
    for name, true_lens in LENSES.items():
        if (out / f"{name}.json").exists():
            lens = json.loads((out / f"{name}.json").read_text())
            same = lens["camera"]["kind"] == true_lens.kind
            values = CameraModel.model_validate(lens["camera"]).values
            off = np.abs(values - true_lens.values) / list(lens["half_widths_95"].values()) if same else None
            lenses[name] = {
                "kind": lens["camera"]["kind"],
                "held_out_rms_px": round(lens["held_out"]["rms_px"], 3),
                "inside_95": None if off is None else f"{int((off <= 1.0).sum())} of {len(off)}",
            }
    held_out = result.get("held_out")
    return {"lenses": lenses, "cameras": errors, "held_out": held_out}


def save(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


def run(*words: str | Path) -> int:
    """Run one subcommand; return its exit code."""
    print("calibrate_rig.py", *words, file=sys.stderr)
    return subprocess.run([sys.executable, SCRIPT, *map(str, words)], check=False, stdout=sys.stderr).returncode


if __name__ == "__main__":
    sys.exit(main())
