"""The simulated hardware in a process of its own, in real time: `python -m robot.simulation.world_process`."""

from __future__ import annotations

import argparse
import enum
import signal
import sys
import time

from robot.clock import WallClock
from robot.message_ring import MessageRing
from robot.realtime import without_collections
from robot.shared_ring import SharedRing
from robot.simulation.hardware import SimulatedHardware
from robot.simulation.scenes import SceneName, scene_named
from robot.strict import Strict
from robot.supervised import Supervised
from robot.time_slice import ask_for_short_slice

_BRAKING_S = 1.0  # the longest that it waits at its end for the arm to come to rest


class WorldProcessConfig(Strict):
    """What the process is told: `scene` stands on the table; the arm is a `shadow` of another one."""

    scene: SceneName = "place"
    shadow: bool = False


class WorldFault(enum.IntEnum):
    """Faults that it can show."""

    REFLEX = 1  # the arm's own fault, once
    SILENT = 2  # no states, for as long as the fault is there


def main(arguments: list[str] | None = None) -> int:
    """Run until told to end; the arm is at rest then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, type=WorldProcessConfig.model_validate_json)
    parser.add_argument("--world", type=int, required=True, help="ring that it writes")
    parser.add_argument("--set-points", type=int, required=True, help="ring that it reads")
    parser.add_argument("--world-orders", type=int, nargs=2, required=True, metavar=("MEMORY", "BELL"))
    Supervised.add_arguments(parser)
    options = parser.parse_args(arguments)
    process = Supervised(options.board, options.place, options.parent, orphaned=signal.SIGTERM)
    rings = SharedRing(options.world), SharedRing(options.set_points), MessageRing(*options.world_orders)
    clock, ends_s, shown = WallClock(), None, 0
    with without_collections():
        ask_for_short_slice()
        # the first state goes out here: from now on they must come
        scene, shadow = scene_named(options.config.scene), options.config.shadow
        hardware = SimulatedHardware(*rings, time.monotonic(), scene=scene, shadow=shadow)
        process.ready()
        while True:
            clock.sleep_until(hardware.next_s)
            hardware.advance(clock.now_s())
            process.beat()
            shown = _show(hardware, process.fault[0], shown)
            if process.stopping:
                ends_s = clock.now_s() + _BRAKING_S if ends_s is None else ends_s
                if hardware.controller.motion.at_rest or clock.now_s() > ends_s:
                    return 0


def _show(hardware: SimulatedHardware, fault: int, shown: int) -> int:
    """Show an injected fault; return it, so that one that happens once is not shown again."""
    if fault == WorldFault.REFLEX and shown != fault:
        hardware.controller.fail("arm: reflex (injected)")
    hardware.publishes = fault != WorldFault.SILENT
    return fault


if __name__ == "__main__":
    sys.exit(main())
