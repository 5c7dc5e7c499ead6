"""The numpy head computes what torch's layers compute, stays inside its bound, and repeats bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from policy.residual import LAYER_NORM_EPS, Dims, ResidualHead
from tests.tiny_weights import DIMS, tiny_tensors

Float = NDArray[np.float32]


def inputs(seed: int = 0, dims: Dims = DIMS) -> tuple[Float, Float, Float]:
    rng = np.random.default_rng(seed)
    sizes = (dims.features, dims.proprio, dims.action)
    features, proprio, base = (rng.normal(size=size).astype(np.float32) for size in sizes)
    return features, proprio, base


def reference(tensors: dict[str, Float], prefix: str, features: Float, proprio: Float, action: Float) -> Float:
    """The layers as torch defines them, written out plainly in float64."""
    t = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    seen = (np.concatenate([features, proprio]) - t["normaliser.mean"]) / t["normaliser.std"]
    seen = np.clip(seen, -t["normaliser.clip"], t["normaliser.clip"]) * t.get("normaliser.mask", 1.0)
    x = np.concatenate([seen, action])
    layer = 0
    while f"{prefix}.{layer}.weight" in t:
        name = f"{prefix}.{layer}"
        x = t[f"{name}.weight"] @ x + t[f"{name}.bias"]
        if f"{name}.norm.weight" in t:
            x = (x - x.mean()) / np.sqrt(x.var() + LAYER_NORM_EPS)
            x = x * t[f"{name}.norm.weight"] + t[f"{name}.norm.bias"]
        x = np.maximum(x, 0.0)
        layer += 1
    return t[f"{prefix}.out.weight"] @ x + t[f"{prefix}.out.bias"]


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("norm", [True, False])
def test_residual_is_scale_times_tanh_of_the_layers(depth: int, norm: bool) -> None:
    tensors = tiny_tensors(depth=depth)
    if not norm:
        tensors = {name: tensor for name, tensor in tensors.items() if ".norm." not in name}
    tensors["scale"] = np.linspace(0.0, 0.3, DIMS.action).astype(np.float32)
    head = ResidualHead(DIMS, tensors)
    for seed in range(5):
        expected = tensors["scale"] * np.tanh(reference(tensors, "actor", *inputs(seed)))
        np.testing.assert_allclose(head.residual(*inputs(seed)), expected, atol=2e-6)
        assert np.abs(expected).max() > 1e-3


def test_values_are_those_of_each_critic_for_each_action() -> None:
    tensors = tiny_tensors(heads=3)
    head = ResidualHead(DIMS, tensors)
    features, proprio, _ = inputs()
    actions = np.stack([inputs(seed)[2] for seed in range(4)])
    values = head.values(features, proprio, actions)
    assert (values.shape, values.dtype, head.heads) == ((3, 4), np.float32, 3)
    for index in range(3):
        for row, action in enumerate(actions):
            expected = reference(tensors, f"gate.{index}", features, proprio, action)[0]
            assert values[index, row] == pytest.approx(expected, abs=5e-6)


def test_a_zero_head_gives_exactly_zero_and_has_no_gate() -> None:
    head = ResidualHead.zero(DIMS, np.full(DIMS.action, 0.2, np.float32))
    for seed in range(20):
        assert head.residual(*inputs(seed)).tobytes() == bytes(4 * DIMS.action)
    assert head.values(*inputs()[:2], np.zeros((2, DIMS.action), np.float32)).shape == (0, 2)


def test_a_zero_last_layer_gives_exactly_zero_whatever_is_below() -> None:
    tensors = tiny_tensors()
    tensors["actor.out.weight"] = np.zeros_like(tensors["actor.out.weight"])
    tensors["actor.out.bias"] = np.zeros_like(tensors["actor.out.bias"])
    assert not ResidualHead(DIMS, tensors).residual(*inputs()).any()


def test_the_same_input_gives_the_same_bits_from_any_copy_of_the_weights() -> None:
    dims = Dims(features=64, proprio=15, action=7)
    tensors = tiny_tensors(dims, width=64)
    features, proprio, base = inputs(0, dims)
    actions = np.stack([base, base * np.float32(0.5)])
    first = ResidualHead(dims, tensors)
    residual, values = first.residual(features, proprio, base), first.values(features, proprio, actions)
    for shift in range(1, 16):
        # the same numbers from memory of another alignment
        moved = {}
        for name, tensor in tensors.items():
            raw = np.empty(tensor.nbytes + 64, np.uint8)
            moved[name] = raw[4 * shift : 4 * shift + tensor.nbytes].view(np.float32).reshape(tensor.shape)
            moved[name][...] = tensor
        head = ResidualHead(dims, moved)
        head.residual(*inputs(shift, dims))
        assert head.residual(features, proprio, base).tobytes() == residual.tobytes()
        assert head.values(features, proprio, actions).tobytes() == values.tobytes()


def test_the_head_keeps_its_own_copy_of_the_weights() -> None:
    tensors = tiny_tensors()
    head = ResidualHead(DIMS, tensors)
    before = head.residual(*inputs()).copy()
    for tensor in tensors.values():
        tensor[...] = 0.5
    assert np.array_equal(head.residual(*inputs()), before)


def test_a_masked_input_changes_nothing_and_an_unmasked_one_does() -> None:
    mask = np.ones(DIMS.observation, np.float32)
    mask[: DIMS.features] = 0.0
    tensors = {**tiny_tensors(), "normaliser.mask": mask}
    head = ResidualHead(DIMS, tensors)
    features, proprio, base = inputs()
    first = head.residual(features, proprio, base)
    assert np.array_equal(head.residual(features + np.float32(1.0), proprio, base), first)
    assert not np.array_equal(head.residual(features, proprio + np.float32(1.0), base), first)
    actions = base[None]
    assert np.array_equal(head.values(-features, proprio, actions), head.values(features, proprio, actions))
    np.testing.assert_allclose(
        first, tensors["scale"] * np.tanh(reference(tensors, "actor", features, proprio, base)), atol=2e-6
    )


def test_inputs_beyond_the_clip_count_as_the_clip() -> None:
    tensors = {**tiny_tensors(), "normaliser.clip": np.full(1, 3.0, np.float32)}
    head = ResidualHead(DIMS, tensors)
    features, proprio, base = inputs()
    far, farther = features.copy(), features.copy()
    far[0], farther[0] = 1e3, 1e6
    assert np.array_equal(head.residual(far, proprio, base), head.residual(farther, proprio, base))


@settings(max_examples=100, deadline=None)
@given(
    row=hnp.arrays(
        np.float32, DIMS.observation + DIMS.action, elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
    ),
    seed=st.integers(0, 3),
)
def test_the_residual_never_leaves_its_bound(row: Float, seed: int) -> None:
    head = ResidualHead(DIMS, tiny_tensors(seed=seed))
    residual = head.residual(row[: DIMS.features], row[DIMS.features : DIMS.observation], row[DIMS.observation :])
    assert np.isfinite(residual).all()
    assert (np.abs(residual) <= head.scale).all()


def test_a_result_is_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        ResidualHead(DIMS, tiny_tensors()).residual(*inputs())[0] = 1.0


@pytest.mark.parametrize(
    ("name", "tensor", "text"),
    [
        ("scale", None, "tensor 'scale' is missing"),
        ("scale", np.zeros(4, np.float32), "tensor 'scale' is (4,) float32, must be (5,) float32"),
        ("scale", np.zeros(5), "tensor 'scale' is (5,) float64, must be (5,) float32"),
        ("actor.1.weight", np.zeros((8, 9), np.float32), "tensor 'actor.1.weight' is (8, 9) float32, must be (8, 8)"),
        ("actor.0.weight", np.zeros(8, np.float32), "tensor 'actor.0.weight' is (8,) float32, must be (0, 15)"),
        ("actor.0.weight", None, "tensor 'actor.out.weight' is (5, 8) float32, must be (5, 15) float32"),
        ("actor.0.norm.bias", None, "tensor 'actor.0.norm.bias' is missing"),
        ("actor.7.bias", np.zeros(8, np.float32), "unknown tensor 'actor.7.bias'"),
        ("gate.1.out.bias", np.zeros(2, np.float32), "tensor 'gate.1.out.bias' is (2,) float32, must be (1,)"),
        ("gate.3.out.bias", np.zeros(1, np.float32), "gate heads are numbered [0, 1, 3], must count up from 0"),
    ],
)
def test_tensors_that_do_not_make_a_head_are_named(name: str, tensor: Float | None, text: str) -> None:
    tensors = tiny_tensors()
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    with pytest.raises(ValueError) as caught:
        ResidualHead(DIMS, tensors)
    assert str(caught.value).startswith(text)


def with_spread(least: float = -3.0, greatest: float = 0.5) -> dict[str, Float]:
    """An actor whose last outputs are the logarithm of its spread, some of them beyond the bounds."""
    tensors, rng = tiny_tensors(), np.random.default_rng(5)
    width = tensors["actor.out.weight"].shape[1]
    tensors["actor.out.weight"] = rng.normal(size=(2 * DIMS.action, width)).astype(np.float32)
    tensors["actor.out.bias"] = rng.normal(size=2 * DIMS.action).astype(np.float32)
    tensors["spread.bounds"] = np.array([least, greatest], np.float32)
    return tensors


def test_an_actor_with_a_spread_of_its_own_is_moved_by_that_much_before_the_bound() -> None:
    tensors = with_spread()
    head, beyond = ResidualHead(DIMS, tensors), 0
    for seed in range(8):
        noise = np.random.default_rng(seed).normal(size=DIMS.action).astype(np.float32)
        out = reference(tensors, "actor", *inputs(seed))
        mean, log_spread = out[: DIMS.action], out[DIMS.action :]
        beyond += int(((log_spread < -3.0) | (log_spread > 0.5)).sum())
        expected = tensors["scale"] * np.tanh(mean + np.exp(log_spread.clip(-3.0, 0.5)) * noise)
        np.testing.assert_allclose(head.corrected(*inputs(seed), noise)[0], expected, atol=5e-6)
        still = head.corrected(*inputs(seed), np.zeros(DIMS.action, np.float32))[0]
        np.testing.assert_allclose(still, tensors["scale"] * np.tanh(mean), atol=5e-6)
        assert np.array_equal(still, head.residual(*inputs(seed)))
    assert beyond > 3


def test_an_actor_with_a_spread_has_no_gripper_head() -> None:
    tensors = with_spread()
    tensors["scale"][-1] = 0.0
    tensors["gripper.dimension"] = np.eye(DIMS.action, dtype=np.float32)[-1]
    with pytest.raises(ValueError, match=r"'spread\.bounds' and 'gripper\.dimension' are of two kinds of actor"):
        ResidualHead(DIMS, tensors)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (-100.0, 0.0), (0.0, 90.0), (np.nan, 0.0), (-3.0, np.inf)])
def test_bounds_of_a_spread_that_are_none_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"'spread\.bounds' is .* \(allowed from -20 to 20, in this order\)"):
        ResidualHead(DIMS, with_spread(*bounds))


def test_gate_heads_must_be_built_alike() -> None:
    tensors = tiny_tensors()
    for name in [name for name in tensors if name.startswith("gate.1.1.norm")]:
        del tensors[name]
    with pytest.raises(ValueError, match="heads are built differently"):
        ResidualHead(DIMS, tensors)
