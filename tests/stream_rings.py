"""Cameras' rings that a test fills itself, for tests of the recorder's full-size frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np

from perception.frame import FrameStamp
from perception.frame_ring import FrameLayout, FrameRing
from policy.episode_header import StreamSpec
from policy.stream_codec import Codec
from teleop.recorder_streams import EpisodeMark, EpisodeMarks, StreamArguments, StreamSource, stream_arguments
from tests.stream_frames import DEPTH, HEIGHT, JPEG, WIDTH, colour_picture, sensor_depth

SLOTS = 16
LAYOUT = FrameLayout(camera="front", image=(8, 8), full=(HEIGHT, WIDTH), depth=True, slots=SLOTS)


class TestCamera:
    """Publishes frames whose pixels follow from their number; it takes one every 10 ms of its own clock."""

    __test__ = False

    def __init__(self, layout: FrameLayout = LAYOUT, specs: tuple[StreamSpec, ...] = (JPEG, DEPTH)) -> None:
        self.ring = FrameRing.new(layout)
        self.source = StreamSource(ring=self.ring, specs=specs)
        self.newest_s = 0.0

    def publish(self, captured_s: float, count: int = 1) -> None:
        """Publish frames that were taken from `captured_s` on, 10 ms apart."""
        layout = self.ring.layout
        for step in range(count):
            number, at_s = self.ring.count, captured_s + 0.01 * step
            self.newest_s = at_s
            stamp = FrameStamp(frame_id=1000 + number, captured_s=at_s, arrived_s=at_s + 0.001, uncertainty_s=1e-4)
            rgb = colour_picture(*layout.full, seed=number)
            depth = sensor_depth(*layout.full, seed=number) if layout.depth else None
            self.ring.publish(stamp, np.ascontiguousarray(rgb[: layout.image[0], : layout.image[1]]), rgb, depth)

    def close(self) -> None:
        self.ring.close()


@contextmanager
def camera(layout: FrameLayout = LAYOUT, specs: tuple[StreamSpec, ...] = (JPEG, DEPTH)) -> Iterator[TestCamera]:
    with closing(TestCamera(layout, specs)) as made:
        yield made


@contextmanager
def marked(*cameras: TestCamera) -> Iterator[tuple[EpisodeMarks, StreamArguments]]:
    """The marks of the loop, and what a recorder is told."""
    with closing(EpisodeMarks.new(len(cameras))) as marks:
        yield marks, stream_arguments([one.source for one in cameras], marks)


def mark(marks: EpisodeMarks, episode: int, at_s: float, *cameras: TestCamera, begins: bool) -> None:
    counts = tuple(one.ring.count for one in cameras)
    marks.set(EpisodeMark(episode=episode, begins=begins, at_s=at_s, counts=counts))


def lossless(name: str = "front") -> StreamSpec:
    return StreamSpec(camera=name, codec=Codec.LOSSLESS, height=HEIGHT, width=WIDTH)
