"""RLPD from images: uint8 frames in the buffer, encoded at every update, as HIL-SERL does it.

HIL-SERL's encoder is a frozen ResNet-10 that was trained on ImageNet. A smaller frozen one of random weights stands in:
an update is cheaper than the published one, and nothing is said of what would be learned.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policy.baseline_config import RlpdConfig
from policy.replay_buffer import Batch
from policy.rlpd_learner import RlpdLearner

SIDE_PX = 128
_BOTTLENECK = 256


class FrozenEncoder(nn.Module):
    """Four convolutions of stride 2: (B, 3, 128, 128) to (B, 64)."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 16, 32, 64, 64)
        pairs = itertools.pairwise(sizes)
        layers = [(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()) for before, after in pairs]
        self.layers = nn.Sequential(*(layer for pair in layers for layer in pair)).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images in [0, 1]."""
        features: Tensor = self.layers(images.to(memory_format=torch.channels_last)).mean((2, 3))
        return features


class ImageRlpdLearner:
    """`RlpdLearner` on a trained bottleneck over frozen image features; images come beside the batch."""

    def __init__(self, cameras: int, proprio: int, action: int, config: RlpdConfig, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._encoder = FrozenEncoder()
            self._bottleneck = nn.Sequential(nn.Linear(64 * cameras, _BOTTLENECK), nn.LayerNorm(_BOTTLENECK), nn.Tanh())
        self._head = RlpdLearner(_BOTTLENECK, proprio, action, config, seed)
        self._head.train_also(self._bottleneck)

    def update(self, batch: Batch, images: NDArray[np.uint8], next_images: NDArray[np.uint8]) -> dict[str, float]:
        """Learn from a batch whose frames are `images` and `next_images`, (B, cameras, 3, 128, 128)."""
        now = torch.cat([self._bottleneck(self._encode(images)), torch.from_numpy(batch.proprio)], 1)
        with torch.no_grad():
            after = torch.cat([self._bottleneck(self._encode(next_images)), torch.from_numpy(batch.next_proprio)], 1)
        return self._head.learn(batch, now, after)

    def _encode(self, images: NDArray[np.uint8]) -> Tensor:
        with torch.no_grad():
            parts = [self._encoder(torch.from_numpy(images[:, i]).float() / 255.0) for i in range(images.shape[1])]
            return torch.cat(parts, 1)
