"""A bundle that is not whole, or does not fit the station, never gets as far as an arm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy.bundle import Bundle, check_fits, load_bundle, misfits
from policy.manifest import content_hash
from policy.onnx_session import PolicyError
from robot.errors import BadInputError
from tests.tiny_bundle import CAMERAS, make_tiny_bundle, tiny_graphs, tiny_manifest, write_tiny_bundle

FIT = {"cameras": CAMERAS, "rate_hz": 20.0, "joint_count": 7, "station": "sim.toml"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder, provider="cpu")


def observation(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (h, w, 3), np.uint8) for name, (h, w) in CAMERAS.items()}
    return images, rng.normal(size=4).astype(np.float32)


def edited(folder: Path, key: str, value: Any) -> Path:
    """Change one manifest key and make the hash right again."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[key] = value
    manifest["content_sha256"] = content_hash(manifest)
    path.write_text(json.dumps(manifest))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(BadInputError) as caught:
        load_bundle(folder, provider="cpu")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"bundle {folder}: ")
    return line.removeprefix(f"bundle {folder}: ")


def test_a_policy_of_blue_first_gets_the_same_picture_in_its_order(tmp_path: Path) -> None:
    images, proprio = observation()
    rgb = load_bundle(make_tiny_bundle(tmp_path / "rgb"), provider="cpu")
    cameras = [{"name": name, "height": 32, "width": 40, "colour": "bgr"} for name in ("front", "wrist")]
    bgr = load_bundle(edited(make_tiny_bundle(tmp_path / "bgr"), "cameras", cameras), provider="cpu")
    reversed_images = {name: np.ascontiguousarray(image[..., ::-1]) for name, image in images.items()}
    np.testing.assert_array_equal(bgr.encode(images, proprio), rgb.encode(reversed_images, proprio))
    assert not np.array_equal(bgr.encode(images, proprio), rgb.encode(images, proprio))


def test_shapes_and_types_are_those_of_the_manifest(bundle: Bundle) -> None:
    features = bundle.encode(*observation())
    chunk = bundle.act(features, observation()[1])
    assert (features.shape, features.dtype) == ((6,), np.float32)
    assert (chunk.shape, chunk.dtype) == ((4, 5), np.float32)
    assert np.abs(chunk).max() <= 0.8


def test_the_same_input_gives_the_same_bits_whatever_ran_between(bundle: Bundle, folder: Path) -> None:
    other = load_bundle(folder, provider="cpu")
    first = bundle.encode(*observation(0))
    chunk = bundle.act(first, observation(0)[1])
    bundle.act(bundle.encode(*observation(1)), observation(1)[1])
    for again in (bundle, other):
        features = again.encode(*observation(0))
        assert features.tobytes() == first.tobytes()
        assert again.act(features, observation(0)[1]).tobytes() == chunk.tobytes()


def test_a_result_is_read_only_and_survives_the_next_run(bundle: Bundle) -> None:
    first = bundle.encode(*observation(0))
    kept = first.copy()
    second = bundle.encode(*observation(1))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, kept)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0.0


def test_images_of_every_camera_reach_the_features(bundle: Bundle) -> None:
    images, proprio = observation()
    base = bundle.encode(images, proprio)
    for name in CAMERAS:
        dark = {**images, name: np.zeros_like(images[name])}
        assert not np.array_equal(bundle.encode(dark, proprio), base)


def test_cameras_that_the_policy_does_not_take_are_not_looked_at(bundle: Bundle) -> None:
    images, proprio = observation()
    extra = {"ceiling": np.zeros((2, 2, 3), np.uint8), **images}
    assert np.array_equal(bundle.encode(extra, proprio), bundle.encode(images, proprio))


def test_an_image_of_another_size_or_type_is_refused_and_not_broadcast(bundle: Bundle) -> None:
    images, proprio = observation()
    with pytest.raises(
        PolicyError, match=r"input 'wrist_image' is \(1, 32, 1, 3\) uint8, must be \(1, 32, 40, 3\) uint8"
    ):
        bundle.encode({**images, "wrist": images["wrist"][:, :1]}, proprio)
    with pytest.raises(PolicyError, match=r"input 'front_image' is .* float32, must be .* uint8"):
        bundle.encode({**images, "front": images["front"].astype(np.float32)}, proprio)
    with pytest.raises(PolicyError, match=r"input 'proprio' is \(1, 4\) float64"):
        bundle.encode(images, proprio.astype(np.float64))
    with pytest.raises(PolicyError, match="no value for input 'wrist_image'"):
        bundle.encode({"front": images["front"]}, proprio)


def test_warm_up_runs_both_entry_points_and_times_them(bundle: Bundle) -> None:
    timings = bundle.warm_up(3)
    assert len(timings.encode_ms) == len(timings.act_ms) == 3
    assert min(timings.encode_ms + timings.act_ms) > 0.0


def test_warm_up_refuses_a_policy_that_gives_nan(tmp_path: Path) -> None:
    manifest = tiny_manifest()
    graphs = tiny_graphs(manifest)
    reach = np.float32(0.8).tobytes()
    assert graphs["act"].count(reach) == 1
    graphs["act"] = graphs["act"].replace(reach, np.float32(np.nan).tobytes())
    sick = load_bundle(write_tiny_bundle(tmp_path, manifest, graphs), provider="cpu")
    with pytest.raises(BadInputError, match="gives NaN or infinity on a blank input; train it again"):
        sick.warm_up()


def test_files_are_what_a_run_folder_needs_to_load_it_again(bundle: Bundle, tmp_path: Path) -> None:
    for name, data in bundle.files().items():
        (tmp_path / name).write_bytes(data)
    assert load_bundle(tmp_path, provider="cpu").sha256 == bundle.sha256


def test_files_refuse_a_bundle_that_changed_since_it_was_loaded(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path), provider="cpu")
    make_tiny_bundle(tmp_path, rate_hz=10.0)
    with pytest.raises(BadInputError, match=r"manifest\.json changed since it was loaded; start again"):
        bundle.files()


def test_a_policy_without_proprioception_runs(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path, proprio={}), provider="cpu")
    features = bundle.encode(observation()[0], np.zeros(0, np.float32))
    assert bundle.act(features, np.zeros(0, np.float32)).shape == (4, 5)


def test_a_missing_folder_names_what_to_give(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == (
        "cannot read manifest.json (No such file or directory); give the folder that export_policy.py wrote"
    )


@pytest.mark.parametrize("entry", ["encode", "act"])
def test_one_changed_byte_in_a_graph_is_found(tmp_path: Path, entry: str) -> None:
    folder = make_tiny_bundle(tmp_path)
    path = folder / f"{entry}.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    line = refusal(folder)
    assert line.startswith(f"{entry}.onnx was changed or damaged (SHA-256 is ")
    assert line.endswith("; copy the bundle again or export it again")


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path)
    (folder / "act.onnx").unlink()
    assert refusal(folder) == "cannot read act.onnx (No such file or directory); copy the whole folder again"


def test_a_changed_manifest_value_is_found_by_its_hash(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path)
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("0.02", "0.03", 1))
    line = refusal(folder)
    assert line.startswith("manifest.json was changed after export (content_sha256 is ")


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("speed", 3, "manifest.json: unknown key 'speed'; remove it or export the policy again"),
        ("schema_version", 2, "schema_version is 2 (this software reads 1); export the policy again"),
        ("schema_version", True, "schema_version is True (this software reads 1); export the policy again"),
        (
            "rate_hz",
            "20",
            "manifest.json: key 'rate_hz' is '20': Input should be a valid number; export the policy again",
        ),
        (
            "chunk_length",
            0,
            "manifest.json: key 'chunk_length' is 0: Input should be greater than or equal to 1; "
            "export the policy again",
        ),
        (
            "cameras",
            [{"name": "front", "height": 32, "width": 40, "colour": "grey"}],
            "manifest.json: key 'cameras.0.colour' is 'grey': Input should be 'rgb' or 'bgr'; export the policy again",
        ),
        (
            "cameras",
            [{"name": "front", "height": 32, "width": 40, "crop": [0.5, 0.0, 0.25, 1.0]}],
            "manifest.json: key 'cameras.0.crop' is [0.5, 0.0, 0.25, 1.0]: Value error, crop is (0.5, 0.0, 0.25, 1.0); "
            "it is left, top, right, bottom, so that left < right and top < bottom; export the policy again",
        ),
        (
            "calibration",
            {"side": {"mount": "base", "T_mount_camera": [0.0] * 16, "fx": 1.0, "fy": 1.0, "cx": 0.0, "cy": 0.0}},
            "manifest.json: key 'calibration' names camera 'side', which 'cameras' does not; export the policy again",
        ),
    ],
)
def test_a_wrong_key_gives_one_line_that_names_it(tmp_path: Path, key: str, value: Any, line: str) -> None:
    assert refusal(edited(make_tiny_bundle(tmp_path), key, value)) == line


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["rate_hz"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert refusal(folder) == "manifest.json: key 'rate_hz' is missing; export the policy again"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": NaN', "[" * 100_000, "\ufffd"])
def test_text_that_is_no_manifest_gives_one_line(tmp_path: Path, text: str) -> None:
    folder = make_tiny_bundle(tmp_path)
    (folder / "manifest.json").write_text(text)
    assert refusal(folder).startswith("manifest.json ")


def test_a_graph_with_other_shapes_than_the_manifest_is_refused(tmp_path: Path) -> None:
    manifest = tiny_manifest()
    graphs = tiny_graphs(tiny_manifest(cameras={"front": (32, 40), "wrist": (48, 40)}))
    assert refusal(write_tiny_bundle(tmp_path, manifest, graphs)) == (
        "encode.onnx: input 'wrist_image' is (1, 48, 40, 3) tensor(uint8), the manifest says "
        "(1, 32, 40, 3) tensor(uint8); export the policy again"
    )


def test_a_graph_with_another_camera_than_the_manifest_is_refused(tmp_path: Path) -> None:
    manifest = tiny_manifest()
    graphs = tiny_graphs(tiny_manifest(cameras={"front": (32, 40), "side": (32, 40)}))
    assert refusal(write_tiny_bundle(tmp_path, manifest, graphs)) == (
        "encode.onnx: input 'wrist_image' is missing (it has ['front_image', 'proprio', 'side_image']); "
        "export the policy again"
    )


def test_a_chunk_of_another_length_than_the_manifest_is_refused(tmp_path: Path) -> None:
    graphs = tiny_graphs(tiny_manifest(chunk_length=8))
    assert refusal(write_tiny_bundle(tmp_path, tiny_manifest(), graphs)) == (
        "act.onnx: output 'chunk' is (1, 8, 5) tensor(float), the manifest says (1, 4, 5) tensor(float); "
        "export the policy again"
    )


def test_bytes_that_are_no_graph_give_one_line(tmp_path: Path) -> None:
    manifest = tiny_manifest()
    graphs = {**tiny_graphs(manifest), "act": b"not a graph"}
    assert refusal(write_tiny_bundle(tmp_path, manifest, graphs)).startswith("act.onnx: not a usable ONNX graph (")


def test_weights_in_a_second_file_are_refused_as_no_hash_covers_them(tmp_path: Path) -> None:
    import onnx

    manifest = tiny_manifest()
    graphs = tiny_graphs(manifest)
    model = onnx.load_from_string(graphs["act"])
    onnx.external_data_helper.convert_model_to_external_data(model, location="side.bin", size_threshold=0)
    graphs["act"] = model.SerializeToString()
    assert refusal(write_tiny_bundle(tmp_path, manifest, graphs)) == (
        "act.onnx: keeps weights in a second file; export it with the weights inside"
    )


def test_a_bundle_fits_its_own_station(bundle: Bundle) -> None:
    assert misfits(bundle, **FIT) == []
    check_fits(bundle, **FIT)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"cameras": {"front": (32, 40), "side": (32, 40)}},
            "bundle 'tiny' needs camera 'wrist', which sim.toml lacks (it has 'front', 'side'); "
            "name a camera so or use a bundle trained with its cameras",
        ),
        (
            {"cameras": {"front": (32, 40), "wrist": (40, 32)}},
            "bundle 'tiny' takes camera 'wrist' at 40x32, sim.toml gives 32x40; set the camera's policy image to 40x32",
        ),
        (
            {"rate_hz": 10.0},
            "bundle 'tiny' was trained at 20 Hz, loop.rate_hz of sim.toml is 10; set loop.rate_hz to 20",
        ),
    ],
)
def test_each_misfit_is_one_line(bundle: Bundle, change: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInputError) as caught:
        check_fits(bundle, **{**FIT, **change})
    assert str(caught.value) == line


def test_an_unknown_proprio_key_is_named(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path, proprio={"elbow": 2}), provider="cpu")
    assert misfits(bundle, **FIT) == [
        "bundle 'tiny' needs proprio 'elbow', which is unknown (allowed 'tcp_position_m', 'tcp_quat_xyzw', "
        "'tcp_velocity', 'gripper_width_m', 'joint_position_rad', 'joint_velocity_rad_s'); export it anew"
    ]


def test_an_arm_with_another_number_of_joints_is_refused(tmp_path: Path) -> None:
    joints = tuple(f"joint{index}" for index in range(6))
    fields: dict[str, Any] = {"proprio": {"joint_position_rad": 6}, "dims": joints, "kind": "joint_delta"}
    bundle = load_bundle(make_tiny_bundle(tmp_path, **fields), provider="cpu")
    assert misfits(bundle, **FIT) == [
        "bundle 'tiny' takes 6 values of proprio 'joint_position_rad', sim.toml gives 7; "
        "use a bundle trained for this arm",
        "bundle 'tiny' drives 6 joints, sim.toml has 7; use a bundle trained for this arm",
    ]
    assert misfits(bundle, **{**FIT, "joint_count": 6}) == []


def test_every_misfit_is_listed_for_the_preflight(bundle: Bundle) -> None:
    assert len(misfits(bundle, cameras={}, rate_hz=5.0, joint_count=7, station="sim.toml")) == 3


def test_loading_and_running_writes_nothing_to_stderr_and_needs_no_torch(folder: Path) -> None:
    program = (
        "import sys; from policy.bundle import load_bundle; bundle = load_bundle(sys.argv[1]); bundle.warm_up(2);"
        "print(bundle.provider, 'torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[1] == "False"
