"""What is drawn, how often, and that nothing is ever drawn from an episode that was replaced."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from policy.learner_episode import EpisodeKey
from policy.replay_buffer import Batch, ReplayBuffer
from policy.transitions import Transitions


def steps(
    count: int, mark: float, *, human: int = 0, demonstration: bool = False, approved: bool = False
) -> Transitions:
    """A chain of `count` one-step transitions over count + 1 frames; the first `human` of them a person's."""
    frame = np.arange(count)
    numbers = np.full((count + 1, 1), mark, dtype=np.float32) + np.arange(count + 1, dtype=np.float32)[:, None] / 100
    return Transitions(
        features=numbers.repeat(3, axis=1),
        proprio=numbers.repeat(2, axis=1),
        base=numbers + 0.5,
        frame=frame,
        next_frame=frame + 1,
        action=numbers[:-1],
        reward=numbers[:-1, 0],
        discount=np.full(count, 0.9, dtype=np.float32),
        human=frame < human,
        human_action=np.where((frame < human)[:, None], numbers[:-1], 0.0).astype(np.float32),
        engaged=frame < human,
        demonstration=demonstration,
        approved=np.full(count, approved),
    )


def buffer(max_frames: int = 1_000_000) -> ReplayBuffer:
    return ReplayBuffer(feature_size=3, proprio_size=2, action_size=1, max_frames=max_frames)


def key(episode: int, revision: int = 0) -> EpisodeKey:
    return EpisodeKey("run", episode, revision)


def marks(batch: Batch) -> set[int]:
    return {int(value) for value in batch.features[:, 0]}


def test_half_of_a_batch_is_shown_by_a_person_however_little_there_is_of_it() -> None:
    replay = buffer()
    replay.add(key(0), steps(400, 10))
    replay.add(key(1), steps(100, 20, human=2))
    batch = replay.sample(200, np.random.default_rng(0))
    assert batch.human[:100].all()
    assert batch.human[100:].mean() < 0.1


def test_demonstrations_count_as_shown() -> None:
    replay = buffer()
    replay.add(key(0), steps(400, 10))
    replay.add(key(1), steps(3, 20, demonstration=True, approved=True))
    batch = replay.sample(100, np.random.default_rng(0))
    assert batch.demonstration[:50].all()
    assert batch.approved[:50].all()
    assert not batch.approved[50:].all()


def test_without_anything_shown_the_whole_batch_is_from_everything() -> None:
    replay = buffer()
    replay.add(key(0), steps(10, 10))
    assert replay.sample(64, np.random.default_rng(0)).features.shape == (64, 3)


def test_rows_of_a_batch_belong_together() -> None:
    replay = buffer()
    for number in range(30):
        replay.add(key(number), steps(7 + number, 10 + number, human=number % 3))
    batch = replay.sample(512, np.random.default_rng(1))
    np.testing.assert_array_equal(batch.action[:, 0], batch.features[:, 0])
    np.testing.assert_array_equal(batch.reward, batch.proprio[:, 1])
    np.testing.assert_array_equal(batch.base[:, 0], batch.features[:, 0] + np.float32(0.5))
    np.testing.assert_allclose(batch.next_features[:, 0] - batch.features[:, 0], 0.01, atol=1e-5)
    np.testing.assert_allclose(batch.next_base - batch.base, 0.01, atol=1e-5)
    np.testing.assert_array_equal(batch.human_action[batch.engaged], batch.action[batch.engaged])
    for field in fields(Batch):
        values = getattr(batch, field.name)
        assert values.flags.c_contiguous
        assert values.dtype in (np.float32, np.bool_)


def test_same_generator_same_batch() -> None:
    replay = buffer()
    replay.add(key(0), steps(50, 10, human=5))
    first, second = (replay.sample(32, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.features, second.features)
    other = replay.sample(32, np.random.default_rng(4))
    assert not np.array_equal(first.features, other.features)


def test_newer_revision_replaces_and_older_or_equal_is_ignored() -> None:
    replay = buffer()
    replay.add(key(0), steps(20, 10, human=3))
    assert replay.add(key(0, revision=2), steps(10, 30))
    assert not replay.add(key(0, revision=2), steps(10, 40))
    assert not replay.add(key(0, revision=1), steps(10, 50))
    assert (replay.size, replay.guided_size, replay.episodes) == (10, 0, 1)
    assert marks(replay.sample(256, np.random.default_rng(0))) == {30}


def test_an_episode_relabelled_as_rerecorded_is_forgotten() -> None:
    replay = buffer()
    replay.add(key(0), steps(20, 10))
    empty = steps(0, 0)
    replay.add(key(0, revision=1), empty)
    assert replay.size == 0
    with pytest.raises(ValueError, match="no transition"):
        replay.sample(4, np.random.default_rng(0))


def test_replacing_again_and_again_neither_grows_nor_mixes_up() -> None:
    replay = buffer()
    replay.add(key(1), steps(100, 10, human=10))
    for revision in range(60):
        replay.add(key(0, revision), steps(100, 50 + revision, human=revision % 2))
    batch = replay.sample(512, np.random.default_rng(0))
    assert marks(batch) <= {10, 11, 109, 110}
    assert (replay.size, replay.guided_size) == (200, 11)
    np.testing.assert_array_equal(batch.action[:, 0], batch.features[:, 0])
    np.testing.assert_allclose(batch.next_features[:, 0] - batch.features[:, 0], 0.01, atol=1e-4)
    assert replay._frames["features"].size <= 1024 + 202


def test_when_full_the_oldest_unaided_episode_goes_first() -> None:
    replay = buffer(max_frames=35)
    replay.add(key(0), steps(10, 10, human=1))
    replay.add(key(1), steps(10, 20))
    replay.add(key(2), steps(10, 30))
    replay.add(key(3), steps(10, 40))
    assert marks(replay.sample(512, np.random.default_rng(0))) == {10, 30, 40}
