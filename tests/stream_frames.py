"""Pictures and encoded frames for tests of full-size streams."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy.episode_header import EpisodeHeader, StreamSpec
from policy.episode_streams import EncodedFrame
from policy.stream_codec import Codec
from tests.episodes import header

HEIGHT, WIDTH = 24, 32
JPEG = StreamSpec(camera="front", codec=Codec.JPEG, height=HEIGHT, width=WIDTH, quality=95)
DEPTH = StreamSpec(camera="front", codec=Codec.DEPTH, height=HEIGHT, width=WIDTH)
LOSSLESS = StreamSpec(camera="wrist", codec=Codec.LOSSLESS, height=HEIGHT, width=WIDTH)


def streamed_header(episode: int = 0) -> EpisodeHeader:
    return header(episode).model_copy(update={"streams": (JPEG, DEPTH, LOSSLESS)})


def colour_picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours that differ, with a sensor's noise."""
    v, u = np.mgrid[0:height, 0:width]
    smooth = np.stack([40 + 150 * u / width, 90 + 60 * v / height, 200 - 120 * u / width], axis=-1)
    noise = np.random.default_rng(seed).normal(0.0, 2.0, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def sensor_depth(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """A slanted plane in whole millimetres with noise and holes, as depth cameras give it [m]."""
    rng = np.random.default_rng(seed)
    metres = np.linspace(0.6, 0.9, height)[:, None] + rng.normal(0.0, 0.001, (height, width))
    steps = np.rint(metres * 1000.0).astype(np.uint16)
    steps[rng.random(steps.shape) < 0.02] = 0
    return steps.astype(np.float32) * np.float32(0.001)


def picture(spec: StreamSpec, seed: int) -> NDArray[np.uint8] | NDArray[np.float32]:
    make = sensor_depth if spec.codec is Codec.DEPTH else colour_picture
    return make(spec.height, spec.width, seed)


def encoded(spec: StreamSpec, number: int) -> EncodedFrame:
    """Frame `number` of a camera at 30 fps whose ids began at 100."""
    captured_s = 50.0 + number / 30.0
    return EncodedFrame(
        frame_id=100 + number,
        captured_s=captured_s,
        arrived_s=captured_s + 0.01,
        uncertainty_s=0.001,
        data=spec.picture_codec().encode(picture(spec, number)),
    )
