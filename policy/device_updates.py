"""Updates from replay rows that lie on the learner's device, several per call, without waiting for the device."""

from __future__ import annotations

import numpy as np
import torch

from policy.captured_call import CapturedCall
from policy.replay_buffer import ReplayBuffer
from policy.residual_learner import ResidualLearner
from policy.tensor_batch import TensorBatch


class DeviceUpdates:
    """Draws row numbers as `ReplayBuffer.sample` does, and gathers and learns on the device.

    The batches are those of the same generator on a CPU. Until the learner takes the same way at every update (see
    `ResidualLearner.steady`), and for what is left of `count`, updates are made one by one.
    """

    def __init__(self, learner: ResidualLearner, buffer: ReplayBuffer, *, batch_size: int, per_call: int = 8) -> None:
        """Prepare; `per_call` updates are one call, a multiple of the learner's `actor_every`."""
        every = learner.actor_every
        self._learner, self._buffer, self._batch_size = learner, buffer, batch_size
        self._per_call = max(every, per_call - per_call % every)
        self._rows = torch.zeros((0, buffer.layout.width), device=learner.device)
        self._picked = torch.zeros((self._per_call, batch_size), dtype=torch.int32, device=learner.device)
        self._changes = -1
        self._call: CapturedCall | None = None

    def run(self, count: int, rng: np.random.Generator) -> dict[str, float]:
        """Make `count` updates and return figures to show. Raises ValueError when the buffer is empty."""
        self._bring_rows()
        while count > 0:
            together = self._per_call
            if count < together or not self._learner.steady or self._learner.updates % self._learner.actor_every:
                together = 1
            drawn = np.stack([self._buffer.draw(self._batch_size, rng) for _ in range(together)])
            self._picked[:together].copy_(torch.from_numpy(drawn))
            if together == 1:
                self._one(0)
            else:
                self._all()
            count -= together
        return self._learner.figures()

    def _one(self, number: int) -> None:
        self._learner.learn(TensorBatch.gathered(self._rows, self._picked[number], self._buffer.layout))

    def _all(self) -> None:
        def body() -> None:
            for number in range(self._per_call):
                self._one(number)

        before = self._learner.updates
        if self._call is None:
            self._call = CapturedCall(body, self._learner.device, [self._learner.generator])
        # recording counts without learning, a recorded call learns without counting
        self._learner.updates = before
        self._call()
        self._learner.updates = before + self._per_call

    def _bring_rows(self) -> None:
        """Copy what was written since. Rows that were written over are copied as well, so all of them are."""
        if self._changes == self._buffer.changes:
            return
        rows = torch.from_numpy(self._buffer.rows)
        if len(rows) > len(self._rows):
            room = max(len(rows), 2 * len(self._rows))
            self._rows = torch.zeros((room, rows.shape[1]), device=self._learner.device)
            self._call = None  # a recorded call knows the old place
        self._rows[: len(rows)].copy_(rows)
        self._changes = self._buffer.changes
