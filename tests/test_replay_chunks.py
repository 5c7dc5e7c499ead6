"""Answers in a log against the requests before them, row by row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policy.chunk_source import ChunkReply, ReplyKind
from teleop.chunk_plan import ChunkEvent
from teleop.replay_chunks import LoggedChunks
from teleop.replay_finding import Finding

CHUNK = np.zeros((4, 5), np.float32)


class Log:
    """Rows as the replay gives them, of a bundle whose chunk is always the same."""

    def __init__(self) -> None:
        bundle: Any = SimpleNamespace(manifest=SimpleNamespace(remote=None), act=lambda features, proprio: CHUNK)
        self.chunks = LoggedChunks(bundle)

    def row(self, tick: int, *, answers: int | None = None, chunk: np.ndarray = CHUNK) -> list[Finding]:
        """Findings in a row that asks and, with `answers`, holds the answer to that tick."""
        reply = None
        if answers is not None:
            reply = ChunkReply(tick=answers, arrived_s=float(tick), kind=ReplyKind.CHUNK, actions=chunk)
        row: Any = {
            "tick/reply_chunk": np.full_like(CHUNK, np.nan) if reply is None else chunk,
            "tick/reply_tick": -1 if answers is None else answers,
            "tick/reply_s": np.nan if reply is None else reply.arrived_s,
            "tick/chunk_event": int(ChunkEvent.ASKED),
            "tick/features": np.zeros(8, np.float32),
        }
        observation = SimpleNamespace(proprio=np.zeros(4, np.float32))
        inputs: Any = SimpleNamespace(index=tick, now_s=float(tick), reply=reply, observation=observation)
        return list(self.chunks.findings(row, inputs))


@pytest.mark.parametrize("later", [1, 63, 64, 65, 500])
def test_an_answer_is_sound_however_many_requests_later_it_comes(later: int) -> None:
    log = Log()
    for tick in range(later):
        assert log.row(tick) == []
    assert log.row(later, answers=0) == []


def test_an_answer_to_a_tick_that_never_asked_is_found_after_any_number_of_requests() -> None:
    log = Log()
    for tick in range(1, 200):
        log.row(tick)
    assert [found.field for found in log.row(200, answers=0)] == ["tick/reply_tick"]


def test_another_chunk_than_the_bundles_is_found() -> None:
    log = Log()
    log.row(0)
    assert [found.field.partition("[")[0] for found in log.row(1, answers=0, chunk=CHUNK + 1.0)] == ["tick/reply_chunk"]
