"""The rendered view of a Gymnasium environment as a camera."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perception.config import EnvironmentCameraConfig
from perception.frame import Frame, FrameStamp
from perception.policy_image import policy_image
from robot.clock import Clock
from robot.environment.environment import Environment
from robot.errors import BadInputError

_KEPT = 16


class EnvironmentCamera:
    """Takes a picture each time that it is looked for one at a new time; the environment stands still meanwhile.

    A picture is rendered only where the environment made a step or was reset since the last one, in the process and on
    the time of whoever asks.

    Args:
        config: of the station.
        environment: opened by the caller, with pictures.
        clock: of the loop.
    """

    def __init__(self, config: EnvironmentCameraConfig, environment: Environment, clock: Clock) -> None:
        self._config, self._environment, self._clock = config, environment, clock
        self._begun_s = math.inf
        self._frames: deque[Frame] = deque(maxlen=_KEPT)
        self._rendered: tuple[int, NDArray[np.uint8]] | None = None
        self._count = 0

    @property
    def name(self) -> str:
        """Name in the station."""
        return self._config.name

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that it gives the policy [px]."""
        return self._config.height, self._config.width

    def __enter__(self) -> Self:
        """Render once. Raises BadInputError where the pictures are smaller than what the policy is to get."""
        rgb = self._environment.picture()
        if rgb.shape[0] < self.size[0] or rgb.shape[1] < self.size[1]:
            raise BadInputError(
                f"camera {self.name!r}: the environment renders {rgb.shape[1]}x{rgb.shape[0]}, less than the "
                f"{self.size[1]}x{self.size[0]} of the station; make these less or those more by arm.options"
            )
        self._begun_s = self._clock.now_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def recent(self, now_s: float, count: int) -> Sequence[FrameStamp]:
        """Return the stamps of the newest pictures, at most `count`, oldest first. Raises HardwareError."""
        if now_s >= self._begun_s and (not self._frames or now_s > self._frames[-1].captured_s):
            self._frames.append(
                Frame(
                    camera=self.name,
                    frame_id=self._count,
                    captured_s=now_s,
                    arrived_s=now_s,
                    rgb=self._picture(),
                    depth_m=None,
                )
            )
            self._count += 1
        return [frame for frame in self._frames if frame.arrived_s <= now_s][-count:]

    def frame(self, stamp: FrameStamp) -> Frame | None:
        """Return the picture of one of these stamps; None when it is among the kept ones no more."""
        return next((frame for frame in self._frames if frame.frame_id == stamp.frame_id), None)

    def _picture(self) -> NDArray[np.uint8]:
        changes = self._environment.changes
        if self._rendered is None or self._rendered[0] != changes:
            rgb = policy_image(self._environment.picture(), self.size)
            rgb = rgb.copy() if rgb.base is not None else rgb
            rgb.flags.writeable = False
            self._rendered = changes, rgb
        return self._rendered[1]
