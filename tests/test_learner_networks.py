"""The gradient that is written out by hand against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from policy.learner_networks import Ensemble

torch.set_num_threads(1)


def ensemble(count: int, hidden: tuple[int, ...], *, layer_norm: bool) -> Ensemble:
    torch.manual_seed(1)
    made = Ensemble(count, 6, hidden, 3, layer_norm=layer_norm)
    with torch.no_grad():
        made.flat.add_(0.2 * torch.randn(made.flat.shape))
    return made.double()


def gradients(made: Ensemble, x: Tensor, *, by_hand: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and gradients of a loss that weighs every output differently."""
    seen = x.clone().requires_grad_()
    out = made(seen) if by_hand else made.batched(seen)
    weights = torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view(out.shape)
    by_x, by_flat = torch.autograd.grad((weights * out * out).sum(), [seen, made.flat])
    return out.detach(), by_x, by_flat


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 7), (8, 7, 9)])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_gradient_by_hand_is_torchs(count: int, hidden: tuple[int, ...], layer_norm: bool) -> None:
    made = ensemble(count, hidden, layer_norm=layer_norm)
    x = torch.randn(11, 6, dtype=torch.float64)
    for got, wanted in zip(gradients(made, x, by_hand=True), gradients(made, x, by_hand=False), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)
        assert wanted.abs().max() > 0.0


@pytest.mark.parametrize("layer_norm", [True, False])
def test_gradient_by_hand_is_that_of_finite_differences(layer_norm: bool) -> None:
    made = ensemble(2, (8, 7), layer_norm=layer_norm)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(made, (x,), eps=1e-7, atol=1e-5)
    before = made.flat.detach().clone()
    _, _, by_flat = gradients(made, x.detach(), by_hand=True)

    def loss() -> float:
        with torch.no_grad():
            out = made(x)
            return float((torch.linspace(-1.0, 2.0, out.numel(), dtype=out.dtype).view(out.shape) * out * out).sum())

    for at in range(0, before.numel(), 7):
        around = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                made.flat.copy_(before)
                made.flat[at] += step
            around.append(loss())
        assert (around[0] - around[1]) / 2e-6 == pytest.approx(float(by_flat[at]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("hidden", [(), (64,), (64, 48, 32)])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_rounded_products_are_the_others_but_for_rounding(hidden: tuple[int, ...], layer_norm: bool) -> None:
    torch.manual_seed(0)
    whole = Ensemble(2, 20, hidden, 3, layer_norm=layer_norm)
    rounded = Ensemble(2, 20, hidden, 3, layer_norm=layer_norm, rounded=True)
    rounded.load_state_dict(whole.state_dict())
    x = torch.randn(200, 20)
    wanted = gradients(whole, x, by_hand=True)
    by_hand, by_torch = gradients(rounded, x, by_hand=True), gradients(rounded, x, by_hand=False)
    # what turns a unit on or off changes the gradient of x at once, and averages out over a batch
    for exact, got, other, most in zip(wanted, by_hand, by_torch, (0.02, 0.15, 0.03), strict=True):
        assert got.dtype == other.dtype == torch.float32
        assert float((got - other).norm() / exact.norm()) < 0.01
        off = float((got - exact).norm() / exact.norm())
        assert off < most
        assert (off > 1e-4) == bool(hidden)  # a last layer alone is not rounded


def test_rounded_products_are_of_the_weights_as_they_are_now() -> None:
    made = Ensemble(2, 6, (16,), 3, layer_norm=True, rounded=True)
    x = torch.randn(9, 6)
    before, twin = made(x), copy.deepcopy(made)
    assert torch.equal(twin(x), before)
    with torch.no_grad():
        made.flat.mul_(2.0)
    assert not torch.allclose(made(x), before, rtol=0.1)
    assert torch.equal(twin(x), before)


def test_frozen_networks_pass_the_gradient_on_and_take_none() -> None:
    made = ensemble(2, (8,), layer_norm=True).requires_grad_(False)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    made(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0.0
    assert made.flat.grad is None


def test_weights_that_change_between_the_passes_are_told() -> None:
    made = ensemble(2, (8,), layer_norm=True)
    out = made(torch.randn(5, 6, dtype=torch.float64)).sum()
    with torch.no_grad():
        made.flat.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_copy_is_a_network_of_its_own() -> None:
    made = ensemble(2, (8,), layer_norm=True)
    twin, x = copy.deepcopy(made), torch.randn(5, 6, dtype=torch.float64)
    assert torch.equal(twin(x), made(x))
    before = made(x)
    with torch.no_grad():
        twin.flat.add_(1.0)
    assert torch.equal(made(x), before)
    assert not torch.equal(twin(x), before)
