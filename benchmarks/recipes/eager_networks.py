"""Networks of the rival learners, in plain eager torch: what the published recipes run on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYER_NORM_EPS = 1e-5


class EagerEnsemble(nn.Module):
    """`count` networks Linear -> LayerNorm -> ReLU ... -> Linear by batched products, as vmapped ensembles are."""

    def __init__(self, count: int, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in itertools.pairwise([inputs, *hidden, outputs]):
            bound = 1.0 / math.sqrt(before)
            self.weights.append(nn.Parameter(torch.empty(count, before, after).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(count, 1, after).uniform_(-bound, bound)))
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(count, 1, size)) for size in hidden)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(count, 1, size)) for size in hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (count, B, outputs)."""
        y = x.expand(self.weights[0].shape[0], *x.shape)
        for weight, bias, gain, shift in zip(self.weights, self.biases, self.gains, self.shifts, strict=False):
            y = torch.baddbmm(bias, y, weight)
            y = functional.relu(functional.layer_norm(y, y.shape[-1:], eps=LAYER_NORM_EPS) * gain + shift)
        return torch.baddbmm(self.biases[-1], y, self.weights[-1])

    def zero_output(self) -> None:
        """Make the output exactly zero."""
        with torch.no_grad():
            self.weights[-1].zero_()
            self.biases[-1].zero_()

    def tensors(self, prefix: str, outputs: int | None = None) -> dict[str, Tensor]:
        """Tensors of the first network by the names of `policy.residual`, its first `outputs` outputs."""
        named: dict[str, Tensor] = {}
        for i, (gain, shift) in enumerate(zip(self.gains, self.shifts, strict=True)):
            named |= {f"{prefix}.{i}.weight": self.weights[i][0].T, f"{prefix}.{i}.bias": self.biases[i][0, 0]}
            named |= {f"{prefix}.{i}.norm.weight": gain[0, 0], f"{prefix}.{i}.norm.bias": shift[0, 0]}
        named[f"{prefix}.out.weight"] = self.weights[-1][0].T[:outputs]
        named[f"{prefix}.out.bias"] = self.biases[-1][0, 0][:outputs]
        return named


def follow(slow: nn.Module, fast: nn.Module, share: float) -> None:
    """Move `slow` towards `fast` by `share` of the way, tensor by tensor."""
    with torch.no_grad():
        for behind, ahead in zip(slow.parameters(), fast.parameters(), strict=True):
            behind.lerp_(ahead, share)
