"""What the learner learns from: the transitions of many episodes in contiguous arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.learner_episode import EpisodeKey, Floats, Ints, Mask
from policy.transitions import Transitions

INITIAL_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B transitions, float32 and C-contiguous.

    Attributes:
        features, proprio, base: where the window starts, (B, F), (B, P), (B, A).
        action: executed there, (B, A).
        reward: discounted sum over the window, (B,).
        discount: factor of the bootstrapped value, (B,); 0 after success or failure.
        next_features, next_proprio, next_base: where the value is bootstrapped.
        human: a person's action was at work, (B,) bool.
        human_action: what the person asked for, (B, A); 0 where `engaged` is False.
        engaged: `human_action` holds something, (B,) bool.
        approved: the policy acted, the person let it, and the episode ended in success, (B,) bool.
        demonstration: the episode was a demonstration, (B,) bool.
    """

    features: Floats
    proprio: Floats
    base: Floats
    action: Floats
    reward: Floats
    discount: Floats
    next_features: Floats
    next_proprio: Floats
    next_base: Floats
    human: Mask
    human_action: Floats
    engaged: Mask
    approved: Mask
    demonstration: Mask


class _Rows:
    """An array that grows at its end by doubling, so that appending costs O(1) a row on average."""

    def __init__(self, width: tuple[int, ...], kind: type[np.generic]) -> None:
        self._store: NDArray[Any] = np.zeros((INITIAL_ROWS, *width), dtype=kind)
        self.size = 0

    @property
    def values(self) -> NDArray[Any]:
        return self._store[: self.size]

    def append(self, rows: NDArray[Any]) -> None:
        needed = self.size + len(rows)
        if needed > len(self._store):
            grown = np.zeros((max(needed, 2 * len(self._store)), *self._store.shape[1:]), dtype=self._store.dtype)
            grown[: self.size] = self.values
            self._store = grown
        self._store[self.size : needed] = rows
        self.size = needed

    def keep(self, rows: Ints) -> None:
        """Keep `rows` only, in that order."""
        self._store[: len(rows)] = self._store[rows]
        self.size = len(rows)


@dataclass
class _Span:
    """Where an episode lies: half-open ranges of frames and of transitions."""

    frames: tuple[int, int]
    steps: tuple[int, int]
    revision: int
    protected: bool


class ReplayBuffer:
    """Transitions by episode: newer revisions replace older ones, the oldest robot episodes make room.

    Batches depend on the order of `add` and on the generator given to `sample` alone.
    """

    def __init__(self, *, feature_size: int, proprio_size: int, action_size: int, max_frames: int = 1_000_000) -> None:
        """Make an empty buffer.

        Args:
            feature_size: F.
            proprio_size: P.
            action_size: A.
            max_frames: beyond it the oldest episodes without a person's help are dropped, then the oldest of all.
        """
        self._max_frames = max_frames
        self._frames = {
            "features": _Rows((feature_size,), np.float32),
            "proprio": _Rows((proprio_size,), np.float32),
            "base": _Rows((action_size,), np.float32),
        }
        self._steps = {
            "frame": _Rows((), np.int64),
            "next_frame": _Rows((), np.int64),
            "action": _Rows((action_size,), np.float32),
            "reward": _Rows((), np.float32),
            "discount": _Rows((), np.float32),
            "human": _Rows((), np.bool_),
            "human_action": _Rows((action_size,), np.float32),
            "engaged": _Rows((), np.bool_),
            "approved": _Rows((), np.bool_),
            "demonstration": _Rows((), np.bool_),
        }
        self._live = _Rows((), np.int64)  # transitions that may be drawn
        self._guided = _Rows((), np.int64)  # those of them that a person showed
        self._spans: dict[tuple[str, int], _Span] = {}
        self._held = 0  # frames of the episodes in `_spans`

    @property
    def size(self) -> int:
        """Number of transitions that may be drawn."""
        return self._live.size

    @property
    def guided_size(self) -> int:
        """Number of them that are demonstrations or interventions."""
        return self._guided.size

    @property
    def episodes(self) -> int:
        """Number of episodes held."""
        return len(self._spans)

    def add(self, key: EpisodeKey, data: Transitions) -> bool:
        """Take an episode, in place of its older revision; False when this or a newer one is here already."""
        identity = (key.run_id, key.episode)
        held = self._spans.get(identity)
        if held is not None and held.revision >= key.revision:
            return False
        if held is not None:
            self._remove(identity)
        first_frame, first_step = self._frames["base"].size, self._steps["frame"].size
        for name, rows in self._frames.items():
            rows.append(getattr(data, name))
        for name, rows in self._steps.items():
            value = getattr(data, name)
            if name in ("frame", "next_frame"):
                value = value + first_frame
            rows.append(np.broadcast_to(np.asarray(value), (data.size, *np.shape(value)[1:])))
        guided = data.human | data.demonstration
        steps = np.arange(first_step, first_step + data.size)
        self._live.append(steps)
        self._guided.append(steps[guided])
        self._spans[identity] = _Span(
            frames=(first_frame, self._frames["base"].size),
            steps=(first_step, self._steps["frame"].size),
            revision=key.revision,
            protected=bool(guided.any()),
        )
        self._held += len(data.features)
        self._make_room()
        return True

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Draw with replacement: half from what a person showed, where there is any, and half from everything.

        Symmetric sampling of Ball et al. 2023, "Efficient online reinforcement learning with offline data".

        Raises:
            ValueError: the buffer is empty.
        """
        if self.size == 0:
            raise ValueError("the replay buffer holds no transition to draw")
        shown = batch_size // 2 if self.guided_size else 0
        step = np.concatenate(
            [
                self._guided.values[rng.integers(max(self.guided_size, 1), size=shown)],
                self._live.values[rng.integers(self.size, size=batch_size - shown)],
            ]
        )
        at = {name: rows.values for name, rows in self._frames.items()}
        of = {name: rows.values[step] for name, rows in self._steps.items()}
        here, there = of.pop("frame"), of.pop("next_frame")
        drawn = of | {name: values[here] for name, values in at.items()}
        drawn |= {f"next_{name}": values[there] for name, values in at.items()}
        return Batch(**drawn)

    def _remove(self, identity: tuple[str, int]) -> None:
        """Stop drawing an episode; its rows go when they are half of all."""
        span = self._spans.pop(identity)
        self._held -= span.frames[1] - span.frames[0]
        first, end = span.steps
        for rows in (self._live, self._guided):
            rows.keep(np.flatnonzero((rows.values < first) | (rows.values >= end)))

    def _make_room(self) -> None:
        while self._held > self._max_frames and len(self._spans) > 1:
            unshown = (identity for identity, span in self._spans.items() if not span.protected)
            self._remove(next(unshown, next(iter(self._spans))))
        if self._frames["base"].size > max(2 * self._held, INITIAL_ROWS):
            self._compact()

    def _compact(self) -> None:
        """Close the holes that removed episodes left."""
        frames = np.concatenate([np.arange(*span.frames) for span in self._spans.values()])
        steps = np.concatenate([np.arange(*span.steps) for span in self._spans.values()])
        new_frame = np.zeros(self._frames["base"].size, dtype=np.int64)
        new_frame[frames] = np.arange(len(frames))
        new_step = np.zeros(self._steps["frame"].size, dtype=np.int64)
        new_step[steps] = np.arange(len(steps))
        for rows in self._frames.values():
            rows.keep(frames)
        for rows in self._steps.values():
            rows.keep(steps)
        for name in ("frame", "next_frame"):
            self._steps[name].values[:] = new_frame[self._steps[name].values]
        for rows in (self._live, self._guided):
            rows.values[:] = new_step[rows.values]
        frame = step = 0
        for span in self._spans.values():
            frame_count, step_count = span.frames[1] - span.frames[0], span.steps[1] - span.steps[0]
            span.frames, span.steps = (frame, frame + frame_count), (step, step + step_count)
            frame, step = frame + frame_count, step + step_count
