"""The encoder that learns with the residual: the robot's is torch's, and it sees what the features do not say."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from policy.learner_config import LearnerConfig
from policy.replay_buffer import Batch
from policy.residual import Dims, ResidualHead
from policy.residual_learner import LearnerDims, ResidualLearner
from policy.tensor_batch import TensorBatch
from policy.weights import Expected, RefusalReason, WeightsRefused, pack, unpack

torch.set_num_threads(1)

PLAIN, P, A, B = 3, 2, 4, 48
PICTURES = (2, 12, 15)  # cameras, height, width
F = PLAIN + 2 * 12 * 15
SCALE = (0.4, 0.3, 0.2, 0.0)
DIMS = Dims(features=F, proprio=P, action=A)
EXPECTED = Expected(dims=DIMS, bundle_sha256="b" * 64, max_scale=SCALE, gripper=3, gate=True)
CONFIG: dict[str, Any] = {
    "scale": SCALE, "hidden": (24, 24), "normaliser_batches": 5, "actor_after": 4, "actor_average": 0.4, "gate": True,
    "gripper": 3, "pictures": PICTURES, "fine_tune_encoder": True,
}  # fmt: skip


def learner(seed: int = 0, **config: Any) -> ResidualLearner:
    dims = LearnerDims(feature_size=F, proprio_size=P, action_size=A)
    return ResidualLearner(dims, LearnerConfig(**(CONFIG | config)), seed)


def batch(seed: int) -> Batch:
    """A person steers to a bright spot in the second camera's picture, which nothing else shows."""
    rng = np.random.default_rng(seed)
    _, height, width = PICTURES
    y, x = np.indices((height, width))

    def draw(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    def features(at: NDArray[np.float64]) -> NDArray[np.float32]:
        far = (x - at[:, 0, None, None]) ** 2 + (y - at[:, 1, None, None]) ** 2
        pictures = np.stack([0.1 * draw(B, height, width), 2.0 * np.exp(-far / 3.0) - 1.0], axis=1)
        return np.concatenate([draw(B, PLAIN), pictures.reshape(B, -1)], axis=1).astype(np.float32)

    at = rng.uniform((2.0, 2.0), (width - 3.0, height - 3.0), (B, 2))
    base = np.clip(0.3 * draw(B, A), -0.5, 0.5)
    wanted = base.copy()
    wanted[:, 0] += (0.3 * (2.0 * at[:, 0] / (width - 1) - 1.0)).astype(np.float32)
    wanted[:, 1] += (0.3 * (2.0 * at[:, 1] / (height - 1) - 1.0)).astype(np.float32)
    never = np.zeros(B, bool)
    return Batch(
        features=features(at), proprio=draw(B, P), base=base, action=np.clip(wanted, -1.0, 1.0),
        reward=(rng.random(B) < 0.1).astype(np.float32), discount=np.full(B, 0.9, np.float32),
        next_features=features(at), next_proprio=draw(B, P), next_base=base[::-1].copy(),
        human=~never, human_action=wanted, hindsight=never, approved=never, demonstration=never,
    )  # fmt: skip


def trained(updates: int, made: ResidualLearner | None = None, *, first: int = 0, **config: Any) -> ResidualLearner:
    made = made or learner(**config)
    for update in range(first, first + updates):
        made.update(batch(update))
    return made


def message(made: ResidualLearner) -> bytes:
    return pack(version=1, run_id="run-1", bundle_sha256="b" * 64, dims=DIMS, tensors=made.tensors())


def head_of(made: ResidualLearner) -> ResidualHead:
    return unpack(message(made), EXPECTED).head


def test_the_robots_encoder_is_the_torch_network() -> None:
    made, data = trained(40, actor_rate=1e-2), batch(99)
    head, tensors = head_of(made), TensorBatch.of_batch(data, torch.device("cpu"))
    assert made._mean_encoder is not None
    assert head._encoder is not None
    with torch.no_grad():
        plain = tensors.features[:, :PLAIN]
        seen = made._normaliser(torch.cat([plain, tensors.proprio], 1))
        keypoints = made._mean_encoder(tensors.features[:, PLAIN:])
        out = made._mean_actor(torch.cat([seen, tensors.base, keypoints], 1))[0]
        wanted = made._scale * torch.tanh(out[:, :A])
        values = made._slow(torch.cat([seen, tensors.action], 1))[..., 0]
    assert keypoints.std(0).max() > 0.05
    assert wanted.abs().max() > 0.01
    noise = np.zeros(A, np.float32)
    for row in range(B):
        seen_by_robot = data.features[row], data.proprio[row]
        np.testing.assert_allclose(head._encoder(data.features[row, PLAIN:]), keypoints[row].numpy(), atol=1e-5)
        found = head.residual(*seen_by_robot, data.base[row])
        np.testing.assert_allclose(found[:3], wanted[row, :3], atol=1e-5)
        assert np.array_equal(found, head.corrected(*seen_by_robot, data.base[row], noise)[0])
        np.testing.assert_allclose(
            head.values(*seen_by_robot, data.action[row][None])[:, 0], values[:, row].numpy(), atol=1e-5
        )


def misses(**config: Any) -> tuple[float, float]:
    """How far the robot is from what the person wants on fresh observations, and how far a residual of zero is."""
    made = trained(500, actor_every=1, actor_rate=3e-3, q_weight=0.0, gripper=None, gate=False, **config)
    data = batch(10_001)
    expected = dataclasses.replace(EXPECTED, gripper=None, gate=False)
    head = unpack(message(made), expected).head
    found = np.stack([head.residual(*row) for row in zip(data.features, data.proprio, data.base, strict=True)])
    wanted = (data.human_action - data.base)[:, :2]
    return float(np.abs(found[:, :2] - wanted).mean()), float(np.abs(wanted).mean())


def test_it_learns_what_only_the_pictures_show() -> None:
    miss, doing_nothing = misses()
    assert miss < 0.1 * doing_nothing


def test_without_the_encoder_nobody_looks_at_the_pictures() -> None:
    miss, doing_nothing = misses(fine_tune_encoder=False)
    assert miss > 0.85 * doing_nothing
    head = head_of(trained(12, fine_tune_encoder=False, actor_rate=1e-2))
    data = batch(7)
    features, proprio, base = data.features[0], data.proprio[0], data.base[0]
    other = features.copy()
    other[PLAIN:] = 0.0
    assert head.residual(features, proprio, base)[:3].any()
    assert np.array_equal(head.residual(features, proprio, base), head.residual(other, proprio, base))


def test_critics_do_not_look_at_the_pictures() -> None:
    head, data = head_of(trained(12)), batch(7)
    features, proprio, action = data.features[0], data.proprio[0], data.action[0]
    other = features.copy()
    other[PLAIN:] = 0.0
    values = [head.values(seen, proprio, action[None]) for seen in (features, other)]
    assert values[0].any()
    assert np.array_equal(*values)


def test_the_residual_is_zero_at_the_start() -> None:
    head, data = head_of(learner()), batch(0)
    assert not any(head.residual(*row)[:3].any() for row in zip(data.features, data.proprio, data.base, strict=True))


def test_a_state_goes_on_bit_for_bit_and_the_seed_decides() -> None:
    straight, half = trained(20), trained(10)
    resumed = learner(seed=5)
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    trained(10, resumed, first=10)
    one, two, other = straight.tensors(), resumed.tensors(), trained(20, learner(seed=1)).tensors()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["encoder.1.0.weight"], other["encoder.1.0.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder.pictures": np.array([2.0, 12.0], np.float32)}, "must be cameras, height and width"),
        ({"encoder.pictures": np.array([2.0, 12.5, 15.0], np.float32)}, "must be cameras, height and width"),
        ({"encoder.pictures": np.array([np.nan, 12.0, 15.0], np.float32)}, "must be cameras, height and width"),
        ({"encoder.pictures": np.array([np.inf, 12.0, 15.0], np.float32)}, "must be cameras, height and width"),
        ({"encoder.pictures": np.array([20.0, 12.0, 15.0], np.float32)}, "20 of 12x15, of 363 features"),
        ({"encoder.pictures": None}, "'normaliser.mean' is (5,)"),
        ({"encoder.1.0.weight": np.zeros((8, 16), np.float32)}, "must be (n, 1 k k)"),
        ({"encoder.1.1.weight": np.zeros((16, 81), np.float32)}, "must be (n, 8 k k)"),
        ({"encoder.0.0.bias": None}, "'encoder.0.0.bias' is missing"),
        ({"encoder.0.1.bias": np.zeros(3, np.float32)}, "'encoder.0.1.bias' is missing or not (16,)"),
        ({"encoder.1.maps.weight": None}, "'encoder.1.maps.weight' is missing"),
        ({"encoder.1.maps.weight": np.zeros((4, 7), np.float32)}, "not (n, 16)"),
        ({"encoder.1.maps.weight": np.zeros((4, 16), np.float32)}, "'actor.0.weight' is"),
        ({"encoder.2.maps.weight": np.zeros((4, 16), np.float32)}, "unknown tensor 'encoder.2.maps.weight'"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(change: dict[str, NDArray[np.float32] | None], said: str) -> None:
    tensors: dict[str, Any] = {**learner().tensors(), **change}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    data = pack(version=1, run_id="run-1", bundle_sha256="b" * 64, dims=DIMS, tensors=tensors)
    with pytest.raises(WeightsRefused) as refusal:
        unpack(data, EXPECTED)
    assert refusal.value.reason is RefusalReason.SHAPE
    assert said in str(refusal.value)


def test_a_value_that_is_not_finite_is_refused() -> None:
    tensors = learner().tensors()
    tensors["encoder.0.1.weight"][0, 0] = np.nan
    with pytest.raises(WeightsRefused, match=r"'encoder\.0\.1\.weight' has NaN"):
        unpack(pack(version=1, run_id="run-1", bundle_sha256="b" * 64, dims=DIMS, tensors=tensors), EXPECTED)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="fine_tune_encoder needs a bundle whose features end with pictures"):
        LearnerConfig(scale=SCALE, fine_tune_encoder=True)
    with pytest.raises(ValueError, match="of 363 features"):
        learner(pictures=(3, 12, 15))
