"""Answers to requests in a log: whether they could have come so, and whether the policy gives the same chunk again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from policy.bundle import Bundle
from policy.chunk_source import ReplyKind
from policy.episode_schema import Row
from teleop.chunk_plan import ChunkEvent
from teleop.replay_finding import Finding, differing
from teleop.tick import TickInputs

_KEPT = 64  # requests whose features are kept; the chunk of an answer that comes later is not computed once more
_ROUNDING_S = 2e-6


class LoggedChunks:
    """Follows the requests of an episode, row by row.

    Args:
        bundle: computes each chunk once more from its request's row; chunks of a remote policy are taken as logged.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._act = None if bundle.manifest.remote is not None else bundle.act
        self._asked: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._asked_ticks: set[int] = set()
        self._all_known = True

    def restart(self) -> None:
        """Rows before the next one are lost."""
        self._asked, self._asked_ticks, self._all_known = {}, set(), False

    def findings(self, row: Row, inputs: TickInputs) -> Iterator[Finding]:
        """Yield what is wrong with the answer in a row. Raises PolicyError where the policy cannot be run on it."""
        reply, tick = inputs.reply, inputs.index
        chunk = row["tick/reply_chunk"]
        if (reply is None or reply.kind is not ReplyKind.CHUNK) and not np.isnan(chunk).all():
            yield _wrong(tick, "tick/reply_chunk", "a chunk", "NaN, as none arrived")
        if reply is None:
            if int(row["tick/reply_tick"]) != -1:
                yield _wrong(tick, "tick/reply_tick", row["tick/reply_tick"], "-1, as nothing arrived")
            if not np.isnan(row["tick/reply_s"]):
                yield _wrong(tick, "tick/reply_s", row["tick/reply_s"], "NaN, as nothing arrived")
        else:
            if not reply.arrived_s <= inputs.now_s + _ROUNDING_S:
                yield _wrong(tick, "tick/reply_s", reply.arrived_s, "not after tick/start_s")
            if reply.tick in self._asked:
                yield from self._recomputed(chunk, reply.tick, reply.kind, tick)
            elif self._all_known and reply.tick not in self._asked_ticks:
                yield _wrong(tick, "tick/reply_tick", reply.tick, "a tick that asked")
        if int(row["tick/chunk_event"]) & ChunkEvent.ASKED:
            self._asked_ticks.add(tick)
            self._asked[tick] = row["tick/features"].copy(), inputs.observation.proprio
            if len(self._asked) > _KEPT:
                del self._asked[next(iter(self._asked))]

    def _recomputed(self, chunk: NDArray[np.float32], asked: int, kind: ReplyKind, tick: int) -> Iterator[Finding]:
        # one that is not finite was rejected, which the recomputed tick shows; a fault that was injected ends so
        if self._act is None or kind is not ReplyKind.CHUNK or not np.isfinite(chunk).all():
            return
        found = differing("tick/reply_chunk", chunk, self._act(*self._asked[asked]), tick=tick, arithmetic=True)
        if found:
            yield found


def _wrong(tick: int, field: str, logged: object, expected: str) -> Finding:
    return Finding(tick=tick, field=field, logged=str(logged), expected=expected)
