"""What the published recipes that are here as baselines share: networks and parts in plain eager torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from policy.learner_networks import RunningNormaliser
from policy.residual import LAYER_NORM_EPS


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


class BaselineLearner:
    """What a `policy.learner_training.Learner` needs beside its rule: what the robot gets, and its state.

    A subclass names its parts that have a state, and sets them; the actor's is `_actor`.
    """

    PARTS: ClassVar[tuple[str, ...]]

    _actor: EagerEnsemble
    _normaliser: RunningNormaliser
    _generator: torch.Generator

    def __init__(self) -> None:
        self.updates = 0
        self._figures: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        parts = {name: getattr(self, name).state_dict() for name in self.PARTS}
        return parts | {"generator": self._generator.get_state(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        self._generator.set_state(state["generator"])
        self.updates = int(state["updates"])

    def _for_the_robot(self, scale: Tensor, outputs: int | None = None) -> dict[str, NDArray[np.float32]]:
        """Return the actor, its first `outputs` outputs, as a residual of that scale (A,), see `policy.residual`."""
        named = self._actor.tensors("actor", outputs or len(scale)) | {
            "scale": scale,
            "normaliser.mean": self._normaliser.mean,
            "normaliser.std": self._normaliser.std,
            "normaliser.clip": torch.full((1,), self._normaliser.clip),
        }
        return {name: np.array(tensor.detach().numpy(), np.float32, order="C") for name, tensor in named.items()}

    def _fit(self, critic: EagerEnsemble, optimiser: torch.optim.Optimizer, seen: Tensor, target: Tensor) -> None:
        """Take one step of every critic towards the target (B,)."""
        loss = (critic(seen)[..., 0] - target).square().mean(1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        self._figures["critic_loss"] = loss.item()


def observation(features: NDArray[np.float32], proprio: NDArray[np.float32]) -> Tensor:
    """Return features and proprioception (B, F + P)."""
    return torch.cat([torch.from_numpy(features), torch.from_numpy(proprio)], 1)


def opened(gripper: Tensor) -> Tensor:
    """Return what a gripper's actions come to that can only be open (1) or closed (-1), see `ActionSpace`."""
    return torch.where(gripper >= 0.0, 1.0, -1.0)


def within(target: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """Return the target within the return's bounds, if they are given."""
    return target if bounds is None else target.clamp(*bounds)


def least_of_some(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the least (B,) of the values (heads, B) of `count` heads, drawn anew each time."""
    return values[torch.randperm(len(values), generator=generator)[:count]].amin(0)
