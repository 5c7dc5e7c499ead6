"""Trains a reward model's network on labelled frames, with early stopping on episodes that it does not learn from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from policy.reward_calibration import fit_log_odds
from policy.reward_frames import NEAR_END_S, NONE, SUCCESS, LabelledEpisode
from policy.reward_network import RewardNetwork, as_input

Progress = Callable[[int, int, str], None]
_PARTS = 4  # shifts in one batch


@dataclass(frozen=True, kw_only=True)
class RewardPlan:
    """How the network is trained.

    Attributes:
        updates: gradient steps at most.
        batch: frames per step, half of them show success.
        rate: greatest learning rate of the one-cycle schedule.
        check_every: updates from one look at the calibration split to the next.
        patience: looks without a better one after which training ends.
        shift_px: pictures are moved by up to so much.
        brightness: and made lighter or darker by up to this share.
    """

    updates: int = 800
    batch: int = 64
    rate: float = 1.5e-3
    check_every: int = 40
    patience: int = 8
    shift_px: int = 3
    brightness: float = 0.2


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The best network seen, and how it came to be.

    Attributes:
        updates: made until it was best.
        loss: cross-entropy on the calibration split once slope and offset are fitted to it.
        frames: that it was trained on.
        positives: of these, showing success.
    """

    network: RewardNetwork
    updates: int
    loss: float
    frames: int
    positives: int


def train_reward(
    training: Sequence[LabelledEpisode],
    check: Sequence[LabelledEpisode],
    *,
    cameras: Sequence[str],
    proprio: Sequence[str],
    plan: RewardPlan,
    seed: int,
    threads: int,
    progress: Progress,
) -> Trained:
    """Train on the frames of some episodes and keep the network that does best on those of others.

    Args:
        training: episodes to learn from.
        check: episodes to stop by.
        cameras: whose pictures the network sees.
        proprio: keys of the proprioception that it sees; none by default of the script, for it ties success to places.
        plan: how long and how.
        seed: of the network's start, of what is drawn and of the augmentation.
        threads: of torch.
        progress: called with updates done, updates in all and a word.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    rng = np.random.default_rng(seed)
    frames = _Frames(training, cameras, proprio, progress, "reading")
    checked = _Frames(check, cameras, proprio, progress, "reading")
    values = frames.proprio.numpy()
    mean, std = torch.from_numpy(values.mean(0)), torch.from_numpy(values.std(0).clip(1e-3))
    network = RewardNetwork([(image.shape[1], image.shape[2]) for image in frames.images], mean, std)
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=1e-3)
    up = 0.1 if plan.updates > 10 else 0.05  # of ten updates a tenth is one, by which torch would divide less one
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, total_steps=plan.updates, pct_start=up)
    best = Trained(
        network=network, updates=0, loss=np.inf, frames=len(frames.label), positives=int((frames.label > 0).sum())
    )
    waited = 0
    for update in range(1, plan.updates + 1):
        rows = frames.draw(rng, plan.batch)
        images = [_augmented(image[rows], plan, rng) for image in frames.images]
        network.train()
        logit = network(images, frames.proprio[rows])
        loss = functional.binary_cross_entropy_with_logits(logit, frames.label[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress(update, plan.updates, f"training, best {best.loss:.4f}")
        if update % plan.check_every == 0 or update == plan.updates:
            found = _calibrated_loss(logits(network, checked.images, checked.proprio), checked.label.numpy())
            waited += 1
            if found < best.loss:
                best = Trained(
                    network=copy.deepcopy(network),
                    updates=update,
                    loss=found,
                    frames=best.frames,
                    positives=best.positives,
                )
                waited = 0
            if waited >= plan.patience:
                break
    progress(plan.updates, plan.updates, f"training, best {best.loss:.4f}")
    return best


@torch.no_grad()
def logits(network: RewardNetwork, images: Sequence[Tensor], proprio: Tensor) -> NDArray[np.float64]:
    """Return the log-odds of frames, images (N, H, W, 3) uint8 by camera, shape (N,)."""
    network.eval()
    parts = [
        network([as_input(image[start : start + 256]) for image in images], proprio[start : start + 256])
        for start in range(0, len(proprio), 256)
    ]
    return torch.cat(parts).double().numpy() if parts else np.zeros(0)


class _Frames:
    """Frames to train on, in memory."""

    def __init__(
        self,
        episodes: Sequence[LabelledEpisode],
        cameras: Sequence[str],
        proprio: Sequence[str],
        progress: Progress,
        doing: str,
    ) -> None:
        images: list[list[NDArray[np.uint8]]] = [[] for _ in cameras]
        values, labels, ends = [], [], []
        for number, episode in enumerate(episodes):
            places = episode.kept()
            seen, numbers = episode.inputs(cameras, proprio, places)
            for kept, name in zip(images, cameras, strict=True):
                kept.append(seen[name])
            values.append(numbers)
            labels.append(episode.label[places])
            ends.append(episode.to_end_s[places] < NEAR_END_S)
            progress(number + 1, len(episodes), doing)
        self.images = [torch.from_numpy(np.concatenate(kept)) for kept in images]
        self.proprio = torch.from_numpy(np.concatenate(values))
        label, near_end = np.concatenate(labels), np.concatenate(ends)
        self.label = torch.from_numpy(label.astype(np.float32))
        near_miss = (label == NONE) & near_end
        self._pools = [np.flatnonzero(pool) for pool in (label == SUCCESS, near_miss, (label == NONE) & ~near_end)]

    def draw(self, rng: np.random.Generator, batch: int) -> Tensor:
        """Return rows: half show success, and of those that do not half are near an end, where they look like it."""
        shown, near_miss, other = self._pools
        near_miss, other = (near_miss if len(near_miss) else other), (other if len(other) else near_miss)
        parts = ((shown, batch // 2), (near_miss, batch // 4), (other, batch - batch // 2 - batch // 4))
        drawn = np.concatenate([rng.choice(pool, count) for pool, count in parts])
        return torch.from_numpy(rng.permutation(drawn))


def _augmented(image: Tensor, plan: RewardPlan, rng: np.random.Generator) -> Tensor:
    """Return pictures (B, 3, H, W) in [-1, 1] of (B, H, W, 3) uint8, moved and lit otherwise."""
    light = 1.0 + plan.brightness * (2.0 * torch.from_numpy(rng.random((len(image), 1, 1, 1), np.float32)) - 1.0)
    moved = torch.cat([_shifted(part, plan.shift_px, rng) for part in image.chunk(_PARTS)])
    return as_input(moved).add_(1.0).mul_(light).sub_(1.0).clamp_(-1.0, 1.0)


def _shifted(image: Tensor, most_px: int, rng: np.random.Generator) -> Tensor:
    """Move pictures (B, H, W, 3) by up to `most_px`; their border pixels are repeated."""
    down, right = rng.integers(-most_px, most_px + 1, 2).tolist()
    rows = (torch.arange(image.shape[1]) + down).clamp(0, image.shape[1] - 1)
    columns = (torch.arange(image.shape[2]) + right).clamp(0, image.shape[2] - 1)
    return image[:, rows][:, :, columns]


def _calibrated_loss(logit: NDArray[np.float64], label: NDArray[np.float32]) -> float:
    """Return the cross-entropy of log-odds that are fitted first, as they are in the end.

    Otherwise training would end as soon as the network is too sure of itself, long before it tells most apart.
    """
    slope, offset = fit_log_odds(logit, label.astype(np.int64))
    fitted = slope * logit + offset
    return float(np.logaddexp(0.0, np.where(label > 0, -fitted, fitted)).mean())


def episode_logits(
    network: RewardNetwork, episodes: Sequence[LabelledEpisode], cameras: Sequence[str], proprio: Sequence[str]
) -> Iterator[NDArray[np.float64]]:
    """Yield the log-odds of every frame of each episode, (N,)."""
    for episode in episodes:
        images, values = episode.inputs(cameras, proprio)
        yield logits(network, [torch.from_numpy(images[name]) for name in cameras], torch.from_numpy(values))
