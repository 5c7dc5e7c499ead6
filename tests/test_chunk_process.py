"""The chunk server as a real process: it answers, shows faults, hangs, is killed and goes on in its successor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from policy.bundle import Bundle, load_bundle
from policy.chunk_process import ChunkServerConfig
from policy.chunk_ring import RingSource, new_rings
from policy.chunk_source import ChunkFault, ChunkReply, ChunkRequest, ReplyKind
from policy.remote_policy import RemoteSettings
from robot.message_ring import MessageRing
from robot.process_board import ProcessBoard
from teleop.chunk_parts import CHILD, ChunkChild, condemn_if_hung
from teleop.supervisor import Supervisor
from tests.openpi_server import PolicyServer, chunk_answer
from tests.remote_bundle_bench import make_remote_bundle
from tests.replay_run import load_tiny_station
from tests.tiny_bundle import CAMERAS, make_tiny_bundle

ENOUGH_S = 30.0
HUNG_AFTER_S = 0.4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("chunks") / "bundle"), "cpu")


def request(bundle: Bundle, tick: int) -> ChunkRequest:
    rng = np.random.default_rng(tick)
    manifest = bundle.manifest
    return ChunkRequest(
        tick=tick,
        asked_s=time.monotonic(),
        features=rng.normal(size=manifest.feature_size).astype(np.float32),
        proprio=rng.normal(size=manifest.proprio_size).astype(np.float32),
        images={name: rng.integers(0, 256, (*size, 3), np.uint8) for name, size in CAMERAS.items()},
    )


def until(true: Callable[[], object], what: str) -> None:
    """Look again and again, at most as long as a slow machine may need."""
    deadline_s = time.monotonic() + ENOUGH_S
    while not true():
        assert time.monotonic() < deadline_s, what
        os.sched_yield()


class Server:
    """The process with its rings and a board of its own, in the supervisor's place."""

    def __init__(self, bundle: Bundle, requests: MessageRing, replies: MessageRing, config: ChunkServerConfig) -> None:
        self._rings, self._config = (requests, replies), config
        self.board = ProcessBoard.new(1)
        self.source = RingSource(bundle.manifest, requests, replies, hung_after_s=HUNG_AFTER_S)
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it on the rings as they are."""
        requests, replies = self._rings
        self.board.places["ready"][0] = 0
        command = [sys.executable, "-m", "policy.chunk_process", "--config", self._config.model_dump_json()]
        command += ["--requests", *map(str, requests.files), "--replies", *map(str, replies.files)]
        command += ["--board", str(self.board.file), "--place", "0", "--parent", str(os.getpid())]
        files = (*requests.files, *replies.files, self.board.file)
        self.process = subprocess.Popen(command, pass_fds=files, stderr=subprocess.PIPE, text=True)

    def ready(self) -> Self:
        """Wait until it does its work."""
        until(lambda: self.board.places["ready"][0] or self.ended, "the server is not ready")
        assert not self.ended
        return self

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def answer(self, asked: ChunkRequest) -> ChunkReply:
        """Ask and wait."""
        self.source.ask(asked)
        return self.next()

    def next(self) -> ChunkReply:
        """Wait for an answer."""
        replies: list[ChunkReply] = []
        until(lambda: replies.extend(filter(None, [self.source.poll(time.monotonic())])) or replies, "no answer came")
        return replies[0]

    def fault(self, fault: ChunkFault, amount: float = 0.0) -> None:
        self.board.places["fault_value"][0], self.board.places["fault"][0] = amount, int(fault)

    def kill(self) -> None:
        """As the supervisor does."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        self.board.close()


@contextmanager
def serving(bundle: Bundle, remote: RemoteSettings | None = None, folder: str | None = None) -> Iterator[Server]:
    requests, replies = new_rings(bundle.manifest)
    config = ChunkServerConfig(bundle=folder or str(bundle.folder), provider="cpu", remote=remote)
    with closing(requests), closing(replies), Server(bundle, requests, replies, config) as server:
        yield server


def test_chunks_of_the_process_are_bit_for_bit_those_of_the_bundle(bundle: Bundle) -> None:
    with serving(bundle) as server:
        server.ready()
        for tick in range(20):
            asked = request(bundle, tick)
            reply = server.answer(asked)
            assert (reply.tick, reply.kind) == (tick, ReplyKind.CHUNK)
            assert asked.asked_s <= reply.arrived_s <= time.monotonic()
            assert reply.actions is not None
            assert reply.actions.tobytes() == bundle.act(asked.features, asked.proprio).tobytes()
        assert not server.source.hung
        assert server.source.failures == []


def test_raising_and_nonsense_are_answers_and_pass(bundle: Bundle) -> None:
    with serving(bundle) as server:
        server.ready().fault(ChunkFault.RAISE)
        assert server.answer(request(bundle, 0)).kind is ReplyKind.FAILED
        [line] = server.source.failures
        assert "raises" in line
        server.fault(ChunkFault.NAN)
        actions = server.answer(request(bundle, 1)).actions
        assert actions is not None
        assert np.isnan(actions).all()
        server.fault(ChunkFault.SLOW, 0.2)
        slow = request(bundle, 2)
        assert server.answer(slow).arrived_s - slow.asked_s >= 0.2
        server.fault(ChunkFault.NONE)
        assert server.answer(request(bundle, 3)).kind is ReplyKind.CHUNK
        assert server.process is not None
        assert server.process.poll() is None


def test_a_hung_inference_beats_on_and_its_successor_answers_on_the_same_rings(bundle: Bundle) -> None:
    with serving(bundle) as server:
        server.ready()
        server.answer(request(bundle, 0))
        server.fault(ChunkFault.HANG)
        server.source.ask(request(bundle, 1))
        until(lambda: server.source.poll(time.monotonic()) or server.source.hung, "hanging is not seen")
        beat_s = float(server.board.places["beat_s"][0])
        until(lambda: server.board.places["beat_s"][0] > beat_s, "a hung inference must not stop the beat")
        server.fault(ChunkFault.NONE)
        server.kill()
        server.source.ask(request(bundle, 2))
        server.start()
        reply = server.next()
        assert (reply.tick, reply.kind) == (2, ReplyKind.CHUNK)  # the newest alone; the first was given up
        assert not server.source.hung
        assert server.source.poll(time.monotonic()) is None


def test_a_server_killed_at_any_moment_leaves_rings_that_work(bundle: Bundle) -> None:
    with serving(bundle) as server:
        for round_ in range(3):
            server.ready()
            for tick in range(5):
                server.source.ask(request(bundle, 10 * round_ + tick))  # some are in work when it dies
            server.kill()
            server.start()
            server.source.poll(time.monotonic())
        server.ready()
        asked = request(bundle, 99)
        server.source.ask(asked)
        replies: list[ChunkReply] = []
        while not (replies and replies[-1].tick == 99):
            replies.append(server.next())
        assert replies[-1].actions is not None
        assert replies[-1].actions.tobytes() == bundle.act(asked.features, asked.proprio).tobytes()
        assert server.source.failures == []


def test_a_bundle_that_cannot_be_loaded_is_one_line_and_status_2(bundle: Bundle, tmp_path: Path) -> None:
    with serving(bundle, folder=str(tmp_path / "none")) as server:
        assert server.process is not None
        _, errors = server.process.communicate(timeout=ENOUGH_S)
        assert server.process.returncode == 2
        [line] = errors.splitlines()
        assert "none" in line


def test_a_remote_policy_is_asked_from_the_process(tmp_path: Path) -> None:
    remote = load_bundle(make_remote_bundle(tmp_path / "bundle"), "cpu")
    level = 0.25
    actions = np.full((remote.manifest.chunk_length, 5), level)
    with PolicyServer(lambda seen: chunk_answer(actions)) as policy:
        told = RemoteSettings(endpoint=policy.endpoint, prompt="pick", deadline_s=5.0)
        with serving(remote, told) as server:
            reply = server.ready().answer(request(remote, 4))
            assert reply.actions is not None
            np.testing.assert_allclose(reply.actions[:, :4], 0.5 * level)
    assert policy.seen[0]["prompt"] == "pick"
    assert policy.connections == 1
    with serving(remote, told) as server:
        reply = server.ready().answer(request(remote, 5))
        assert reply.kind is ReplyKind.FAILED
        assert policy.endpoint in reply.why


def test_a_remote_address_that_cannot_be_looked_up_is_an_answer_of_one_line_and_no_end(tmp_path: Path) -> None:
    remote = load_bundle(make_remote_bundle(tmp_path / "bundle"), "cpu")
    with serving(remote, RemoteSettings(endpoint="wss://a..b:8000", prompt="pick", deadline_s=5.0)) as server:
        reply = server.ready().answer(request(remote, 4))
        assert reply.kind is ReplyKind.FAILED
        assert "wss://a..b:8000" in reply.why
        assert "\n" not in reply.why


def test_under_the_supervisor_a_condemned_server_is_started_anew_and_answers(bundle: Bundle) -> None:
    station = load_tiny_station(bundle.folder).station
    fast = station.policy.model_copy(update={"mode": "asynchronous", "deadline_s": 0.2, "provider": "cpu"})
    with ChunkChild(station.model_copy(update={"policy": fast}), bundle) as child:
        assert json.loads(child.plan.arguments[1])["remote"] is None
        with Supervisor([child.plan]) as supervisor:
            supervisor.wait_ready()
            place = supervisor.place(CHILD)
            supervisor.board.places["fault"][place] = int(ChunkFault.HANG)
            child.source.ask(request(bundle, 1))
            until(lambda: child.source.poll(time.monotonic()) or child.source.hung, "hanging is not seen")
            supervisor.board.places["fault"][place] = 0
            asked = [request(bundle, 2)]
            child.source.ask(asked[0])
            replies: list[ChunkReply] = []

            def tick() -> list[ChunkReply]:
                supervisor.check()
                condemn_if_hung(child.source, supervisor)  # also all the time in which the next one loads
                if time.monotonic() - asked[-1].asked_s > fast.deadline_s:  # what the killed one had taken is lost
                    asked.append(request(bundle, 2 + len(asked)))
                    child.source.ask(asked[-1])
                replies.extend(filter(None, [child.source.poll(time.monotonic())]))
                return replies

            until(tick, "no answer came")
            assert replies[0].tick >= 2
            [line] = supervisor.news()
            assert CHILD in line
            assert supervisor.board.places["starts"][place] == 2  # it was killed once
