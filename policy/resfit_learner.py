"""A learner of our own writing after ResFiT's published recipe (Ankile et al. 2025), a residual without a person.

Ten critics of 2 x 1024 with LayerNorm on base features and the executed action, target of the least of two random ones,
a deterministic actor whose last layer starts at zero, updated once per four critic updates, learning rates 1e-4 and
1e-6, a fixed action scale. Corrections of a person, approval and value bounds are not part of it.
"""

from __future__ import annotations

import copy
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policy.baseline_config import ResfitConfig
from policy.baseline_learner import BaselineLearner, EagerEnsemble, follow, least_of_some, observation, opened, within
from policy.learner_networks import RunningNormaliser
from policy.replay_buffer import Batch


class ResfitLearner(BaselineLearner):
    """A `policy.learner_training.Learner`; its weights run in the robot's residual head, without a gate."""

    PARTS: ClassVar = (
        "_critic", "_slow", "_actor", "_slow_actor", "_normaliser", "_critic_optimiser", "_actor_optimiser",
    )  # fmt: skip

    def __init__(self, features: int, proprio: int, action: int, config: ResfitConfig, seed: int) -> None:
        super().__init__()
        self._config = config
        self._generator = torch.Generator().manual_seed(seed)
        width = features + proprio + action
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._critic = EagerEnsemble(config.critics, width, config.hidden, 1)
            self._actor = EagerEnsemble(1, width, config.hidden, action)
        self._actor.zero_output()
        self._slow = copy.deepcopy(self._critic).requires_grad_(False)
        self._slow_actor = copy.deepcopy(self._actor).requires_grad_(False)
        self._normaliser = RunningNormaliser(features + proprio, batches=200, clip=10.0)
        self._scale = torch.tensor(config.scale)
        self._binary = torch.tensor([config.binary or 0])
        self._critic_optimiser = torch.optim.AdamW(self._critic.parameters(), lr=config.critic_rate)
        self._actor_optimiser = torch.optim.AdamW(self._actor.parameters(), lr=config.actor_rate)

    def update(self, batch: Batch) -> dict[str, float]:
        """One update of the critics and, every fourth time, of the actor."""
        config = self._config
        seen = observation(batch.features, batch.proprio)
        self._normaliser.observe(seen)
        now, after = self._normaliser(seen), self._normaliser(observation(batch.next_features, batch.next_proprio))
        base, next_base = torch.from_numpy(batch.base), torch.from_numpy(batch.next_base)
        with torch.no_grad():
            noise = config.smoothing * torch.randn(next_base.shape, generator=self._generator)
            squashed = torch.tanh(self._slow_actor(torch.cat([after, next_base], 1))[0]) + noise.clamp(-0.5, 0.5)
            action = self._executed(next_base + self._scale * squashed.clamp(-1.0, 1.0))
            value = least_of_some(
                self._slow(torch.cat([after, action], 1))[..., 0], config.critic_subset, self._generator
            )
            target = torch.from_numpy(batch.reward) + torch.from_numpy(batch.discount) * value
            target = within(target, config.value_bounds)
        seen_action = torch.cat([now, torch.from_numpy(batch.action)], 1)
        self._fit(self._critic, self._critic_optimiser, seen_action, target)
        follow(self._slow, self._critic, config.target_share)
        self.updates += 1
        self._figures["value"] = target.mean().item()
        if self.updates % config.updates_per_actor == 0 and self.updates >= config.warm_up:
            self._update_actor(now, base)
        return self._figures

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """What the robot runs, named as in `policy.residual`."""
        return self._for_the_robot(self._scale)

    def _executed(self, action: Tensor) -> Tensor:
        """Return what the robot makes of actions (B, A): bounded, and a gripper that is open or closed so.

        The critics were shown nothing else.
        """
        action = action.clamp(-1.0, 1.0)
        if self._config.binary is not None:
            action = action.index_copy(1, self._binary, opened(action[:, self._binary]))
        return action

    def _update_actor(self, now: Tensor, base: Tensor) -> None:
        action = self._executed(base + self._scale * torch.tanh(self._actor(torch.cat([now, base], 1))[0]))
        self._critic.requires_grad_(False)
        loss = -self._critic(torch.cat([now, action], 1)).mean()
        self._critic.requires_grad_(True)
        self._actor_optimiser.zero_grad()
        loss.backward()
        self._actor_optimiser.step()
        follow(self._slow_actor, self._actor, self._config.target_share)
        self._figures["actor_loss"] = loss.item()
