"""The update rule: off-policy learning of a bounded correction on a frozen base, from a person and from reward.

Sources: symmetric sampling and LayerNorm critics from RLPD (Ball et al. 2023); target smoothing and delayed actor
from TD3 (Fujimoto et al. 2018); a residual whose critic judges the executed action and whose last layer starts at
zero from residual policy learning (Silver et al. 2018) and ResFiT (Ankile et al. 2025); imitation that counts only
where the critic agrees from Q-filtered demonstrations (Nair et al. 2018).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from policy.learner_config import LearnerConfig
from policy.learner_networks import Ensemble, RunningNormaliser
from policy.picture_network import PictureNetwork
from policy.replay_buffer import Batch
from policy.residual import CLOSED, GRIPPER_CHOICES, OPEN
from policy.tensor_batch import TensorBatch

_ROUNDED_FROM = 256  # wide; below, to round costs more than it gains
FIGURES_EVERY = 50  # updates; to read them, a device must have finished


@dataclass(frozen=True, kw_only=True)
class LearnerDims:
    """Sizes: features F, proprioception P, actions A."""

    feature_size: int
    proprio_size: int
    action_size: int


def rounds_products(config: LearnerConfig, device: str) -> bool:
    """True where the networks on `device`, "cpu" or "cuda", multiply in bfloat16."""
    if config.products != "auto":
        return config.products == "bfloat16"
    able = torch.cpu.get_capabilities()
    fast = able.get("avx512_bf16", False) or able.get("amx_bf16", False)
    return device == "cpu" and fast and max(config.hidden, default=0) >= _ROUNDED_FROM


class ResidualLearner:
    """Actor, critics and their optimisers. One thread uses it; the same seed and batches give the same bits."""

    def __init__(self, dims: LearnerDims, config: LearnerConfig, seed: int, *, device: str = "cpu") -> None:
        """Make a learner on `device`, "cpu" or "cuda"."""
        if len(config.scale) != dims.action_size:
            raise ValueError(f"scale has {len(config.scale)} values, the action {dims.action_size}")
        self._config, self._dims = config, dims
        self._seed, self.device = seed, torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # features that are no pictures, which end the others
            self._plain = dims.feature_size - (math.prod(config.pictures) if config.pictures else 0)
            if self._plain < 1:
                raise ValueError(f"pictures are {config.pictures}, of {dims.feature_size} features")
            observation = self._plain + dims.proprio_size
            width = observation + dims.action_size
            options = {"layer_norm": config.layer_norm, "rounded": rounds_products(config, self.device.type)}
            self._critic = Ensemble(config.critics, width, config.hidden, 1, **options)
            self._slow = Ensemble(config.critics, width, config.hidden, 1, **options)
            outputs = dims.action_size + (GRIPPER_CHOICES if config.gripper is not None else 0)
            self._encoder = PictureNetwork(config.pictures) if config.pictures and config.fine_tune_encoder else None
            seen = self._encoder.outputs if self._encoder else 0
            self._actor = Ensemble(1, width + seen, config.hidden, outputs, **options)
        for network in (self._critic, self._slow, self._actor, self._encoder):
            if network is not None:
                network.to(self.device)
        self._actor.zero_output()
        self._mean_actor = copy.deepcopy(self._actor).requires_grad_(False)
        self._mean_encoder = copy.deepcopy(self._encoder).requires_grad_(False) if self._encoder else None
        self._slow.load_state_dict(self._critic.state_dict())
        self._slow.requires_grad_(False)
        self._normaliser = RunningNormaliser(observation, batches=config.normaliser_batches, clip=config.input_clip)
        self._normaliser.to(self.device)
        self._scale = torch.tensor(config.scale, device=self.device)
        self._reachable = self._scale > 0
        self._gripper_mask = torch.zeros(dims.action_size, device=self.device)
        if config.gripper is not None:
            self._gripper_mask[config.gripper] = 1.0
        self._mask = torch.ones(observation, device=self.device)
        if not config.use_features:
            self._mask[: self._plain] = 0.0
        self._critic_optimiser = self._optimiser([*self._critic.parameters()], config.critic_rate)
        self._actor_optimiser = self._optimiser(
            [*self._actor.parameters(), *(self._encoder.parameters() if self._encoder else ())], config.actor_rate
        )
        self.updates = 0
        self._count = torch.zeros((), device=self.device)  # `updates` where a recorded call can read it
        self._noted: dict[str, Tensor] = {}
        self._figures: dict[str, float] = {}

    def update(self, batch: Batch) -> dict[str, float]:
        """One critic update and, every `actor_every`, one of the actor; return figures to show."""
        due = self.updates % FIGURES_EVERY == 0
        self.learn(TensorBatch.of_batch(batch, self.device))
        if due:
            self._figures = self.figures()
        return self._figures

    def learn(self, batch: TensorBatch) -> None:
        """Make an update from tensors on the learner's device, without waiting for the device once it is `steady`."""
        seen = torch.cat([batch.features[:, : self._plain], batch.proprio], dim=1)
        if self.updates < self._config.normaliser_batches:
            self._normaliser.observe(seen)
        now = self._normaliser(seen) * self._mask
        after = torch.cat([batch.next_features[:, : self._plain], batch.next_proprio], dim=1)
        after = self._normaliser(after) * self._mask
        self._update_critic(batch, now, after)
        self.updates += 1
        self._count += 1.0
        if self.updates % self._config.actor_every == 0:
            self._update_actor(batch, now)

    @property
    def steady(self) -> bool:
        """True when from now on every `actor_every` updates do the same work."""
        return self.updates >= max(self._config.normaliser_batches, self._config.actor_after, FIGURES_EVERY)

    @property
    def actor_every(self) -> int:
        """Critic updates per actor update."""
        return self._config.actor_every

    def figures(self) -> dict[str, float]:
        """Return losses and the like of the last update that had them; waits for the device."""
        return {name: float(value) for name, value in self._noted.items()}

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """What the robot runs, named as in `policy.residual`."""
        named = self._mean_actor.tensors(0, "actor")
        for head in range(min(self._config.gate_heads, self._config.critics)):
            named |= self._slow.tensors(head, f"gate.{head}")
        named |= {
            "scale": self._scale_in_force(),
            "normaliser.mean": self._normaliser.mean,
            "normaliser.std": self._normaliser.std,
            "normaliser.clip": torch.full((1,), self._config.input_clip),
            "normaliser.mask": self._mask,
        }
        if self._config.pictures is not None:
            named["encoder.pictures"] = torch.tensor(self._config.pictures, dtype=torch.float32)
        if self._mean_encoder is not None:
            named |= self._mean_encoder.tensors()
        if self._config.gripper is not None:
            named["gripper.dimension"] = self._gripper_mask
        # a copy, for torch goes on writing to the memory that `numpy` shares
        return {name: np.array(tensor.detach().cpu().numpy(), np.float32, order="C") for name, tensor in named.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        encoders = {}
        if self._encoder is not None and self._mean_encoder is not None:
            encoders = {"encoder": self._encoder.state_dict(), "mean_encoder": self._mean_encoder.state_dict()}
        return {
            **encoders,
            "critic": self._critic.state_dict(),
            "slow": self._slow.state_dict(),
            "actor": self._actor.state_dict(),
            "mean_actor": self._mean_actor.state_dict(),
            "normaliser": self._normaliser.state_dict(),
            "critic_optimiser": self._critic_optimiser.state_dict(),
            "actor_optimiser": self._actor_optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "device": self.device.type,
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self._critic.load_state_dict(state["critic"])
        self._slow.load_state_dict(state["slow"])
        self._actor.load_state_dict(state["actor"])
        self._mean_actor.load_state_dict(state["mean_actor"])
        if self._encoder is not None and self._mean_encoder is not None:
            self._encoder.load_state_dict(state["encoder"])
            self._mean_encoder.load_state_dict(state["mean_encoder"])
        self._normaliser.load_state_dict(state["normaliser"])
        self._critic_optimiser.load_state_dict(state["critic_optimiser"])
        self._actor_optimiser.load_state_dict(state["actor_optimiser"])
        self.updates = int(state["updates"])
        self._count.fill_(self.updates)
        if state["device"] == self.device.type:
            self.generator.set_state(state["generator"])
        else:  # generators of devices differ: it goes on well, but not with the numbers it would have had
            self.generator.manual_seed(self._seed + self.updates)

    def _update_critic(self, batch: TensorBatch, now: Tensor, after: Tensor) -> None:
        config = self._config
        with torch.no_grad():
            values = self._values_ahead(batch, after)
            value = self._some(values).amin(0).clamp(config.value_min, config.value_max)
            target = (batch.reward + batch.discount * value).clamp(config.value_min, config.value_max)
        guess = self._critic(torch.cat([now, batch.action], dim=1))[..., 0]
        loss = (guess - target).square().mean(1).sum()
        self._critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._critic_optimiser.step()
        with torch.no_grad():
            _blend(self._slow, self._critic, config.target_share)
            self._noted |= {"critic_loss": loss.detach(), "value": target.mean()}

    def _values_ahead(self, batch: TensorBatch, after: Tensor) -> Tensor:
        """Return what the slow critics (heads, B) make of what the robot would do where the windows end."""
        config, base = self._config, batch.next_base
        scale = self._scale_in_force()
        residual, logits = self._act(after, base, batch.next_features)
        noise = self._randn(base).clamp(-2.0, 2.0)
        residual = (residual * (scale / self._scale.clamp(min=1e-6)) + config.smoothing * scale * noise).clamp(
            -scale, scale
        )
        action = self._with_gripper((base + residual).clamp(-1.0, 1.0), logits)
        values: Tensor = self._slow(torch.cat([after, action], dim=1))[..., 0]
        if not config.gate:
            return values
        unchanged = self._slow(torch.cat([after, base.clamp(-1.0, 1.0)], dim=1))[..., 0]
        heads = config.gate_heads
        opens = values[:heads].amin(0) >= unchanged[:heads].amin(0)
        return torch.where(opens, values, unchanged)

    def _update_actor(self, batch: TensorBatch, now: Tensor) -> None:
        config = self._config
        if config.input_noise > 0.0:
            now = now + config.input_noise * self._randn(now) * self._mask
        residual, logits = self._act(now, batch.base, batch.features)
        kept = (batch.base + residual).clamp(-1.0, 1.0)
        action = self._with_gripper(kept, logits)
        loss = torch.zeros((), device=self.device)
        learns_from_value = config.q_weight > 0.0 and self.updates >= config.actor_after
        worse = torch.ones(len(batch.base), device=self.device)
        if learns_from_value or config.q_filter:
            self._critic.requires_grad_(False)
            value = self._critic(torch.cat([now, action], dim=1))[..., 0].mean(0)
            if learns_from_value:
                loss = loss - config.q_weight * value.mean()
            if config.q_filter and self.updates >= config.actor_after:
                with torch.no_grad():
                    shown = self._critic(torch.cat([now, batch.action], dim=1))[..., 0].mean(0)
                    worse = (shown > value).float()
            self._critic.requires_grad_(True)
        fade = torch.exp2(self._count * (-1.0 / config.imitation_half_life))
        weight = config.imitation_weight * (config.imitation_floor + (1.0 - config.imitation_floor) * fade)
        asked = batch.human_action - batch.base
        asked = torch.where(batch.hindsight[:, None], asked.clamp(-self._scale, self._scale), asked)
        told = batch.human.float() * worse + batch.hindsight.float()
        human = self._imitation(residual, asked, told)
        robot = self._imitation(residual, batch.action - batch.base, batch.approved.float() * worse)
        loss = loss + weight * human + config.approval_weight * robot
        if logits is not None:
            loss = loss + self._gripper_loss(logits, batch, weight)
            if learns_from_value:
                loss = loss - config.q_weight * self._gripper_value(logits, kept, now)
        self._actor_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._actor_optimiser.step()
        with torch.no_grad():
            _blend(self._mean_actor, self._actor, config.actor_average)
            if self._encoder is not None and self._mean_encoder is not None:
                _blend(self._mean_encoder, self._encoder, config.actor_average)
        self._noted |= {"imitation": human.detach(), "approval": robot.detach()}

    def _imitation(self, residual: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
        """Mean squared miss of the wanted residual in units of its bound, over the dimensions within reach.

        Where `wanted` is NaN nothing was said.
        """
        scale = self._scale.clamp(min=1e-6)
        said = torch.isfinite(wanted)
        wanted = torch.where(said, wanted, 0.0)
        within = (self._reachable & said).float()
        if self._config.clip_unreachable:
            wanted = wanted.clamp(-self._scale, self._scale)
        else:
            within = within * (wanted.abs() <= self._scale).float()
        miss = ((residual - wanted) / scale).square() * within * weight[:, None]
        return miss.sum() / (within * weight[:, None]).sum().clamp(min=1.0)

    def _some(self, values: Tensor) -> Tensor:
        """Return the values (heads, B) of a random subset of the heads, a new one each time."""
        config = self._config
        if config.critic_subset == config.critics:
            return values
        order = torch.rand(config.critics, generator=self.generator, device=self.device)
        return values.index_select(0, order.topk(config.critic_subset).indices)

    def _randn(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, device=self.device)

    def _optimiser(self, parameters: list[nn.Parameter], rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            parameters, lr=rate, weight_decay=self._config.weight_decay, fused=True,
            capturable=self.device.type == "cuda",
        )  # fmt: skip

    def _act(self, observation: Tensor, base: Tensor, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the residual (B, A) within the whole bound, and the gripper head's logits (B, 3) if there is one.

        `features` are the whole ones, of which it looks at the pictures.
        """
        seen = [observation, base]
        if self._encoder is not None:
            seen.append(self._encoder(features[:, self._plain :]))
        out = self._actor(torch.cat(seen, dim=1))[0]
        size = self._dims.action_size
        return self._scale * torch.tanh(out[:, :size]), (None if self._config.gripper is None else out[:, size:])

    def _scale_in_force(self) -> Tensor:
        """The bound that the robot gets by now, (A,)."""
        if self._config.scale_updates == 0:
            return self._scale
        return self._scale * (self._count / self._config.scale_updates).clamp(max=1.0)

    def _with_gripper(self, action: Tensor, logits: Tensor | None) -> Tensor:
        """Return actions (B, A) with the gripper that the head chooses, by the rule of `policy.residual`."""
        if logits is None:
            return action
        likely = functional.softmax(logits.detach(), dim=1) > 0.5
        at = self._gripper_mask.bool()
        action = torch.where(likely[:, 1:2] & at, float(OPEN), action)
        return torch.where(likely[:, 2:3] & at, float(CLOSED), action)

    def _gripper_loss(self, logits: Tensor, batch: TensorBatch, weight: Tensor) -> Tensor:
        """Cross-entropy of the choice that the person, or an approved tick, took: keep where the base does the same."""
        at = self._config.gripper
        assert at is not None
        loss = torch.zeros((), device=self.device)
        base = batch.base[:, at]
        taken = (
            (batch.human_action, batch.human, weight),
            (batch.action, batch.approved, self._config.approval_weight),
        )
        for action, applies, share in taken:
            wanted = action[:, at]
            choice = torch.where((wanted >= 0.0) == (base >= 0.0), 0, torch.where(wanted >= 0.0, 1, 2))
            each = functional.cross_entropy(logits, choice, reduction="none") * applies.float()
            loss = loss + share * each.sum() / applies.float().sum().clamp(min=1.0)
        return self._config.gripper_weight * loss

    def _gripper_value(self, logits: Tensor, kept: Tensor, now: Tensor) -> Tensor:
        """Expected value of the choices, beside the rest of the action `kept`, whose gripper is the base's."""
        at = self._gripper_mask.bool()
        with torch.no_grad():
            values = torch.stack(
                [
                    self._critic(torch.cat([now, chosen], dim=1))[..., 0].mean(0)
                    for chosen in (kept, torch.where(at, float(OPEN), kept), torch.where(at, float(CLOSED), kept))
                ]
            )
        return (functional.softmax(logits, dim=1) * values.T).sum(1).mean()


def _blend(slow: nn.Module, fast: nn.Module, share: float) -> None:
    """Move every parameter of `slow` towards its twin in `fast` by `share` of the way."""
    torch._foreach_lerp_([*slow.parameters()], [*fast.parameters()], share)
