from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from policy.stream_codec import Codec, Jpeg, LosslessColour, LosslessDepth, picture_codec
from tests.stream_frames import colour_picture, sensor_depth

SIZES = st.tuples(st.integers(1, 33), st.integers(1, 33))


def same_bits(a: NDArray[np.generic], b: NDArray[np.generic]) -> bool:
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 2**32 - 1))
def test_lossless_colour_comes_back_bit_for_bit(size: tuple[int, int], seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    codec = LosslessColour(*size)
    assert same_bits(codec.decode(codec.encode(pixels)), pixels)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 2**32 - 1))
def test_depth_of_any_bits_comes_back_bit_for_bit(size: tuple[int, int], seed: int) -> None:
    """NaN with payloads, infinities, negative zeros and subnormal numbers among them."""
    depth = np.frombuffer(np.random.default_rng(seed).bytes(4 * size[0] * size[1]), np.float32).reshape(size)
    codec = LosslessDepth(*size)
    assert same_bits(codec.decode(codec.encode(depth)), depth)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 2**32 - 1))
def test_depth_in_millimetres_comes_back_bit_for_bit(size: tuple[int, int], seed: int) -> None:
    steps = np.random.default_rng(seed).integers(0, 65536, size, dtype=np.uint16)
    depth = steps.astype(np.float32) * np.float32(0.001)
    codec = LosslessDepth(*size)
    data = codec.encode(depth)
    assert data[0] == 1
    assert same_bits(codec.decode(data), depth)


@pytest.mark.parametrize("odd", [np.float32(-0.0), np.float32(0.00049), np.float32(65.536), np.float32(np.nan)])
def test_one_value_that_is_no_whole_millimetre_keeps_the_floats(odd: np.float32) -> None:
    depth = sensor_depth(24, 32)
    depth[7, 9] = odd
    codec = LosslessDepth(24, 32)
    data = codec.encode(depth)
    assert data[0] == 0
    assert same_bits(codec.decode(data), depth)


def test_lossless_is_smaller_than_the_pixels_on_a_picture_with_a_sensors_noise() -> None:
    pixels, depth = colour_picture(120, 160), sensor_depth(120, 160)
    assert len(LosslessColour(120, 160).encode(pixels)) < 0.8 * pixels.nbytes
    assert len(LosslessDepth(120, 160).encode(depth)) < 0.2 * depth.nbytes


def test_a_jpeg_is_near_the_picture_in_every_colour() -> None:
    pixels = colour_picture(120, 160)
    decoded = Jpeg(120, 160, 95).decode(Jpeg(120, 160, 95).encode(pixels))
    assert decoded.shape == pixels.shape
    off = np.abs(decoded.astype(int) - pixels.astype(int)).reshape(-1, 3).mean(axis=0)
    assert off.max() < 3.0
    # red first, as it was given
    assert np.abs(decoded.astype(int) - pixels[..., ::-1].astype(int)).mean() > 10.0


@pytest.mark.parametrize("codec", list(Codec))
def test_pictures_of_another_size_and_broken_ones_are_refused(codec: Codec) -> None:
    quality = 90 if codec is Codec.JPEG else None
    pixels = sensor_depth(16, 24) if codec is Codec.DEPTH else colour_picture(16, 24)
    data = picture_codec(codec, 16, 24, quality).encode(pixels)
    with pytest.raises(ValueError):
        picture_codec(codec, 24, 24, quality).decode(data)
    for broken in (b"", data[:20], b"\7" + data[1:]):
        with pytest.raises(ValueError):
            picture_codec(codec, 16, 24, quality).decode(broken)
