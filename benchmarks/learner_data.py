"""Transitions of random numbers with the shapes of a seven-joint arm, for measuring learners."""

from __future__ import annotations

import numpy as np

from policy.learner_episode import EpisodeKey, Floats
from policy.observation_history import PRESENT, HistoryTicks
from policy.replay_buffer import ReplayBuffer
from policy.transitions import Transitions

FEATURES, PROPRIO, ACTION = 64, 14, 7
_TICKS = 200


def filled_buffer(
    transitions: int, seed: int = 0, history: HistoryTicks = PRESENT, *, features: int = FEATURES
) -> ReplayBuffer:
    """Return a buffer of `transitions` in episodes of 200 ticks, a fifth of them a person's."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Floats:
        return rng.standard_normal(shape, dtype=np.float32)

    buffer = ReplayBuffer(
        feature_size=features,
        proprio_size=PROPRIO,
        action_size=ACTION,
        history=history,
        max_frames=2 * transitions + 2 * _TICKS,
    )
    frame = np.arange(_TICKS - 1)
    human = frame % 5 == 0
    for episode in range(-(-transitions // len(frame))):
        data = Transitions(
            features=draw(_TICKS, features),
            proprio=draw(_TICKS, PROPRIO),
            base=np.clip(draw(_TICKS, ACTION), -1.0, 1.0),
            previous=np.maximum(np.arange(_TICKS) - 1, 0),
            frame=frame,
            next_frame=frame + 1,
            action=np.clip(draw(len(frame), ACTION), -1.0, 1.0),
            reward=(frame == frame[-1]).astype(np.float32),
            discount=np.where(frame == frame[-1], 0.0, 0.97).astype(np.float32),
            human=human,
            human_action=np.where(human[:, None], draw(len(frame), ACTION), np.float32(0.0)),
            hindsight=np.zeros_like(human),
            demonstration=False,
            approved=~human,
        )
        buffer.add(EpisodeKey("bench", episode, 0), data)
    return buffer
