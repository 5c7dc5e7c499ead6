"""Batches drawn in a thread of their own while the learner is still busy with the one before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from policy.replay_buffer import Batch, BatchRows, ReplayBuffer

_AHEAD = 2


class BatchPrefetch:
    """The same batches, bit for bit, as `buffer.sample` with the same generator would give, earlier.

    One thread draws, in order, and keeps the generator's state before each batch. `halt` throws away what was drawn
    ahead and puts the generator back, so that what is learned from is a function of buffer and generator alone. Until
    `halt` the buffer must not change and the generator not be used.
    """

    def __init__(self, buffer: ReplayBuffer, batch_size: int, rng: np.random.Generator) -> None:
        self._buffer, self._batch_size, self._rng = buffer, batch_size, rng
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None
        self._empty = [BatchRows(buffer.layout, batch_size) for _ in range(_AHEAD + 1)]
        self._ready: deque[tuple[BatchRows, Mapping[str, Any]]] = deque()
        self._in_use: BatchRows | None = None
        self._error: Exception | None = None
        self._halting = False

    def next(self) -> Batch:
        """Return the next batch; it holds until the next call. Raises ValueError when the buffer is empty."""
        with self._turn:
            if self._in_use is not None:
                self._empty.append(self._in_use)
                self._in_use = None
                self._turn.notify_all()
            if self._thread is None:
                self._halting, self._error = False, None
                self._thread = threading.Thread(target=self._draw_ahead, name="batches", daemon=True)
                self._thread.start()
            self._turn.wait_for(lambda: self._ready or self._error is not None)
            if self._ready:
                self._in_use, _ = self._ready.popleft()
                return self._in_use.batch
            assert self._error is not None
            error = self._error
        self.halt()
        raise error

    def halt(self) -> None:
        """Be as if nothing had been drawn ahead; the batch given out last may be overwritten from now on."""
        if self._thread is None:
            return
        with self._turn:
            self._halting = True
            self._turn.notify_all()
        self._thread.join()
        self._thread = None
        if self._ready:
            self._rng.bit_generator.state = dict(self._ready[0][1])
        self._empty.extend(rows for rows, _ in self._ready)
        self._ready.clear()

    def _draw_ahead(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._empty or self._halting)
                if self._halting:
                    return
                rows = self._empty.pop()
            before = self._rng.bit_generator.state
            try:
                self._buffer.sample(self._batch_size, self._rng, rows)
            except Exception as error:  # raised where the batch is asked for
                self._rng.bit_generator.state = before
                with self._turn:
                    self._empty.append(rows)
                    self._error = error
                    self._turn.notify_all()
                return
            with self._turn:
                self._ready.append((rows, before))
                self._turn.notify_all()
