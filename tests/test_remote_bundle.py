"""From a description to a bundle whose policy runs elsewhere, its frozen encoder, and what a station must say of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from policy.bundle import load_bundle
from policy.frozen_encoder import frozen_encoder
from policy.manifest import CameraInput
from policy.onnx_session import PolicyError
from policy.remote_bundle import read_description, write_remote_bundle
from robot.errors import BadInputError
from teleop.chunk_parts import make_chunk_source, policy_misfits
from tests.remote_bundle_bench import CHUNK, description, make_remote_bundle
from tests.replay_run import load_tiny_station
from tests.scripts import Scripts
from tests.tiny_bundle import CAMERAS, make_tiny_bundle

PAGE = Path(__file__).parents[1] / "docs" / "slow_policies.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_remote_bundle(tmp_path_factory.mktemp("remote") / "bundle")


def test_the_bundle_encodes_here_and_does_not_act(folder: Path) -> None:
    bundle = load_bundle(folder, "cpu")
    images = {name: np.full((*size, 3), 90, np.uint8) for name, size in CAMERAS.items()}
    features = bundle.encode(images, np.zeros(4, np.float32))
    assert features.shape == (8,)
    assert bundle.files().keys() == {"manifest.json", "encode.onnx"}
    assert bundle.warm_up(2).act_ms == ()
    with pytest.raises(PolicyError, match="remote policy"):
        bundle.act(features, np.zeros(4, np.float32))


def test_the_page_s_description_makes_a_bundle_by_the_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [_, text] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "pi0.toml").write_text(text)
    scripts = Scripts(capsys, monkeypatch)
    assert scripts("export_policy", "remote", tmp_path / "pi0.toml", "--out", tmp_path / "pi0").code == 0
    assert "none.toml" in scripts.refused("export_policy", "remote", tmp_path / "none.toml", "--out", tmp_path / "x")
    manifest = load_bundle(tmp_path / "pi0", "cpu").manifest
    assert manifest.act is None
    assert manifest.remote is not None
    assert manifest.remote.images["wrist"] == "observation/wrist_image_left"


def test_an_encoder_of_the_user_s_own_takes_the_frozen_one_s_place(tmp_path: Path) -> None:
    own = load_bundle(make_tiny_bundle(tmp_path / "tiny", feature_size=16), "cpu")
    graph = (own.folder / "encode.onnx").read_bytes()
    bundle = load_bundle(write_remote_bundle(tmp_path / "remote", description(feature_size=16), graph), "cpu")
    images = {name: np.full((*size, 3), 90, np.uint8) for name, size in CAMERAS.items()}
    proprio = np.ones(4, np.float32)
    np.testing.assert_array_equal(bundle.encode(images, proprio), own.encode(images, proprio))
    with pytest.raises(BadInputError, match="features"):
        write_remote_bundle(tmp_path / "other", description(feature_size=8), graph)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("size", [(8, 8), (32, 40), (224, 224), (480, 640), (9, 301)])
def test_the_frozen_encoder_takes_any_picture_and_sees_where_things_are(tmp_path: Path, size: tuple[int, int]) -> None:
    camera = CameraInput(name="front", height=size[0], width=size[1])
    entry = {"cameras": (camera,), "feature_size": 32}
    remote = {"images": {"front": "image"}}
    bundle = load_bundle(make_remote_bundle(tmp_path / "bundle", remote=remote, **entry), "cpu")
    left, right = np.zeros((2, *size, 3), np.uint8)
    left[:, : size[1] // 2], right[:, size[1] // 2 :] = 255, 255
    nothing = np.zeros(4, np.float32)
    one, other = (bundle.encode({"front": image}, nothing) for image in (left, right))
    assert 0.5 < one.std() < 2.0
    assert np.abs(one - other).mean() > 0.1


def test_the_frozen_encoder_is_the_same_for_the_same_seed() -> None:
    cameras = [CameraInput(name="front", height=32, width=40)]
    first, again, other = (frozen_encoder(cameras, proprio_size=4, feature_size=8, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"remote": {"images": {"ceiling": "image"}}}, "ceiling"),
        ({"remote": {"state": {"state": ["joint_position_rad"]}}}, "joint_position_rad"),
        ({"remote": {"state_scale": {"force": 1.0}}}, "force"),
        ({"remote": {"scale": [1.0]}}, "5 values"),
        ({"remote": {"prompt": "observation/tcp"}}, "two values under one name"),
        ({"execute_steps": CHUNK + 1}, "execute_steps"),
        ({"name": "No Name"}, "name"),
    ],
)
def test_a_description_that_contradicts_itself_is_one_line(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(BadInputError, match=says) as told:
        make_remote_bundle(tmp_path / "bundle", **changes)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("name = "),
        lambda path: path.write_text('name = "a"\nspeed = 3'),
        lambda path: path.write_bytes(b"\xff\xfe"),
    ],
    ids=["missing", "no TOML", "unknown key", "no text"],
)
def test_a_file_that_is_no_description_is_one_line(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    path = tmp_path / "pi0.toml"
    path.touch()
    spoil(path)
    with pytest.raises(BadInputError, match=r"pi0\.toml") as told:
        read_description(path)
    assert "\n" not in str(told.value)


REMOTE = (("policy.mode", '"asynchronous"'), ("policy.endpoint", '"ws://127.0.0.1:8000"'))


@pytest.mark.parametrize(
    ("says", "what"),
    [
        ((), ["asynchronous", "endpoint: got ''"]),
        (REMOTE[:1], ["endpoint: got ''"]),
        (REMOTE[1:], ["asynchronous"]),
        ((REMOTE[0], ("policy.endpoint", '"ws://10.1.2.3:8000"')), ["without TLS"]),
        (REMOTE, []),
    ],
)
def test_a_station_must_say_where_a_remote_policy_is(
    folder: Path, says: tuple[tuple[str, str], ...], what: list[str]
) -> None:
    lines = policy_misfits(load_tiny_station(folder, *says), load_bundle(folder, "cpu"))
    assert len(lines) == len(what)
    for line, part in zip(lines, what, strict=True):
        assert part in line


def test_an_endpoint_for_a_policy_that_acts_itself_is_a_mistake(tmp_path: Path) -> None:
    tiny = make_tiny_bundle(tmp_path / "tiny")
    bundle = load_bundle(tiny, "cpu")
    [line] = policy_misfits(load_tiny_station(tiny, *REMOTE), bundle)
    assert "acts itself" in line
    assert policy_misfits(load_tiny_station(tiny, REMOTE[0]), bundle) == []
    assert make_chunk_source(load_tiny_station(tiny).station, bundle) is None


def test_a_key_that_the_environment_lacks_is_told_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_tiny_station(make_remote_bundle(tmp_path / "b"), *REMOTE, ("policy.api_key_variable", '"A_KEY"'))
    bundle = load_bundle(tmp_path / "b", "cpu")
    monkeypatch.delenv("A_KEY", raising=False)
    [line] = policy_misfits(loaded, bundle)
    assert line == f"station {loaded.path}: policy.api_key_variable: the environment has no A_KEY; export it first"
    monkeypatch.setenv("A_KEY", "word")
    assert policy_misfits(loaded, bundle) == []


def test_a_seam_that_outlasts_the_chunk_is_a_mistake(tmp_path: Path) -> None:
    tiny = make_tiny_bundle(tmp_path / "tiny", chunk_length=4)
    bundle = load_bundle(tiny, "cpu")
    [line] = policy_misfits(load_tiny_station(tiny, REMOTE[0], ("policy.seam_ticks", "5")), bundle)
    assert "policy.seam_ticks is 5, but a chunk of bundle 'tiny' has 4 actions (allowed 0 to 4)" in line
    assert policy_misfits(load_tiny_station(tiny, ("policy.seam_ticks", "5")), bundle) == []  # asked within the tick
