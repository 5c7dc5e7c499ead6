"""Windows out of the replay buffer: the same as by hand, a frame stored once, and the learner's whole way with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from policy.batch_prefetch import BatchPrefetch
from policy.device_updates import DeviceUpdates
from policy.episode_spool import EpisodeSpool
from policy.learner_config import LearnerConfig
from policy.learner_episode import EpisodeKey
from policy.learner_method import told
from policy.learner_process import make_learner_of
from policy.learner_settings import LearnerSettings, Method
from policy.learner_training import Training
from policy.observation_history import PRESENT, HistoryTicks
from policy.provenance import collect_provenance
from policy.replay_buffer import Batch, ReplayBuffer
from policy.replay_rows import RowLayout
from policy.residual import Dims
from policy.residual_learner import LearnerDims, ResidualLearner
from policy.robot_link import RobotLink
from policy.run_folder import RunFolder
from policy.tensor_batch import TensorBatch
from policy.transitions import Transitions, transitions
from policy.weights import Expected, ResidualWeights, pack, unpack
from robot.clock import VirtualClock
from robot.errors import BadInputError
from teleop.learned_weights import LearnedWeights
from tests.learner_episodes import ACTION, FEATURES, PROPRIO, made_up
from tests.test_learner_training import drain, settings
from tests.tiny_weights import tiny_tensors

torch.set_num_threads(1)

HISTORY = HistoryTicks(features_ticks=2, proprio_ticks=4)
ALGORITHM = {"scale": [0.3] * ACTION, "hidden": [8, 8], "actor_after": 5, "normaliser_batches": 5, "gate": True}


def episode(mark: int, frames: int, *, breaks: Sequence[int] = (), human: int = 0) -> Transitions:
    """One-step transitions over `frames` frames, each of which says mark and number; windows begin anew at `breaks`."""
    number = np.arange(frames)
    numbers = np.float32(mark) + number.astype(np.float32)[:, None] / 128
    frame = number[:-1]
    previous = np.maximum(number - 1, 0)
    previous[list(breaks)] = list(breaks)
    return Transitions(
        features=numbers.repeat(3, axis=1),
        proprio=numbers.repeat(2, axis=1),
        base=numbers,
        previous=previous,
        frame=frame,
        next_frame=frame + 1,
        action=numbers[:-1],
        reward=numbers[:-1, 0],
        discount=np.full(frames - 1, 0.9, np.float32),
        human=frame < human,
        human_action=np.where((frame < human)[:, None], numbers[:-1], 0.0).astype(np.float32),
        hindsight=frame < 0,
        demonstration=False,
        approved=np.zeros(frames - 1, np.bool_),
    )


def entry(number: int) -> tuple[EpisodeKey, Transitions]:
    """The episode that comes as `number`: every fifth replaces the one before it."""
    late = number % 5 == 4
    data = episode(number, 6 + number % 7, breaks=(0, 2 + number % 4), human=number % 3)
    return EpisodeKey("run", number - late, late), data


def filled(folder: Path | None = None, history: HistoryTicks = HISTORY, count: int = 40) -> ReplayBuffer:
    """A buffer in which episodes were replaced and made room, so that their rows do not lie side by side."""
    buffer = ReplayBuffer(
        feature_size=3, proprio_size=2, action_size=1, history=history, max_frames=120, folder=folder
    )  # fmt: skip
    for number in range(count):
        buffer.add(*entry(number), stored_bytes=1000 + number)
        buffer.settle()
    return buffer


def by_hand(here: np.ndarray[Any, Any], ticks: int, size: int) -> np.ndarray[Any, Any]:
    """The windows that end at frames which say `here` (B,), from the episodes as they were made."""
    rows = []
    for value in here.tolist():
        number = int(value)
        _, data = entry(number)
        frame, seen = round((value - number) * 128), []
        for _ in range(ticks):
            seen.insert(0, data.features[frame, :1].repeat(size))
            frame = int(data.previous[frame])
        rows.append(np.concatenate(seen))
    return np.array(rows, np.float32)


def test_windows_are_those_that_the_episodes_give_by_hand() -> None:
    buffer = filled()
    scattered = [held.frames for held in (*buffer._shown.values(), *buffer._unshown.values())]
    assert any((np.diff(frames) > 1).any() for frames in scattered)
    batch = buffer.sample(512, np.random.default_rng(0))
    for name, base in (("", batch.base), ("next_", batch.next_base)):
        np.testing.assert_array_equal(getattr(batch, f"{name}features"), by_hand(base[:, 0], 2, 3))
        np.testing.assert_array_equal(getattr(batch, f"{name}proprio"), by_hand(base[:, 0], 4, 2))


def test_windows_change_neither_what_is_drawn_nor_the_present_tick_in_it() -> None:
    plain = filled(history=PRESENT).sample(64, np.random.default_rng(3))
    seen = filled().sample(64, np.random.default_rng(3))
    np.testing.assert_array_equal(plain.features, seen.features[:, -3:])
    np.testing.assert_array_equal(plain.next_proprio, seen.next_proprio[:, -2:])
    for name in {field.name for field in fields(Batch)} - {"features", "proprio", "next_features", "next_proprio"}:
        np.testing.assert_array_equal(getattr(plain, name), getattr(seen, name))


def test_a_frame_takes_one_number_more_however_long_the_windows_are() -> None:
    widths = [
        filled(history=history, count=1).layout.width
        for history in (PRESENT, HISTORY, HistoryTicks(features_ticks=16, proprio_ticks=16))
    ]
    assert np.diff(widths).tolist() == [1, 0]
    sizes = [len(filled(history=history).rows) for history in (PRESENT, HISTORY)]
    assert sizes[0] == sizes[1]


def test_a_row_without_windows_lies_as_it_did_before_there_were_any() -> None:
    layout = RowLayout(64, 14, 7)
    ends = {name: (place.start, place.stop) for name, place in layout.columns().items()}
    assert ends == {
        "features": (0, 64), "proprio": (64, 78), "base": (78, 85), "action": (85, 92), "human_action": (92, 99),
        "reward": (99, 100), "discount": (100, 101),
    }  # fmt: skip
    assert (layout.next_row, layout.flag("human"), layout.width) == (101, 408, 103)


def test_batches_in_memory_used_again_are_the_same() -> None:
    buffer = filled()
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    ahead = BatchPrefetch(buffer, 32, rng)
    for _ in range(5):
        one, two = ahead.next(), buffer.sample(32, other)
        for field in fields(Batch):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))
    ahead.halt()


def test_a_buffer_that_is_started_again_gives_the_same_windows(tmp_path: Path) -> None:
    before = filled(tmp_path).sample(64, np.random.default_rng(2))
    again = ReplayBuffer(
        feature_size=3, proprio_size=2, action_size=1, history=HISTORY, max_frames=120, folder=tmp_path
    )  # fmt: skip
    stored = [(entry(number)[0], 1000 + number) for number in range(40)]
    assert again.restore(stored) == (40, "")
    after = again.sample(64, np.random.default_rng(2))
    for field in fields(Batch):
        np.testing.assert_array_equal(getattr(before, field.name), getattr(after, field.name))


def test_rows_without_a_chain_are_not_taken_for_rows_with_one(tmp_path: Path) -> None:
    filled(tmp_path, PRESENT)
    again = ReplayBuffer(
        feature_size=3, proprio_size=2, action_size=1, history=HISTORY, max_frames=120, folder=tmp_path
    )  # fmt: skip
    assert again.restore([(entry(number)[0], 1000 + number) for number in range(40)])[0] == 0


def test_a_device_gathers_the_same_windows() -> None:
    buffer = filled()
    picked = buffer.draw(64, np.random.default_rng(5))
    found = TensorBatch.gathered(torch.from_numpy(buffer.rows), torch.from_numpy(picked), buffer.layout)
    wanted = TensorBatch.of_batch(buffer.sample(64, np.random.default_rng(5)), torch.device("cpu"))
    for field in fields(TensorBatch):
        assert torch.equal(getattr(found, field.name), getattr(wanted, field.name)), field.name


def test_updates_on_a_device_are_those_made_one_by_one() -> None:
    buffer = filled()
    config = LearnerConfig(scale=(0.3,), hidden=(8, 8), critics=4, actor_after=20, normaliser_batches=10)
    dims = LearnerDims(feature_size=6, proprio_size=8, action_size=1)
    together, single = (ResidualLearner(dims, config, 0) for _ in range(2))
    DeviceUpdates(together, buffer, batch_size=16, per_call=6).run(80, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    for _ in range(80):
        single.update(buffer.sample(16, rng))
    one, two = together.tensors(), single.tensors()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def chosen(folder: Path, **changes: Any) -> LearnerSettings:
    return settings(folder, **({"history": HISTORY, "algorithm": ALGORITHM} | changes))


def taken(message: bytes) -> ResidualWeights:
    """The weights as a robot with these windows takes them."""
    dims = Dims(features=2 * FEATURES, proprio=4 * PROPRIO, action=ACTION)
    expected = Expected(dims=dims, bundle_sha256="0" * 64, max_scale=(1.0,) * ACTION, history=HISTORY)
    return unpack(message, expected)


def trained(folder: Path, episodes: range, **changes: Any) -> Training:
    told = chosen(folder, **changes)
    training = Training(told, make_learner_of(told))
    for number in episodes:
        training.accept(made_up(number))
        drain(training)
    return training


def test_the_learner_gives_weights_for_the_windows_and_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    straight = trained(tmp_path / "straight", range(6))
    trained(tmp_path / "resumed", range(3)).save()
    resumed = trained(tmp_path / "resumed", range(3, 6))
    weights = taken(straight.message)
    assert weights.head.heads == 2
    assert np.abs(weights.tensors["normaliser.mean"]).min() > 0.0
    assert weights.sha256 == taken(resumed.message).sha256


@pytest.mark.parametrize("now", [PRESENT, HistoryTicks(features_ticks=2, proprio_ticks=3)])
def test_a_checkpoint_of_another_window_is_refused_in_one_line(tmp_path: Path, now: HistoryTicks) -> None:
    trained(tmp_path, range(2)).save()
    with pytest.raises(BadInputError, match=r"made with history .*'proprio_ticks': 4"):
        trained(tmp_path, range(0), history=now)


def test_without_windows_a_checkpoint_depends_on_what_it_depended_on_before(tmp_path: Path) -> None:
    assert "history" not in settings(tmp_path).fingerprint()


def test_what_was_done_before_a_hold_is_in_no_window_after_it() -> None:
    whole = made_up(0, ticks=10)
    source = whole.source.copy()
    source[4] = 2
    data = transitions(
        type(whole)(**{field.name: getattr(whole, field.name) for field in fields(whole)} | {"source": source}),
        n_step=1, discount=0.9,
    )  # fmt: skip
    assert data.previous.tolist() == [0, 0, 1, 2, 4, 4, 5, 6, 7]


class Silent:
    """A link on which nothing happens."""

    def __getattr__(self, name: str) -> Any:
        return lambda *values, **named: None


def test_golden_observations_are_windows(tmp_path: Path) -> None:
    dims = Dims(features=2 * FEATURES, proprio=4 * PROPRIO, action=ACTION)
    expected = Expected(dims=dims, bundle_sha256="0" * 64, max_scale=(1.0,) * ACTION, history=HISTORY)
    run = RunFolder.create(tmp_path / "run", collect_provenance(VirtualClock(), operator=None), min_free_mb=0)
    spool = EpisodeSpool(run.episodes, run.run_id)
    weights = LearnedWeights(
        cast("RobotLink", Silent()), run, expected, spool=spool, lock_step=False, start=None, runs=(run.run_id,)
    )  # fmt: skip
    weights.after_episode(made_up(0, run_id=run.run_id))
    tensors = tiny_tensors(dims, seed=1)
    message = pack(version=1, run_id=run.run_id, bundle_sha256="0" * 64, dims=dims, tensors=tensors)
    weights.consider(1, message)
    assert weights.version == 1, weights.notice


@pytest.mark.parametrize("method", ["hg_dagger", "resfit", "rlpd"])
def test_the_other_methods_learn_from_windows_as_well(tmp_path: Path, method: Method) -> None:
    scale = (1.0,) * ACTION if method == "rlpd" else (0.3,) * ACTION
    algorithm = told(method, scale=scale, gate=False, gripper=None, where="here") | {"hidden": [8, 8]}
    weights = taken(trained(tmp_path, range(2), method=method, algorithm=algorithm).message)
    assert weights.version == 2
