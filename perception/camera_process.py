"""The process that owns one camera: it waits for the device and publishes what it gives.

Started by the supervisor as `python -m perception.camera_process --config JSON --ring FD --board FD --place N --parent
PID`, for a camera of a simulated world also `--world FD`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

from perception.config import (
    LiveCamera,
    PatternCameraConfig,
    PlaybackCameraConfig,
    RealSenseCameraConfig,
    SimulatedCameraConfig,
    UvcCameraConfig,
)
from perception.faulty_source import FaultySource
from perception.frame_publisher import FramePublisher, Speaker
from perception.frame_ring import FrameLayout, FrameRing
from perception.frame_source import FrameSource
from perception.pattern_source import PatternSource
from perception.realsense_source import RealSenseSource
from perception.uvc_source import UvcSource
from robot.clock import Clock, WallClock
from robot.errors import HardwareError
from robot.realtime import without_collections
from robot.simulation.scenes import SceneName, scene_named
from robot.strict import Strict
from robot.supervised import Supervised

_SLICE_S = 0.05
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class CameraProcessConfig(Strict):
    """What the process is told.

    Attributes:
        camera: its section of the station.
        seed: of what a simulated or pattern camera draws, and of injected faults.
        usable_s: how old a frame may be and still be chosen; so long they are kept [s].
        scene: that a simulated camera looks at.
        depth: its depth is wanted, recorded or not.
    """

    camera: Annotated[LiveCamera, Field(discriminator="kind")]
    seed: Annotated[int, Field(ge=0)] = 0
    usable_s: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    scene: SceneName = "place"
    depth: bool = False

    @property
    def keeps_depth(self) -> bool:
        """Whether depth is published."""
        return self.depth or self.camera.depth_stream

    @property
    def layout(self) -> FrameLayout:
        """Of the ring that it publishes to."""
        return FrameLayout.of(self.camera, usable_s=self.usable_s, depth=self.keeps_depth)


class Watch(Protocol):
    """What the process needs of its supervision."""

    def beat(self) -> None:
        """Say that this process lives."""
        ...

    def ready(self) -> None:
        """Say that it does its work."""
        ...

    @property
    def stopping(self) -> bool:
        """True once it is to come to an end."""
        ...


def serve(
    source: FrameSource,
    publisher: FramePublisher,
    watch: Watch,
    *,
    reconnect_s: float,
    clock: Clock,
    say: Callable[[str], None],
) -> None:
    """Publish what the device gives until told to stop; open it anew when it fails or gives nothing usable.

    The process beats all the while: a silent device is no reason to kill it.
    """
    pause_s = _FIRST_PAUSE_S
    while not watch.stopping:
        try:
            with source:
                publisher.begin()
                watch.ready()
                used_s = clock.now_s()
                while not watch.stopping:
                    watch.beat()
                    frame = source.wait(_SLICE_S, publisher.place())
                    if frame is not None and publisher.take(frame):
                        used_s, pause_s = clock.now_s(), _FIRST_PAUSE_S
                    elif clock.now_s() - used_s > reconnect_s:
                        raise HardwareError(f"no usable frame for {reconnect_s:g} s")
        except HardwareError as error:
            say(f"{error}; opening it again in {pause_s:g} s")
        until_s = clock.now_s() + pause_s
        pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)
        while not watch.stopping and clock.now_s() < until_s:
            watch.beat()
            clock.sleep_until(min(until_s, clock.now_s() + _SLICE_S))


def make_source(config: CameraProcessConfig, world: int | None) -> FrameSource:
    """Return the driver of a camera, not yet entered; `world` is the file descriptor of a simulated world's ring."""
    match config.camera:
        case PatternCameraConfig():
            return PatternSource(config.camera, seed=config.seed)
        case RealSenseCameraConfig():
            return RealSenseSource(config.camera, depth=config.keeps_depth)
        case UvcCameraConfig():
            return UvcSource(config.camera)
        case PlaybackCameraConfig():
            from perception.playback_source import PlaybackSource  # needs h5py, which takes its time

            return PlaybackSource(config.camera, Path(config.camera.file))
        case SimulatedCameraConfig():
            if world is None:
                raise HardwareError("is simulated and was given no world (--world)")
            from perception.simulated_source import SimulatedSource  # needs MuJoCo

            return SimulatedSource(config.camera, world, config.seed, scene=scene_named(config.scene))


def main(words: Sequence[str]) -> int:
    """Run the camera; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="JSON of CameraProcessConfig")
    parser.add_argument("--ring", type=int, required=True, help="file descriptor of the frame ring")
    parser.add_argument("--world", type=int, help="file descriptor of a simulated world's ring")
    Supervised.add_arguments(parser)
    args = parser.parse_args(words)
    config = CameraProcessConfig.model_validate_json(args.config)
    clock = WallClock()
    name = config.camera.name
    say, say_refusal = (Speaker(name, sys.stderr, clock.now_s) for _ in range(2))
    try:
        driver = make_source(config, args.world)
        # from its first beat on it has to beat; what a driver imports may take longer than a silence
        watch = Supervised(args.board, args.place, args.parent, orphaned=signal.SIGKILL)
        with closing(FrameRing(args.ring, config.layout)) as ring, without_collections():
            source = FaultySource(driver, lambda: watch.fault, seed=config.seed)
            publisher = FramePublisher(ring, config.camera, say_refusal)
            serve(source, publisher, watch, reconnect_s=config.camera.reconnect_s, clock=clock, say=say)
    except HardwareError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
