"""A learner of our own writing after HIL-SERL's published recipe (Luo et al. 2024): RLPD, soft actor-critic, no base.

Two critics of 2 x 256 with LayerNorm, a squashed Gaussian actor, a temperature that keeps the entropy at a target, half
of each batch from demonstrations and interventions (`ReplayBuffer.sample` draws it so), no entropy in the target. The
action is the policy's own: the base is neither seen nor added, so on a robot it needs a base that gives zero.

A gripper that is open or closed is a choice between two values, as in HIL-SERL; there a critic of its own holds them,
here the same critics judge the whole action. The choice's gradient is exact, over both and not over a drawn one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policy.baseline_config import RlpdConfig
from policy.baseline_learner import BaselineLearner, EagerEnsemble, follow, least_of_some, observation, opened, within
from policy.learner_networks import RunningNormaliser
from policy.replay_buffer import Batch

_LOG_SPREADS = (-20.0, 2.0)  # bounds of the logarithm of the actor's spread


class RlpdLearner(BaselineLearner):
    """A `policy.learner_training.Learner`."""

    PARTS: ClassVar = (
        "_critic", "_slow", "_actor", "_normaliser", "_critic_optimiser", "_actor_optimiser", "_temperature_optimiser",
    )  # fmt: skip

    def __init__(self, features: int, proprio: int, action: int, config: RlpdConfig, seed: int) -> None:
        super().__init__()
        self._config, self._action = config, action
        self._scale = torch.tensor(config.scale or (1.0,) * action)
        self._chosen = torch.tensor([i == config.binary for i in range(action)])
        # 1 for the dimensions that are drawn: neither those that stay still nor the gripper's
        self._drawn = self._scale * ~self._chosen
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._critic = EagerEnsemble(config.critics, features + proprio + action, config.hidden, 1)
            # the base action's place in the robot's head is there, and always zero
            self._actor = EagerEnsemble(1, features + proprio + action, config.hidden, 2 * action)
        self._slow = copy.deepcopy(self._critic).requires_grad_(False)
        self._log_temperature = torch.tensor(math.log(config.first_temperature), requires_grad=True)
        self._normaliser = RunningNormaliser(features + proprio, batches=200, clip=10.0)
        self._critic_optimiser = torch.optim.AdamW(self._critic.parameters(), lr=config.rate)
        self._actor_optimiser = torch.optim.AdamW(self._actor.parameters(), lr=config.rate)
        self._temperature_optimiser = torch.optim.AdamW([self._log_temperature], lr=config.rate, weight_decay=0.0)

    def update(self, batch: Batch) -> dict[str, float]:
        """One update of the critics and, every `updates_per_actor`, of actor and temperature."""
        seen = observation(batch.features, batch.proprio)
        self._normaliser.observe(seen)
        after = observation(batch.next_features, batch.next_proprio)
        return self.learn(batch, self._normaliser(seen), self._normaliser(after))

    def train_also(self, encoder: nn.Module) -> None:
        """Let the critics' gradient train `encoder`, whose output `learn` is given."""
        self._critic_optimiser.add_param_group({"params": [*encoder.parameters()]})

    def learn(self, batch: Batch, now: Tensor, after: Tensor) -> dict[str, float]:
        """Update from normalised observations (B, F + P)."""
        config = self._config
        with torch.no_grad():
            action, log_chance = self._draw(after)
            value = least_of_some(
                self._slow(torch.cat([after, action], 1))[..., 0], config.critic_subset, self._generator
            )
            if config.entropy_in_target:
                value = value - self._log_temperature.exp() * log_chance
            target = torch.from_numpy(batch.reward) + torch.from_numpy(batch.discount) * value
            target = within(target, config.value_bounds)
        seen_action = torch.cat([now, torch.from_numpy(batch.action)], 1)
        self._fit(self._critic, self._critic_optimiser, seen_action, target)
        follow(self._slow, self._critic, config.target_share)
        self.updates += 1
        self._figures["value"] = target.mean().item()
        if self.updates % config.updates_per_actor == 0:
            self._update_actor(now.detach())
        return self._figures

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The action as a residual of scale 1 on a base that gives zero, with its spread, as in `policy.residual`."""
        named = self._for_the_robot(self._scale, outputs=2 * self._action)
        named["spread.bounds"] = np.array(_LOG_SPREADS, np.float32)
        if self._config.binary is not None:
            row = self._action + self._config.binary
            named["actor.out.weight"][row], named["actor.out.bias"][row] = 0.0, _LOG_SPREADS[0]
        return named

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        return super().state_dict() | {"log_temperature": self._log_temperature.detach().clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        super().load_state_dict(state)
        with torch.no_grad():
            self._log_temperature.copy_(state["log_temperature"])

    def _draw(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return squashed actions (B, A) and the logarithm of their density (B,)."""
        mean, log_std = self._act(seen)
        noise = torch.randn(mean.shape, generator=self._generator)
        raw = mean + log_std.exp() * noise
        log_chance = (-0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)) @ self._drawn
        # log(1 - tanh(x)^2) without cancellation, as in Haarnoja et al. 2018, appendix C
        log_chance = log_chance - (2.0 * (math.log(2.0) - raw - nn.functional.softplus(-2.0 * raw))) @ self._drawn
        return self._with_gripper(self._scale * torch.tanh(raw), opened(mean)), log_chance

    def _act(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the spread before the `tanh`, (B, A) each."""
        none = seen.new_zeros(len(seen), self._action)
        mean, log_std = self._actor(torch.cat([seen, none], 1))[0].chunk(2, dim=1)
        return mean, log_std.clamp(*_LOG_SPREADS)

    def _with_gripper(self, action: Tensor, gripper: Tensor) -> Tensor:
        """Return actions (B, A) with what `gripper` has in the dimension that is chosen, if there is one."""
        return torch.where(self._chosen, gripper, action)

    def _update_actor(self, now: Tensor) -> None:
        action, log_chance = self._draw(now)
        self._critic.requires_grad_(False)
        temperature = self._log_temperature.exp().detach()
        gain = self._worth(now, action, temperature)
        self._critic.requires_grad_(True)
        loss = (temperature * log_chance - gain).mean()
        self._actor_optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._actor_optimiser.step()
        surplus = (log_chance.detach() - self._drawn.sum() / 2.0).mean()  # entropy aimed at: minus half the dimensions
        temperature_loss = -self._log_temperature * surplus
        self._temperature_optimiser.zero_grad()
        torch.autograd.backward(temperature_loss)
        self._temperature_optimiser.step()
        self._figures |= {"actor_loss": loss.item(), "temperature": float(self._log_temperature.detach().exp())}
        self._figures["entropy"] = -log_chance.detach().mean().item()

    def _worth(self, now: Tensor, action: Tensor, temperature: Tensor) -> Tensor:
        """Return what the critics make of actions (B, A), over both choices of the gripper by their chances, (B,)."""
        if self._config.binary is None:
            return self._value(now, action)
        logit = self._act(now)[0][:, self._config.binary]
        chance = torch.sigmoid(logit)
        both = [self._value(now, self._with_gripper(action, torch.full_like(action, way))) for way in (1.0, -1.0)]
        # a little entropy, or a choice that was sure once would hardly change any more
        entropy = nn.functional.softplus(logit) - logit * chance
        return chance * both[0] + (1.0 - chance) * both[1] + temperature * entropy

    def _value(self, now: Tensor, action: Tensor) -> Tensor:
        value: Tensor = self._critic(torch.cat([now, action], 1))[..., 0].mean(0)
        return value
