"""One picture of one camera and when it was taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class FrameStamp:
    """Which frame it is and when it was taken.

    Attributes:
        frame_id: counts up by one per captured frame; a gap is a dropped frame, a repeat is a stall.
        captured_s: when the photons were taken, host monotonic clock [s].
        arrived_s: when the host had the frame [s].
        uncertainty_s: how far `captured_s` may be off, one standard deviation [s]; 0 where it is known exactly.
    """

    frame_id: int
    captured_s: float
    arrived_s: float
    uncertainty_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Frame(FrameStamp):
    """A colour frame, with depth where the camera has it.

    Attributes:
        camera: name of the camera in the station.
        rgb: shape (H, W, 3), uint8, red first.
        depth_m: shape (H, W), float32 [m]; 0 where nothing was measured; None without a depth sensor.
    """

    camera: str
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32] | None = None
