"""A camera that plays one view of a recorded episode."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from perception.frame import Frame, FrameStamp
from robot.errors import BadInputError
from robot.recording import Recording


class RecordedCamera:
    """Plays one view of the episode that is selected in a `Recording`.

    Frame k was taken k periods after the playback's start and arrives `latency_s` later. After the last frame it
    repeats that one with its id, as a camera does that has stalled.
    """

    def __init__(self, recording: Recording, name: str, view: str, latency_s: float = 0.0) -> None:
        """Play the dataset `view` (such as image_0) under the station's `name`.

        Raises:
            BadInputError: the recording has no such view, or the latency is negative.
        """
        if view not in recording.views:
            raise BadInputError(
                f"camera {name!r}: recording {recording.path} has no view {view!r} (allowed {sorted(recording.views)})"
            )
        if not latency_s >= 0.0:
            raise BadInputError(f"camera {name!r}: latency_s is {latency_s} (allowed 0 or more)")
        self._recording = recording
        self._name = name
        self._view = view
        self._latency_s = latency_s

    @property
    def name(self) -> str:
        """Name in the station."""
        return self._name

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its frames [px]."""
        return self._recording.views[self._view]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def recent(self, now_s: float, count: int) -> Sequence[FrameStamp]:
        """Return the stamps of the newest frames that have arrived, none before the playing episode's first."""
        newest = self._recording.step(now_s, self._latency_s)
        return [self._stamp(step) for step in range(max(0, newest - count + 1), newest + 1)]

    def frame(self, stamp: FrameStamp) -> Frame | None:
        """Return the frame of one of these stamps; None when another episode plays by now."""
        step = stamp.frame_id - self._recording.first_frame_id
        if not 0 <= step < len(self._recording.times_s):
            return None
        own = self._stamp(step)
        return Frame(
            camera=self._name,
            frame_id=own.frame_id,
            captured_s=own.captured_s,
            arrived_s=own.arrived_s,
            rgb=self._recording.playing.images[self._view][step],
        )

    def _stamp(self, step: int) -> FrameStamp:
        captured_s = float(self._recording.times_s[step])
        return FrameStamp(
            frame_id=self._recording.first_frame_id + step,
            captured_s=captured_s,
            arrived_s=captured_s + self._latency_s,
        )
