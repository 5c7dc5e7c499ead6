"""The simulator as a process that also shows what it never does by itself: reflexes, a stop button, guiding, forces.

It speaks libfranka's own protocol. Words come on standard input, a line each; `ready` goes to standard output.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from typing import Any

from franky_sim.franka_robot_protocol import (
    AutomaticErrorRecoveryCommand,
    BaseCommand,
    MoveStatus,
    RobotCommand,
    RobotMode,
)

from robot import fr3
from robot.simulation.franka_server import FrankaArmServer, MujocoSimulator

_MODES = {
    "reflex": RobotMode.kReflex,
    "stop": RobotMode.kUserStopped,
    "guide": RobotMode.kGuiding,
    "lock": RobotMode.kOther,
    "idle": RobotMode.kIdle,
}
_STATUSES = {"reflex": MoveStatus.kReflexAborted, "stop": MoveStatus.kEmergencyAborted}
# place of joint_velocity_violation in libfranka's list of errors
_JOINT_VELOCITY_VIOLATION = 3


class Server(FrankaArmServer):
    """Answers as an arm with a fault would."""

    def __init__(self, robot: Any, address: str) -> None:
        super().__init__(robot, address)
        self.mode: RobotMode | None = None
        self.force_n: float | None = None  # None: what it feels
        self.recoveries = 0

    def show(self, word: str) -> None:
        """Go into a mode, and break off the motion that runs."""
        self.mode = None if word == "idle" else _MODES[word]
        motion = self.current_motion_id
        if motion and self.mode is not None:
            self.stop_motion(send_preemption_signal=False)
            self.reset_current_motion_id()
            BaseCommand.send_response(
                self._tcp_socket, RobotCommand.kMove, motion, _STATUSES.get(word, MoveStatus.kAborted)
            )

    @property
    def robot_state(self) -> Any:
        """The state with the fault on it."""
        state = super().robot_state
        if self.force_n is not None:
            state = state.replace(O_F_ext_hat_K=(self.force_n, 0.0, 0.0, 0.0, 0.0, 2.0 * self.force_n))
        if self.mode is None:
            return state
        errors = [False] * 41
        errors[_JOINT_VELOCITY_VIOLATION] = self.mode is RobotMode.kReflex
        return state.replace(robot_mode=self.mode, errors=tuple(errors), current_errors=tuple(errors))


def main() -> int:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    address = parser.parse_args().address
    with MujocoSimulator() as simulator:
        robot = simulator.add_robot(initial_q=fr3.HOME_Q_RAD, initial_hand_width=0.078)
        server = Server(robot, address)

        def recover(command: AutomaticErrorRecoveryCommand, _server: Any) -> None:
            server.recoveries += 1
            if server.mode is RobotMode.kReflex:
                server.mode = None
            command.reply(0)
            print("recovered", flush=True)

        AutomaticErrorRecoveryCommand.handle = recover
        try:
            server.init()
        except OSError as error:
            print(f"{address}: ports 1337 and 1338 are not free ({error})", flush=True)
            return 1
        simulator.start()
        print("ready", flush=True)
        due_s = time.monotonic()
        while True:
            if select.select([sys.stdin], [], [], 0.0)[0]:
                words = os.read(sys.stdin.fileno(), 1000).decode().split()
                if not words:
                    return 0
                for word in words:
                    if word in _MODES:
                        server.show(word)
                    else:
                        server.force_n = None if word == "feel" else float(word)
            server.process_commands()
            simulator.step()
            server.send_state()
            due_s = max(due_s + 0.001, time.monotonic() - 0.005)
            time.sleep(max(0.0, due_s - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
