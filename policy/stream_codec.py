"""How one full-size picture becomes bytes and comes back: JPEG, and lossless colour and depth.

Measured on 640x480 (docs/recording.md says on which pictures): lossless colour as differences in zstandard level 1
takes 3 ms and 34 to 66 % of the bytes; Pillow's PNG takes 26 to 39 ms and is larger on each. Plain zstandard level 1
takes as long as ours and leaves 77 to 96 %. zstandard's and simplejpeg's work is done without Python's lock.
"""

from __future__ import annotations

import enum
from typing import Protocol, TypeVar

import numpy as np
import simplejpeg
import zstandard
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.float32]

_Value = TypeVar("_Value", bound=np.generic)

_LEVEL = 1
_MM = np.float32(0.001)
_FLOATS, _MILLIMETRES = b"\0", b"\1"  # first byte of a depth picture: how the rest holds it


class Codec(enum.StrEnum):
    """What the bytes of a stream are."""

    JPEG = "jpeg"  # any JPEG reader opens one
    LOSSLESS = "lossless"  # colour, `LosslessColour`
    DEPTH = "depth"  # float32 metres bit for bit, `LosslessDepth`


class PictureCodec(Protocol):
    """Encodes and decodes pictures of one size. For one thread at a time."""

    def encode(self, pixels: Pixels) -> bytes:
        """Return the bytes of one picture, C-contiguous (H, W, 3) uint8 or (H, W) float32."""
        ...

    def decode(self, data: bytes) -> Pixels:
        """Return the picture. Raises ValueError where `data` is none of this size."""
        ...


def picture_codec(codec: Codec, height: int, width: int, quality: int | None = None) -> PictureCodec:
    """Return a codec for pictures of `height` x `width`; `quality`, 1 to 100, is that of a JPEG."""
    match codec:
        case Codec.JPEG:
            assert quality is not None
            return Jpeg(height, width, quality)
        case Codec.LOSSLESS:
            return LosslessColour(height, width)
        case Codec.DEPTH:
            return LosslessDepth(height, width)


class Jpeg:
    """JPEG with colour at full resolution (4:4:4): a learner may need edges that differ in colour only."""

    def __init__(self, height: int, width: int, quality: int) -> None:
        self._size, self._quality = (height, width), quality

    def encode(self, pixels: Pixels) -> bytes:
        """Return a JPEG file's bytes."""
        data: bytes = simplejpeg.encode_jpeg(pixels, self._quality, colorspace="RGB", colorsubsampling="444")
        return data

    def decode(self, data: bytes) -> Pixels:
        """Return (H, W, 3) uint8. Raises ValueError."""
        if tuple(simplejpeg.decode_jpeg_header(data)[:2]) != self._size:
            raise ValueError(f"a JPEG of another size than {self._size}")
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
        return pixels


class LosslessColour:
    """Colour planes (red - green, green, blue - green), then differences downwards and sideways, modulo 256."""

    def __init__(self, height: int, width: int) -> None:
        self._size = (height, width)
        self._planes, self._down, self._both = (np.empty((3, height, width), np.uint8) for _ in range(3))
        self._squeeze = zstandard.ZstdCompressor(level=_LEVEL)

    def encode(self, pixels: Pixels) -> bytes:
        """Return the differences in one zstandard frame."""
        assert pixels.shape == (*self._size, 3)
        planes, down, both = self._planes, self._down, self._both
        planes[1] = pixels[..., 1]
        for side in (0, 2):
            np.subtract(pixels[..., side], planes[1], out=planes[side])
        down[:, 0] = planes[:, 0]
        np.subtract(planes[:, 1:], planes[:, :-1], out=down[:, 1:])
        both[..., 0] = down[..., 0]
        np.subtract(down[..., 1:], down[..., :-1], out=both[..., 1:])
        return self._squeeze.compress(both.data)

    def decode(self, data: bytes) -> Pixels:
        """Return (H, W, 3) uint8. Raises ValueError."""
        both = np.frombuffer(_expand(data, 3 * self._size[0] * self._size[1]), np.uint8).reshape(3, *self._size)
        planes = np.add.accumulate(np.add.accumulate(both, axis=2, dtype=np.uint8), axis=1, dtype=np.uint8)
        planes[::2] += planes[1]
        return np.ascontiguousarray(planes.transpose(1, 2, 0))


class LosslessDepth:
    """Depth bit for bit: as whole millimetres where it is that, as sensors give it, otherwise as the floats.

    Millimetres as differences sideways, folded so that small ones of either sign have a small high byte; both forms
    with the bytes of one place side by side. Measured on 640x480 of millimetres with a sensor's noise: 3 ms and 7 to
    10 % of the bytes, where the floats would take 5 ms and 18 to 26 %.
    """

    def __init__(self, height: int, width: int) -> None:
        self._size = (height, width)
        self._squeeze = zstandard.ZstdCompressor(level=_LEVEL)

    def encode(self, pixels: Pixels) -> bytes:
        """Return one byte that says which form it is, then a zstandard frame."""
        assert pixels.shape == self._size
        metres = np.ascontiguousarray(pixels, np.float32)
        steps = _millimetres(metres)
        if steps is None:
            return _FLOATS + self._squeeze.compress(_apart(metres).data)
        left = steps.copy()
        left[:, 1:] -= steps[:, :-1]
        signed = left.view(np.int16)
        return _MILLIMETRES + self._squeeze.compress(_apart((signed << 1) ^ (signed >> 15)).data)

    def decode(self, data: bytes) -> Pixels:
        """Return (H, W) float32. Raises ValueError."""
        form, count = data[:1], self._size[0] * self._size[1]
        if form == _FLOATS:
            return _together(_expand(data[1:], 4 * count), np.float32).reshape(self._size)
        if form != _MILLIMETRES:
            raise ValueError(f"a depth picture of unknown form {form!r}")
        folded = _together(_expand(data[1:], 2 * count), np.uint16).reshape(self._size)
        left = (folded >> 1) ^ (0 - (folded & 1))
        steps = np.add.accumulate(left, axis=1, dtype=np.uint16)
        return steps.astype(np.float32) * _MM


def _millimetres(metres: NDArray[np.float32]) -> NDArray[np.uint16] | None:
    """Return the picture in millimetres where that loses not one bit, else None."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(metres * np.float32(1000.0))
        if not (scaled.min() >= 0.0 and scaled.max() <= 65535.0):  # NaN is neither
            return None
    steps = scaled.astype(np.uint16)
    back = steps.astype(np.float32) * _MM
    # as bits: a zero may have a sign
    return steps if np.array_equal(back.view(np.uint32), metres.view(np.uint32)) else None


def _apart(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return all first bytes, then all second ones, and so on."""
    return np.ascontiguousarray(values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T)


def _together(data: bytes, dtype: type[_Value]) -> NDArray[_Value]:
    """Undo `_apart`; shape (N,)."""
    parts = np.frombuffer(data, np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    return np.ascontiguousarray(parts.T).view(dtype).reshape(-1)


def _expand(data: bytes, size: int) -> bytes:
    """Return the `size` bytes of a zstandard frame, and never more, whatever the frame says."""
    try:
        if zstandard.get_frame_parameters(data).content_size != size:
            raise ValueError(f"a compressed picture that is not of {size} bytes")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError(f"compressed bytes are damaged ({error})") from None
