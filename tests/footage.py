"""Videos for tests, written by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from tests.source_contract import HEIGHT, RATE_HZ, WIDTH

Image8 = NDArray[np.uint8]


def picture(number: int) -> Image8:
    """A ramp in each colour, another one in each frame."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([200 + rows, 100 + columns, 7 * number % 100 + 0 * rows], axis=-1).astype(np.uint8)


def write_video(path: Path, pictures: Sequence[Image8], *, fourcc: str, rate_hz: float = RATE_HZ) -> None:
    """Write pictures, red first, at a constant rate; FFV1 keeps every bit."""
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), rate_hz, (width, height))
    assert writer.isOpened()
    for rgb in pictures:
        writer.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    writer.release()


def write_uneven_video(path: Path, times_ms: Sequence[int], pictures: Sequence[Image8]) -> None:
    """Write pictures with times of their own, as a recorder of a live camera does."""
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter()
    motion_jpeg = cv2.VideoWriter.fourcc(*"MJPG")
    raw = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1]
    assert writer.open(str(path), cv2.CAP_FFMPEG, motion_jpeg, 1000.0, (width, height), raw)
    for time_ms, rgb in zip(times_ms, pictures, strict=True):
        writer.set(cv2.VIDEOWRITER_PROP_PTS, time_ms)
        writer.write(np.frombuffer(simplejpeg.encode_jpeg(rgb, 98, colorsubsampling="444"), np.uint8))
    writer.release()
