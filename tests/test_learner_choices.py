"""What the gripper head, the gate's rule in the target and the growing bound do in the update rule."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from policy.learner_config import LearnerConfig
from policy.replay_buffer import Batch
from policy.residual import Dims, ResidualHead
from policy.residual_learner import LearnerDims, ResidualLearner
from policy.tensor_batch import TensorBatch
from policy.weights import Expected, pack, unpack

torch.set_num_threads(1)

F, P, A, B = 4, 2, 3, 128
GRIPPER = 2
DIMS = Dims(features=F, proprio=P, action=A)
PLAIN: dict[str, Any] = {"scale": (0.4, 0.4, 0.0), "hidden": (24,)}
CHOOSING: dict[str, Any] = PLAIN | {
    "gripper": GRIPPER, "q_weight": 0.0, "actor_every": 1, "actor_average": 1.0, "actor_rate": 5e-3,
    "normaliser_batches": 5, "gripper_weight": 1.0, "input_noise": 0.0,
}  # fmt: skip


def learner(config: dict[str, Any], seed: int = 0) -> ResidualLearner:
    return ResidualLearner(LearnerDims(feature_size=F, proprio_size=P, action_size=A), LearnerConfig(**config), seed)


def batch(seed: int) -> Batch:
    """Half of the ticks a person's: where the first feature is positive they do the reverse of the base's gripper."""
    rng = np.random.default_rng(seed)
    features, next_features = (rng.normal(size=(B, F)).astype(np.float32) for _ in range(2))
    proprio = rng.normal(size=(B, P)).astype(np.float32)
    base = rng.uniform(-0.6, 0.6, (B, A)).astype(np.float32)
    base[:, GRIPPER] = np.where(rng.random(B) < 0.5, -1.0, 1.0)
    human = np.arange(B) < B // 2
    wanted = base.copy()
    wanted[:, GRIPPER] *= np.where(features[:, 0] > 0.0, -1.0, 1.0)
    return Batch(
        features=features, proprio=proprio, base=base, action=wanted, reward=np.zeros(B, np.float32),
        discount=np.full(B, 0.9, np.float32), next_features=next_features, next_proprio=proprio, next_base=base,
        human=human, human_action=np.where(human[:, None], wanted, np.float32(0.0)), hindsight=np.zeros_like(human),
        approved=np.zeros(B, bool), demonstration=np.zeros(B, bool),
    )  # fmt: skip


def head_of(made: ResidualLearner) -> ResidualHead:
    message = pack(version=1, run_id="run-1", bundle_sha256="b" * 64, dims=DIMS, tensors=made.tensors())
    expected = Expected(dims=DIMS, bundle_sha256="b" * 64, max_scale=(0.4, 0.4, 0.0), gripper=GRIPPER)
    return unpack(message, expected).head


def executed(head: ResidualHead, data: Batch) -> np.ndarray:
    """The gripper that the robot would work, (B,)."""
    rows = zip(data.features, data.proprio, data.base, strict=True)
    return np.array([base[GRIPPER] + head.residual(f, p, base)[GRIPPER] for f, p, base in rows])


def test_at_the_start_the_gripper_is_the_bases() -> None:
    data = batch(0)
    np.testing.assert_array_equal(executed(head_of(learner(CHOOSING)), data), data.base[:, GRIPPER])


def test_the_gripper_learns_to_do_the_reverse_of_the_base_where_the_person_did() -> None:
    made = learner(CHOOSING)
    for update in range(400):
        made.update(batch(update))
    data = batch(10_000)
    right = executed(head_of(made), data) == np.where(data.features[:, 0] > 0.0, -1.0, 1.0) * data.base[:, GRIPPER]
    assert right.mean() > 0.93


def test_an_approved_choice_is_kept() -> None:
    made = learner(CHOOSING)
    none, all_of = np.zeros(B, bool), np.ones(B, bool)
    for update in range(400):
        made.update(dataclasses.replace(batch(update), human=none, hindsight=none, approved=all_of))
    data = batch(10_000)
    right = executed(head_of(made), data) == np.where(data.features[:, 0] > 0.0, -1.0, 1.0) * data.base[:, GRIPPER]
    assert right.mean() > 0.93


def test_the_torch_rule_and_the_robots_choose_alike() -> None:
    made = learner(CHOOSING)
    for update in range(60):
        made.update(batch(update))
    data = TensorBatch.of_batch(batch(77), made.device)
    seen = made._normaliser(torch.cat([data.features, data.proprio], dim=1))
    with torch.no_grad():
        out = made._mean_actor(torch.cat([seen, data.base], dim=1))[0]
        chosen = made._with_gripper(data.base, out[:, A:])[:, GRIPPER]
    np.testing.assert_array_equal(executed(head_of(made), batch(77)), chosen.numpy())
    assert not torch.equal(chosen, data.base[:, GRIPPER])


def test_the_value_of_a_choice_pulls_towards_it() -> None:
    # the person never touches it; opening pays at once, whatever is seen
    made = learner(CHOOSING | {"q_weight": 5.0, "actor_after": 100, "critic_rate": 3e-3})
    none = np.zeros(B, bool)
    rng = np.random.default_rng(0)
    for update in range(800):
        data = batch(update)
        action = data.base.copy()
        action[:, GRIPPER] = np.where(rng.random(B) < 0.5, -1.0, 1.0)
        made.update(
            dataclasses.replace(
                data, human=none, hindsight=none, action=action, discount=np.zeros(B, np.float32),
                reward=(action[:, GRIPPER] > 0.0).astype(np.float32),
            )
        )  # fmt: skip
    assert (executed(head_of(made), batch(5_000)) > 0.0).mean() > 0.95


def values_ahead(made: ResidualLearner, data: TensorBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the target takes, what it would take of the base alone, and of base + residual."""
    after = made._normaliser(torch.cat([data.next_features, data.next_proprio], dim=1))
    with torch.no_grad():
        taken = made._values_ahead(data, after)
        unchanged = made._slow(torch.cat([after, data.next_base], dim=1))[..., 0]
        residual, _ = made._act(after, data.next_base, data.next_features)
        combined = made._slow(torch.cat([after, (data.next_base + residual).clamp(-1.0, 1.0)], dim=1))[..., 0]
    return taken, unchanged, combined


def test_with_the_gate_the_target_takes_what_the_robot_would_do() -> None:
    gated = PLAIN | {"gate": True, "smoothing": 0.0, "actor_every": 1, "q_weight": 0.0, "normaliser_batches": 5}
    made = learner(gated)
    for update in range(80):
        data = batch(update)
        pushed = data.human_action + np.array([0.3, 0.0, 0.0], np.float32) * data.human[:, None]
        paid = (data.features[:, 0] * data.action[:, 0] > 0.0).astype(np.float32)
        made.update(dataclasses.replace(data, human_action=pushed, reward=paid))
    taken, unchanged, combined = values_ahead(made, TensorBatch.of_batch(batch(500), made.device))
    opens = combined.amin(0) >= unchanged.amin(0)
    assert 0 < int(opens.sum()) < B  # both happen
    assert torch.equal(taken, torch.where(opens, combined, unchanged))
    assert (taken.amin(0) >= unchanged.amin(0)).all()


def test_without_the_gate_the_target_takes_base_and_residual() -> None:
    made = learner(PLAIN | {"smoothing": 0.0, "actor_every": 1, "q_weight": 0.0, "normaliser_batches": 5})
    for update in range(80):
        made.update(batch(update))
    taken, _, combined = values_ahead(made, TensorBatch.of_batch(batch(500), made.device))
    assert torch.equal(taken, combined)


def test_the_bound_that_the_robot_gets_grows_with_the_updates() -> None:
    made = learner(PLAIN | {"scale_updates": 40})
    found = []
    for update in range(60):
        found.append(made.tensors()["scale"][0])
        made.update(batch(update))
    assert found == pytest.approx([0.4 * min(1.0, update / 40) for update in range(60)])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"gripper": 3}, "must be a dimension of scale"),
        ({"gripper": 0}, "must be a dimension of scale"),
        ({"gate": True, "gate_heads": 0}, "gate needs gate_heads from 1"),
        ({"gate": True, "gate_heads": 3}, "gate needs gate_heads from 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        LearnerConfig(**(PLAIN | changes))
