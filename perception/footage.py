"""Pictures with their times from a file: a video, or one camera of an episode."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from perception.opencv import load_opencv
from robot.errors import BadInputError

Picture = tuple[float, NDArray[np.uint8]]  # time since any beginning [s]; (H, W, 3), red first
_EPISODE = (".h5", ".hdf5")


@contextmanager
def open_footage(path: Path, view: str) -> Iterator[Iterator[Picture]]:
    """Yield the pictures of a file one after another, in order of their times.

    Args:
        path: a video (MP4, AVI, MKV: whatever OpenCV's FFmpeg reads), or an episode (`.h5`).
        view: name of the camera in an episode; empty for a video.

    Raises:
        BadInputError: the file cannot be read, or has no such camera. While it is read, too, where times do not rise.
    """
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; correct `file`")
    episode = path.suffix in _EPISODE
    if episode != bool(view):
        cure = "name one of its cameras with `view`" if episode else "leave `view` out"
        raise BadInputError(f"{path}: is {'an episode' if episode else 'a video'}; {cure}")
    pictures = _of_episode(path, view) if episode else _of_video(path)
    try:
        yield _rising(path, pictures)
    finally:
        pictures.close()


def _rising(path: Path, pictures: Iterator[Picture]) -> Iterator[Picture]:
    last_s = -np.inf
    for number, (time_s, rgb) in enumerate(pictures):
        if not time_s > last_s:
            raise BadInputError(
                f"{path}: frame {number} is of {time_s:g} s, the one before of {last_s:g} s; convert it"
            )
        yield time_s, rgb
        last_s = time_s


def _of_video(path: Path) -> Generator[Picture, None, None]:
    cv2 = load_opencv()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise BadInputError(f"{path}: is no video that OpenCV can read; convert it to MP4, AVI or MKV")
        while capture.grab():
            # the container's own time of the frame that was grabbed, not its number times a rate
            time_s = 1e-3 * capture.get(cv2.CAP_PROP_POS_MSEC)
            whole, bgr = capture.retrieve()
            if whole:
                yield time_s, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _of_episode(path: Path, view: str) -> Generator[Picture, None, None]:
    """The policy images of one camera; a frame that several ticks used comes once, ticks without one are left out."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise BadInputError(f"{path}: not a readable episode ({str(error).splitlines()[0]})") from None
    with file:
        demo = file.get("data/demo_0")
        header = json.loads(bytes(file.attrs["header"])) if "header" in file.attrs else {}
        cameras = [camera[0] for camera in header.get("spec", {}).get("cameras", [])]
        if not isinstance(demo, h5py.Group) or not cameras:
            raise BadInputError(f"{path}: is no episode; see docs/episode_format.md")
        if view not in cameras:
            raise BadInputError(f"{path}: has no camera {view!r} (allowed {cameras}); correct `view`")
        column = cameras.index(view)
        captured_s, frame_ids = demo["tick/captured_s"][:, column], demo["tick/frame_id"][:, column]
        images, last = demo[f"obs/{view}_image"], -1
        for tick, frame_id in enumerate(frame_ids):
            if frame_id > last:
                yield float(captured_s[tick]), images[tick]
                last = frame_id
