from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from policy import golden as golden_module
from policy.bundle import load_bundle
from policy.bundle_writer import write_bundle
from teleop.preflight_check import Result
from teleop.preflight_trust import calibrations, golden, rights
from tests.calibration_files import write_rig
from tests.test_calibration_file import reseal
from tests.test_station_calibration import pointing, size
from tests.tiny_bundle import make_tiny_bundle, tiny_graphs, tiny_manifest
from tests.tiny_station import tiny_station


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


def test_an_old_calibration_is_told_and_a_young_one_passes(bundle: Path, tmp_path: Path) -> None:
    sha256 = write_rig(tmp_path / "rig.json", {"front": ("base", np.eye(4))}, size=size(bundle))
    loaded = pointing(bundle, tmp_path / "rig.json", ("calibration.max_age_days", "30.0"))
    now = datetime.now(UTC)
    young, without = calibrations(loaded, None, now + timedelta(days=29))
    assert young.result is Result.PASSED
    assert sha256[:12] in young.found
    assert without.found == "no file for wrist; name it in calibration.files"
    old = next(calibrations(loaded, None, now + timedelta(days=31)))
    assert old.result is Result.NOTE
    assert "31.0 days old (limit 30); look again" in old.found
    future = next(calibrations(loaded, None, now - timedelta(days=2)))
    assert "yet to come" in future.found


def test_a_calibration_that_was_forced_is_told(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "rig.json"
    write_rig(path, {"front": ("base", np.eye(4))}, size=size(bundle))
    reseal(path, forced=True)
    told = next(calibrations(pointing(bundle, path), None))
    assert told.result is Result.NOTE
    assert "kept by --force though a check failed" in told.found


def test_where_the_fused_view_has_its_cameras_from_is_told(bundle: Path, tmp_path: Path) -> None:
    write_rig(tmp_path / "rig.json", {"front": ("base", np.eye(4))}, size=size(bundle))
    volume = [
        ("fused_view.workspace_min_m", "[0.2, -0.4, 0.0]"),
        ("fused_view.workspace_max_m", "[0.8, 0.4, 0.5]"),
    ]
    loaded = pointing(bundle, tmp_path / "rig.json", *volume)
    told = {check.part: check for check in calibrations(loaded, None)}
    assert told["fused view"].result is Result.PASSED
    assert told["fused view"].found == "front (base, pinhole) by rig.json; wrist (tcp, pinhole) by the station"
    wrong = pointing(bundle, tmp_path / "rig.json", *volume, ("fused_view.cameras", "['top']"))
    told = {check.part: check for check in calibrations(wrong, None)}
    assert "names camera 'top'" in told["fused view"].found
    assert told["fused view"].result is Result.FAILED


def test_a_station_without_files_is_compared_by_its_own_poses(bundle: Path) -> None:
    found = list(calibrations(tiny_station(bundle), load_bundle(bundle, "cpu")))
    assert [(check.part, check.result) for check in found] == [("trained with", Result.NOTE)] * 2


def test_a_calibration_that_cannot_be_read_fails(bundle: Path, tmp_path: Path) -> None:
    (check,) = calibrations(pointing(bundle, tmp_path / "none.json"), None)
    assert check.result is Result.FAILED
    assert "cannot be read" in check.found


def test_the_golden_action_passes_is_missed_or_fails(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert golden(load_bundle(bundle, "cpu")).result is Result.NOTE
    content = tiny_manifest()
    exported = load_bundle(write_bundle(tmp_path / "new", content, tiny_graphs(content)), "cpu")
    assert golden(exported).result is Result.PASSED
    true = golden_module._chunk
    monkeypatch.setattr(golden_module, "_chunk", lambda bundle: true(bundle) + 0.01)
    assert golden(exported).result is Result.FAILED
    assert "differs by 1.0e-02" in golden(exported).found


def test_rights_that_are_asked_for_and_not_there_are_told(bundle: Path) -> None:
    assert rights(tiny_station(bundle, ("realtime.priority", "0"))).found.startswith("nothing asked for")
    check = rights(tiny_station(bundle, ("realtime.cores", "[1000]")))
    assert check.result is Result.FAILED
    assert "realtime.cores names core 1000" in check.found
