"""Episodes with full-size pictures and a way of the arm that a test made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy.episode_commit import commit_episode
from policy.episode_header import StreamSpec
from policy.episode_schema import seal
from policy.episode_streams import EncodedFrame
from policy.episode_writer import EpisodeWriter
from policy.stream_codec import Codec
from tests.episodes import SUCCESS, header, make_rows

Array = NDArray[np.float64]
Image8 = NDArray[np.uint8]


def write_drive(
    folder: Path,
    way: Sequence[tuple[float, Array]],
    frames: Iterable[tuple[str, float, Image8]],
    *,
    size: tuple[int, int],
    cameras: Sequence[str] = ("wrist",),
    codec: Codec = Codec.LOSSLESS,
    episode: int = 0,
) -> Path:
    """Write an episode: states of the arm (time [s], T_base_tcp), and pictures (camera, time [s], RGB)."""
    quality = 95 if codec is Codec.JPEG else None
    specs = [StreamSpec(camera=n, codec=codec, height=size[0], width=size[1], quality=quality) for n in cameras]
    made = header(episode).model_copy(update={"streams": tuple(specs)})
    codecs = {spec.camera: spec.picture_codec() for spec in specs}
    encoded: dict[int, bytes] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with EpisodeWriter(folder, made) as writer:
        for row, (time_s, T) in zip(make_rows(len(way)), way, strict=True):
            row["tick/state_s"], row["tick/T_base_tcp"] = time_s, T
            seal(row)
            writer.append(row)
        for number, (camera, time_s, rgb) in enumerate(frames):
            data = encoded.setdefault(id(rgb), codecs[camera].encode(rgb))
            stamp = {"frame_id": number, "captured_s": time_s, "arrived_s": time_s + 0.01, "uncertainty_s": 0.001}
            writer.append_frame(camera, EncodedFrame(data=data, **stamp))  # type: ignore[arg-type]
        partial = writer.finish(SUCCESS)
    return commit_episode(partial).path
