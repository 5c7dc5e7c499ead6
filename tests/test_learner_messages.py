"""A message is taken whole and right, or not at all."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy import learner_messages as wire
from policy.episode_header import Outcome
from policy.learner_episode import HOLD, EpisodeArrays
from tests.learner_episodes import made_up


def content(**changes: Any) -> dict[str, Any]:
    message: dict[str, Any] = msgpack.unpackb(wire.pack(wire.episode_message(made_up(1)))[wire.DIGEST_BYTES :])
    return message | changes


def arrays(name: str, **changes: Any) -> dict[str, Any]:
    whole = content()["arrays"]
    return {"arrays": whole | {name: whole[name] | changes}}


def taken(message: dict[str, Any]) -> EpisodeArrays:
    received = wire.unpack_robot(wire.sealed(msgpack.packb(message)))
    assert isinstance(received, wire.EpisodeMessage)
    return wire.episode_arrays(received)


def test_episode_comes_back_as_it_was_sent() -> None:
    sent = made_up(3, outcome=Outcome.TIMEOUT)
    received = wire.unpack_robot(wire.pack(wire.episode_message(sent)))
    assert isinstance(received, wire.EpisodeMessage)
    back = wire.episode_arrays(received)
    for field in fields(EpisodeArrays):
        wanted, found = getattr(sent, field.name), getattr(back, field.name)
        if isinstance(wanted, np.ndarray):
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype
        else:
            assert found == wanted


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"type": "surprise"}, "type|discriminator|tag"),
        ({"unknown": 1}, "unknown"),
        ({"episode": -1}, "episode"),
        ({"episode": "1"}, "episode"),
        ({"episode": True}, "episode"),
        ({"run_id": "../../etc"}, "run_id"),
        ({"outcome": "splendid"}, "outcome"),
        ({"bundle_sha256": "0" * 63}, "bundle_sha256"),
        ({"arrays": {}}, "missing or unknown"),
        (arrays("features", dtype="|O"), "dtype"),
        (arrays("features", dtype="<i8"), "dtype"),
        (arrays("features", shape=[12, 6]), "bytes for shape"),
        (arrays("features", shape=[60]), "shape"),
        (arrays("features", shape=[-12, -5]), "shape"),
        (arrays("features", shape=[12, 5, 1]), "shape"),
        (arrays("features", shape=[100_001, 5]), "shape"),
        (arrays("features", data=b""), "bytes for shape"),
        (arrays("features", data="text"), "data"),
        (arrays("features", shape=[15, 4]), "has 15 ticks"),
        (arrays("base", shape=[12, 1], data=b"\0" * 48), "wide"),
        (arrays("engaged", data=b"\2" * 12), "0 and 1"),
        (arrays("source", data=b"\4" * 12), "source must be"),
        (arrays("index", data=b"\0" * 96), "index must rise"),
        (arrays("features", data=np.full(60, np.inf, "<f4").tobytes()), "array features"),
        (arrays("executed", data=np.full(24, np.nan, "<f4").tobytes()), "array executed"),
        (arrays("executed", data=np.full(24, np.inf, "<f4").tobytes()), "array executed"),
        (arrays("base", data=np.full(24, -np.inf, "<f4").tobytes()), "array base"),
        (arrays("rewards", data=np.full(12, 1e30, "<f4").tobytes()), "array rewards"),
    ],
)
def test_what_breaks_a_rule_is_refused_in_one_line(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(wire.MalformedMessageError, match=text) as caught:
        taken(content(**changes))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_episode_without_ticks_is_refused() -> None:
    whole = content()["arrays"]
    empty = {name: entry | {"shape": [0, *entry["shape"][1:]], "data": b""} for name, entry in whole.items()}
    with pytest.raises(wire.MalformedMessageError, match="no ticks"):
        taken(content(arrays=empty))


def test_absent_values_are_taken_where_they_mean_something() -> None:
    whole = made_up(1)
    source, features, base = whole.source.copy(), whole.features.copy(), whole.base.copy()
    source[0], features[0], base[3] = HOLD, np.nan, np.nan
    sent = replace(whole, source=source, features=features, base=base)
    received = wire.unpack_robot(wire.pack(wire.episode_message(sent)))
    assert isinstance(received, wire.EpisodeMessage)
    assert np.isnan(wire.episode_arrays(received).features[0]).all()


def test_proprioception_may_be_empty() -> None:
    sent = replace(made_up(1), proprio=np.zeros((12, 0), np.float32))
    received = wire.unpack_robot(wire.pack(wire.episode_message(sent)))
    assert isinstance(received, wire.EpisodeMessage)
    assert wire.episode_arrays(received).proprio.shape == (12, 0)


def test_oversized_message_is_neither_packed_nor_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(wire.MalformedMessageError, match="limit 1000"):
        wire.pack(wire.episode_message(made_up(1)))
    with pytest.raises(wire.MalformedMessageError, match="limit 1000"):
        wire.unpack_robot(b"\0" * 1001)


def test_pickles_and_extension_types_are_refused() -> None:
    for data in (pickle.dumps({"type": "hello"}), msgpack.packb(msgpack.ExtType(1, b"x")), b"", b"\xc1"):
        for sent in (data, wire.sealed(data)):
            with pytest.raises(wire.MalformedMessageError):
                wire.unpack_robot(sent)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64))
def test_no_bytes_raise_anything_but_malformed(data: bytes) -> None:
    for unpack in (wire.unpack_robot, wire.unpack_learner):
        with pytest.raises(wire.MalformedMessageError):
            unpack(data)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(1, 255))
def test_a_changed_byte_is_refused(place: int, value: int) -> None:
    data = bytearray(wire.pack(wire.episode_message(made_up(1))))
    data[place % len(data)] ^= value
    with pytest.raises(wire.MalformedMessageError, match="does not match its digest"):
        wire.unpack_robot(bytes(data))


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(1, 255))
def test_a_changed_byte_under_a_right_digest_is_refused_or_still_a_sound_episode(place: int, value: int) -> None:
    data = bytearray(wire.pack(wire.episode_message(made_up(1)))[wire.DIGEST_BYTES :])
    data[place % len(data)] ^= value
    try:
        message = wire.unpack_robot(wire.sealed(bytes(data)))
        back = wire.episode_arrays(message) if isinstance(message, wire.EpisodeMessage) else None
    except wire.MalformedMessageError:
        return
    if back is not None:
        assert np.isfinite(back.executed).all()


def test_an_inventory_tells_the_revision_of_each_episode_that_is_there() -> None:
    question = wire.Question(run_id="run-1", first=10, count=4)
    stored = {("run-1", 11): 0, ("run-1", 13): 2**40, ("run-2", 10): 5, ("run-1", 12): 3}
    inventory = wire.Inventory.of(question, lambda run_id, episode: stored.get((run_id, episode), wire.NOT_HERE))
    received = wire.unpack_learner(wire.pack(inventory))
    assert isinstance(received, wire.Inventory)
    assert received.newest() == {11: 0, 12: 3}  # a revision that no number of labels reaches is not claimed


def test_the_greatest_inventory_is_small() -> None:
    question = wire.Question(run_id="r" * 60, first=2**62, count=wire.PAGE_EPISODES)
    assert len(wire.pack(wire.Inventory.of(question, lambda run_id, episode: 2**31 - 1))) < 17_000


@pytest.mark.parametrize("hello", [{"answered": 3}, {"in_force": 3}, {"received": wire.MAX_VERSION + 1}])
def test_a_hello_that_cannot_be_true_is_refused(hello: dict[str, int]) -> None:
    sound = {"type": "hello", "schema_version": 3, "run_id": "run-1", "received": 2, "answered": 2, "in_force": 2}
    wire.unpack_robot(wire.sealed(msgpack.packb(sound)))
    with pytest.raises(wire.MalformedMessageError):
        wire.unpack_robot(wire.sealed(msgpack.packb(sound | hello)))
