from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from policy.onnx_session import PolicyError
from policy.reward_manifest import REWARD_MANIFEST_FILE, read_reward_manifest
from policy.reward_model import load_reward_model, proprio_columns, reward_misfits
from policy.reward_writer import write_reward_model
from robot.errors import BadInputError
from tests.tiny_reward import CAMERAS, make_tiny_reward, tiny_reward_graph

SIZES = {"front": (32, 40), "wrist": (32, 40)}
PROPRIO = {"tcp_position_m": 3, "gripper_width_m": 1}
NOTHING = np.zeros(0, np.float32)


def reddish(level: int) -> np.ndarray:
    image = np.zeros((32, 40, 3), np.uint8)
    image[..., 0] = level
    return image


@pytest.mark.parametrize("level", [0, 51, 255])
def test_a_loaded_model_gives_what_its_graph_computes(tmp_path: Path, level: int) -> None:
    model = load_reward_model(make_tiny_reward(tmp_path / "reward"), provider="cpu")
    assert model.probability({"front": reddish(level)}, NOTHING) == pytest.approx(level / 255, abs=1e-6)
    assert model.manifest.threshold == 0.5


def test_what_is_not_finite_comes_back_as_it_is(tmp_path: Path) -> None:
    model = load_reward_model(make_tiny_reward(tmp_path / "reward", scale=0.0), provider="cpu")
    assert np.isnan(model.probability({"front": reddish(9)}, NOTHING))


def test_a_missing_camera_and_a_wrong_shape_are_errors_of_the_tick(tmp_path: Path) -> None:
    model = load_reward_model(make_tiny_reward(tmp_path / "reward"), provider="cpu")
    with pytest.raises(PolicyError, match="no value for input 'front_image'"):
        model.probability({"wrist": reddish(0)}, NOTHING)
    with pytest.raises(PolicyError, match="must be \\(1, 32, 40, 3\\)"):
        model.probability({"front": reddish(0)[:-1]}, NOTHING)


def test_a_graph_of_another_size_is_refused_in_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    good = make_tiny_reward(tmp_path / "reward")
    manifest = json.loads((good / REWARD_MANIFEST_FILE).read_text())
    content = {name: manifest[name] for name in ("name", "created_utc", "rate_hz", "threshold", "debounce_ticks")}
    content |= {"cameras": manifest["cameras"], "training": {}}
    with pytest.raises(BadInputError) as refused:
        write_reward_model(tmp_path / "other", content, tiny_reward_graph({"front": (64, 40)}, 0))
    line = str(refused.value)
    assert "input 'front_image' is (1, 64, 40, 3)" in line
    assert "the manifest says (1, 32, 40, 3)" in line
    assert line.endswith("train the reward model again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reward"]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("threshold", 0.9, "changed after export"),
        ("threshold", 1.5, "key 'threshold' is 1.5"),
        ("schema_version", 2, "schema_version is 2 (this software reads 1)"),
        ("extra", 1, "unknown key 'extra'"),
    ],
)
def test_an_edited_manifest_is_refused_in_one_line(tmp_path: Path, key: str, value: object, told: str) -> None:
    path = make_tiny_reward(tmp_path / "reward") / REWARD_MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(BadInputError) as refused:
        load_reward_model(path.parent)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "export the policy" not in str(refused.value)


def test_an_edited_graph_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_reward(tmp_path / "reward")
    graph = folder / "graph.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(BadInputError, match=r"graph\.onnx was changed or damaged"):
        load_reward_model(folder)


def test_a_folder_of_something_else_is_neither_read_nor_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(BadInputError, match=r"cannot read reward\.json"):
        load_reward_model(tmp_path / "mine")
    with pytest.raises(BadInputError, match="holds something else"):
        make_tiny_reward(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


def test_a_new_model_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    make_tiny_reward(tmp_path / "reward", threshold=0.4)
    make_tiny_reward(tmp_path / "reward", threshold=0.6)
    assert load_reward_model(tmp_path / "reward").manifest.threshold == 0.6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reward"]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"cameras": {"side": (32, 40)}}, "looks at camera 'side', which here does not (it has 'front', 'wrist')"),
        ({"cameras": {"front": (64, 40)}}, "takes camera 'front' at 40x64, here sees 40x32"),
        ({"proprio": {"gripper_width_m": 2}}, "takes 2 values of proprio 'gripper_width_m', here has 1 values"),
        ({"proprio": {"joint_position_rad": 7}}, "takes 7 values of proprio 'joint_position_rad', here has none"),
        ({"rate_hz": 10.0}, "was made for 10 Hz, loop.rate_hz of here is 20"),
    ],
)
def test_what_does_not_fit_the_policy_is_one_line(tmp_path: Path, made: dict[str, object], told: str) -> None:
    manifest, _ = read_reward_manifest(make_tiny_reward(tmp_path / "reward", **made))  # type: ignore[arg-type]
    lines = reward_misfits(manifest, cameras=SIZES, proprio=PROPRIO, rate_hz=20.0, where="here")
    assert len(lines) == 1
    assert told in lines[0]


def test_a_model_for_some_of_the_inputs_fits_and_finds_them(tmp_path: Path) -> None:
    folder = make_tiny_reward(tmp_path / "reward", cameras=CAMERAS, proprio={"gripper_width_m": 1})
    manifest, _ = read_reward_manifest(folder)
    assert reward_misfits(manifest, cameras=SIZES, proprio=PROPRIO, rate_hz=20.0, where="here") == []
    assert proprio_columns(manifest, PROPRIO).tolist() == [3]
    model = load_reward_model(folder, provider="cpu")
    assert model.probability({"front": reddish(255)}, np.zeros(1, np.float32)) == pytest.approx(1.0)
