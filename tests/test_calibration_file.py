from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from perception.calibration_file import content_hash, read_calibration
from robot.errors import BadInputError
from tests.calibration_files import write_hand_eye, write_lens, write_rig
from tests.calibration_scenes import WIDE

T = np.array([[0.0, -1.0, 0.0, 0.4], [1.0, 0.0, 0.0, -0.1], [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.0, 1.0]])


def reseal(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(document | {"content_sha256": content_hash(document)}))


def test_what_the_calibration_writes_is_what_a_station_reads(tmp_path: Path) -> None:
    sha256 = write_rig(tmp_path / "rig.json", {"front": ("base", T), "wrist": ("hand", np.eye(4))})
    found = read_calibration(tmp_path / "rig.json")
    assert (found.kind, found.sha256) == ("extrinsics", sha256)
    front, wrist = found.pose("front"), found.pose("wrist")
    assert front is not None
    assert wrist is not None
    assert (front.mount, wrist.mount) == ("base", "tcp")
    assert front.T_mount_camera.tolist() == T.tolist()
    lens = found.lens("front")
    assert lens is not None
    assert (lens.width, lens.fy) == (84, 91.0)
    assert found.pose("side") is None
    assert found.lens("side") is None
    assert found.age_days(found.created + timedelta(days=3)) == 3.0


def test_a_hand_eye_of_one_unnamed_camera_is_that_of_any(tmp_path: Path) -> None:
    path = tmp_path / "hand.json"
    write_hand_eye(path, T)
    found = read_calibration(path)
    pose = found.pose("wrist")
    assert pose is not None
    assert (pose.mount, pose.T_mount_camera.tolist()) == ("tcp", T.tolist())
    assert found.lens("wrist") is None
    reseal(path, camera="wrist")
    assert read_calibration(path).pose("front") is None


def test_a_lens_alone_is_that_of_any_camera_and_says_nothing_of_places(tmp_path: Path) -> None:
    write_lens(tmp_path / "lens.json", WIDE)
    found = read_calibration(tmp_path / "lens.json")
    assert (found.kind, found.pose("front")) == ("intrinsics", None)
    assert found.lens("front") == WIDE


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rig.json"
    write_rig(path, {"front": ("base", T)})
    path.write_text(path.read_text().replace("0.4", "0.41"))
    with pytest.raises(BadInputError, match=r"was changed after it was made \(content_sha256 differs\)"):
        read_calibration(path)


def test_what_is_no_calibration_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rig.json"
    with pytest.raises(BadInputError, match=r"cannot be read \(No such file or directory\)"):
        read_calibration(path)
    path.write_text("[]")
    with pytest.raises(BadInputError, match="is no JSON object"):
        read_calibration(path)
    write_rig(path, {"front": ("base", T)})
    reseal(path, created_utc="2026-01-01T00:00:00")
    with pytest.raises(BadInputError, match="'created_utc' has no time zone"):
        read_calibration(path)
    document = json.loads(path.read_text())
    document["created_utc"] = "2026-01-01T00:00:00+00:00"
    document["cameras"]["front"]["T_mount_camera"][0][0] = 0.5
    path.write_text(json.dumps(document | {"content_sha256": content_hash(document)}))
    with pytest.raises(BadInputError, match="the pose of camera 'front' is no rigid transform"):
        read_calibration(path)
