#!/usr/bin/env python3
"""How near the truth hand-eye calibration comes, and how often its 95 % intervals hold it; prints one JSON line.

Each draw is a recording of a simulated rig: 30 s of motion with a clock offset of 40 ms and 5 % of poses wrong, or 20
stills. Corners of a board get 0.3 px of noise, and poses are what fits them. Seed, fit and intervals run as in
`calibrate_rig.py hand-eye`. `inside` is, for each parameter, the share of draws whose interval holds the truth:
rotation and position of the camera's pose, then of the target's, then the offset. `worst_*` are the largest errors of
any draw.

    .venv/bin/python benchmarks/hand_eye_coverage.py --draws 200
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from benchmarks.hand_eye_rigs import RIGS, Rig, Take, moving, standing
from benchmarks.machine import cpu_name
from calibration.hand_eye_fit import fit_hand_eye
from calibration.hand_eye_intervals import uncertainty
from calibration.hand_eye_model import HandEye
from calibration.hand_eye_seed import find_seed
from calibration.pairing import from_views
from calibration.pose_file import one_sign
from calibration.pose_track import PoseTrack
from calibration.rotations import logarithms
from calibration.sightings import Sightings

Array = NDArray[np.float64]
_GUESS_S = 0.012


def draw_errors(rig: Rig, seed: int, *, still: bool) -> tuple[Array, Array]:
    """Return the errors of one draw and the half widths of the intervals, (12,) of stills and (13,) of motion.

    A correlation of speeds is right to a few milliseconds; here the seed is sought 12 ms beside the true offset.
    """
    rng = np.random.default_rng([seed, RIGS.index(rig)])
    take = standing(rig, rng) if still else moving(rig, rng)
    seen = sightings(take, rig, still=still)
    start = find_seed(seen, 0.0 if still else take.offset_s + _GUESS_S)
    fit = fit_hand_eye(seen, start.estimate, start.inlier)
    half = uncertainty(fit, None if still else seen.t_s).half_width
    return errors(fit.estimate, take)[fit.free], half[fit.free]


def sightings(take: Take, rig: Rig, *, still: bool) -> Sightings:
    """Return what the two pose files of a take would give."""
    seen = from_views(take.T_base_hand[: len(take.T_target_camera)], take.T_target_camera, beside=rig.beside)
    if still:
        return seen
    quat = one_sign(Rotation.from_matrix(take.T_base_hand[:, :3, :3]).as_quat())
    track = PoseTrack(take.t_robot_s, take.T_base_hand[:, :3, 3], quat)
    return Sightings(
        t_s=take.t_target_s,
        R_camera_target=seen.R_camera_target,
        p_camera_target=seen.p_camera_target,
        track=track,
        inverted=rig.beside,
    )


def errors(estimate: HandEye, take: Take) -> Array:
    """Return truth minus estimate in the 13 parameters of `HandEye`."""
    found = []
    for T, truth in ((estimate.X, take.X), (estimate.Y, take.Y)):
        found += [logarithms((truth[:3, :3] @ T[:3, :3].T)[None])[0], truth[:3, 3] - T[:3, 3]]
    return np.concatenate([*found, [take.offset_s - estimate.offset_s]])


def measure(rig: Rig, draws: int, *, still: bool) -> dict[str, object]:
    """Return the figures of one rig and kind of recording."""
    kind = "20 stills" if still else "30 s of motion"
    drawn = [draw_errors(rig, seed, still=still) for seed in tqdm(range(draws), f"{rig.name}, {kind}", disable=None)]
    error, half = np.array([one for one, _ in drawn]), np.array([one for _, one in drawn])
    inside = (np.abs(error) <= half).mean(axis=0)
    figures: dict[str, object] = {
        "rig": rig.name,
        "recording": kind,
        "inside": inside.round(3).tolist(),
        "inside_mean": round(float(inside.mean()), 3),
        "worst_camera_mm": round(1e3 * float(np.linalg.norm(error[:, 3:6], axis=1).max()), 3),
        "worst_camera_deg": round(float(np.rad2deg(np.linalg.norm(error[:, 0:3], axis=1).max())), 4),
        "worst_target_mm": round(1e3 * float(np.linalg.norm(error[:, 9:12], axis=1).max()), 3),
        "worst_target_deg": round(float(np.rad2deg(np.linalg.norm(error[:, 6:9], axis=1).max())), 4),
        "interval_camera_mm": round(1e3 * float(np.median(half[:, 3:6])), 3),
    }
    if not still:
        figures["worst_offset_ms"] = round(1e3 * float(np.abs(error[:, 12]).max()), 3)
    return figures


def main() -> None:
    """Draw, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="of each rig and recording (default 200)")
    parser.add_argument("--rig", choices=[rig.name for rig in RIGS], help="one alone (default all)")
    args = parser.parse_args()
    rigs = [rig for rig in RIGS if args.rig in (None, rig.name)]
    found = [measure(rig, args.draws, still=still) for rig in rigs for still in (False, True)]
    print(json.dumps({"benchmark": "hand_eye_coverage", "draws": args.draws, "cpu": cpu_name(), "results": found}))


if __name__ == "__main__":
    main()
