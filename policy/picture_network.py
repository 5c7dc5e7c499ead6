"""Torch twin of the encoder in `policy.picture_encoder`: same layers, same tensor names."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from policy.picture_encoder import places

_CHANNELS = (1, 8, 16)
_KERNELS = (5, 3)
_MAPS = 16


class _Eye(nn.Module):
    """One camera: (B, 1, H, W) to keypoints (B, 2 M)."""

    places: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2)
            for (before, after), kernel in zip(pairwise(_CHANNELS), _KERNELS, strict=True)
        )
        self.maps = nn.Conv2d(_CHANNELS[-1], _MAPS, 1, bias=False)
        for _ in _KERNELS:
            height, width = (height + 1) // 2, (width + 1) // 2
        self.register_buffer("places", torch.from_numpy(places(height, width)))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = functional.relu(layer(x))
        return (torch.softmax(self.maps(x).flatten(2), dim=-1) @ self.places).flatten(1)


class PictureNetwork(nn.Module):
    """Small pictures at the end of the features to keypoints of every camera, x, y in [-1, 1]."""

    def __init__(self, pictures: tuple[int, int, int]) -> None:
        """Make an encoder of `pictures`: cameras, height, width."""
        super().__init__()
        self._pictures = pictures
        cameras, height, width = pictures
        self.eyes = nn.ModuleList(_Eye(height, width) for _ in range(cameras))
        self.outputs = cameras * 2 * _MAPS

    def forward(self, pictures: Tensor) -> Tensor:
        """Map (B, cameras * height * width) to (B, outputs)."""
        cameras = pictures.reshape(-1, *self._pictures)
        return torch.cat([eye(cameras[:, camera : camera + 1]) for camera, eye in enumerate(self.eyes)], dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """The layers by the names of `policy.picture_encoder`."""
        named: dict[str, Tensor] = {}
        for camera, eye in enumerate(self.eyes):
            assert isinstance(eye, _Eye)
            for number, layer in enumerate(eye.layers):
                assert isinstance(layer, nn.Conv2d)
                assert layer.bias is not None
                named[f"encoder.{camera}.{number}.weight"] = layer.weight.flatten(1)
                named[f"encoder.{camera}.{number}.bias"] = layer.bias
            named[f"encoder.{camera}.maps.weight"] = eye.maps.weight[:, :, 0, 0]
        return named
