"""Torch twins of the networks in `policy.residual`: same layers, same tensor names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from policy.residual import LAYER_NORM_EPS


class _Layer(NamedTuple):
    """Weight (in, out), bias (out,) and, where there is a LayerNorm, its gain and shift (out,); all of one member."""

    weight: Tensor
    bias: Tensor
    gain: Tensor | None
    shift: Tensor | None


class Ensemble(nn.Module):
    """`count` equal networks side by side: Linear -> LayerNorm -> ReLU per hidden layer, then Linear.

    All their numbers lie in one parameter `flat`, member after member, so that an optimiser and a slow copy take one
    step over it instead of one per tensor. On a CPU each member passes forwards and backwards by itself, with the
    gradient written out by hand; elsewhere a batched product per layer serves all of them. Both give the
    same numbers up to rounding.

    With `rounded`, the products of the hidden layers and what lies between them are bfloat16, which some processors
    multiply at twice the rate of float32 or more; the parameter, its gradient, the statistics of the LayerNorms and
    what the last layer returns stay float32, as in mixed precision training (Micikevicius et al. 2018; Kalamkar et al.
    2019).
    """

    def __init__(
        self,
        count: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        layer_norm: bool,
        rounded: bool = False,
    ) -> None:
        super().__init__()
        self.count, self.layer_norm = count, layer_norm
        self.rounded = rounded and len(hidden) > 0
        self._sizes = [*itertools.pairwise([inputs, *hidden, outputs])]
        self._norms = [layer_norm and i < len(hidden) for i in range(len(self._sizes))]
        self._per_member = sum(before * after + (3 if norm else 1) * after for (before, after), norm in self._layout())
        self.flat = nn.Parameter(torch.empty(count * self._per_member))
        self._seen: tuple[int, list[list[_Layer]]] = (0, [])
        self._factors: tuple[Tensor, list[list[_Layer]]] | None = None
        with torch.no_grad():
            for layers in self.members(self.flat):
                for layer in layers:
                    bound = 1.0 / math.sqrt(layer.weight.shape[0])  # as torch.nn.Linear draws them
                    layer.weight.uniform_(-bound, bound)
                    layer.bias.uniform_(-bound, bound)
                    if layer.gain is not None and layer.shift is not None:
                        layer.gain.fill_(1.0)
                        layer.shift.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs), the same for every member, to (count, B, outputs)."""
        if x.device.type == "cpu":
            result: Tensor = _MemberByMember.apply(x, self.flat, self)  # type: ignore[no-untyped-call]
            return result
        return self.batched(x)

    def batched(self, x: Tensor) -> Tensor:
        """Do what `forward` does with one product per layer for all members and torch's own gradient."""
        parts = torch.split(self.flat.view(self.count, -1), self._part_sizes(), dim=1)
        at = iter(parts)
        y = x.expand(self.count, *x.shape)
        for number, ((before, after), norm) in enumerate(self._layout()):
            last = number == len(self._sizes) - 1
            dtype = torch.bfloat16 if self.rounded and not last else x.dtype
            bias, weight = next(at)[:, None], next(at).view(self.count, before, after)
            y = torch.baddbmm(bias.to(dtype), y.to(dtype), weight.to(dtype))
            if norm:
                gain, shift = next(at)[:, None], next(at)[:, None]
                normal = functional.layer_norm(y.to(x.dtype), (after,), eps=LAYER_NORM_EPS)
                y = torch.addcmul(shift, normal, gain).to(dtype)
            if not last:
                y = functional.relu(y)
        return y

    def members(self, flat: Tensor) -> list[list[_Layer]]:
        """Return views into `flat`, which is laid out like the parameter: member by member, layer by layer."""
        parts = iter(torch.split(flat, self._part_sizes() * self.count))
        members = []
        for _ in range(self.count):
            layers = []
            for (before, after), norm in self._layout():
                bias, weight = next(parts), next(parts).view(before, after)
                layers.append(_Layer(weight, bias, next(parts) if norm else None, next(parts) if norm else None))
            members.append(layers)
        return members

    def own_members(self) -> list[list[_Layer]]:
        """Return the members' layers as views into the parameter, without gradients."""
        if self._seen[0] != self.flat.data_ptr():
            self._seen = (self.flat.data_ptr(), self.members(self.flat.detach()))
        return self._seen[1]

    def factors(self) -> list[list[_Layer]]:
        """Return the members' layers as the hidden layers' products take them: with `rounded` a rounded copy of now."""
        if not self.rounded:
            return self.own_members()
        if self._factors is None:
            rounded = torch.empty_like(self.flat, dtype=torch.bfloat16, requires_grad=False)
            self._factors = rounded, self.members(rounded)
        rounded, members = self._factors
        rounded.copy_(self.flat.detach())
        return members

    def zero_output(self) -> None:
        """Make the last layer exactly zero, so that the network's output is."""
        for layers in self.own_members():
            layers[-1].weight.zero_()
            layers[-1].bias.zero_()

    def tensors(self, member: int, prefix: str) -> dict[str, Tensor]:
        """One member's tensors by the names of `policy.residual`, weights as (out, in)."""
        named: dict[str, Tensor] = {}
        *hidden, out = self.own_members()[member]
        for i, layer in enumerate(hidden):
            named[f"{prefix}.{i}.weight"] = layer.weight.T
            named[f"{prefix}.{i}.bias"] = layer.bias
            if layer.gain is not None and layer.shift is not None:
                named[f"{prefix}.{i}.norm.weight"] = layer.gain
                named[f"{prefix}.{i}.norm.bias"] = layer.shift
        named[f"{prefix}.out.weight"] = out.weight.T
        named[f"{prefix}.out.bias"] = out.bias
        return named

    def __deepcopy__(self, memo: dict[int, Any]) -> Ensemble:
        hidden = [after for _, after in self._sizes[:-1]]
        with torch.random.fork_rng(devices=[]):
            twin = Ensemble(
                self.count, self._sizes[0][0], hidden, self._sizes[-1][1],
                layer_norm=self.layer_norm, rounded=self.rounded,
            )  # fmt: skip
        twin.flat = nn.Parameter(self.flat.detach().clone(), requires_grad=self.flat.requires_grad)
        return twin

    def _layout(self) -> list[tuple[tuple[int, int], bool]]:
        return [*zip(self._sizes, self._norms, strict=True)]

    def _part_sizes(self) -> list[int]:
        return [
            size
            for (before, after), norm in self._layout()
            for size in (after, before * after, *((after, after) if norm else ()))
        ]


class _MemberByMember(torch.autograd.Function):
    """Passes of every member with the gradient by hand: no graph of small operations, nothing allocated twice.

    Ba et al. 2016, "Layer normalization", for what is normalised; the gradient of it is torch's kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, flat: Tensor, ensemble: Ensemble) -> Tensor:
        members = ensemble.own_members()
        learns = any(ctx.needs_input_grad[:2])

        factors = ensemble.factors()
        first = x.to(factors[0][0].weight.dtype)
        results = [_forwards(member, factor, first, learns) for member, factor in zip(members, factors, strict=True)]
        if learns:
            ctx.ensemble = ensemble
            ctx.kept = len(results[0][1])
            ctx.save_for_backward(first, flat, *(tensor for _, kept in results for tensor in kept))
        return torch.stack([output for output, _ in results]) if len(results) > 1 else results[0][0][None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, flat, *kept = ctx.saved_tensors
        ensemble, (gradient,) = ctx.ensemble, gradients
        wants_x, wants_flat = ctx.needs_input_grad[:2]
        members = ensemble.own_members()
        by_flat = torch.empty_like(flat) if wants_flat else None
        by_member = ensemble.members(by_flat) if by_flat is not None else [None] * ensemble.count

        factors = ensemble.factors()  # of the same weights: autograd refuses if `flat` has changed since

        by_x: list[Any] = []
        for number, member in enumerate(members):
            own = kept[number * ctx.kept : (number + 1) * ctx.kept]
            by_x.append(_backwards(member, factors[number], by_member[number], x, own, gradient[number], wants_x))
        return (sum(by_x[1:], by_x[0]).to(gradient.dtype) if wants_x else None), by_flat, None


def _forwards(layers: list[_Layer], factors: list[_Layer], x: Tensor, learns: bool) -> tuple[Tensor, list[Tensor]]:
    """Return the output (B, outputs) and, where it `learns`, per hidden layer what the gradient needs.

    `factors` are the layers in the type of the hidden layers' products.
    """
    kept: list[Tensor] = []
    last = layers[-1]
    for layer, factor in zip(layers[:-1], factors[:-1], strict=True):
        y = torch.addmm(factor.bias, x, factor.weight)
        if layer.gain is not None:
            x, mean, rstd = torch.native_layer_norm(y, y.shape[-1:], layer.gain, layer.shift, LAYER_NORM_EPS)
            x.relu_()
            kept += [x, y, mean, rstd] if learns else []
        else:
            x = y.relu_()
            kept += [x] if learns else []
    return torch.addmm(last.bias, x.to(last.weight.dtype), last.weight), kept


def _backwards(
    layers: list[_Layer], factors: list[_Layer], gradients: list[_Layer] | None, x: Tensor, kept: list[Tensor],
    gradient: Tensor, wants_x: bool,
) -> Tensor | None:  # fmt: skip
    """Write what the loss changes by with each tensor of a member to `gradients`; return that of x (B, inputs)."""
    per_layer = 4 if layers[0].gain is not None and len(layers) > 1 else 1
    gradient = gradient.to(x.dtype)
    for number in range(len(layers) - 1, -1, -1):
        layer, weight = layers[number], factors[number].weight
        if number < len(layers) - 1:
            own = kept[number * per_layer : (number + 1) * per_layer]
            gradient = torch.ops.aten.threshold_backward(gradient, own[0], 0.0)
            if layer.gain is not None:
                gradient, by_gain, by_shift = torch.ops.aten.native_layer_norm_backward(
                    gradient, own[1], own[1].shape[-1:], own[2], own[3], layer.gain, layer.shift,
                    (True, gradients is not None, gradients is not None),
                )  # fmt: skip
                if gradients is not None:
                    gradients[number].gain.copy_(by_gain)  # type: ignore[union-attr]
                    gradients[number].shift.copy_(by_shift)  # type: ignore[union-attr]
        if gradients is not None:
            own_gradient = gradients[number]
            seen = x if number == 0 else kept[(number - 1) * per_layer]
            if own_gradient.weight.dtype == gradient.dtype:
                torch.mm(seen.T, gradient, out=own_gradient.weight)
            else:
                own_gradient.weight.copy_(torch.mm(seen.T, gradient))
            torch.sum(gradient, 0, dtype=own_gradient.bias.dtype, out=own_gradient.bias)
        if number > 0 or wants_x:
            # a product with one column is an outer product
            gradient = gradient * weight.T if weight.shape[1] == 1 else torch.mm(gradient, weight.T)
    return gradient if wants_x else None


class RunningNormaliser(nn.Module):
    """Mean and spread of the observation from the first batches, then frozen so that the targets stand still."""

    mean: Tensor
    second: Tensor
    seen: Tensor

    def __init__(self, size: int, *, batches: int, clip: float) -> None:
        super().__init__()
        self.batches, self.clip = batches, clip
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("second", torch.ones(size))
        self.register_buffer("seen", torch.zeros(1))

    @property
    def frozen(self) -> bool:
        """True once no batch changes it any more. On another device than the CPU, this waits for that device."""
        return self.seen.item() >= self.batches

    def observe(self, x: Tensor) -> None:
        """Take a batch (B, size) into the statistics while they are open."""
        if self.frozen:
            return
        self.seen += 1
        share = 1.0 / self.seen.item()
        self.mean.lerp_(x.mean(0), share)
        self.second.lerp_(x.square().mean(0), share)

    @property
    def std(self) -> Tensor:
        """Spread per input, never below a floor that keeps a constant input harmless."""
        return (self.second - self.mean.square()).clamp(min=0.0).sqrt().clamp(min=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and clip (B, size)."""
        return ((x - self.mean) / self.std).clamp(-self.clip, self.clip)
