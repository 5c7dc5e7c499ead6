"""An opened arm and its cameras, watched as the loop would see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from perception.camera import Camera
from perception.config import EnvironmentCameraConfig, LiveCameraConfig
from perception.observation import Verdict
from perception.synchroniser import Synchroniser
from robot.arm import Arm
from robot.clock import Clock
from robot.recording import Recording
from teleop.station import Station

_POLL_S = 0.005  # the fastest camera that a station may have gives 200 Hz
_TOLD_EVERY = 20  # polls
_RECENT = 8  # frames that may come between two polls, where this process had to wait
_LEAST_FRAMES = 5


@dataclass(kw_only=True)
class CameraStream:
    """What one camera gave.

    Attributes:
        expected_hz: its rate by the station or the recording [Hz].
        captured_s: of each new frame, in order [s].
        arrived_s: the same for arrival [s].
        frame_ids: the same for ids.
    """

    name: str
    height: int
    width: int
    expected_hz: float
    captured_s: list[float] = field(default_factory=list)
    arrived_s: list[float] = field(default_factory=list)
    frame_ids: list[int] = field(default_factory=list)

    @property
    def rate_hz(self) -> float:
        """Measured over the capture times [Hz]; needs two frames."""
        return (len(self.captured_s) - 1) / (self.captured_s[-1] - self.captured_s[0])

    @property
    def held_hz(self) -> float:
        """Least rate over any stretch of a second or the first frame more [Hz]; that of all where it is shorter."""
        times = np.array(self.captured_s)
        ends = np.searchsorted(times, times + 1.0)
        begins = np.arange(len(times))[ends < len(times)]
        if not len(begins):
            return self.rate_hz
        ends = ends[begins]
        return float(((ends - begins) / (times[ends] - times[begins])).min())

    @property
    def latency_s(self) -> float:
        """Median time from capture to arrival [s]."""
        return float(np.median(np.subtract(self.arrived_s, self.captured_s)))

    @property
    def dropped(self) -> int:
        """Ids that never came between the first and the last."""
        return self.frame_ids[-1] - self.frame_ids[0] + 1 - len(self.frame_ids)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What watching showed.

    Attributes:
        arm_age_s: greatest age of the arm's state at a tick [s].
        arm_fault: what the arm reported, or None.
        ticks: ticks since every camera had its first frame.
        fresh: how many of them the loop would have acted on.
        skew_s: greatest skew at a tick [s].
        verdicts: name -> count over `ticks`.
        span_s: how long they were watched [s].
        ended_s: until when [s].
    """

    cameras: tuple[CameraStream, ...]
    arm_age_s: float
    arm_fault: str | None
    ticks: int
    fresh: int
    skew_s: float
    verdicts: Mapping[str, int]
    span_s: float
    ended_s: float


def watch(
    station: Station,
    clock: Clock,
    arm: Arm,
    cameras: Sequence[Camera],
    recording: Recording | None,
    *,
    least_s: float,
    check: Callable[[], None],
    progress: Callable[[float], None] | None = None,
) -> Watched:
    """Watch entered parts for `least_s`, or five frames of the slowest camera. Nothing is sent to the arm.

    `check` looks at every poll whether their processes live; `progress` is told the share that is done.

    Raises:
        HardwareError: the arm gives no state, or a process is gone.
    """
    streams = _streams(station, cameras, recording)
    synchroniser = Synchroniser(cameras, station.synchroniser, ())
    verdicts: Counter[str] = Counter()
    age_s, skew_s, fault = 0.0, 0.0, None
    start_s = clock.now_s()
    span_s = max([least_s, *(_LEAST_FRAMES / stream.expected_hz for stream in streams)])
    polls_per_tick = max(1, round(station.period_s / _POLL_S))
    for poll in range(round(span_s / _POLL_S)):
        clock.sleep_until(start_s + poll * _POLL_S)
        check()
        if progress is not None and poll % _TOLD_EVERY == 0:
            progress(poll * _POLL_S / span_s)
        now_s, state = clock.now_s(), arm.state()
        fault = state.fault or fault
        for camera, stream in zip(cameras, streams, strict=True):
            for stamp in camera.recent(now_s, _RECENT):
                if not stream.frame_ids or stream.frame_ids[-1] < stamp.frame_id:
                    stream.captured_s.append(stamp.captured_s)
                    stream.arrived_s.append(stamp.arrived_s)
                    stream.frame_ids.append(stamp.frame_id)
        if poll % polls_per_tick == 0 and all(stream.frame_ids for stream in streams):
            observation = synchroniser.observe(now_s, state)
            verdicts[observation.verdict.name] += 1
            age_s = max(age_s, now_s - state.measured_s)
            skew_s = max(skew_s, observation.skew_s)
    return Watched(
        cameras=streams,
        arm_age_s=age_s,
        arm_fault=fault,
        ticks=verdicts.total(),
        fresh=verdicts[Verdict.FRESH.name],
        skew_s=skew_s,
        verdicts=verdicts,
        span_s=span_s,
        ended_s=clock.now_s(),
    )


def _streams(station: Station, cameras: Sequence[Camera], recording: Recording | None) -> tuple[CameraStream, ...]:
    by_name = {camera.name: camera for camera in station.camera}
    streams = []
    for camera in cameras:
        config = by_name[camera.name]
        if isinstance(config, LiveCameraConfig):
            expected_hz = config.rate_hz
        elif isinstance(config, EnvironmentCameraConfig):
            expected_hz = station.loop.rate_hz  # it is looked at once a tick
        else:
            assert recording is not None, "recorded cameras are made from a recording"
            expected_hz = recording.rate_hz
        height, width = camera.size
        streams.append(CameraStream(name=camera.name, height=height, width=width, expected_hz=expected_hz))
    return tuple(streams)
