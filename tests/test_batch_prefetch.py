"""Batches drawn ahead are the batches that would have been drawn in time."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from policy.batch_prefetch import BatchPrefetch
from tests.test_replay_buffer import buffer, filled, key, steps


@pytest.mark.parametrize("halts", [(), (0,), (1, 2, 3), (5, 9)])
def test_batches_and_generator_are_those_of_drawing_in_time(halts: tuple[int, ...]) -> None:
    replay, twin = filled(None, range(10)), filled(None, range(10))
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    ahead = BatchPrefetch(replay, 16, rng)
    for number in range(12):
        got, wanted = ahead.next(), twin.sample(16, other)
        np.testing.assert_array_equal(got.features, wanted.features)
        np.testing.assert_array_equal(got.next_base, wanted.next_base)
        np.testing.assert_array_equal(got.hindsight, wanted.hindsight)
        if number in halts:
            ahead.halt()
            assert rng.bit_generator.state == other.bit_generator.state
            filled(None, range(10 + number, 11 + number), replay)
            filled(None, range(10 + number, 11 + number), twin)
    ahead.halt()
    assert rng.bit_generator.state == other.bit_generator.state
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_batch_stays_as_it_is_until_the_next_is_asked_for() -> None:
    replay = filled(None, range(10))
    ahead = BatchPrefetch(replay, 16, np.random.default_rng(0))
    for _ in range(20):
        batch = ahead.next()
        before = batch.features.copy()
        ahead._turn.acquire()  # the other thread has drawn what it could, or waits
        ahead._turn.release()
        np.testing.assert_array_equal(batch.features, before)
    ahead.halt()


def test_empty_buffer_is_told_where_the_batch_is_asked_for_and_can_be_filled_then() -> None:
    replay = buffer()
    ahead = BatchPrefetch(replay, 8, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no transition"):
        ahead.next()
    replay.add(key(0), steps(9, 10))
    np.testing.assert_array_equal(ahead.next().features, replay.sample(8, np.random.default_rng(0)).features)
    ahead.halt()
