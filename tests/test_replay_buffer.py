"""What is drawn, how often, and that nothing is ever drawn from an episode that was replaced."""

from __future__ import annotations

import errno
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.learner_episode import EpisodeKey
from policy.replay_buffer import Batch, ReplayBuffer
from policy.replay_rows import RowIndex, RowStore
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
        previous=np.maximum(np.arange(count + 1) - 1, 0),
        frame=frame,
        next_frame=frame + 1,
        action=numbers[:-1],
        reward=numbers[:-1, 0],
        discount=np.full(count, 0.9, dtype=np.float32),
        human=frame < human,
        human_action=np.where((frame < human)[:, None], numbers[:-1], 0.0).astype(np.float32),
        hindsight=np.zeros(count, np.bool_),
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


@pytest.mark.parametrize(("share", "shown"), [(0.0, 0), (0.25, 50), (1.0, 200)])
def test_the_share_of_a_batch_that_a_person_showed_is_a_setting(share: float, shown: int) -> None:
    replay = ReplayBuffer(feature_size=3, proprio_size=2, action_size=1, shown_share=share)
    replay.add(key(0), steps(4000, 10))
    replay.add(key(1), steps(4, 20, human=4))
    batch = replay.sample(200, np.random.default_rng(0))
    assert batch.human[:shown].all()
    assert batch.human[shown:].sum() < 10


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
    np.testing.assert_array_equal(batch.human_action[batch.human], batch.action[batch.human])
    for field in fields(Batch):
        assert getattr(batch, field.name).dtype in (np.float32, np.bool_)


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
    assert len(replay.rows) <= 303  # both episodes, and the next revision before the last one goes


def test_when_full_the_oldest_unaided_episode_goes_first() -> None:
    replay = buffer(max_frames=35)
    replay.add(key(0), steps(10, 10, human=1))
    replay.add(key(1), steps(10, 20))
    replay.add(key(2), steps(10, 30))
    replay.add(key(3), steps(10, 40))
    assert marks(replay.sample(512, np.random.default_rng(0))) == {10, 30, 40}


def test_a_transition_of_a_seven_joint_arm_takes_a_quarter_of_a_kilobyte_beside_its_features() -> None:
    features, proprio, action = 64, 30, 7
    replay = ReplayBuffer(feature_size=features, proprio_size=proprio, action_size=action)
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(size=shape).astype(np.float32)

    shared = {"discount": np.full(200, 0.9, np.float32), "reward": np.zeros(200, np.float32)}
    marks_of = {name: np.ones(200, np.bool_) for name in ("human", "hindsight", "approved")}
    tracemalloc.start()
    for number in range(100):
        frame = np.arange(200)
        data = Transitions(
            features=draw(201, features), proprio=draw(201, proprio), base=draw(201, action),
            previous=np.maximum(np.arange(201) - 1, 0), frame=frame,
            next_frame=frame + 1, action=draw(200, action), human_action=draw(200, action), demonstration=False,
            **shared, **marks_of,
        )  # fmt: skip
        replay.add(key(number), data)
    beside_rows, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    beside_rows -= 4 * replay.layout.width * (1_000_000 + 65_536)  # reserved, and taken as it is used
    used = replay.rows.nbytes - 4 * features * len(replay.rows)
    assert replay.size == 20_000
    assert (used + beside_rows) / replay.size < 320


def rows_of(replay: ReplayBuffer, seed: int) -> list[bytes]:
    """What some draws give, whichever rows it lies in."""
    rng = np.random.default_rng(seed)
    batches = [replay.sample(64, rng) for _ in range(5)]
    return [getattr(batch, field.name).tobytes() for batch in batches for field in fields(Batch)]


def filled(folder: Path | None, episodes: range, replay: ReplayBuffer | None = None) -> ReplayBuffer:
    """Take made-up episodes of which some are replaced and some make room."""
    replay = replay or kept(folder)
    for number in episodes:
        replay.add(*entry(number), stored_bytes=1000 + number)
    return replay


def entry(number: int) -> tuple[EpisodeKey, Transitions]:
    """The episode that comes as `number`: every fifth replaces the one before it."""
    late = number % 5 == 4
    return key(number - late, late), steps(7 + number % 4, 10 + number, human=number % 3)


def stored(count: int) -> list[tuple[EpisodeKey, int]]:
    return [(entry(number)[0], 1000 + number) for number in range(count)]


def kept(folder: Path | None, **changes: Any) -> ReplayBuffer:
    settings: dict[str, Any] = {"max_frames": 120, "conditions": {"n_step": 3}}
    return ReplayBuffer(feature_size=3, proprio_size=2, action_size=1, folder=folder, **(settings | changes))


@pytest.mark.parametrize("count", [1, 7, 40, 90])
@pytest.mark.parametrize("checkpoints", [range(0), range(0, 90, 6)])
def test_restored_buffer_gives_the_batches_that_the_one_before_would_have_given(
    tmp_path: Path, count: int, checkpoints: range
) -> None:
    replay = kept(tmp_path)
    for number in range(count):
        filled(None, range(number, number + 1), replay)
        if number in checkpoints:
            replay.sync()
            replay.settle()
    again = kept(tmp_path)
    assert again.restore(stored(count)) == (count, "")
    assert rows_of(again, 1) == rows_of(replay, 1) == rows_of(filled(None, range(count)), 1)
    filled(None, range(count, count + 30), again)
    assert rows_of(again, 2) == rows_of(filled(None, range(count + 30)), 2)
    assert (again.size, again.guided_size, again.episodes) == (
        filled(None, range(count + 30)).size, filled(None, range(count + 30)).guided_size, again.episodes,
    )  # fmt: skip


@pytest.mark.parametrize("saved", [5, 31, 60])
def test_what_was_taken_after_the_checkpoint_spoils_nothing_of_it(tmp_path: Path, saved: int) -> None:
    replay = filled(tmp_path, range(saved))
    replay.settle()  # as after each checkpoint
    filled(None, range(saved, saved + 40), replay)
    again = kept(tmp_path)
    assert again.restore(stored(saved)) == (saved, "")
    assert rows_of(again, 1) == rows_of(filled(None, range(saved)), 1)


def test_torn_end_of_the_log_costs_the_last_episode_alone(tmp_path: Path) -> None:
    filled(tmp_path, range(20))
    log = tmp_path / "episodes.log"
    whole = log.read_bytes()
    for cut in (1, 5, 60):
        log.write_bytes(whole[:-cut])
        again = kept(tmp_path)
        taken, fault = again.restore(stored(20))
        assert (taken, fault) == (19, "19 of 20 episodes are in it")
        assert rows_of(filled(None, range(19, 20), again), 1) == rows_of(filled(None, range(20)), 1)


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda folder: (folder / "episodes.log").unlink(), "0 of 20 episodes are in it"),
        (lambda folder: (folder / "rows.float32").unlink(), "0 bytes of rows, "),
        (lambda folder: truncate(folder / "rows.float32", 400), "400 bytes of rows, "),
        (lambda folder: flip(folder / "rows.float32", 4 * 12 * 185 + 3), "damaged"),
        (lambda folder: flip(folder / "episodes.log", 3), "0 of 20 episodes are in it"),
        (lambda folder: flip(folder / "episodes.log", 30), "0 of 20 episodes are in it"),
    ],
)
def test_damaged_folder_is_told_and_taken_anew(tmp_path: Path, harm: Callable[[Path], None], fault: str) -> None:
    filled(tmp_path, range(20))
    harm(tmp_path)
    again = kept(tmp_path)
    taken, told = again.restore(stored(20))
    assert taken == 0
    assert fault in told
    assert rows_of(filled(None, range(20), again), 1) == rows_of(filled(None, range(20)), 1)
    assert kept(tmp_path).restore(stored(20)) == (20, "")


def test_every_flipped_byte_of_the_log_gives_the_same_batches_or_a_shorter_start(tmp_path: Path) -> None:
    filled(tmp_path, range(6))
    log, wanted = tmp_path / "episodes.log", rows_of(filled(None, range(6)), 1)
    whole = log.read_bytes()
    for at in range(0, len(whole), 3):
        log.write_bytes(whole)
        flip(log, at)
        again = kept(tmp_path)
        taken, _ = again.restore(stored(6))
        assert taken < 6
        assert rows_of(filled(None, range(taken, 6), again), 1) == wanted


@pytest.mark.parametrize("changes", [{"conditions": {"n_step": 4}}, {"max_frames": 200}])
def test_other_settings_void_what_was_kept(tmp_path: Path, changes: dict[str, Any]) -> None:
    filled(tmp_path, range(4))
    assert kept(tmp_path, **changes).restore(stored(4)) == (0, "0 of 4 episodes are in it")


def test_episode_file_that_is_another_one_voids_what_was_kept_from_there_on(tmp_path: Path) -> None:
    filled(tmp_path, range(8))
    other = stored(8)
    other[5] = (other[5][0], 7)
    assert kept(tmp_path).restore(other) == (5, "5 of 8 episodes are in it")


def test_rows_beyond_the_budget_are_drawn_from_the_file_as_they_are(tmp_path: Path) -> None:
    filled(tmp_path, range(20))
    again = kept(tmp_path, ram_bytes=100)
    assert again.restore(stored(20)) == (20, "")
    assert rows_of(again, 1) == rows_of(filled(None, range(20)), 1)


def test_full_disk_ends_what_is_kept_and_not_what_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = filled(tmp_path, range(20))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    filled(None, range(20, 40), replay)
    assert replay.problem == (
        "replay rows are no longer kept for the next start (No space left on device); free some space"
    )
    assert rows_of(replay, 1) == rows_of(filled(None, range(40)), 1)
    monkeypatch.undo()
    assert kept(tmp_path).restore(stored(40))[0] == 20


def test_rows_of_a_full_disk_are_never_written_through_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    replay = filled(tmp_path, range(20))
    assert "No space left on device" in replay.problem
    assert rows_of(replay, 1) == rows_of(filled(None, range(20)), 1)


def truncate(path: Path, size: int) -> None:
    os.truncate(path, size)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(data)


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(0, 2**32 - 1))
def test_index_holds_what_was_added_and_not_removed(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    index, held, first = RowIndex(), [], 0
    for size in sizes:
        rows = np.arange(first, first + size, dtype=np.int32)
        first += size
        index.add(rows)
        held.append(rows)
        if rng.random() < 0.5:
            index.remove(held.pop(int(rng.integers(len(held)))))
        assert sorted(index.members.tolist()) == sorted(np.concatenate([*held, np.zeros(0, np.int32)]).tolist())


def test_rows_that_were_only_reserved_take_no_memory_when_the_file_is_left(tmp_path: Path) -> None:
    width, capacity = 250, 100_000  # 100 MB
    store = RowStore(width, capacity, tmp_path / "rows")
    store.provide(10)
    store.values[:10] = np.arange(10, dtype=np.float32)[:, None]
    before = resident_bytes()
    store.leave_file(10)
    assert resident_bytes() - before < 20_000_000
    assert store.values.shape == (capacity, width)
    np.testing.assert_array_equal(store.values[:10, 0], np.arange(10))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
