"""A real but tiny torch learner: random state, optimiser moments and a target network to lose, like the true one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from policy.learner_settings import LearnerSettings
from policy.replay_buffer import Batch
from tests.learner_episodes import ACTION, FEATURES, PROPRIO


class StandIn:
    """Regresses the executed action, with noise, through one linear layer."""

    def __init__(self, seed: int, proprio: int = PROPRIO, action: int = ACTION) -> None:
        self.observation = FEATURES + proprio
        self.noise = torch.Generator().manual_seed(seed)
        width = self.observation + action
        self.layer = torch.nn.Linear(width, action)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(action, width, generator=self.noise) * 0.1)
            self.layer.bias.zero_()
        self.target = torch.nn.Linear(width, action)
        self.target.load_state_dict(self.layer.state_dict())
        self.optimiser = torch.optim.AdamW(self.layer.parameters(), lr=1e-3)
        self.spoilt = False

    def update(self, batch: Batch) -> dict[str, float]:
        seen = torch.from_numpy(np.concatenate([batch.features, batch.proprio, batch.base], axis=1))
        wanted = torch.from_numpy(batch.action)
        wanted = wanted + 0.1 * torch.randn(wanted.shape, generator=self.noise) + 0.1 * self.target(seen).detach()
        loss = ((self.layer(seen) - wanted) ** 2).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.layer.parameters(), strict=True):
                slow.lerp_(fast, 0.05)
        return {"loss": float(loss.detach())}

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        bias = self.layer.bias.detach().numpy().copy()
        return {
            "scale": np.full(bias.shape, 0.2, np.float32),
            "normaliser.mean": np.zeros(self.observation, np.float32),
            "normaliser.std": np.ones(self.observation, np.float32),
            "normaliser.clip": np.full(1, 5.0, np.float32),
            "actor.out.weight": self.layer.weight.detach().numpy().copy(),
            "actor.out.bias": bias * np.float32(np.nan) if self.spoilt else bias,
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "layer": self.layer.state_dict(),
            "target": self.target.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "noise": self.noise.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.layer.load_state_dict(state["layer"])
        self.target.load_state_dict(state["target"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.noise.set_state(state["noise"])


def make_stand_in(settings: LearnerSettings) -> StandIn:
    """What `run_learner` takes in place of the true algorithm."""
    torch.set_num_threads(1)
    return StandIn(settings.seed, settings.proprio_size, settings.action_size)
