"""A small convolutional classifier of policy images and, if asked, proprioception."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (16, 32, 32)
_SEEN = 48  # numbers that a picture is reduced to


class Look(nn.Module):
    """One camera's picture to `_SEEN` numbers; keeps where things are, for success is often a matter of millimetres."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, first, 5, stride=3, padding=2),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
        )
        cells = -(-height // 6) * -(-width // 6)
        self.reduce = nn.Linear(third * cells, _SEEN)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, H, W), values in [-1, 1], to (B, _SEEN)."""
        seen: Tensor = functional.relu(self.reduce(self.convolutions(image).flatten(1)))
        return seen


class RewardNetwork(nn.Module):
    """Pictures and proprioception to the log-odds of success, before calibration."""

    mean: Tensor
    std: Tensor

    def __init__(self, sizes: Sequence[tuple[int, int]], mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.looks = nn.ModuleList([Look(height, width) for height, width in sizes])
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Sequential(nn.Linear(_SEEN * len(sizes) + len(mean), 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, images: Sequence[Tensor], proprio: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [-1, 1], one per camera, and proprioception (B, P) to (B,)."""
        seen = [look(image) for look, image in zip(self.looks, images, strict=True)]
        logit: Tensor = self.head(torch.cat([self.drop(torch.cat(seen, dim=1)), (proprio - self.mean) / self.std], 1))
        return logit[:, 0]


def as_input(image: Tensor) -> Tensor:
    """Map (B, H, W, 3) uint8 to (B, 3, H, W) in [-1, 1]."""
    return image.permute(0, 3, 1, 2).float() / 127.5 - 1.0


class RewardGraph(nn.Module):
    """What is exported: raw pictures to a probability, with the calibrated slope and offset of the log-odds."""

    def __init__(self, network: RewardNetwork, slope: float, offset: float) -> None:
        super().__init__()
        self.network, self.slope, self.offset = network, slope, offset

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map images (B, H, W, 3) uint8 and, where there is any, proprioception (B, P) to (B, 1)."""
        cameras = len(self.network.looks)
        images = [as_input(image) for image in inputs[:cameras]]
        proprio = inputs[cameras] if len(inputs) > cameras else images[0].new_zeros((len(images[0]), 0))
        return torch.sigmoid(self.network(images, proprio) * self.slope + self.offset)[:, None]
