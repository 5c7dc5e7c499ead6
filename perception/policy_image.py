"""From a camera's full frame to the image that the policy gets, once, in the process that owns the device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Image8 = NDArray[np.uint8]


def policy_image(rgb: Image8, size: tuple[int, int]) -> Image8:
    """Cut the frame about its middle to the aspect ratio of `size` and average it down to that many pixels.

    Each pixel is the mean of those whose middle lies in the area that it covers, so that no detail finer than the
    result flickers in it. The same frame gives the same image, bit for bit. Takes 0.8 to 1.1 ms from 640x480 to 84x84
    or 224x224 (Pillow, 2-core x86-64).

    Args:
        rgb: shape (H, W, 3), uint8.
        size: (height, width), at most (H, W) [px].

    Returns:
        Shape (*size, 3), uint8; `rgb` itself where it has that size.
    """
    if rgb.shape[:2] == size:
        return rgb
    height, width = size
    image = Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX, box=crop_box(rgb.shape[:2], size))
    return np.asarray(image)


def crop_box(full: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom edge of what of a `full` picture is seen in one of `size` [px]."""
    scale = min(full[0] / size[0], full[1] / size[1])
    height, width = scale * size[0], scale * size[1]
    left, top = max(0.0, full[1] - width) / 2.0, max(0.0, full[0] - height) / 2.0
    return left, top, full[1] - left, full[0] - top
