"""Pose files as they come: headers, order, repetitions, signs, gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.hand_eye_rigs import RIGS, moving, write_poses
from calibration.pose_file import PoseFile, read_pose_file


def written(tmp_path: Path, lines: list[str]) -> PoseFile:
    path = tmp_path / "poses.csv"
    path.write_text("\n".join(lines) + "\n")
    return read_pose_file(path)


def test_disorder_is_put_right_and_told(tmp_path: Path) -> None:
    take = moving(RIGS[0], np.random.default_rng(0), seconds=3.0)
    clean = read_pose_file(write_poses(tmp_path / "clean.csv", take.t_robot_s, take.T_base_hand))
    assert clean.notes == ()
    rng = np.random.default_rng(1)
    lines = (tmp_path / "clean.csv").read_text().splitlines()
    rows = np.array([[float(word) for word in line.split(",")] for line in lines])
    rows[:, 4:] *= rng.choice([-1.0, 1.0], len(rows))[:, None] * rng.uniform(0.5, 2.0, len(rows))[:, None]
    rows = np.concatenate([rows, rows[:5], np.full((3, 8), np.nan)])
    mixed = [",".join(map(str, row)) for row in rng.permutation(rows).tolist()]
    found = written(tmp_path, ["# exported", "time, x, y, z, qx, qy, qz, qw", *mixed, ""])
    np.testing.assert_allclose(found.t_s, clean.t_s)
    np.testing.assert_allclose(found.position_m, clean.position_m)
    same_side = np.sign((found.quat_xyzw[0] * clean.quat_xyzw[0]).sum())
    np.testing.assert_allclose(found.quat_xyzw, same_side * clean.quat_xyzw, atol=1e-9)
    assert "3 rows without a pose (NaN) left out" in found.notes
    assert "rows sorted by time" in found.notes
    assert "5 rows of a repeated time left out" in found.notes
    assert any(note.endswith("quaternions normalised") for note in found.notes)


def test_names_in_the_first_line_may_come_in_another_order(tmp_path: Path) -> None:
    found = written(tmp_path, ["qw,qx,qy,qz,t,x,y,z", "1,0,0,0,5,0.1,0.2,0.3", "0,1,0,0,6,0.1,0.2,0.3"])
    assert found.t_s.tolist() == [5.0, 6.0]
    assert found.position_m[0].tolist() == [0.1, 0.2, 0.3]
    assert found.quat_xyzw[0].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_one_sign_makes_no_jumps(tmp_path: Path) -> None:
    found = written(tmp_path, ["0,0,0,0,0,0,0,1", "1,0,0,0,0,0,-0.1,-0.99", "2,0,0,0,0,0,0.2,0.98"])
    assert (np.abs(np.diff(found.quat_xyzw, axis=0)) < 0.2).all()
