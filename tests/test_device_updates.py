"""The way that a GPU takes, walked on a CPU, where a recorded call is a plain one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from policy.device_updates import DeviceUpdates
from policy.learner_config import LearnerConfig
from policy.learner_process import make_learner_of
from policy.learner_settings import LockStep
from policy.learner_training import Training
from policy.residual_learner import LearnerDims, ResidualLearner
from robot.errors import BadInputError
from tests.learner_episodes import ACTION, made_up
from tests.test_learner_training import content, drain, settings
from tests.test_replay_buffer import filled

torch.set_num_threads(1)

CONFIG = LearnerConfig(scale=(0.3,), hidden=(8, 8), critics=4, actor_after=20, normaliser_batches=10, actor_every=2)


def learner() -> ResidualLearner:
    return ResidualLearner(LearnerDims(feature_size=3, proprio_size=2, action_size=1), CONFIG, 0)


@pytest.mark.parametrize("counts", [(90,), (1, 2, 3, 60, 24), (49, 3, 8, 30)])
def test_updates_together_are_those_made_one_by_one(counts: tuple[int, ...]) -> None:
    replay, twin = filled(None, range(10)), filled(None, range(10))
    together, single = learner(), learner()
    updates = DeviceUpdates(together, replay, batch_size=16, per_call=6)
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    for number, count in enumerate(counts):
        figures = updates.run(count, rng)
        for _ in range(count):
            single.update(twin.sample(16, other))
        filled(None, range(10 + number, 11 + number), replay)
        filled(None, range(10 + number, 11 + number), twin)
    assert together.updates == single.updates == 90
    assert rng.bit_generator.state == other.bit_generator.state
    assert figures == single.figures()
    one, two = together.tensors(), single.tensors()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_updates_together_are_recorded_once_nothing_branches_any_more() -> None:
    made = learner()
    updates = DeviceUpdates(made, filled(None, range(10)), batch_size=16, per_call=6)
    updates.run(50, np.random.default_rng(0))
    assert updates._call is None
    updates.run(6, np.random.default_rng(0))
    assert updates._call is not None


def test_training_with_updates_together_gives_the_same_version(tmp_path: Path) -> None:
    algorithm = {"scale": [0.3] * ACTION, "hidden": [8, 8], "actor_after": 5, "normaliser_batches": 5}
    messages = []
    for name in ("one", "together"):
        chosen = settings(tmp_path / name, algorithm=algorithm, schedule=LockStep(updates_per_episode=130))
        made = make_learner_of(chosen)
        assert isinstance(made, ResidualLearner)
        over = (lambda buffer, made=made: DeviceUpdates(made, buffer, batch_size=8)) if name == "together" else None
        training = Training(chosen, made, over)
        for number in range(3):
            training.accept(made_up(number))
            drain(training)
        assert (training.updates, training.version) == (390, 3)
        messages.append(content(training.message))
    assert messages[0] == messages[1]


def test_cuda_is_refused_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInputError, match="torch finds none"):
        make_learner_of(settings(tmp_path, algorithm={"scale": [0.3] * ACTION}, device="cuda"))
