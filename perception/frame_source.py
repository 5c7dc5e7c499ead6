"""The interface every camera driver has, in the process that owns the device."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where a driver may write its next frame, which is published from there without a copy.

    Attributes:
        rgb: shape (H, W, 3), uint8, C-contiguous, of the station's size; what is in it now means nothing.
        depth_m: shape (H, W), float32, as `rgb`; None where no depth is wanted.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class RawFrame:
    """What a device gave.

    Attributes:
        frame_id: the device's own counter, or one of the driver's.
        arrived_s: when the host had it, host monotonic clock [s].
        device_s: the device's own capture stamp on the device's own clock [s]; None without one.
        rgb: shape (H, W, 3), uint8, red first; the very array of the `Place` where the driver has written it there.
        depth_m: shape (H, W), float32 [m], or None; as `rgb`.
    """

    frame_id: int
    arrived_s: float
    device_s: float | None
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32] | None = None


class FrameSource(Protocol):
    """A device that is waited for. Entering opens it; constructors do no I/O."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def wait(self, timeout_s: float, place: Place | None = None) -> RawFrame | None:
        """Return the next frame, None when none came in time.

        A driver may write the picture into `place`, as a decoder or a renderer can, and give back those arrays; it
        holds until the driver is asked again and is not to be touched after that. Arrays of the driver's own are
        as good and are copied.

        Raises:
            HardwareError: the device is gone or gives nonsense; leaving and entering again may bring it back.
        """
        ...
