"""Exploration noise on the residual while the learner trains; logged, so that a replay needs no random state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from teleop.station import ExplorationConfig

_CORRELATION = 0.8  # per tick; white noise at 20 Hz averages out in the arm


class Exploration:
    """Correlated Gaussian noise whose spread falls with the ticks of the run; each episode has its own stream."""

    def __init__(self, config: ExplorationConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        self._ticks = 0
        self._rng = np.random.default_rng(seed)
        self._noise: NDArray[np.float64] | None = None
        self._bursting = False

    def begin_episode(self, episode: int) -> None:
        """Take the random stream of `episode`."""
        self._rng = np.random.default_rng([self._seed, episode])
        self._noise, self._bursting = None, False

    def draw(self, scale: NDArray[np.float32], *, active: bool) -> tuple[NDArray[np.float32], bool]:
        """Return noise (A,) in units of the action and whether a closed gate passes in this tick."""
        config = self._config
        if not active or config.start == 0.0:
            return np.zeros(len(scale), np.float32), False
        share = min(1.0, self._ticks / config.until_tick)
        spread = config.start + share * (config.end - config.start)
        self._ticks += 1
        fresh = self._rng.standard_normal(len(scale))
        old = fresh if self._noise is None else self._noise
        self._noise = _CORRELATION * old + np.sqrt(1.0 - _CORRELATION**2) * fresh
        passes = bool(self._rng.random() < config.gate_pass_share)
        return (spread * self._burst() * scale * self._noise).astype(np.float32), passes

    def _burst(self) -> float:
        """1 within a burst, 0 between two: a chain whose bursts last `burst_ticks` on average."""
        share = self._config.burst_share
        if share == 1.0:
            return 1.0
        leave = 1.0 / self._config.burst_ticks
        change = leave if self._bursting else leave * share / (1.0 - share)
        if self._rng.random() < change:
            self._bursting = not self._bursting
        return float(self._bursting)
