"""The encoder that learns online, run in numpy: small pictures at the end of the features to keypoints.

Tensors of a residual head (`policy.residual`) on a base whose features end with pictures:

    encoder.pictures                (3,)             cameras C, height H and width W of what the features end with
    encoder.<c>.<i>.weight, .bias   (out, in k k)    camera c, layer i: convolution, stride 2, padded by k // 2 -> ReLU
    encoder.<c>.maps.weight         (M, channels)    maps, of which each gives the place where it is brightest

The layers are of all cameras or of none; without them the pictures are not looked at. A keypoint is the mean of the
coordinates x, y in [-1, 1] under the softmax of its map (Levine et al. 2016, section 5.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from policy.aligned import aligned

Float = NDArray[np.float32]

MAX_KERNEL = 7
_ZERO = np.float32(0.0)


def places(height: int, width: int) -> Float:
    """Return the coordinates x, y of each place of a map, (height * width, 2), row by row; 0, 0 is the middle."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class _Convolution:
    """A layer as one product: `weight` is (in * k * k, out)."""

    weight: Float
    bias: Float
    kernel: int

    def __call__(self, x: Float) -> Float:
        """Map (channels, H, W) to (out, H / 2, W / 2), rounded up."""
        pad = self.kernel // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        windows = sliding_window_view(padded, (self.kernel, self.kernel), (1, 2))[:, ::2, ::2].transpose(1, 2, 0, 3, 4)
        height, width = windows.shape[:2]
        y: Float = windows.reshape(height * width, -1) @ self.weight
        y += self.bias
        np.maximum(y, _ZERO, out=y)
        return y.T.reshape(-1, height, width)


@dataclass(frozen=True, kw_only=True)
class _Eye:
    """Encoder of one camera; `maps` is (channels, M)."""

    layers: tuple[_Convolution, ...]
    maps: Float
    places: Float

    def __call__(self, picture: Float) -> Float:
        """Map (H, W) to (2 M,)."""
        x = picture[None]
        for layer in self.layers:
            x = layer(x)
        maps: Float = x.reshape(len(x), -1).T @ self.maps
        maps -= maps.max(axis=0)
        np.exp(maps, out=maps)
        maps /= maps.sum(axis=0)
        result: Float = maps.T @ self.places
        return result.ravel()


class PictureEncoder:
    """Looks at the pictures that the features end with."""

    def __init__(self, shape: tuple[int, int, int], eyes: tuple[_Eye, ...]) -> None:
        self._shape, self._eyes = shape, eyes
        self.values = int(np.prod(shape))  # of the pictures, at the end of the features
        self.outputs = sum(2 * eye.maps.shape[1] for eye in eyes)

    def __call__(self, pictures: Float) -> Float:
        """Map the end of the features (values,) to keypoints (outputs,)."""
        cameras = pictures.reshape(self._shape)
        return np.concatenate([eye(picture) for eye, picture in zip(self._eyes, cameras, strict=True)])


def read_picture_encoder(left: dict[str, Float], features: int) -> PictureEncoder | None:
    """Take the encoder out of `left`; None where the head has none.

    Raises:
        ValueError: a tensor is missing or of a wrong shape, or the features hold no such pictures.
    """
    if "encoder.pictures" not in left:
        return None
    told = left.pop("encoder.pictures")
    sizes = told.tolist() if told.shape == (3,) else []
    if len(sizes) != 3 or not all(1.0 <= size <= features and size == int(size) for size in sizes):
        raise ValueError(f"'encoder.pictures' is {sizes} {told.shape}, must be cameras, height and width")
    cameras, height, width = (int(size) for size in sizes)
    if cameras * height * width >= features:
        raise ValueError(f"'encoder.pictures' are {cameras} of {height}x{width}, of {features} features")
    learns = any(name.startswith("encoder.") for name in left)
    eyes = [_read_eye(left, f"encoder.{camera}", height, width) for camera in range(cameras if learns else 0)]
    return PictureEncoder((cameras, height, width), tuple(eyes))


def _read_eye(left: dict[str, Float], prefix: str, height: int, width: int) -> _Eye:
    layers: list[_Convolution] = []
    channels = 1
    while (name := f"{prefix}.{len(layers)}") + ".weight" in left:
        weight, bias = left.pop(f"{name}.weight"), left.pop(f"{name}.bias", None)
        kernel = math.isqrt(weight.shape[1] // channels) if weight.ndim == 2 and len(weight) else 0
        if kernel % 2 == 0 or kernel > MAX_KERNEL or weight.shape[1] != channels * kernel**2:
            raise ValueError(
                f"tensor '{name}.weight' is {weight.shape}, must be (n, {channels} k k), k odd and up to {MAX_KERNEL}"
            )
        channels = len(weight)
        if bias is None or bias.shape != (channels,):
            raise ValueError(f"tensor '{name}.bias' is missing or not ({channels},)")
        layers.append(_Convolution(weight=aligned(weight.T), bias=aligned(bias), kernel=kernel))
        height, width = (height + 1) // 2, (width + 1) // 2
    maps = left.pop(f"{prefix}.maps.weight", None)
    if maps is None or maps.ndim != 2 or maps.shape[1] != channels or not len(maps):
        raise ValueError(f"tensor '{prefix}.maps.weight' is missing or not (n, {channels})")
    return _Eye(layers=tuple(layers), maps=aligned(maps.T), places=aligned(places(height, width)))
