"""The chunk server: computes or fetches action chunks in a process of its own, however long that takes.

The main thread hears requests and shows that the process lives; a thread beside it answers them, one by one and the
newest only. A hung inference is not seen here: the loop knows by its deadline and has this process killed.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Literal

import numpy as np

from policy.bundle import load_bundle
from policy.chunk_messages import ChunkMessages, MessageKind
from policy.chunk_source import Act, ChunkFault, ChunkReply, ChunkRequest, MisshapenChunkError, ReplyKind
from policy.manifest import Manifest
from policy.onnx_session import PolicyError
from policy.remote_policy import RemotePolicy, RemoteSettings
from robot.errors import HandrailError
from robot.message_ring import MessageRing
from robot.strict import Strict
from robot.supervised import Supervised

_SLICE_S = 0.05
Fault = Callable[[], tuple[int, float]]


class ChunkServerConfig(Strict):
    """What the process is told.

    Attributes:
        bundle: folder.
        provider, threads: of the bundle, as in the station.
        remote: where the policy is, for a bundle without an `act` of its own.
    """

    bundle: str
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    remote: RemoteSettings | None = None


class ChunkServer:
    """Answers requests in a thread of its own. It alone writes into the ring of answers once it is started.

    Args:
        manifest: of the bundle.
        act: request to chunk; raises PolicyError where it cannot.
        fault: which fault to show now.
        replies: ring of the answers.
    """

    def __init__(self, manifest: Manifest, act: Act, fault: Fault, replies: MessageRing) -> None:
        self._messages = ChunkMessages(manifest)
        self._act, self._fault, self._replies = act, fault, replies
        self._next: tuple[int, ChunkRequest] | None = None
        self._there = threading.Condition()
        # a daemon: a hung inference must not keep the process from ending
        self._thread = threading.Thread(target=self._answer_all, name="chunks", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def ask(self, data: bytes) -> None:
        """Take a request; it replaces one that waits, which was given up. Raises ValueError when it is none."""
        request = self._messages.read_request(data)
        with self._there:
            self._next = request
            self._there.notify()

    def _answer_all(self) -> None:
        while True:
            with self._there:
                self._there.wait_for(lambda: self._next is not None)
                assert self._next is not None
                (number, request), self._next = self._next, None
            reply = self._answer(request)
            if self._replies.has_room(self._messages.reply_bytes):  # a loop that does not look gets no more
                self._replies.put(MessageKind.REPLY, self._messages.pack_reply(number, reply))
                self._replies.ring()

    def _answer(self, request: ChunkRequest) -> ChunkReply:
        fault, amount = self._fault()
        try:
            match fault:
                case ChunkFault.HANG:
                    threading.Event().wait()
                case ChunkFault.SLOW:
                    threading.Event().wait(amount)
                case ChunkFault.RAISE:
                    raise PolicyError("base policy: raises, as was asked of it")
            actions = self._act(request)
            if fault == ChunkFault.NAN:
                actions = np.full_like(actions, np.nan)
            return ChunkReply(tick=request.tick, arrived_s=time.monotonic(), kind=ReplyKind.CHUNK, actions=actions)
        except Exception as error:  # whatever a policy raises is an answer; the thread must go on
            kind = ReplyKind.MISSHAPEN if isinstance(error, MisshapenChunkError) else ReplyKind.FAILED
            why = str(error) if isinstance(error, PolicyError) else f"base policy: {type(error).__name__}: {error}"
            return ChunkReply(tick=request.tick, arrived_s=time.monotonic(), kind=kind, why=why)


def local_or_remote(config: ChunkServerConfig) -> tuple[Manifest, Act]:
    """Load the bundle and return what answers requests.

    Raises:
        BadInputError: the bundle or what is said of the remote policy cannot be used.
    """
    bundle = load_bundle(Path(config.bundle), config.provider, config.threads)
    if config.remote is not None:
        remote = RemotePolicy(bundle.manifest, config.remote)
        with contextlib.suppress(PolicyError):  # the first request tries again, and tells the person
            remote.connect()
        return bundle.manifest, remote.act
    bundle.warm_up()
    return bundle.manifest, lambda request: bundle.act(request.features, request.proprio)


def main() -> int:
    """Serve until told to stop; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, metavar="JSON")
    for name in ("--requests", "--replies"):
        parser.add_argument(name, type=int, nargs=2, required=True, metavar=("MEMORY", "BELL"))
    Supervised.add_arguments(parser)
    args = parser.parse_args()
    # it moves nothing and holds nothing: without its supervisor it may end at any moment
    supervised = Supervised(args.board, args.place, args.parent, orphaned=signal.SIGKILL)
    requests, replies = MessageRing(*args.requests), MessageRing(*args.replies)
    config = ChunkServerConfig.model_validate_json(args.config)
    with ThreadPoolExecutor(1) as pool:  # a large policy takes longer to load than this process may be silent
        loading = pool.submit(local_or_remote, config)
        while not wait([loading], _SLICE_S).done:
            supervised.beat()
    try:
        manifest, act = loading.result()
    except HandrailError as error:
        print(error, file=sys.stderr)
        return 2
    server = ChunkServer(manifest, act, lambda: supervised.fault, replies)
    if replies.has_room(0):
        replies.put(MessageKind.HELLO, b"")
    server.start()
    supervised.ready()
    while not supervised.stopping:
        requests.wait(_SLICE_S)
        supervised.beat()
        while (message := requests.take()) is not None:
            server.ask(message[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
