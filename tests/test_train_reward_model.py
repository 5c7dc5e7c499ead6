"""The script that trains a reward model, on episodes in which success is plain to see."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from policy.episode_header import Outcome
from policy.episode_reader import read_episode
from policy.reward_frames import label_episodes, split_episodes
from policy.reward_model import load_reward_model
from tests.replay_run import changed
from tests.reward_episodes import RED_TICKS, RESET_TICKS, TICKS, make_episode
from tests.scripts import Scripts

SMALL = ("--updates", "60", "--false-positives", "0.2")


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(capsys, monkeypatch)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten successes and twelve failures."""
    folder = tmp_path_factory.mktemp("reward") / "episodes"
    for episode in range(22):
        make_episode(folder, episode, Outcome.SUCCESS if episode < 10 else Outcome.FAILURE)
    return folder


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_it_learns_reports_held_out_figures_and_exports_what_the_robot_loads(
    scripts: Scripts, episodes: Path, tmp_path: Path
) -> None:
    out, found = tmp_path / "reward", tmp_path / "reward.json"
    done = scripts("train_reward_model", episodes, "--out", out, "--json", found, *SMALL)
    assert done.code == 0, done.errors
    report = document(found)
    assert report["calibration"]["episodes"] == 4
    for name in ("precision", "recall"):
        counted = report["calibration"]["episode"][name]
        assert counted["count"] == counted["of"] > 0
        assert 0.0 <= counted["low"] < counted["high"] == 1.0
    assert report["training"]["parity_max_abs_error"] < 1e-4
    assert "per episode   precision 100 %" in done.out
    with Image.open(tmp_path / "reward.png") as plot:
        assert min(plot.size) > 300
    model = load_reward_model(out, provider="cpu")
    assert model.sha256 == report["sha256"]
    assert [camera.name for camera in model.manifest.cameras] == ["front", "wrist"]
    rows = read_episode(min(episodes.glob("*.h5"))).rows()  # a success
    said = [
        model.probability({"front": row["obs/front_image"], "wrist": row["obs/wrist_image"]}, np.zeros(0, np.float32))
        for row in rows[RESET_TICKS:]
    ]
    assert min(said[-RED_TICKS:]) > model.manifest.threshold > max(said[: TICKS - RESET_TICKS - RED_TICKS])


def test_the_same_seed_makes_the_same_graph(scripts: Scripts, episodes: Path, tmp_path: Path) -> None:
    graphs = []
    for name, seed in (("one", "4"), ("two", "4"), ("three", "5")):
        out = tmp_path / name
        command = ("--out", out, "--camera", "front", "--updates", "5", "--seed", seed)
        assert scripts("train_reward_model", episodes, *command).code == 0
        graphs.append((out / "graph.onnx").read_bytes())
    assert graphs[0] == graphs[1] != graphs[2]


def test_it_sees_the_cameras_and_the_proprioception_that_it_is_given(
    scripts: Scripts, episodes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reward"
    asked = ("--camera", "wrist", "--proprio", "tcp_position_m", "--updates", "5")
    done = scripts("train_reward_model", episodes, "--out", out, *asked)
    assert done.code == 0, done.errors
    manifest = load_reward_model(out, provider="cpu").manifest
    assert [camera.name for camera in manifest.cameras] == ["wrist"]
    assert [(entry.key, entry.size) for entry in manifest.proprio] == [("tcp_position_m", 3)]


@pytest.mark.parametrize("updates", ["1", "10"])
def test_a_training_may_be_as_short_as_one_likes(
    scripts: Scripts, episodes: Path, tmp_path: Path, updates: str
) -> None:
    out = tmp_path / "reward"
    done = scripts("train_reward_model", episodes, "--out", out, "--camera", "wrist", "--updates", updates)
    assert done.code == 0, done.errors
    assert load_reward_model(out, provider="cpu").sha256


def test_a_held_out_episode_without_a_row_that_can_be_used_ends_no_training(
    scripts: Scripts, episodes: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(episodes, tmp_path / "episodes")
    found, _ = label_episodes([folder], positive_s=0.3, margin_s=0.0, marks={})
    with changed(split_episodes(found, seed=0).held_out[0].episode.path, reseal=True) as demo:
        demo["tick/overrun"][:] = 1
    done = scripts("train_reward_model", folder, "--out", tmp_path / "reward", "--camera", "front", "--updates", "1")
    assert done.code == 0, done.errors


def test_help_shows_examples(scripts: Scripts) -> None:
    done = scripts("train_reward_model", "--help")
    assert done.code == 0
    examples = done.out.partition("examples:\n")[2].splitlines()
    assert len(examples) == 3
    assert all(example.startswith("  train_reward_model.py ") for example in examples)


def test_too_few_episodes_are_refused(scripts: Scripts, tmp_path: Path) -> None:
    for episode in range(4):
        make_episode(tmp_path / "few", episode, Outcome.SUCCESS if episode else Outcome.FAILURE)
    assert scripts.refused("train_reward_model", tmp_path / "few", "--out", tmp_path / "reward") == (
        "train_reward_model.py: reward model: 3 successes and 1 failures, 10 of each are needed to train and to judge "
        "it; record more, or label those that nobody labelled"
    )
    assert not (tmp_path / "reward").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--camera", "side"), "--camera side: the episodes have none (they have front, wrist)"),
        (("--proprio", "mood"), "--proprio mood: the episodes have none"),
        (("--positive-s", "0"), "argument --positive-s: got '0' (allowed 0.01 to 60)"),
        (("--false-positives", "2"), "argument --false-positives: got '2' (allowed 0 to 1)"),
        (("--debounce", "201"), "argument --debounce: got '201' (allowed 1 to 200, a whole number)"),
        (("--camera", "wrist", "--camera", "wrist"), "--camera wrist: named 2 times; name it once"),
        (("--proprio", "tcp_position_m") * 2, "--proprio tcp_position_m: named 2 times; name it once"),
        (("--out", "."), ".: '' is no name for a reward model"),
        (("--out", "runs/my model"), "'my model' is no name for a reward model"),
        (("--plot", "{out}"), "reward: is --out, a folder, or in it; name a file beside it"),
        (("--frames", "nowhere.csv"), "nowhere.csv: cannot be read"),
    ],
)
def test_bad_options_are_one_line(
    scripts: Scripts, episodes: Path, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    out = tmp_path / "reward"
    more = [option.format(out=out) for option in options]
    assert told in scripts.refused("train_reward_model", episodes, "--out", out, *more)
    assert not (tmp_path / "reward").exists()
