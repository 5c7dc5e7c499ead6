"""Torch twins of the networks in `policy.residual`: same layers, same tensor names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from policy.residual import LAYER_NORM_EPS


class Ensemble(nn.Module):
    """`count` equal networks side by side: Linear -> LayerNorm -> ReLU per hidden layer, then Linear.

    One batched product per layer serves all members, which on a CPU costs little more than one of them.
    """

    def __init__(self, count: int, inputs: int, hidden: Sequence[int], outputs: int, *, layer_norm: bool) -> None:
        super().__init__()
        sizes = [inputs, *hidden, outputs]
        self.layer_norm = layer_norm
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for before, after in itertools.pairwise(sizes):
            bound = 1.0 / math.sqrt(before)  # as torch.nn.Linear draws them
            self.weights.append(nn.Parameter(torch.empty(count, before, after).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(count, 1, after).uniform_(-bound, bound)))
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(count, 1, size)) for size in hidden)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(count, 1, size)) for size in hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs), the same for every member, to (count, B, outputs)."""
        y = x.expand(self.weights[0].shape[0], *x.shape)
        for i in range(len(self.gains)):
            y = torch.baddbmm(self.biases[i], y, self.weights[i])
            if self.layer_norm:
                y = functional.layer_norm(y, y.shape[-1:], eps=LAYER_NORM_EPS) * self.gains[i] + self.shifts[i]
            y = functional.relu(y)
        return torch.baddbmm(self.biases[-1], y, self.weights[-1])

    def zero_output(self) -> None:
        """Make the last layer exactly zero, so that the network's output is."""
        with torch.no_grad():
            self.weights[-1].zero_()
            self.biases[-1].zero_()

    def tensors(self, member: int, prefix: str) -> dict[str, Tensor]:
        """One member's tensors by the names of `policy.residual`, weights as (out, in)."""
        named: dict[str, Tensor] = {}
        for i in range(len(self.gains)):
            named[f"{prefix}.{i}.weight"] = self.weights[i][member].T
            named[f"{prefix}.{i}.bias"] = self.biases[i][member, 0]
            if self.layer_norm:
                named[f"{prefix}.{i}.norm.weight"] = self.gains[i][member, 0]
                named[f"{prefix}.{i}.norm.bias"] = self.shifts[i][member, 0]
        named[f"{prefix}.out.weight"] = self.weights[-1][member].T
        named[f"{prefix}.out.bias"] = self.biases[-1][member, 0]
        return named


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

    def observe(self, x: Tensor) -> None:
        """Take a batch (B, size) into the statistics while they are open."""
        if self.seen.item() >= self.batches:
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
