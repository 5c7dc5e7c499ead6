"""The base policy's network: two cameras and proprioception to features, features to a chunk of actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

KEYPOINTS = 24
TRUNK = 32


class Keypoints(nn.Module):
    """A small convolutional network whose output is where each of its maps is brightest (spatial softmax).

    Image coordinates generalise over what moves in the picture far better than pooled features, and a picture that
    is shifted as a whole (a bumped camera) shifts them smoothly. Source: Levine et al. 2016, section 5.1.
    """

    x: Tensor
    y: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 5, stride=2, padding=2)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.third = nn.Conv2d(32, 32, 3, padding=1)
        self.maps = nn.Conv2d(32, KEYPOINTS, 1)
        rows, columns = (height + 3) // 4, (width + 3) // 4
        self.register_buffer("x", torch.linspace(-1, 1, columns).repeat(rows))
        self.register_buffer("y", torch.linspace(-1, 1, rows).repeat_interleave(columns))
        self.sharpness = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, H, W, 3) uint8 to (B, 2 KEYPOINTS), each coordinate in [-1, 1]."""
        y = image.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        y = functional.relu(self.first(y))
        y = functional.relu(self.second(y))
        y = functional.relu(self.third(y))
        y = self.maps(y).flatten(2)
        share = torch.softmax(y * self.sharpness, dim=-1)
        return torch.cat([(share * self.x).sum(-1), (share * self.y).sum(-1)], dim=1)


class Encode(nn.Module):
    """Entry point `encode`: (front, wrist, proprio) to features, the trunk's and the targets.

    The targets tell where the hand will grasp and where it will let go, as seen from here, xyz each.
    """

    proprio_mean: Tensor
    proprio_std: Tensor

    def __init__(self, height: int, width: int, targets: int, proprio_mean: Tensor, proprio_std: Tensor) -> None:
        super().__init__()
        self.front, self.wrist = Keypoints(height, width), Keypoints(height, width)
        self.register_buffer("proprio_mean", proprio_mean)
        self.register_buffer("proprio_std", proprio_std)
        self.trunk = nn.Sequential(
            nn.Linear(4 * KEYPOINTS + len(proprio_mean), 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
        )
        self.features = nn.Linear(128, TRUNK)
        self.targets = nn.Linear(128, targets)

    def forward(self, front: Tensor, wrist: Tensor, proprio: Tensor) -> Tensor:
        """Return (B, TRUNK + targets); the targets are last, in units of their spread in training."""
        seen = [self.front(front), self.wrist(wrist), (proprio - self.proprio_mean) / self.proprio_std]
        trunk = self.trunk(torch.cat(seen, dim=1))
        return torch.cat([torch.tanh(self.features(trunk)), self.targets(trunk)], dim=1)


class Act(nn.Module):
    """Entry point `act`: (features, proprio) to a chunk (B, H, A) within the base's share of the action range."""

    proprio_mean: Tensor
    proprio_std: Tensor

    def __init__(
        self, chunk_length: int, action_size: int, targets: int, bound: float, mean: Tensor, std: Tensor
    ) -> None:
        super().__init__()
        self.shape, self.bound = (chunk_length, action_size), bound
        self.register_buffer("proprio_mean", mean)
        self.register_buffer("proprio_std", std)
        self.head = nn.Sequential(
            nn.Linear(TRUNK + targets + len(mean), 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, chunk_length * action_size),
        )

    def forward(self, features: Tensor, proprio: Tensor) -> Tensor:
        """Return the chunk, clipped to the bound that leaves headroom for a residual; the gripper uses it all."""
        flat: Tensor = self.head(torch.cat([features, (proprio - self.proprio_mean) / self.proprio_std], dim=1))
        return flat.reshape(-1, *self.shape).clamp(-self.bound, self.bound)
