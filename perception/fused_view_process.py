"""The process that makes the fused view: one point cloud of all depth cameras, beside the loop and never in its way.

Started by the supervisor as `python -m perception.fused_view_process --config JSON --frames FD [FD ...] --clouds FD
[--poses FD] --board FD --place N --parent PID`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from pydantic import Field

from perception.cloud_config import CameraGeometry, FusedViewConfig
from perception.cloud_ring import CloudRing
from perception.config import Name
from perception.frame_ring import FrameLayout, FrameRing
from perception.fused_view import FusedView, RingDepthCamera
from perception.pose_ring import PoseRing
from robot.clock import WallClock
from robot.errors import HardwareError
from robot.realtime import without_collections
from robot.strict import Strict
from robot.supervised import Supervised


class FusedViewProcessConfig(Strict):
    """What the process is told.

    Attributes:
        view: section of the station.
        geometry: by camera.
        layouts: of the cameras' rings, in the order of the files.
    """

    view: FusedViewConfig
    geometry: dict[Name, CameraGeometry]
    layouts: tuple[FrameLayout, ...] = Field(min_length=1)


def main(words: Sequence[str]) -> int:
    """Run until told to end; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="JSON of FusedViewProcessConfig")
    parser.add_argument("--frames", type=int, nargs="+", required=True, help="file descriptors of the frame rings")
    parser.add_argument("--clouds", type=int, required=True, help="file descriptor of the ring that it writes")
    parser.add_argument("--poses", type=int, help="file descriptor of the arm's poses")
    Supervised.add_arguments(parser)
    args = parser.parse_args(words)
    config = FusedViewProcessConfig.model_validate_json(args.config)
    watch = Supervised(args.board, args.place, args.parent, orphaned=signal.SIGKILL)
    clock, period_s = WallClock(), 1.0 / config.view.rate_hz
    try:
        with ExitStack() as stack, without_collections():
            rings = [FrameRing(file, layout) for file, layout in zip(args.frames, config.layouts, strict=True)]
            clouds = CloudRing(args.clouds, config.view.points)
            poses = None if args.poses is None else PoseRing(args.poses)
            for ring in rings:
                stack.callback(ring.close)
            stack.callback(clouds.close)
            if poses is not None:
                stack.callback(poses.close)
            view = FusedView(config.view, config.geometry, [RingDepthCamera(ring) for ring in rings], poses, clock)
            watch.ready()
            due_s = clock.now_s()
            while not watch.stopping:
                watch.beat()
                cloud = view.look()
                if cloud is not None:
                    clouds.publish(cloud)
                due_s = max(due_s + period_s, clock.now_s())
                clock.sleep_until(due_s)
    except HardwareError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
