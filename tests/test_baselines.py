"""The rival learners learn what they claim to, go on after a checkpoint, and run on the robot."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.image_rlpd_learner import SIDE_PX, ImageRlpdLearner
from benchmarks.learner_data import filled_buffer
from policy.baseline_config import ResfitConfig, RlpdConfig
from policy.learner_training import Learner
from policy.replay_buffer import Batch
from policy.resfit_learner import ResfitLearner
from policy.rlpd_learner import RlpdLearner
from policy.weights import Expected, ResidualWeights, pack, unpack
from tests.test_residual_learner import DIMS, A, B, F, P, batch

torch.set_num_threads(1)


def resfit(seed: int = 0) -> ResfitLearner:
    config = ResfitConfig(scale=(0.4, 0.3, 0.2, 0.1), critics=4, hidden=(24, 16), critic_rate=3e-3, actor_rate=3e-3)
    return ResfitLearner(F, P, A, config, seed)


def rlpd(seed: int = 0) -> RlpdLearner:
    return RlpdLearner(F, P, A, RlpdConfig(hidden=(24, 16), rate=3e-3), seed)


def on_the_robot(learner: Learner) -> ResidualWeights:
    message = pack(version=1, run_id="run-1", bundle_sha256="b" * 64, dims=DIMS, tensors=learner.tensors())
    return unpack(message, Expected(dims=DIMS, bundle_sha256="b" * 64, max_scale=(1.0,) * A))


def rewarded(seed: int) -> Batch:
    """Transitions that end at once, the better the further the first dimension of the action points up."""
    data = batch(seed)
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1.0, 1.0, (B, A)).astype(np.float32)
    reward = (0.5 + 0.5 * action[:, 0]).astype(np.float32)
    return dataclasses.replace(data, action=action, reward=reward, discount=np.zeros(B, np.float32))


@pytest.mark.parametrize("make", [resfit, rlpd])
def test_it_learns_which_way_the_reward_lies(make: type[ResfitLearner]) -> None:
    learner = make()
    for update in range(600):
        figures = learner.update(rewarded(update))
    data, head = batch(9), on_the_robot(learner).head
    found = np.array([head.residual(*row) for row in zip(data.features, data.proprio, 0 * data.base, strict=True)])
    assert figures["critic_loss"] < 0.1
    assert found[:, 0].mean() > 0.5 * learner.tensors()["scale"][0]


def test_resfit_starts_at_the_base_exactly() -> None:
    data, head = batch(0), on_the_robot(resfit()).head
    for row in zip(data.features, data.proprio, data.base, strict=True):
        assert not head.residual(*row).any()


def on_what_is_seen(seed: int) -> Batch:
    """Transitions that end at once: the first feature says whether an open gripper (last dimension) is right."""
    data = batch(seed)
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1.0, 1.0, (B, A)).astype(np.float32)
    action[:, -1] = rng.choice([-1.0, 1.0], B)
    reward = (action[:, -1] * data.features[:, 0] > 0.0).astype(np.float32)
    return dataclasses.replace(data, action=action, reward=reward, discount=np.zeros(B, np.float32))


def test_rlpd_chooses_the_gripper_by_what_it_is_worth_and_never_by_chance() -> None:
    learner = RlpdLearner(F, P, A, RlpdConfig(hidden=(24, 16), rate=3e-3, binary=A - 1), 0)
    for update in range(800):
        learner.update(on_what_is_seen(update))
    data, head = on_what_is_seen(9999), on_the_robot(learner).head
    noise, right, moved = np.full(A, 3.0, np.float32), 0, []
    for features, proprio in zip(data.features, data.proprio, strict=True):
        seen = (features, proprio, np.zeros(A, np.float32))
        still, _ = head.corrected(*seen, 0.0 * noise)
        pushed, _ = head.corrected(*seen, noise)
        right += int(np.sign(still[-1]) == np.sign(features[0]))
        assert pushed[-1] == pytest.approx(still[-1], abs=1e-6)
        moved.append(np.abs(pushed - still)[:-1].max())
    assert right > 0.9 * len(data.features)
    assert np.median(moved) > 0.05


def test_rlpd_leaves_still_what_need_not_move() -> None:
    learner = RlpdLearner(F, P, A, RlpdConfig(hidden=(24, 16), rate=3e-3, scale=(1.0, 0.0, *(1.0,) * (A - 2))), 0)
    for update in range(40):
        learner.update(rewarded(update))
    data, head = batch(9), on_the_robot(learner).head
    residual = head.residual(data.features[0], data.proprio[0], np.zeros(A, np.float32))
    assert residual[1] == 0.0
    assert np.count_nonzero(residual) == A - 1


def test_entropy_is_in_rlpds_target_only_where_it_is_asked_for() -> None:
    def after_one_update(temperature: float, *, asked: bool) -> torch.Tensor:
        config = RlpdConfig(hidden=(24, 16), first_temperature=temperature, entropy_in_target=asked)
        learner = RlpdLearner(F, P, A, config, 0)
        learner.update(batch(0))
        return learner.state_dict()["_critic"]["weights.0"]

    assert torch.equal(after_one_update(0.01, asked=False), after_one_update(1.0, asked=False))
    assert not torch.equal(after_one_update(0.01, asked=True), after_one_update(1.0, asked=True))


def test_resfit_judges_the_gripper_as_the_robot_moves_it() -> None:
    """A base that hardly opens its gripper opens it whole, so how hardly changes no target."""

    def after(gripper: float, *, binary: int | None) -> torch.Tensor:
        config = ResfitConfig(scale=(0.4, 0.3, 0.2, 0.0), critics=2, hidden=(24, 16), binary=binary)
        learner, data = ResfitLearner(F, P, A, config, 0), batch(0)
        with torch.no_grad():
            learner._slow.weights[-1] += 1.0
            learner._slow_actor.weights[0][:, F + P + A - 1] = 0.0  # the actor may look at it, the critics may not
        base, next_base = data.base.copy(), data.next_base.copy()
        base[:, -1] = next_base[:, -1] = gripper
        learner.update(dataclasses.replace(data, base=base, next_base=next_base))
        return learner.state_dict()["_critic"]["weights.0"]

    assert torch.equal(after(0.1, binary=A - 1), after(0.7, binary=A - 1))
    assert not torch.equal(after(0.1, binary=None), after(0.7, binary=None))


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_a_bounded_target_ends_what_a_reward_in_every_tick_would_add_up_to(bounds: tuple[float, float] | None) -> None:
    makers = (
        lambda: ResfitLearner(
            F,
            P,
            A,
            ResfitConfig(
                scale=(0.4,) * A, critics=2, hidden=(24, 16), critic_rate=3e-3, target_share=0.2, value_bounds=bounds
            ),
            0,
        ),
        lambda: RlpdLearner(F, P, A, RlpdConfig(hidden=(24, 16), rate=3e-3, target_share=0.2, value_bounds=bounds), 0),
    )
    for make in makers:
        learner, ones = make(), np.ones(B, np.float32)
        for update in range(300):
            figures = learner.update(dataclasses.replace(batch(update), reward=0.5 * ones, discount=0.9 * ones))
        assert (figures["value"] > 1.5) == (bounds is None)
        assert bounds is None or figures["value"] == pytest.approx(1.0, abs=0.05)


def test_rlpd_does_not_see_the_base() -> None:
    learner = rlpd()
    for update in range(20):
        learner.update(batch(update))
    twin = rlpd()
    for update in range(20):
        data = batch(update)
        twin.update(dataclasses.replace(data, base=data.base + 1.0, next_base=data.next_base - 1.0))
    one, two = learner.tensors(), twin.tensors()
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("make", [resfit, rlpd])
def test_state_dict_goes_on_bit_for_bit(make: type[ResfitLearner]) -> None:
    through, before, after = make(), make(), make(9)
    for update in range(40):
        through.update(batch(update))
    for update in range(17):
        before.update(batch(update))
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    for update in range(17, 40):
        after.update(batch(update))
    one, two = through.tensors(), after.tensors()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_images_are_encoded_and_their_bottleneck_is_trained() -> None:
    data = filled_buffer(400).sample(8, np.random.default_rng(0))
    learner = ImageRlpdLearner(2, data.proprio.shape[1], data.action.shape[1], RlpdConfig(hidden=(16,)), 0)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 2, 3, SIDE_PX, SIDE_PX), dtype=np.uint8)
    before = copy.deepcopy(learner._bottleneck.state_dict())
    encoder = copy.deepcopy(learner._encoder.state_dict())
    figures = learner.update(data, images[0], images[1])
    assert np.isfinite(figures["critic_loss"])
    assert not torch.equal(before["0.weight"], learner._bottleneck.state_dict()["0.weight"])
    assert all(torch.equal(encoder[name], value) for name, value in learner._encoder.state_dict().items())
