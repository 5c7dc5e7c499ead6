"""A camera without optics: a moving picture that proves by itself that it is whole and whose it is."""

from __future__ import annotations

import functools
import struct
import zlib
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perception.config import PatternCameraConfig
from perception.frame_source import Place, RawFrame
from robot.clock import Clock, WallClock

Image8 = NDArray[np.uint8]

_HEAD = struct.Struct("<QQ")  # checksum; camera id and frame id in one word
_FRAME_BITS = 40
_ROW_HEAD = 8  # bytes at the start of every row but the first that hold camera and frame once more
_PERIOD_ROWS = 64  # the picture moves up by a row a frame and begins anew after these
_NOISE = 8  # grey levels on the ramp, so that it packs about as badly as a real picture
_DEVICE_EPOCH_S = 5000.0  # the device's clock counts from when it was switched on, not from the host's start


def camera_id(name: str) -> int:
    """Return the number by which a camera of that name signs its pictures, 0 to 2**24 - 1."""
    return zlib.crc32(name.encode()) & 0xFFFFFF


def pattern(camera: int, frame_id: int, size: tuple[int, int], out: Image8 | None = None) -> Image8:
    """Return picture number `frame_id` of a camera, shape (*size, 3), size at least (8, 8); drawn into `out` if given.

    A ramp with some noise that moves up by a row a frame. Each row says whose it is, and a checksum in which every
    pixel counts by its place covers all of it. Takes 0.1 ms for 640x480.
    """
    first = frame_id % _PERIOD_ROWS
    rgb = np.empty((*size, 3), np.uint8) if out is None else out
    rgb[...] = _ramp(camera, size)[first : first + size[0]]
    word = camera << _FRAME_BITS | frame_id & (1 << _FRAME_BITS) - 1
    rgb.reshape(size[0], -1)[1:, :_ROW_HEAD] = np.frombuffer(word.to_bytes(8, "little"), np.uint8)
    flat = rgb.reshape(-1)
    flat[8 : _HEAD.size] = np.frombuffer(word.to_bytes(8, "little"), np.uint8)
    flat[:8] = np.frombuffer(_checksum(flat).to_bytes(8, "little"), np.uint8)
    return rgb


def verify_pattern(rgb: Image8) -> tuple[int, int] | None:
    """Return camera id and frame id of a whole picture; None for one that is torn, cut or changed in any bit.

    Args:
        rgb: shape (H, W, 3), uint8, at least 8 by 8.
    """
    flat = np.ascontiguousarray(rgb).reshape(-1)
    checksum, word = _HEAD.unpack(flat[: _HEAD.size].tobytes())
    if checksum != _checksum(flat):
        return None
    return word >> _FRAME_BITS, word & (1 << _FRAME_BITS) - 1


class PatternSource:
    """Gives a picture every `1 / rate_hz` of host time, with a clock of its own that drifts, jitter and drops.

    A picture for which nobody waited is lost once the next one is there, as in a device with one buffer.
    """

    def __init__(self, config: PatternCameraConfig, *, seed: int, clock: Clock | None = None) -> None:
        self._config, self._seed = config, seed
        self._clock = clock or WallClock()
        self._period_s = 1.0 / config.rate_hz
        self._camera = camera_id(config.name)

    def __enter__(self) -> Self:
        self._rng = np.random.default_rng([self._seed, *self._config.name.encode()])
        self._next = self._due(self._clock.now_s()) + 1
        self._arrives_s: float | None = None
        self._first = self._next
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def wait(self, timeout_s: float, place: Place | None = None) -> RawFrame | None:
        """Return the next picture, drawn into `place` if there is one; None when none came in time."""
        deadline_s = self._clock.now_s() + timeout_s
        while True:
            here = self._due(self._clock.now_s() - self._config.latency_s - self._config.jitter_s)
            if here > self._next:
                self._next, self._arrives_s = here, None
            if self._arrives_s is None:
                jitter_s = self._rng.uniform(0.0, self._config.jitter_s)
                self._arrives_s = self._captured_s(self._next) + self._config.latency_s + jitter_s
            self._clock.sleep_until(min(deadline_s, self._arrives_s))
            now_s = self._clock.now_s()
            if now_s < self._arrives_s:
                return None
            number, self._arrives_s = self._next, None
            self._next += 1
            if self._rng.random() >= self._config.drop_rate:
                frame_id, size = number - self._first, (self._config.height, self._config.width)
                return RawFrame(
                    frame_id=frame_id,
                    arrived_s=now_s,
                    device_s=self.device_s(self._captured_s(number)),
                    rgb=pattern(self._camera, frame_id, size, place.rgb if place else None),
                )

    def device_s(self, host_s: float) -> float:
        """Return what the device's clock shows at a time of the host's [s]."""
        return _DEVICE_EPOCH_S + host_s * (1.0 + 1e-6 * self._config.drift_ppm)

    def _captured_s(self, number: int) -> float:
        return number * self._period_s + self._config.phase_s

    def _due(self, host_s: float) -> int:
        """Return the number of the last picture taken by then."""
        return int((host_s - self._config.phase_s) // self._period_s)


@functools.lru_cache(maxsize=16)
def _ramp(camera: int, size: tuple[int, int]) -> Image8:
    rows = np.arange(size[0] + _PERIOD_ROWS)[:, None, None]
    columns = np.arange(size[1])[None, :, None]
    colours = np.arange(3)[None, None, :]
    noise = np.random.default_rng(camera).integers(0, _NOISE, (size[0] + _PERIOD_ROWS, size[1], 3))
    ramp: Image8 = ((rows + columns // 2 + 40 * colours + camera) % 248 + noise).astype(np.uint8)
    return ramp


def _checksum(flat: Image8) -> int:
    """Sum of all words behind the checksum itself, each times an odd number of its own, modulo 2**64."""
    words = (len(flat) - 8) // 8
    total = int(np.dot(flat[8 : 8 + 8 * words].view(np.uint64), _weights(words)))
    tail = int.from_bytes(flat[8 + 8 * words :].tobytes(), "little")
    return (total + tail * 0x9E3779B97F4A7C15) % (1 << 64)


@functools.lru_cache(maxsize=16)
def _weights(words: int) -> NDArray[np.uint64]:
    return np.random.default_rng(words).integers(0, 1 << 64, words, dtype=np.uint64) | np.uint64(1)
