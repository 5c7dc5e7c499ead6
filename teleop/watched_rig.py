"""A station opened to be looked at, for a calibration: a person moves the arm, this never does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from types import TracebackType
from typing import Self

from perception.camera import Camera
from perception.config import LiveCameraConfig
from perception.frame import Frame, FrameStamp
from perception.frame_choice import latest_common, usable
from perception.rig_look import RigLook
from robot.arm_state import ArmState
from robot.clock import Clock, WallClock
from robot.config import RecordedArmConfig
from robot.environment.config import GymnasiumArmConfig
from robot.errors import BadInputError, HardwareError
from teleop.station import LoadedStation
from teleop.supervisor import Supervisor
from teleop.watched_parts import WatchedParts

_LOOK_S = 0.1
_SILENT_S = 0.5
_PERIODS = 3.0


class WatchedRig:
    """Cameras and arm in their own processes under a supervisor, as in a run, and without policy, loop and filter.

    It holds nothing that takes a command: the arm's process is told to read only, and this gives states alone. The
    arm's lock is taken all the same, as most arms answer one program only.

    Args:
        station: which.
        cameras: names of those to open; all of them when empty.
        arm: whether to open the arm.
        clock: the host's.
    """

    def __init__(
        self, station: LoadedStation, *, cameras: Sequence[str] = (), arm: bool = True, clock: Clock | None = None
    ) -> None:
        self._loaded, self._clock = station, clock or WallClock()
        self.station, self.has_arm = station.station.name, arm
        self._wanted = _wanted(station, cameras)
        self.sizes = {camera.name: (camera.height, camera.width) for camera in self._wanted}
        self._patience_s = {camera.name: max(_SILENT_S, _PERIODS / camera.rate_hz) for camera in self._wanted}
        self._used: dict[str, FrameStamp] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Open everything and wait for the arm; cameras come when they come, and looks say for how long they do not.

        Raises:
            BadInputError: a part cannot be had; one line with the cure.
            HardwareError: the arm does not get to work.
        """
        with ExitStack() as stack:
            names = list(self.sizes)
            parts = stack.enter_context(WatchedParts(self._loaded, self._clock, cameras=names, arm=self.has_arm))
            self._supervisor = stack.enter_context(Supervisor(parts.children))
            self._wait_ready([child.name for child in parts.children if not child.restart])
            self._arm = parts.arm if self.has_arm else None
            if self._arm is not None:
                self._arm.history()  # from here on
            self._cameras: list[Camera] = [*parts.cameras]
            self._stack = stack.pop_all()
        self._opened_s = self._looked_s = self._clock.now_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def look(self) -> RigLook:
        """Return what there is, a tenth of a second after the last look at the earliest.

        Raises:
            HardwareError: a process is gone that may not be started again, as is the arm's.
        """
        self._clock.sleep_until(self._looked_s + _LOOK_S)
        self._supervisor.check()
        now_s = self._looked_s = self._clock.now_s()
        silent_s = {}
        rows: dict[str, list[FrameStamp]] = {}
        for camera in self._cameras:
            row = usable(
                camera.recent(now_s, self._loaded.station.synchroniser.history), self._used.get(camera.name), now_s
            )
            age_s = now_s - (row[-1].captured_s if row else self._last_s(camera.name))
            if row and age_s <= self._patience_s[camera.name]:
                rows[camera.name] = row
            else:
                silent_s[camera.name] = age_s
        arm, problem = self._states()
        return RigLook(
            now_s=now_s,
            frames=self._frames(rows, now_s),
            silent_s=silent_s,
            arm=arm,
            arm_problem=problem,
            news=self._supervisor.news(),
        )

    def pids(self) -> dict[str, int]:
        """Return the ids of the processes by name."""
        return self._supervisor.pids()

    def _last_s(self, camera: str) -> float:
        used = self._used.get(camera)
        return self._opened_s if used is None else used.captured_s

    def _frames(self, rows: dict[str, list[FrameStamp]], now_s: float) -> dict[str, Frame]:
        """Copy one frame of each camera, as the loop's synchroniser would choose them."""
        if not rows:
            return {}
        weight = self._loaded.station.synchroniser.age_weight
        chosen = latest_common(list(rows.values()), now_s, age_weight=weight)
        assert chosen is not None, "the newest set has no limit to keep"
        frames: dict[str, Frame] = {}
        cameras = {camera.name: camera for camera in self._cameras}
        for name, stamp in zip(rows, chosen, strict=True):
            frame = cameras[name].frame(stamp)
            if frame is not None:
                frames[name], self._used[name] = frame, stamp
        return frames

    def _states(self) -> tuple[list[ArmState], str | None]:
        if self._arm is None:
            return [], None
        try:
            newest = self._arm.state()
        except HardwareError as error:
            return [], str(error)
        states = self._arm.history()
        return states or [newest], None

    def _wait_ready(self, names: Sequence[str]) -> None:
        try:
            self._supervisor.wait_ready(names)
        except BadInputError as error:
            if not self.has_arm:
                raise
            raise BadInputError(
                f"{error}. Where another run has the arm: end it, or have it record the drive with full-size pictures "
                "(stream = 'lossless') and give its folder to `calibrate_rig.py pictures`, or take cameras beside the "
                "arm with --no-arm"
            ) from None


def _wanted(loaded: LoadedStation, names: Sequence[str]) -> list[LiveCameraConfig]:
    """Return the cameras to open. Raises BadInputError where one is not there, or the station has none that is live."""
    station, where = loaded.station, f"station {loaded.path}"
    if isinstance(station.arm, (RecordedArmConfig, GymnasiumArmConfig)):
        raise BadInputError(
            f"{where}: an arm of kind {station.arm.kind!r} has no camera that a board could be held in front of; name "
            "a station with live cameras"
        )
    live = {camera.name: camera for camera in station.camera if isinstance(camera, LiveCameraConfig)}
    for name in names:
        if name not in live:
            near = get_close_matches(name, list(live), n=1, cutoff=0.5)
            cure = f"did you mean {near[0]!r}?" if near else f"allowed {', '.join(live)}"
            raise BadInputError(f"--camera {name}: {where} has no such camera; {cure}")
    return [camera for camera in live.values() if not names or camera.name in names]
