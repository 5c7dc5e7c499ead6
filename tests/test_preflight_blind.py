from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image as plt_image
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from policy.bundle import load_bundle
from robot.errors import BadInputError
from teleop.blind_picture import draw_blind
from teleop.preflight_blind import BlindReport, CameraFault, Moved, blind_test, broken
from tests.replay_run import STATION, make_run
from tests.scripts import Scripts
from tests.tiny_bundle import make_tiny_bundle, tiny_graphs, tiny_manifest, write_tiny_bundle


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blind")
    make_run(folder)
    return folder


def without_wrist(folder: Path) -> Path:
    """A tiny bundle that sees where things are in the front's pictures, and multiplies the wrist's by 0."""
    manifest = tiny_manifest()
    graphs = tiny_graphs(manifest)
    model = onnx.load_from_string(graphs["encode"])
    constants = {entry.name: entry for entry in model.graph.initializer}
    pattern = np.random.default_rng(0).normal(size=(1, 32, 40, 3)) * 60.0 / 255.0
    weight = numpy_helper.to_array(constants["weight"]).copy()
    weight[3:6] = 0.0
    for name, values in (("per_level", pattern), ("weight", weight)):
        constants[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return write_tiny_bundle(folder, manifest, {**graphs, "encode": model.SerializeToString()})


def test_a_camera_that_the_policy_ignores_is_named_and_the_other_is_not(recorded: Path, tmp_path: Path) -> None:
    report = blind_test(load_bundle(without_wrist(tmp_path / "b"), "cpu"), [recorded / "run"], ticks=30)
    assert report.ignored == ["wrist"]
    assert all(one.median == one.p90 == 0.0 for one in report.moved if one.camera == "wrist")
    front = {one.fault: one for one in report.moved if one.camera == "front"}
    assert set(front) == set(CameraFault)
    assert all(front[fault].median > 0.1 for fault in (CameraFault.MASK, CameraFault.SHIFT, CameraFault.ROTATE))
    assert any("FAILED: the policy ignores camera 'wrist'" in line for line in report.lines())
    assert report.ticks == 30


def test_a_policy_that_always_does_the_same_is_no_test(recorded: Path, tmp_path: Path) -> None:
    manifest = tiny_manifest()
    graphs = tiny_graphs(manifest)
    model = onnx.load_from_string(graphs["act"])
    weight = next(entry for entry in model.graph.initializer if entry.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(0.0 * numpy_helper.to_array(weight), "weight"))
    still = write_tiny_bundle(tmp_path / "still", manifest, {**graphs, "act": model.SerializeToString()})
    with pytest.raises(BadInputError, match="its action is the same on all 30 ticks"):
        blind_test(load_bundle(still, "cpu"), [recorded / "run"], ticks=30)


def test_a_log_of_other_cameras_is_refused(recorded: Path, tmp_path: Path) -> None:
    other = make_tiny_bundle(tmp_path / "other", cameras={"front": (32, 40), "side": (32, 40)})
    with pytest.raises(BadInputError, match="needs camera 'side', which the log"):
        blind_test(load_bundle(other, "cpu"), [recorded / "run"])


def test_each_fault_does_to_a_picture_what_it_says() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    first = np.zeros_like(image)
    masked = broken(image, CameraFault.MASK, first)
    assert (masked == masked[0, 0]).all()
    np.testing.assert_allclose(masked[0, 0], image.mean(axis=(0, 1)), atol=0.5)
    assert broken(image, CameraFault.FREEZE, first) is first
    shifted = broken(image, CameraFault.SHIFT, first)
    assert (shifted[:, 3:] == image[:, :-3]).all()
    assert (shifted[:, :3] == image[:, :1]).all()
    ramp = np.zeros((41, 41, 3), np.uint8)
    ramp[20, 20:] = 255  # from the middle to the right
    y, x = np.nonzero(broken(ramp, CameraFault.ROTATE, first)[..., 0])
    far = x == x.max()
    assert np.degrees(np.arctan2(y[far].mean() - 20.0, x.max() - 20.0)) == pytest.approx(10.0, abs=2.0)


def test_the_script_blinds_and_exits_with_1_for_an_ignored_camera(
    scripts: Scripts, recorded: Path, tmp_path: Path
) -> None:
    bundle, out = without_wrist(tmp_path / "b"), tmp_path / "blind.json"
    done = scripts(
        "check_station", STATION, "--policy.bundle", bundle, "--blind", recorded / "run",
        "--ticks", "20", "--json", out, "--picture", tmp_path / "pictures" / "blind.svg",
    )  # fmt: skip
    assert done.code == 1, done
    words = (tmp_path / "pictures" / "blind.svg").read_text()
    assert "ignores wrist" in words
    assert "camera 'wrist': ignored, whatever becomes of its pictures" in words
    assert "camera 'front': ignored" not in words
    document = json.loads(out.read_text())
    assert (document["ignored"], document["passed"], len(document["moved"])) == (["wrist"], False, 8)


def report(*, wrist: float, ticks: int = 40) -> BlindReport:
    """A front camera whose faults move the action by 0.1 to 3 spreads, and a wrist's whose move it by `wrist`."""
    far = np.geomspace(0.1, 3.0, ticks)
    return BlindReport(
        bundle="tiny",
        bundle_sha256="0" * 64,
        episodes=2,
        ticks=ticks,
        spread={"x": 0.2},
        moved=tuple(
            Moved(camera=camera, fault=fault, distances=distances)
            for camera, distances in (("front", far), ("wrist", np.full(ticks, wrist)))
            for fault in CameraFault
        ),
    )


def colours(path: Path) -> list[tuple[int, ...]]:
    """Of the upper and the lower half of a picture, the most frequent colour that is no grey."""
    pixels = (plt_image.imread(path)[..., :3] * 255).round().astype(int)
    half = len(pixels) // 2
    found = []
    for part in (pixels[:half], pixels[half:]):
        bright = part[np.ptp(part, axis=2) > 100].reshape(-1, 3)
        values, counts = np.unique(bright, axis=0, return_counts=True)
        found.append(tuple(values[np.argmax(counts)].tolist()))
    return found


def test_the_ignored_camera_is_red_and_the_other_is_not(tmp_path: Path) -> None:
    draw_blind(report(wrist=0.02), tmp_path / "blind.png")
    (red, _, blue), (r, _, b) = colours(tmp_path / "blind.png")
    assert blue > red
    assert r > b
    draw_blind(report(wrist=0.5), tmp_path / "seen.png")
    (red, _, blue), (r, _, b) = colours(tmp_path / "seen.png")
    assert blue > red
    assert b > r


def test_a_policy_that_does_not_move_at_all_can_be_drawn_and_twice_alike(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw_blind(report(wrist=0.0), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--blind", "runs/none", "--picture", "blind.pdf"], "--picture blind.pdf: must end in .png or .svg"),
        (["--picture", "blind.png"], "--picture: is of the blind test; add --blind PATH"),
    ],
)
def test_a_picture_that_cannot_be_is_refused_before_the_test(scripts: Scripts, words: list[str], text: str) -> None:
    assert text in scripts.refused("check_station", STATION, *words)


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match=r"--picture .*: cannot be written"):
        draw_blind(report(wrist=0.5), tmp_path / "file" / "blind.png")
