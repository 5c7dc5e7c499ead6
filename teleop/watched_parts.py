"""What a station has to look with: its cameras at full size, and its arm behind a servo that moves nothing."""

from __future__ import annotations

from collections.abc import Collection

from perception.config import LiveCamera, LiveCameraConfig, SimulatedCameraConfig
from robot.clock import Clock
from robot.errors import BadInputError
from teleop.live_parts import LiveParts
from teleop.station import LoadedStation


class WatchedParts(LiveParts):
    """The parts of a station without its policy; the arm's process heeds no order and writes no set-point.

    Args:
        cameras: names of those that are wanted.
        arm: whether the arm is.
    """

    read_only = True

    def __init__(self, loaded: LoadedStation, clock: Clock, *, cameras: Collection[str], arm: bool) -> None:
        super().__init__(loaded, None, clock, seed=0)
        self._wanted, self._with_arm = cameras, arm

    def _make(self) -> None:
        if self._with_arm:
            self._make_arm()
        for camera in self._loaded.station.camera:
            if isinstance(camera, LiveCameraConfig) and camera.name in self._wanted:
                self._check(camera)
                self._make_camera(_full_size(camera))

    def _check(self, camera: LiveCamera) -> None:
        if isinstance(camera, SimulatedCameraConfig) and self.world is None and not self._with_arm:
            raise BadInputError(
                f"station {self._loaded.path}: camera {camera.name!r} is simulated and shows the simulated "
                "arm's table; leave --no-arm out"
            )


def _full_size(camera: LiveCamera) -> LiveCamera:
    """Return a camera of which nothing is cut, recorded or given to a policy."""
    plain = {"image": None, "crop": None, "stream": "none", "depth_stream": False}
    return type(camera).model_validate(camera.model_dump() | plain)
