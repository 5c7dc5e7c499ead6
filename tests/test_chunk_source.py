"""Chunks in virtual time, their messages, and the loop's end of the rings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.bundle import load_bundle
from policy.chunk_messages import ChunkMessages, MessageKind
from policy.chunk_ring import RingSource, new_rings
from policy.chunk_source import (
    KEPT_FAILURES,
    ChunkFault,
    ChunkReply,
    ChunkRequest,
    DelayedSource,
    MisshapenChunkError,
    ReplyKind,
)
from policy.manifest import Manifest
from policy.manifest_file import read_manifest
from robot.message_ring import MessageRing
from tests.remote_bundle_bench import make_remote_bundle
from tests.tiny_bundle import CAMERAS, make_tiny_bundle

H, A = 4, 5


def request(tick: int, asked_s: float, *, level: int = 0) -> ChunkRequest:
    rng = np.random.default_rng(tick)
    return ChunkRequest(
        tick=tick,
        asked_s=asked_s,
        features=rng.normal(size=6).astype(np.float32),
        proprio=rng.normal(size=4).astype(np.float32),
        images={name: np.full((*size, 3), level, np.uint8) for name, size in CAMERAS.items()},
    )


def delayed(delay_s: float = 0.1, hung_after_s: float = 1.0) -> DelayedSource:
    return DelayedSource(
        lambda asked: np.full((H, A), asked.tick, np.float32), lambda: delay_s, hung_after_s=hung_after_s
    )


def test_a_chunk_arrives_after_its_delay_and_once() -> None:
    source = delayed()
    source.ask(request(3, 10.0))
    assert source.poll(10.05) is None
    reply = source.poll(10.1)
    assert reply is not None
    assert (reply.tick, reply.kind, reply.arrived_s) == (3, ReplyKind.CHUNK, pytest.approx(10.1))
    assert reply.actions is not None
    np.testing.assert_array_equal(reply.actions, np.full((H, A), 3))
    assert source.poll(10.2) is None


def test_of_two_answers_the_newer_request_counts() -> None:
    source = delayed()
    source.ask(request(3, 10.0))
    source.ask(request(4, 10.05))
    reply = source.poll(10.3)
    assert reply is not None
    assert reply.tick == 4
    assert source.poll(10.4) is None


def test_what_was_asked_before_is_forgotten() -> None:
    source = delayed()
    source.ask(request(3, 10.0))
    source.forget()
    assert source.poll(11.0) is None
    assert not source.hung


@pytest.mark.parametrize("fault", [ChunkFault.RAISE, ChunkFault.NAN, ChunkFault.SLOW, ChunkFault.HANG])
def test_each_fault_shows_and_ends(fault: ChunkFault) -> None:
    source = delayed()
    source.fault = (fault, 0.5)
    source.ask(request(0, 0.0))
    early, late = source.poll(0.1), source.poll(0.6)
    match fault:
        case ChunkFault.RAISE:
            assert early is not None
            assert early.kind is ReplyKind.FAILED
            assert source.failures == [early.why]
            assert "\n" not in early.why
        case ChunkFault.NAN:
            assert early is not None
            assert early.actions is not None
            assert np.isnan(early.actions).all()
        case ChunkFault.SLOW:
            assert early is None
            assert late is not None
        case ChunkFault.HANG:
            assert (early, late, source.hung) == (None, None, False)
            assert source.poll(1.1) is None
            assert source.hung
    source.fault = (ChunkFault.NONE, 0.0)
    source.ask(request(30, 2.0))
    good = source.poll(2.1)
    assert good is not None
    assert good.kind is ReplyKind.CHUNK
    assert not source.hung


def test_an_answer_that_is_no_chunk_says_so() -> None:
    def act(asked: ChunkRequest) -> np.ndarray:
        raise MisshapenChunkError("not a chunk")

    source = DelayedSource(act, lambda: 0.0, hung_after_s=1.0)
    source.ask(request(0, 0.0))
    reply = source.poll(0.0)
    assert reply is not None
    assert (reply.kind, reply.actions, reply.why) == (ReplyKind.MISSHAPEN, None, "not a chunk")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("local") / "bundle"), "cpu").manifest


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder: Path = make_remote_bundle(tmp_path_factory.mktemp("remote") / "bundle")
    return read_manifest(folder)[0]


def test_a_request_comes_out_as_it_went_in(local: Manifest, remote: Manifest) -> None:
    asked = request(7, 12.5, level=9)
    for manifest, cameras in ((local, set()), (remote, {"front", "wrist"})):
        messages = ChunkMessages(manifest)
        asked = replace(asked, features=np.arange(manifest.feature_size, dtype=np.float32))
        data = bytes(messages.pack_request(41, asked))
        assert len(data) == messages.request_bytes
        number, got = messages.read_request(data)
        assert (number, got.tick, got.asked_s) == (41, 7, 12.5)
        np.testing.assert_array_equal(got.features, asked.features)
        np.testing.assert_array_equal(got.proprio, asked.proprio)
        assert got.images.keys() == cameras
        for name in cameras:
            np.testing.assert_array_equal(got.images[name], asked.images[name])


@pytest.mark.parametrize("kind", list(ReplyKind))
def test_an_answer_comes_out_as_it_went_in(local: Manifest, kind: ReplyKind) -> None:
    messages = ChunkMessages(local)
    actions = np.arange(H * A, dtype=np.float32).reshape(H, A) if kind is ReplyKind.CHUNK else None
    sent = ChunkReply(tick=7, arrived_s=12.5, kind=kind, actions=actions, why="" if actions is not None else "ö" * 300)
    number, got = messages.read_reply(bytes(messages.pack_reply(41, sent)))
    assert (number, got.tick, got.arrived_s, got.kind) == (41, 7, 12.5, kind)
    if actions is None:
        assert got.actions is None
        assert got.why == "ö" * 120
    else:
        np.testing.assert_array_equal(got.actions, actions)


@given(st.binary(max_size=600))
def test_no_bytes_of_another_size_are_taken_for_a_message(data: bytes) -> None:
    messages = ChunkMessages(_MANIFEST)
    if len(data) != messages.request_bytes:
        with pytest.raises(ValueError, match="a message of"):
            messages.read_request(data)
    if len(data) != messages.reply_bytes:
        with pytest.raises(ValueError, match="a message of"):
            messages.read_reply(data)
    unknown = bytearray(messages.pack_reply(1, ChunkReply(tick=0, arrived_s=0.0, kind=ReplyKind.FAILED)))
    unknown[24] = 77
    with pytest.raises(ValueError, match="77"):
        messages.read_reply(bytes(unknown))


def _tiny_manifest() -> Manifest:
    from policy.manifest import EntryPoint
    from tests.tiny_bundle import tiny_manifest

    graph = EntryPoint(file="a.onnx", sha256="0" * 64)
    return Manifest.model_validate(tiny_manifest() | {"encode": graph, "act": graph, "content_sha256": "0" * 64})


_MANIFEST = _tiny_manifest()


class Ends:
    """The loop's source and the server's ends of the rings."""

    def __init__(self, requests: MessageRing, replies: MessageRing, *, hung_after_s: float = 1.0) -> None:
        self.messages = ChunkMessages(_MANIFEST)
        self.source = RingSource(_MANIFEST, requests, replies, hung_after_s=hung_after_s)
        self.requests, self.replies = (
            MessageRing(*map(os.dup, requests.files)),
            MessageRing(*map(os.dup, replies.files)),
        )

    def asked(self) -> list[tuple[int, ChunkRequest]]:
        found = []
        while (message := self.requests.take()) is not None:
            assert message[0] == MessageKind.REQUEST
            found.append(self.messages.read_request(message[1]))
        return found

    def answer(self, number: int, tick: int, arrived_s: float, kind: ReplyKind = ReplyKind.CHUNK) -> None:
        actions = np.full((H, A), tick, np.float32) if kind is ReplyKind.CHUNK else None
        reply = ChunkReply(tick=tick, arrived_s=arrived_s, kind=kind, actions=actions, why="out of order")
        self.replies.put(MessageKind.REPLY, self.messages.pack_reply(number, reply))

    def hello(self) -> None:
        self.replies.put(MessageKind.HELLO, b"")


@pytest.fixture
def ends() -> Iterator[Ends]:
    requests, replies = new_rings(_MANIFEST)
    with closing(requests), closing(replies):
        made = Ends(requests, replies)
        with closing(made.requests), closing(made.replies):
            yield made


def test_requests_and_answers_pass_the_rings(ends: Ends) -> None:
    ends.source.ask(request(3, 10.0))
    [(number, asked)] = ends.asked()
    assert asked.tick == 3
    assert ends.source.poll(10.1) is None
    ends.answer(number, 3, 10.15)
    reply = ends.source.poll(10.2)
    assert reply is not None
    assert (reply.tick, reply.arrived_s) == (3, 10.15)
    assert ends.source.poll(10.3) is None


def test_of_several_answers_the_newest_is_returned_and_forgotten_ones_never(ends: Ends) -> None:
    for tick in (3, 4):
        ends.source.ask(request(tick, 10.0 + tick))
    for number, asked in ends.asked():
        ends.answer(number, asked.tick, 20.0)
    reply = ends.source.poll(20.0)
    assert reply is not None
    assert reply.tick == 4
    ends.source.ask(request(5, 21.0))
    ends.source.forget()
    ends.source.ask(request(5, 30.0))  # the next episode has the same numbers
    (old, _), (new, _) = ends.asked()
    ends.answer(old, 5, 30.1)
    assert ends.source.poll(30.2) is None
    ends.answer(new, 5, 30.3)
    assert ends.source.poll(30.4) is not None


def test_failures_are_passed_on_and_kept_in_words(ends: Ends) -> None:
    ends.source.ask(request(3, 10.0))
    ends.answer(1, 3, 10.1, ReplyKind.FAILED)
    reply = ends.source.poll(10.2)
    assert reply is not None
    assert reply.kind is ReplyKind.FAILED
    assert ends.source.failures == ["out of order"]
    for number in range(2, 300):
        ends.source.ask(request(number, 10.0 + number))
        ends.answer(number, number, 10.1 + number, ReplyKind.FAILED)
        ends.asked()
        ends.source.poll(10.2 + number)
    assert len(ends.source.failures) == KEPT_FAILURES


def test_nonsense_in_the_ring_is_told_and_passed_over(ends: Ends) -> None:
    ends.source.ask(request(3, 10.0))
    ends.replies.put(MessageKind.REPLY, b"nonsense")
    ends.answer(1, 3, 10.1)
    reply = ends.source.poll(10.2)
    assert reply is not None
    assert reply.tick == 3
    [line] = ends.source.failures
    assert "8 bytes" in line


def test_a_server_without_an_answer_is_hung_until_its_successor_says_hello(ends: Ends) -> None:
    ends.source.ask(request(0, 10.0))
    ends.source.ask(request(10, 10.5))  # the first was given up
    ends.source.poll(11.0)
    assert not ends.source.hung
    ends.source.poll(11.01)
    assert ends.source.hung
    ends.hello()
    assert not ends.source.hung  # heard at once, not at the loop's next look
    ends.source.poll(11.5)
    assert not ends.source.hung
    ends.answer(2, 10, 11.6)
    assert not ends.source.hung
    assert ends.source.poll(40.0) is not None
    assert not ends.source.hung


def test_a_late_answer_is_a_sign_of_life(ends: Ends) -> None:
    ends.source.ask(request(0, 10.0))
    ends.source.ask(request(10, 10.5))
    ends.answer(1, 0, 10.9)
    ends.source.poll(11.2)
    ends.source.poll(11.9)
    assert not ends.source.hung  # 0.7 s since it answered
    ends.source.poll(12.3)
    assert ends.source.hung


def test_a_server_that_takes_nothing_costs_the_loop_nothing(ends: Ends) -> None:
    for tick in range(50):
        ends.source.ask(request(tick, 10.0 + tick))
    assert 1 <= len(ends.asked()) < 50
    ends.source.poll(60.0)
    assert ends.source.hung
    ends.source.ask(request(60, 61.0))
    assert [asked.tick for _, asked in ends.asked()] == [60]
