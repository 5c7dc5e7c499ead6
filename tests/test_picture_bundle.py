"""A bundle with pictures behind its features: it acts as before, and a run on it learns and replays bit for bit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy.blank_bundle import write_blank_bundle
from policy.bundle import Bundle, load_bundle
from policy.episode_reader import latest_revisions
from policy.golden import golden_observation
from policy.picture_bundle import write_picture_bundle
from policy.weights import Expected, unpack
from robot.clock import VirtualClock
from robot.errors import BadInputError
from teleop.replay import verify_run
from teleop.station import LoadedStation
from teleop.station_learner import check_learnable
from teleop.training import train_online
from tests.tiny_bundle import CAMERAS, make_tiny_bundle
from tests.tiny_station import tiny_station

ROOT = Path(__file__).resolve().parents[1]
EDGE = 10
CLOUD = {"points": 16, "voxel_m": 0.01, "workspace_min_m": [0.0, 0.0, 0.0], "workspace_max_m": [1.0, 1.0, 1.0]}


def with_pictures(folder: Path, edge: int = EDGE, **fields: Any) -> tuple[Bundle, Bundle]:
    """A bundle and what is made of it."""
    plain = load_bundle(make_tiny_bundle(folder / "plain", **fields), "cpu")
    return plain, load_bundle(write_picture_bundle(folder / "pictures", plain, edge=edge), "cpu")


@pytest.mark.parametrize("fields", [{}, {"point_cloud": CLOUD}], ids=["plain", "cloud"])
def test_it_acts_as_before_and_shows_what_the_cameras_see(tmp_path: Path, fields: dict[str, Any]) -> None:
    plain, made = with_pictures(tmp_path, **fields)
    assert made.manifest.picture_shape == (2, EDGE, EDGE)
    assert made.manifest.feature_size == plain.manifest.feature_size + 2 * EDGE * EDGE
    assert made.manifest.training["pictures_of"] == plain.sha256 != made.sha256
    images, proprio, cloud = golden_observation(plain.manifest)
    height, width = CAMERAS["wrist"]
    images["wrist"] = np.zeros((height, width, 3), np.uint8)
    images["wrist"][: height // 2, : width // 2] = (255, 255, 0)  # two thirds of white, at the top on the left
    features = made.encode(images, proprio, cloud)
    before = plain.encode(images, proprio, cloud)
    assert np.array_equal(features[: len(before)], before)
    assert np.array_equal(made.act(features, proprio), plain.act(before, proprio))
    front, wrist = features[len(before) :].reshape(2, EDGE, EDGE)
    wanted = np.full((EDGE, EDGE), -1.0)
    wanted[: EDGE // 2, : EDGE // 2] = 1 / 3
    inner = np.ones((EDGE, EDGE), bool)
    inner[EDGE // 2 - 1 : EDGE // 2 + 1] = inner[:, EDGE // 2 - 1 : EDGE // 2 + 1] = False  # the edge is blurred
    np.testing.assert_allclose(wrist[inner], wanted[inner], atol=1e-5)
    assert front.mean() == pytest.approx(images["front"].mean() / 127.5 - 1.0, abs=0.05)
    assert front.std() > 0.05


def test_a_blank_bundle_with_its_encoder_tells_of_the_pictures(tmp_path: Path) -> None:
    plain, made = with_pictures(tmp_path)
    blank = write_blank_bundle(
        tmp_path / "blank", name="blank", rate_hz=20.0, cameras=plain.manifest.cameras, encode_of=made,
        calibration=plain.manifest.calibration, gripper_open_m=0.08, gripper_closed_m=0.0,
    )  # fmt: skip
    assert load_bundle(blank, "cpu").manifest.picture_shape == (2, EDGE, EDGE)


def test_pictures_are_as_large_as_fits_unless_told(tmp_path: Path) -> None:
    many = dict.fromkeys("abcdefgh", (32, 40))
    plain = load_bundle(make_tiny_bundle(tmp_path / "plain", cameras=many), "cpu")
    made = load_bundle(write_picture_bundle(tmp_path / "made", plain), "cpu")
    assert made.manifest.picture_shape == (8, 22, 22)
    few = load_bundle(make_tiny_bundle(tmp_path / "few"), "cpu")
    assert load_bundle(write_picture_bundle(tmp_path / "usual", few), "cpu").manifest.picture_shape == (2, 32, 32)


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    plain, made = with_pictures(tmp_path)
    blind = load_bundle(make_tiny_bundle(tmp_path / "blind", cameras={}), "cpu")
    for bundle, edge, said in (
        (plain, 46, r"pictures of 46 px \(allowed 8 to 45, for 2 cameras behind 6 features\)"),
        (plain, 7, r"pictures of 7 px"),
        (made, None, "its features end with pictures already"),
        (blind, None, "takes no camera"),
    ):
        with pytest.raises(BadInputError, match=said):
            write_picture_bundle(tmp_path / "none", bundle, edge=edge)
    assert not (tmp_path / "none").exists()


def test_the_script_writes_one_and_refuses_in_one_line(tmp_path: Path) -> None:
    plain = make_tiny_bundle(tmp_path / "plain")

    def export(*words: str) -> subprocess.CompletedProcess[str]:
        script = ROOT / "launch/export_policy.py"
        return subprocess.run(
            [sys.executable, str(script), "pictures", str(plain), "--out", str(tmp_path / "out"), *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    made = export("--size", "16")
    assert (made.returncode, made.stderr) == (0, "")
    assert load_bundle(tmp_path / "out", "cpu").manifest.picture_shape == (2, 16, 16)
    wrong = export("--size", "200")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "allowed 8 to 45" in wrong.stderr


def station(bundle: Path, *overrides: tuple[str, str]) -> LoadedStation:
    return tiny_station(
        bundle,
        ("episode.timeout_s", "3.0"),
        ("learner.updates_per_episode", "10"),
        ("learner.batch_size", "16"),
        ("learner.min_transitions", "8"),
        (
            "learner.algorithm",
            "{hidden = [16, 16], normaliser_batches = 2, actor_after = 2, actor_average = 0.5, actor_rate = 0.01, "
            "fine_tune_encoder = true}",
        ),
        *overrides,
    )


def test_a_station_that_does_not_fit_its_bundle_is_told(tmp_path: Path) -> None:
    plain, made = with_pictures(tmp_path)
    assert check_learnable(station(made.folder))["pictures"] == [2, EDGE, EDGE]
    with pytest.raises(BadInputError, match=r"needs a bundle whose features end with pictures.*export_policy.py"):
        check_learnable(station(plain.folder))
    with pytest.raises(BadInputError, match="method 'resfit' does not look at the pictures"):
        check_learnable(station(made.folder, ("learner.method", "resfit"), ("learner.algorithm", "{}")))
    with pytest.raises(BadInputError, match=r"algorithm.pictures is \(1, 8, 8\).*end with none; leave it out"):
        check_learnable(station(plain.folder, ("learner.algorithm", "{pictures = [1, 8, 8]}")))
    with pytest.raises(BadInputError, match=r"features_ticks is above 1.*set it to 1"):
        check_learnable(station(made.folder, ("residual.history.features_ticks", "2")))


def test_a_run_learns_an_encoder_goes_on_and_replays_bit_for_bit(tmp_path: Path) -> None:
    _, made = with_pictures(tmp_path, headroom=0.999)
    loaded, folder = station(made.folder), tmp_path / "run"
    for resume in (False, True):
        result = train_online(
            loaded, VirtualClock(), out=folder, episodes=2, seed=3, operator="simulated",
            progress=lambda number, result, news: None, resume=resume,
        )  # fmt: skip
        assert (result.refused, result.accepted) == (0, 2)
    episodes = latest_revisions(folder / "episodes")
    assert len(episodes) == 4
    assert episodes[0].array("tick/features").shape[1] == made.manifest.feature_size
    verified = verify_run(folder)
    assert verified.mismatches == 0
    weights = sorted((folder / "weights").glob("0*-*"))
    expected = Expected.of(made.manifest, loaded.station.residual)
    first, last = (unpack(path.read_bytes(), expected).tensors for path in (weights[1], weights[-1]))
    assert not np.array_equal(first["encoder.0.0.weight"], last["encoder.0.0.weight"])
    assert any(np.abs(episode.array("tick/residual")).max() > 0.0 for episode in episodes[1:])
    shutil.rmtree(folder)
