"""franky-sim in a process of its own, at a true 1 kHz: `python -m robot.simulation.franka_simulator`.

It speaks libfranka's protocol on a loopback address, ports 1337 and 1338. Its own command line program sleeps between
steps and so comes to some 650 a second (measured); here steps are made against absolute deadlines, each as soon as the
torques for it are there.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from robot import fr3
from robot.clock import WallClock
from robot.realtime import without_collections
from robot.strict import Strict
from robot.supervised import Supervised
from robot.time_slice import ask_for_short_slice

_STEP_S = 0.001
_MOST_STEPS = 5  # made up for at once; what a stall lost beyond that is let go
_BEAT_STEPS = 20


class FrankaSimulatorProcessConfig(Strict):
    """What the process is told: `address` is where it listens."""

    address: str


def main(arguments: list[str] | None = None) -> int:
    """Run until told to end; 2 when it cannot have the address."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=FrankaSimulatorProcessConfig.model_validate_json)
    Supervised.add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        from robot.simulation.franka_server import FrankaArmServer, MujocoSimulator
    except ImportError as error:
        return _refused(
            f"is not installed ({error}); run `.venv/bin/python -m pip install -c constraints.txt -e '.[franka]'`"
        )
    address = options.config.address
    with MujocoSimulator() as simulator:
        server = FrankaArmServer(simulator.add_robot(initial_q=fr3.HOME_Q_RAD, initial_hand_width=0.078), address)

        def step() -> None:
            server.process_commands()
            simulator.step()
            server.send_state()

        try:
            server.init()
        except OSError:
            return _refused(
                f"cannot listen at {address}, ports 1337 and 1338; end what does (`ss -ltnp`), or set arm.address to "
                "another one of 127.0.0.0/8"
            )
        simulator.start()  # reads the meshes, which takes seconds
        # from its first beat on it has to beat
        process = Supervised(options.board, options.place, options.parent, orphaned=signal.SIGKILL)
        try:
            with without_collections():
                _run(step, process)
        finally:
            server.cleanup()
    return 0


def _refused(why: str) -> int:
    print(f"franka simulator: {why}", file=sys.stderr, flush=True)
    return 2


def _run(step: Callable[[], None], process: Supervised) -> None:
    """Step against absolute deadlines until told to end."""
    ask_for_short_slice()
    clock = WallClock()
    due_s, steps = clock.now_s(), 0
    process.ready()
    while not process.stopping:
        step()
        steps += 1
        due_s = max(due_s + _STEP_S, clock.now_s() - _MOST_STEPS * _STEP_S)
        if steps % _BEAT_STEPS == 0:
            process.beat()
        clock.sleep_until(due_s)


if __name__ == "__main__":
    sys.exit(main())
