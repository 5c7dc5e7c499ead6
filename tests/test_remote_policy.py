"""Where a remote policy may be, and what stands between its words and ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from policy.chunk_source import ChunkRequest, MisshapenChunkError
from policy.manifest_file import read_manifest
from policy.remote_policy import RemotePolicy, RemoteSettings, check_remote_endpoint
from robot.errors import BadInputError
from tests.openpi_server import PolicyServer, chunk_answer, wire_array
from tests.remote_bundle_bench import CHUNK, make_remote_bundle
from tests.tiny_bundle import CAMERAS

ACTIONS = np.linspace(-1.0, 1.0, CHUNK * 5).reshape(CHUNK, 5)
ENOUGH_S = 20.0


@pytest.mark.parametrize(
    "endpoint",
    ["ws://127.0.0.1:8000", "ws://localhost:8000", "ws://[::1]:8000", "wss://policy.example:443", "wss://10.0.0.7"],
)
def test_addresses_on_this_machine_or_with_tls_are_allowed(endpoint: str) -> None:
    check_remote_endpoint(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    ["", "127.0.0.1:8000", "http://127.0.0.1", "ws://", "ws://10.0.0.7:8000", "ws://policy.example:8000", "ws://[::1",
     "ws://127.0.0.1:99999", "wss://user:word@host", "ws://0.0.0.0:8000"],
)  # fmt: skip
def test_other_addresses_are_refused_in_one_line(endpoint: str) -> None:
    with pytest.raises(BadInputError, match="endpoint: ") as told:
        check_remote_endpoint(endpoint)
    assert "\n" not in str(told.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_remote_bundle(tmp_path_factory.mktemp("remote") / "bundle")


def observed() -> ChunkRequest:
    rng = np.random.default_rng(0)
    return ChunkRequest(
        tick=3,
        asked_s=10.0,
        features=np.zeros(8, np.float32),
        proprio=np.array([0.4, 0.1, 0.2, 0.02], np.float32),
        images={name: rng.integers(0, 256, (*size, 3), np.uint8) for name, size in CAMERAS.items()},
    )


def settings(endpoint: str, **changes: Any) -> RemoteSettings:
    return RemoteSettings.model_validate({"endpoint": endpoint, "prompt": "pick", "deadline_s": ENOUGH_S, **changes})


def test_a_bundle_says_the_observation_in_the_servers_words_and_the_chunk_in_ours(folder: Path) -> None:
    manifest, asked = read_manifest(folder)[0], observed()
    with PolicyServer(lambda seen: chunk_answer(ACTIONS)) as server:
        policy = RemotePolicy(manifest, settings(server.endpoint))
        chunk = policy.act(asked)
        policy.close()
    [seen] = server.seen
    assert seen == {
        "observation/front": wire_array(asked.images["front"]),
        "observation/wrist": wire_array(asked.images["wrist"]),
        "observation/tcp": wire_array(asked.proprio[:3]),
        "observation/gripper": wire_array(np.array([1.0 - 12.5 * np.float32(0.02)], np.float32)),
        "prompt": "pick",
    }
    assert chunk.dtype == np.float32
    np.testing.assert_allclose(chunk[:, :4], 0.5 * ACTIONS[:, :4], atol=1e-6)
    np.testing.assert_allclose(chunk[:, 4], 1.0 - 2.0 * ACTIONS[:, 4], atol=1e-6)


@pytest.mark.parametrize(
    "answer",
    [
        chunk_answer(ACTIONS[:-1]),
        chunk_answer(ACTIONS[:, :-1]),
        chunk_answer(ACTIONS > 0.0),
        msgpack.packb({"actions": [1.0, 2.0]}),
        msgpack.packb({"action": wire_array(ACTIONS)}),
    ],
    ids=["short", "narrow", "truth values", "list", "other name"],
)
def test_another_shape_is_no_chunk(folder: Path, answer: bytes) -> None:
    with PolicyServer(lambda seen: answer) as server:
        policy = RemotePolicy(read_manifest(folder)[0], settings(server.endpoint))
        with pytest.raises(MisshapenChunkError, match="the bundle says"):
            policy.act(observed())
        policy.close()


def test_numbers_that_are_not_finite_are_passed_on_for_the_rule_to_reject(folder: Path) -> None:
    sick = ACTIONS.copy()
    sick[2, 1] = np.inf
    with PolicyServer(lambda seen: chunk_answer(sick)) as server:
        policy = RemotePolicy(read_manifest(folder)[0], settings(server.endpoint))
        assert np.isinf(policy.act(observed())[2, 1])
        policy.close()


def test_a_key_that_the_environment_lacks_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLICY_KEY", raising=False)
    with pytest.raises(BadInputError, match="POLICY_KEY"):
        RemotePolicy(read_manifest(folder)[0], settings("ws://127.0.0.1:1", api_key_variable="POLICY_KEY"))
