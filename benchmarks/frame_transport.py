"""One way for pictures from cameras' processes into the reader's, as a benchmark drives it, and ours."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perception.frame import FrameStamp
from perception.frame_ring import FrameLayout, FrameRing
from perception.shared_camera import SharedCamera

Picture = NDArray[np.uint8]
Publish = Callable[[int, Picture], None]

SIZE = (480, 640)


class Transport(ABC):
    """One way for the pictures of some cameras. Made in the reader's process before the cameras' are forked."""

    def __init__(self, cameras: int) -> None:
        self.cameras = cameras

    def place(self, camera: int) -> Picture | None:
        """In the camera's process: return where its driver writes the next picture; None: in memory of its own."""
        return None

    @abstractmethod
    def publisher(self, camera: int) -> Publish:
        """In the camera's process: return what publishes picture number so and so, with the time just before."""

    @abstractmethod
    def poll(self, camera: int) -> tuple[float, Picture] | None:
        """In the reader's: return when the next picture was published [s] and that picture; None when none is new."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything, after the cameras' processes have ended."""


class Ours(Transport):
    """`FrameRing` and `SharedCamera`, as camera and loop use them; the driver writes into the ring."""

    def __init__(self, cameras: int) -> None:
        super().__init__(cameras)
        layouts = [FrameLayout(camera=f"camera_{k}", image=SIZE, full=SIZE) for k in range(cameras)]
        self._rings = [FrameRing.new(layout) for layout in layouts]
        self._readers = [SharedCamera(ring) for ring in self._rings]
        self._last_ids = [-1] * cameras

    def place(self, camera: int) -> Picture | None:
        """Borrow the next record."""
        return self._rings[camera].loan().rgb

    def publisher(self, camera: int) -> Publish:
        """Publish into the ring; the time travels as that of capture."""
        ring = self._rings[camera]

        def publish(frame_id: int, rgb: Picture) -> None:
            now_s = time.monotonic()
            ring.publish(FrameStamp(frame_id=frame_id, captured_s=now_s, arrived_s=now_s), rgb, rgb)

        return publish

    def poll(self, camera: int) -> tuple[float, Picture] | None:
        """Copy the next picture that is still there out of the ring."""
        reader, now_s, last_id = self._readers[camera], time.monotonic(), self._last_ids[camera]
        stamps = reader.recent(now_s, 1)
        if not stamps or stamps[0].frame_id == last_id:
            return None
        if stamps[0].frame_id > last_id + 1:  # the oldest may be written over while it is copied
            stamps = reader.recent(now_s, self._rings[camera].layout.slots - 2)
        stamp = next((stamp for stamp in stamps if stamp.frame_id > last_id), None)
        if stamp is None:
            return None
        self._last_ids[camera] = stamp.frame_id
        frame = reader.frame(stamp)
        return None if frame is None else (frame.captured_s, frame.rgb)

    def close(self) -> None:
        """Close the rings."""
        for ring in self._rings:
            ring.close()


class OursHandedOver(Ours):
    """The same for a driver that can only hand over an array of its own, which is copied into the ring."""

    def place(self, camera: int) -> Picture | None:
        """Lend it all the same, as a camera's process does; the driver makes no use of it."""
        super().place(camera)
        return None
