"""The update rule: off-policy learning of a bounded correction on a frozen base, from a person and from reward.

Sources: symmetric sampling and LayerNorm critics from RLPD (Ball et al. 2023); target smoothing and delayed actor
from TD3 (Fujimoto et al. 2018); a residual whose critic judges the executed action and whose last layer starts at
zero from residual policy learning (Silver et al. 2018) and ResFiT (Ankile et al. 2025); imitation that counts only
where the critic agrees from Q-filtered demonstrations (Nair et al. 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policy.learner_config import LearnerConfig
from policy.learner_networks import Ensemble, RunningNormaliser
from policy.replay_buffer import Batch


@dataclass(frozen=True, kw_only=True)
class LearnerDims:
    """Sizes: features F, proprioception P, actions A."""

    feature_size: int
    proprio_size: int
    action_size: int


class ResidualLearner:
    """Actor, critics and their optimisers. One thread uses it; the same seed and batches give the same bits."""

    def __init__(self, dims: LearnerDims, config: LearnerConfig, seed: int) -> None:
        if len(config.scale) != dims.action_size:
            raise ValueError(f"scale has {len(config.scale)} values, the action {dims.action_size}")
        self._config, self._dims = config, dims
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            observation = dims.feature_size + dims.proprio_size
            width = observation + dims.action_size
            self._critic = Ensemble(config.critics, width, config.hidden, 1, layer_norm=config.layer_norm)
            self._slow = Ensemble(config.critics, width, config.hidden, 1, layer_norm=config.layer_norm)
            self._actor = Ensemble(1, width, config.hidden, dims.action_size, layer_norm=config.layer_norm)
        self._actor.zero_output()
        self._mean_actor = copy.deepcopy(self._actor).requires_grad_(False)
        self._slow.load_state_dict(self._critic.state_dict())
        self._slow.requires_grad_(False)
        self._normaliser = RunningNormaliser(observation, batches=config.normaliser_batches, clip=config.input_clip)
        self._scale = torch.tensor(config.scale)
        self._reachable = self._scale > 0
        self._mask = torch.ones(observation)
        if not config.use_features:
            self._mask[: dims.feature_size] = 0.0
        self._critic_optimiser = torch.optim.AdamW(
            self._critic.parameters(), lr=config.critic_rate, weight_decay=config.weight_decay, fused=True
        )
        self._actor_optimiser = torch.optim.AdamW(
            self._actor.parameters(), lr=config.actor_rate, weight_decay=config.weight_decay, fused=True
        )
        self._updates = 0
        self._figures: dict[str, float] = {}

    def update(self, batch: Batch) -> dict[str, float]:
        """One critic update and, every `actor_every`, one of the actor; return figures to show."""
        tensors = _Tensors(batch)
        seen = torch.cat([tensors.features, tensors.proprio], dim=1)
        self._normaliser.observe(seen)
        now = self._normaliser(seen) * self._mask
        after = self._normaliser(torch.cat([tensors.next_features, tensors.next_proprio], dim=1)) * self._mask
        self._update_critic(tensors, now, after)
        self._updates += 1
        if self._updates % self._config.actor_every == 0:
            self._update_actor(tensors, now)
        return self._figures

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """What the robot runs, named as in `policy.residual`."""
        named = self._mean_actor.tensors(0, "actor")
        for head in range(min(self._config.gate_heads, self._config.critics)):
            named |= self._slow.tensors(head, f"gate.{head}")
        named |= {
            "scale": self._scale,
            "normaliser.mean": self._normaliser.mean,
            "normaliser.std": self._normaliser.std,
            "normaliser.clip": torch.full((1,), self._config.input_clip),
            "normaliser.mask": self._mask,
        }
        # a copy, for torch goes on writing to the memory that `numpy` shares
        return {name: np.array(tensor.detach().numpy(), np.float32, order="C") for name, tensor in named.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        return {
            "critic": self._critic.state_dict(),
            "slow": self._slow.state_dict(),
            "actor": self._actor.state_dict(),
            "mean_actor": self._mean_actor.state_dict(),
            "normaliser": self._normaliser.state_dict(),
            "critic_optimiser": self._critic_optimiser.state_dict(),
            "actor_optimiser": self._actor_optimiser.state_dict(),
            "generator": self._generator.get_state(),
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self._critic.load_state_dict(state["critic"])
        self._slow.load_state_dict(state["slow"])
        self._actor.load_state_dict(state["actor"])
        self._mean_actor.load_state_dict(state["mean_actor"])
        self._normaliser.load_state_dict(state["normaliser"])
        self._critic_optimiser.load_state_dict(state["critic_optimiser"])
        self._actor_optimiser.load_state_dict(state["actor_optimiser"])
        self._generator.set_state(state["generator"])
        self._updates = int(state["updates"])

    def _update_critic(self, batch: _Tensors, now: Tensor, after: Tensor) -> None:
        config = self._config
        with torch.no_grad():
            noise = torch.randn(batch.next_base.shape, generator=self._generator).clamp(-2.0, 2.0)
            residual = self._residual(after, batch.next_base) + config.smoothing * self._scale * noise
            action = batch.next_base + residual.clamp(-self._scale, self._scale)
            values = self._slow(torch.cat([after, action.clamp(-1.0, 1.0)], dim=1))[..., 0]
            heads = torch.randperm(config.critics, generator=self._generator)[: config.critic_subset]
            value = values[heads].amin(0).clamp(config.value_min, config.value_max)
            target = (batch.reward + batch.discount * value).clamp(config.value_min, config.value_max)
        guess = self._critic(torch.cat([now, batch.action], dim=1))[..., 0]
        loss = (guess - target).square().mean(1).sum()
        self._critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._critic_optimiser.step()
        with torch.no_grad():
            _blend(self._slow, self._critic, config.target_share)
        if self._updates % 50 == 0:
            self._figures |= {"critic_loss": float(loss.detach()), "value": float(target.mean())}

    def _update_actor(self, batch: _Tensors, now: Tensor) -> None:
        config = self._config
        if config.input_noise > 0.0:
            now = now + config.input_noise * torch.randn(now.shape, generator=self._generator) * self._mask
        residual = self._residual(now, batch.base)
        action = (batch.base + residual).clamp(-1.0, 1.0)
        loss = torch.zeros(())
        learns_from_value = config.q_weight > 0.0 and self._updates >= config.actor_after
        worse = torch.ones(len(batch.base))
        if learns_from_value or config.q_filter:
            self._critic.requires_grad_(False)
            value = self._critic(torch.cat([now, action], dim=1))[..., 0].mean(0)
            if learns_from_value:
                loss = loss - config.q_weight * value.mean()
            if config.q_filter and self._updates >= config.actor_after:
                with torch.no_grad():
                    shown = self._critic(torch.cat([now, batch.action], dim=1))[..., 0].mean(0)
                    worse = (shown > value).float()
            self._critic.requires_grad_(True)
        fade = 0.5 ** (self._updates / config.imitation_half_life)
        weight = config.imitation_weight * (config.imitation_floor + (1.0 - config.imitation_floor) * fade)
        human = self._imitation(residual, batch.human_action - batch.base, batch.human.float() * worse)
        robot = self._imitation(residual, batch.action - batch.base, batch.approved.float() * worse)
        loss = loss + weight * human + config.approval_weight * robot
        self._actor_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._actor_optimiser.step()
        with torch.no_grad():
            _blend(self._mean_actor, self._actor, config.actor_average)
        if self._updates % 50 == 0:
            self._figures |= {"imitation": float(human.detach()), "approval": float(robot.detach())}

    def _imitation(self, residual: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
        """Mean squared miss of the wanted residual in units of its bound, over the dimensions within reach."""
        scale = self._scale.clamp(min=1e-6)
        within = self._reachable.float().expand_as(wanted)
        if self._config.clip_unreachable:
            wanted = wanted.clamp(-self._scale, self._scale)
        else:
            within = within * (wanted.abs() <= self._scale).float()
        miss = ((residual - wanted) / scale).square() * within * weight[:, None]
        return miss.sum() / (within * weight[:, None]).sum().clamp(min=1.0)

    def _residual(self, observation: Tensor, base: Tensor) -> Tensor:
        return self._scale * torch.tanh(self._actor(torch.cat([observation, base], dim=1))[0])


def _blend(slow: nn.Module, fast: nn.Module, share: float) -> None:
    """Move every parameter of `slow` towards its twin in `fast` by `share` of the way."""
    torch._foreach_lerp_([*slow.parameters()], [*fast.parameters()], share)


class _Tensors:
    """A batch as torch tensors that share the arrays' memory."""

    def __init__(self, batch: Batch) -> None:
        self.features, self.proprio = torch.from_numpy(batch.features), torch.from_numpy(batch.proprio)
        self.base, self.action = torch.from_numpy(batch.base), torch.from_numpy(batch.action)
        self.reward, self.discount = torch.from_numpy(batch.reward), torch.from_numpy(batch.discount)
        self.next_features = torch.from_numpy(batch.next_features)
        self.next_proprio = torch.from_numpy(batch.next_proprio)
        self.next_base = torch.from_numpy(batch.next_base)
        self.human_action = torch.from_numpy(batch.human_action)
        self.human, self.approved = torch.from_numpy(batch.human), torch.from_numpy(batch.approved)
