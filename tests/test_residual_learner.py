import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from policy.learner_config import LearnerConfig
from policy.learner_networks import Ensemble, RunningNormaliser
from policy.replay_buffer import Batch
from policy.residual import Dims, ResidualHead
from policy.residual_learner import LearnerDims, ResidualLearner
from policy.weights import Expected, pack, unpack

torch.set_num_threads(1)

F, P, A, B = 7, 3, 4, 64
SCALE = (0.4, 0.3, 0.2, 0.0)
DIMS = Dims(features=F, proprio=P, action=A)
SMALL: dict[str, Any] = {"scale": SCALE, "hidden": (24, 16)}
# the imitation alone, without delay
COPYING: dict[str, Any] = SMALL | {
    "q_weight": 0.0, "q_filter": False, "approval_weight": 0.0, "actor_every": 1, "actor_average": 1.0,
    "actor_rate": 3e-3, "normaliser_batches": 5,
}  # fmt: skip


def learner(seed: int = 0, **config: Any) -> ResidualLearner:
    dims = LearnerDims(feature_size=F, proprio_size=P, action_size=A)
    return ResidualLearner(dims, LearnerConfig(**(SMALL | config)), seed)


def batch(seed: int, **changes: Any) -> Batch:
    """Pseudo-random transitions, half of them a person's."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    base = np.clip(0.4 * draw(B, A), -0.6, 0.6)
    action = np.clip(base + 0.3 * draw(B, A), -1.0, 1.0)
    human = np.arange(B) < B // 2
    made = Batch(
        features=0.5 + 2.0 * draw(B, F), proprio=draw(B, P), base=base, action=action,
        reward=(rng.random(B) < 0.1).astype(np.float32), discount=np.full(B, 0.9, np.float32),
        next_features=0.5 + 2.0 * draw(B, F), next_proprio=draw(B, P), next_base=base[::-1].copy(),
        human=human, human_action=np.where(human[:, None], action, np.float32(0.0)), hindsight=np.zeros_like(human),
        approved=~human, demonstration=np.zeros(B, bool),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def trained(seed: int = 0, *, updates: int = 30, **config: Any) -> ResidualLearner:
    made = learner(seed, **config)
    for update in range(updates):
        made.update(batch(update))
    return made


def head_of(made: ResidualLearner) -> ResidualHead:
    """What the robot makes of the learner's message."""
    message = pack(version=1, run_id="run-1", bundle_sha256="b" * 64, dims=DIMS, tensors=made.tensors())
    return unpack(message, Expected(dims=DIMS, bundle_sha256="b" * 64, max_scale=(0.4,) * DIMS.action)).head


def residuals(made: ResidualLearner, data: Batch) -> NDArray[np.float32]:
    head = head_of(made)
    return np.stack([head.residual(*row) for row in zip(data.features, data.proprio, data.base, strict=True)])


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("use_features", [True, False])
@pytest.mark.parametrize("hidden", [(24, 16), (8,)])
def test_robots_head_is_the_torch_network(layer_norm: bool, use_features: bool, hidden: tuple[int, ...]) -> None:
    made = trained(
        layer_norm=layer_norm, use_features=use_features, hidden=hidden, critics=3, actor_after=5, actor_rate=1e-2,
        input_clip=1.5, actor_average=0.3,
    )  # fmt: skip
    data, head = batch(99), head_of(made)
    with torch.no_grad():
        seen = torch.from_numpy(np.concatenate([data.features, data.proprio], axis=1))
        normal = made._normaliser(seen) * made._mask
        base, action = torch.from_numpy(data.base), torch.from_numpy(data.action)
        actor = made._scale * torch.tanh(made._mean_actor(torch.cat([normal, base], dim=1))[0])
        critics = made._slow(torch.cat([normal, action], dim=1))[..., 0]
    assert (normal.abs().amax() == 1.5) or not use_features  # the clip is at work
    assert head.heads == 2
    for row in range(B):
        features, proprio = data.features[row], data.proprio[row]
        np.testing.assert_allclose(head.residual(features, proprio, data.base[row]), actor[row].numpy(), atol=1e-5)
        values = head.values(features, proprio, data.action[row][None])[:, 0]
        np.testing.assert_allclose(values, critics[:2, row].numpy(), atol=1e-5)
    assert actor.abs().max() > 1e-3


def test_residual_is_exactly_zero_at_the_start_whatever_it_sees() -> None:
    made = learner()
    assert not residuals(made, batch(0)).any()
    assert not residuals(made, batch(0, features=np.full((B, F), 1e6, np.float32))).any()


def test_residual_never_exceeds_its_scale() -> None:
    made = learner(**(COPYING | {"clip_unreachable": True, "actor_rate": 0.1, "input_noise": 0.0}))
    for update in range(60):
        data = batch(update)
        made.update(dataclasses.replace(data, human_action=data.base + 50.0 * np.sign(data.base)))
    found = residuals(made, batch(5, base=np.full((B, A), 0.9, np.float32)))
    found = np.concatenate([found, residuals(made, batch(6, features=np.full((B, F), 1e6, np.float32)))])
    bound = np.array(SCALE, np.float32)
    assert (np.abs(found) <= bound).all()
    assert np.abs(found).max(axis=0)[:3] == pytest.approx(bound[:3], rel=0.01)
    assert not found[:, 3].any()  # left to the base


def correction(data: Batch) -> NDArray[np.float32]:
    """What the person of the next tests adds: within reach, by what is seen."""
    wanted = np.zeros((B, A), np.float32)
    wanted[:, 0] = 0.3 * np.sign(data.features[:, 0] - 0.5)
    wanted[:, 1] = 0.1 * np.tanh(data.proprio[:, 1])
    return wanted


def copied(updates: int = 400, shift: float = 0.0, **config: Any) -> tuple[float, NDArray[np.float32], Batch]:
    """Learn from a person; return the miss on fresh observations, the residuals there and the observations."""
    made = learner(**(COPYING | config))
    for update in range(updates):
        data = batch(update)
        human_action = data.base + correction(data) + np.array([0.0, 0.0, shift, 0.0], np.float32)
        made.update(dataclasses.replace(data, human_action=human_action, human=np.ones(B, bool)))
    fresh = batch(10_001)
    found = residuals(made, fresh)
    return float(np.abs(found - correction(fresh))[:, :2].mean()), found, fresh


def test_it_learns_a_correction_within_reach_from_the_person() -> None:
    miss, _, fresh = copied()
    assert miss < 0.25 * float(np.abs(correction(fresh))[:, :2].mean())


def test_without_the_features_it_learns_only_what_the_rest_shows() -> None:
    _, found, fresh = copied(use_features=False)
    assert np.abs(found[:, 0]).mean() < 0.12  # the sign cannot be known
    assert np.corrcoef(found[:, 1], np.tanh(fresh.proprio[:, 1]))[0, 1] > 0.8


def test_a_dimension_out_of_reach_is_left_out_unless_it_is_to_be_clipped() -> None:
    out = 0.5  # where the bound is 0.2
    _, left_out, _ = copied(updates=150, shift=out)
    assert np.abs(left_out[:, 2]).mean() < 0.03
    _, clipped, _ = copied(updates=150, shift=out, clip_unreachable=True)
    assert clipped[:, 2].mean() > 0.15


def moved(**config: Any) -> float:
    """How far the residual moves from 0 within some updates of a person's corrections."""
    made = learner(**(COPYING | config))
    for update in range(60):
        data = batch(update)
        made.update(dataclasses.replace(data, human_action=data.base + correction(data), human=np.ones(B, bool)))
    return float(np.abs(residuals(made, batch(77))).mean())


def test_imitation_can_be_switched_off() -> None:
    assert moved() > 0.02
    assert moved(imitation_weight=0.0) < 1e-6


def q_filtered(gain: float, *, q_filter: bool) -> float:
    """Imitate a person who always pushes along x, with a critic that has learned what a push is worth."""
    made = learner(**(COPYING | {"q_filter": q_filter, "critic_rate": 3e-3, "actor_after": 100}))
    push = np.array([0.3, 0.0, 0.0, 0.0], np.float32)
    for update in range(180):
        data = batch(update)
        person = np.full(B, update >= 100) & (np.arange(B) % 2 == 0)
        action = np.where(person[:, None], data.base + push, data.action)
        reward = (0.5 + gain * action[:, 0]).clip(0.0, 1.0).astype(np.float32)
        made.update(
            dataclasses.replace(
                data, action=action, human_action=data.base + push, human=person, reward=reward,
                discount=np.zeros(B, np.float32),
            )
        )  # fmt: skip
    return float(residuals(made, batch(10_001))[:, 0].mean())


def test_q_filter_imitates_the_person_only_where_the_critic_agrees() -> None:
    assert q_filtered(0.5, q_filter=True) > 0.15
    assert q_filtered(-0.5, q_filter=True) < 0.05
    assert q_filtered(-0.5, q_filter=False) > 0.15


def followed(weight: float, *, approved: bool) -> float:
    made = learner(**(COPYING | {"approval_weight": weight, "imitation_weight": 0.0}))
    for update in range(60):
        data = batch(update)
        action = (data.base + correction(data)).astype(np.float32)
        made.update(dataclasses.replace(data, action=action, human=np.zeros(B, bool), approved=np.full(B, approved)))
    return float(np.abs(residuals(made, batch(77))).mean())


def test_approval_copies_what_the_robot_did_where_it_was_approved_alone() -> None:
    assert followed(1.0, approved=True) > 0.02
    assert followed(1.0, approved=False) < 1e-6
    assert followed(0.0, approved=True) < 1e-6


def test_critic_drives_the_actor_only_after_its_delay() -> None:
    silent = {"imitation_weight": 0.0, "approval_weight": 0.0, "q_filter": False, "actor_average": 1.0}
    assert np.abs(residuals(trained(updates=40, actor_after=41, **silent), batch(0))).max() == 0.0
    assert np.abs(residuals(trained(updates=40, actor_after=10, **silent), batch(0))).max() > 0.0
    assert np.abs(residuals(trained(updates=40, actor_after=10, **silent, q_weight=0.0), batch(0))).max() < 1e-6


@pytest.mark.parametrize(("reward", "bounds"), [(5.0, (0.0, 1.0)), (-5.0, (0.0, 1.0)), (5.0, (-2.0, 2.0))])
def test_value_targets_stay_within_the_range_of_the_return(reward: float, bounds: tuple[float, float]) -> None:
    made = learner(value_min=bounds[0], value_max=bounds[1], target_share=1.0, critic_rate=1e-2)
    for update in range(151):
        figures = made.update(batch(update, reward=np.full(B, reward, np.float32)))
    assert bounds[0] <= figures["value"] <= bounds[1]
    assert figures["value"] == pytest.approx(bounds[1] if reward > 0.0 else bounds[0], abs=1e-6)


def test_terminal_states_are_not_bootstrapped() -> None:
    made = learner(critic_rate=1e-2, target_share=0.5)
    for update in range(151):
        figures = made.update(batch(update, reward=np.full(B, 0.25, np.float32), discount=np.zeros(B, np.float32)))
    assert figures["value"] == pytest.approx(0.25)


def same_bits(first: ResidualLearner, second: ResidualLearner) -> bool:
    one, other = first.tensors(), second.tensors()
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_rounded_products_learn_what_exact_ones_do() -> None:
    exact, rounded = (trained(updates=300, actor_after=20, products=name) for name in ("float32", "bfloat16"))
    data = batch(1000)
    wanted, got = residuals(exact, data), residuals(rounded, data)
    assert not np.array_equal(got, wanted)
    assert np.sqrt(np.mean((got - wanted) ** 2)) < 0.05 * np.sqrt(np.mean(wanted**2))
    assert rounded.figures()["value"] == pytest.approx(exact.figures()["value"], abs=0.02)


@pytest.mark.parametrize(
    ("able", "hidden", "rounds"),
    [
        ({"avx512_bf16": True}, (256, 256), True),
        ({"avx512_bf16": False, "amx_bf16": True}, (64, 512), True),
        ({"avx512_bf16": True}, (128, 128), False),
        ({"avx2": True}, (256, 256), False),
        ({}, (256, 256), False),
    ],
)
def test_products_are_rounded_of_themselves_only_where_that_pays(
    able: dict[str, bool], hidden: tuple[int, ...], rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    exact, chosen, rounded = (
        learner(hidden=hidden, products=name).tensors() for name in ("float32", "auto", "bfloat16")
    )
    assert all(np.array_equal(exact[name], chosen[name]) for name in exact)  # only products are rounded
    made = {
        name: trained(updates=2, hidden=hidden, products=name).tensors()["gate.0.0.weight"]
        for name in ("float32", "auto", "bfloat16")
    }
    assert np.array_equal(made["auto"], made["bfloat16" if rounds else "float32"])
    assert not np.array_equal(made["float32"], made["bfloat16"])
    assert all(tensor.dtype == np.float32 for tensor in rounded.values())


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_same_seed_and_batches_give_the_same_bits(products: str) -> None:
    torch.manual_seed(1)
    first = trained(3, actor_after=5, products=products)
    torch.manual_seed(2)  # not of our business
    assert same_bits(first, trained(3, actor_after=5, products=products))
    assert not same_bits(first, trained(4, actor_after=5, products=products))


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_state_dict_goes_on_bit_for_bit(products: str) -> None:
    through = trained(0, updates=60, actor_after=5, products=products)
    before = trained(0, updates=25, actor_after=5, products=products)
    after = learner(9, actor_after=5, products=products)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    for update in range(25, 60):
        after.update(batch(update))
    assert same_bits(through, after)


def test_tensors_are_a_copy_that_learning_does_not_change() -> None:
    made = trained(actor_after=5)
    tensors = made.tensors()
    before = {name: tensor.copy() for name, tensor in tensors.items()}
    for update in range(10):
        made.update(batch(update))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, before[name], err_msg=name)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="critic_subset is 3"):
        learner(critic_subset=3)
    with pytest.raises(ValueError, match="value_min"):
        learner(value_min=1.0)
    with pytest.raises(ValueError, match="scale has 2 values, the action 4"):
        learner(scale=(0.1, 0.2))


def test_ensemble_members_are_the_networks_that_torch_builds() -> None:
    torch.manual_seed(0)
    ensemble = Ensemble(3, 5, (8, 6), 2, layer_norm=True)
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    x = torch.randn(11, 5)
    for member in range(3):
        named = ensemble.tensors(member, "net")
        y = x
        for layer in range(2):
            y = torch.nn.functional.linear(y, named[f"net.{layer}.weight"], named[f"net.{layer}.bias"])
            norm = (named[f"net.{layer}.norm.weight"], named[f"net.{layer}.norm.bias"])
            y = torch.relu(torch.nn.functional.layer_norm(y, y.shape[-1:], *norm))
        y = torch.nn.functional.linear(y, named["net.out.weight"], named["net.out.bias"])
        torch.testing.assert_close(ensemble(x)[member], y)
    ensemble.zero_output()
    assert not ensemble(x).any()


def test_normaliser_is_the_mean_and_spread_of_its_batches_and_then_stands_still() -> None:
    rng = np.random.default_rng(0)
    draws = [(3.0 + [1.0, 0.1, 0.0] * rng.normal(size=(256, 3))).astype(np.float32) for _ in range(6)]
    batches = [torch.from_numpy(draw) for draw in draws]
    normaliser = RunningNormaliser(3, batches=5, clip=2.0)
    for seen in batches:
        normaliser.observe(seen)
    first = torch.cat(batches[:5]).double()
    np.testing.assert_allclose(normaliser.mean, first.mean(0), rtol=1e-5)
    np.testing.assert_allclose(normaliser.std[:2], first.std(0)[:2], rtol=0.01)
    assert normaliser.std[2] == pytest.approx(1e-3)  # a constant input stays harmless
    out = normaliser(torch.tensor([[100.0, -100.0, 3.0]]))
    np.testing.assert_allclose(out[0, :2], [2.0, -2.0])
