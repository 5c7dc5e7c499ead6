"""From what a device gave to a frame that the loop may trust, or a refusal that is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TextIO

import numpy as np

from perception.config import LiveCameraConfig
from perception.device_clock import ArrivalClock, CaptureClock, DeviceClock, Refused
from perception.frame import FrameStamp
from perception.frame_ring import FrameRing
from perception.frame_source import Place, RawFrame
from perception.policy_image import policy_image

_SAY_AGAIN_S = 10.0
_GREATEST_GAP = 100_000  # frames; a counter that jumps further is not believed


class FramePublisher:
    """Checks each frame, finds out when it was taken, makes the policy's image and publishes all of it.

    A frame of another size, of another type, with an id or a stamp that goes back is never published. Ids go on rising
    in the ring whatever becomes of device and process, and so do capture times.

    Attributes:
        refused: how many frames were refused, by reason.
    """

    def __init__(self, ring: FrameRing, camera: LiveCameraConfig, say: Callable[[str], None]) -> None:
        """Publish into `ring`, going on where a predecessor in this place ended."""
        self._ring, self._camera, self._say = ring, camera, say
        last = next(ring.newest_first(), None)
        self._last_id = last.frame_id if last else -1
        self._last_captured_s = last.captured_s if last else -np.inf
        self.refused: Counter[str] = Counter()
        self._clock: CaptureClock | None = None
        self.begin()

    def begin(self) -> None:
        """A device was opened: its counter may have begun anew, and its clock; the map to ours is kept if it did not.

        With a map forgotten each time, frames of a backlog would count as fresh after the device was opened again.
        """
        self._last_raw_id: int | None = None
        if self._clock is not None:
            self._clock.reopened()

    def place(self) -> Place:
        """Return where the driver may write the next frame; nothing is published before `take`."""
        return self._ring.loan()

    def take(self, frame: RawFrame) -> bool:
        """Publish a frame; False when it is refused."""
        reason = self._publish(frame)
        if reason is not None:
            self.refused[reason] += 1
            count = self.refused.total()
            self._say(f"frame {frame.frame_id} is not used: {reason} ({count} refused so far)")
        return reason is None

    def _publish(self, frame: RawFrame) -> str | None:
        """Publish the frame, or return why not."""
        expected = (self._camera.height, self._camera.width, 3)
        if frame.rgb.shape != expected or frame.rgb.dtype != np.uint8:
            return f"it is {frame.rgb.shape} {frame.rgb.dtype}, the station says {expected} uint8"
        depth_m = frame.depth_m if self._ring.layout.depth else None
        if self._ring.layout.depth and (
            depth_m is None or depth_m.shape != expected[:2] or depth_m.dtype != np.float32
        ):
            got = "missing" if depth_m is None else f"{depth_m.shape} {depth_m.dtype}"
            return f"its depth is {got}, the station says {expected[:2]} float32"
        ahead = 1 if self._last_raw_id is None else frame.frame_id - self._last_raw_id
        if not 0 < ahead <= _GREATEST_GAP:
            return "its id goes back" if ahead <= 0 else "its id is too far ahead"
        if self._clock is None or (
            self._last_raw_id is None and isinstance(self._clock, DeviceClock) != (frame.device_s is not None)
        ):
            self._clock = self._make_clock(frame)  # the first frame since it was opened tells whether it has a clock
        clock = self._clock
        taken = clock.captured(frame.device_s, frame.arrived_s)
        if isinstance(taken, Refused):
            return f"its stamp is {taken.reason.value}"
        if taken.captured_s <= self._last_captured_s:
            return "it was taken before the last one"
        stamp = FrameStamp(
            frame_id=self._last_id + ahead,
            captured_s=taken.captured_s,
            arrived_s=frame.arrived_s,
            uncertainty_s=taken.uncertainty_s,
        )
        image = policy_image(frame.rgb, self._camera.image_size, self._camera.crop)
        self._ring.publish(stamp, image, frame.rgb, depth_m)
        self._last_raw_id, self._last_id = frame.frame_id, stamp.frame_id
        self._last_captured_s = stamp.captured_s
        return None

    def _make_clock(self, frame: RawFrame) -> CaptureClock:
        camera = self._camera
        if frame.device_s is None:
            return ArrivalClock(latency_s=camera.latency_s, uncertainty_s=camera.latency_uncertainty_s)
        return DeviceClock(latency_s=camera.latency_s)


class Speaker:
    """Lines of one kind for a person, at most one every ten seconds."""

    def __init__(self, camera: str, stream: TextIO, now_s: Callable[[], float]) -> None:
        self._camera, self._stream, self._now_s = camera, stream, now_s
        self._next_s = -np.inf

    def __call__(self, line: str) -> None:
        """Say `line` unless the last one was just said."""
        if self._now_s() >= self._next_s:
            self._next_s = self._now_s() + _SAY_AGAIN_S
            print(f"camera {self._camera!r}: {line}", file=self._stream, flush=True)
