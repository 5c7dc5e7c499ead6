"""A Franka for tests: the stand-in for its controller in a process, and what a station says of it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from robot.arm_state import ArmState
from robot.clock import WallClock
from robot.command import Command, CommandKind, SafeCommand
from robot.fr3 import FR3Kinematics
from robot.franka_config import FrankaArmConfig, FrankaCollisionConfig
from robot.geometry import matrix_to_rotvec
from robot.process_board import ProcessBoard
from robot.safety import SafetyFilter
from robot.servo import Cause, ServoMode
from robot.servo_arm import ServoArm
from robot.servo_config import ServoConfig
from robot.servo_orders import new_order_ring
from robot.servo_process import ServoProcessConfig
from robot.servo_record import ServoRecord
from tests.filter_bench import LIMITS, PERIOD_S

ROOT = Path(__file__).parents[1]
PATIENCE_S = 40.0  # a safety net for a machine that is busy
PRIORITY = 30
_numbers = itertools.count(1)

# A machine that tests on all its cores delays a simulator as no real arm is ever delayed.
SERVO = ServoConfig(
    watchdog_s=0.15,
    max_state_age_s=0.2,
    arm_age_s=0.5,
    velocity_share=0.3,
    acceleration_share=0.3,
    jerk_share=0.3,
    max_tracking_rad=0.8,
)
# A soft arm takes the longer delays without swinging.
SOFT = (200.0, 200.0, 200.0, 200.0, 80.0, 50.0, 20.0)


def free_address() -> str:
    """Return a loopback address that no other test has: the ports of libfranka's protocol are fixed."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 14) % 128}.{(pid >> 6) & 255}.{((pid & 63) << 2 | next(_numbers) & 3) % 254 + 1}"


def franka(address: str, **changes: object) -> FrankaArmConfig:
    """An arm as a station would name it."""
    fields: dict[str, object] = {
        "kind": "franka",
        "address": address,
        "home_m": (0.45, 0.0, 0.3),
        "servo": SERVO,
        "collision": FrankaCollisionConfig(
            joint_torque_nm=(20.0, 20.0, 18.0, 18.0, 16.0, 14.0, 12.0),
            tcp_force_n=(20.0, 20.0, 20.0),
            tcp_torque_nm=(25.0, 25.0, 25.0),
        ),
        "realtime_kernel": False,
        "stiffness_nm_rad": SOFT,
    }
    return FrankaArmConfig.model_validate(fields | changes)


def until(claim: Callable[[], bool], what: str) -> None:
    """Wait until `claim` holds; fail after `PATIENCE_S`."""
    ends_s = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < ends_s, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.005)


def hurry(pid: int, priority: int = PRIORITY) -> None:
    """Have a process run before others where the system allows it: an arm's controller is not delayed by them."""
    with suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(priority))


class StandIn:
    """The stand-in's process."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.franka_stand_in", address],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        hurry(self.process.pid)  # from the beginning: it reads meshes for seconds
        assert self.process.stdout is not None
        said = self.process.stdout.readline().strip()
        assert said == "ready", f"no stand-in for the arm: {said or 'it said nothing, see above'}"

    def show(self, word: str) -> None:
        """Have it show something, see `franka_stand_in`."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """A Franka that stands at home, at an address of its own."""
    arm = StandIn(free_address())
    try:
        yield arm
    finally:
        arm.end()


class FrankaServo:
    """The servo's process with a Franka, and the loop's end of it with a safety filter in between.

    Attributes:
        arm: the loop's end.
        said: path of what the process wrote to standard error.
    """

    def __init__(self, config: FrankaArmConfig, folder: Path) -> None:
        self.states, self.orders = ServoRecord(7).new_ring(slots=4096), new_order_ring()
        self.board = ProcessBoard.new(1)
        self.arm = ServoArm(self.states, self.orders, WallClock(), age_s=config.servo.arm_age_s)
        self.said = folder / "servo.err"
        process = ServoProcessConfig(servo=config.servo, loop_period_s=PERIOD_S, franka=config)
        files = [self.states.file, *self.orders.files]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "robot.servo_process", "--config", process.model_dump_json()),
                    *("--servo", str(files[0]), "--servo-orders", str(files[1]), str(files[2])),
                    *("--board", str(self.board.file), "--place", "0", "--parent", str(os.getpid())),
                ],
                cwd=ROOT,
                pass_fds=[*files, self.board.file],
                stderr=said,
            )
        hurry(self.process.pid, PRIORITY - 1)  # as the supervisor does

    def ready(self) -> None:
        """Wait until it does its work."""

        def works() -> bool:
            assert self.process.poll() is None, self.said.read_text()
            return bool(self.board.places["ready"][0])

        until(works, "the servo is ready")
        assert self.arm.status is not None, "it said so before there was a state to be read"

    def arm_it(self) -> None:
        """What the person's arm verb does, and a filter at the measured pose.

        It is given again where it came to nothing, as a person would: one that lay about for 0.2 s is void, and while
        the arm recovers its states may come so late that the servo stops anew.
        """
        assert self.arm.status is not None
        before, given_s = self.arm.status.clears, -PATIENCE_S

        def armed() -> bool:
            nonlocal given_s
            status, now_s = self.arm.status, time.monotonic()
            assert status is not None
            if status.clears > before and status.mode is not ServoMode.FAULT and status.cause is not Cause.CONTROLLER:
                return True
            if now_s - given_s > 1.0:
                self.arm.clear_fault()
                given_s = now_s
            return False

        until(armed, f"the arm is armed ({self.arm.status})")
        state = self.arm.state()
        self.safety = SafetyFilter(LIMITS, FR3Kinematics(), PERIOD_S, state.T_base_tcp[:3, :3])
        self.memory = self.safety.rearm(self.safety.start(state), state)

    def drive(self, ticks: int, wanted: Callable[[ArmState], Command | None]) -> list[ArmState]:
        """What a loop does for so many ticks; returns the state at each."""
        clock, states = WallClock(), []
        hurry(0, PRIORITY - 2)  # as a run's loop does
        try:
            due_s = clock.now_s() + PERIOD_S
            for _ in range(ticks):
                states.append(self.arm.state())
                self.memory, command = self.safety.step(self.memory, states[-1], wanted(states[-1]))
                if isinstance(command, SafeCommand):
                    self.arm.send(replace(command, due_s=due_s))
                else:
                    self.arm.hold()
                clock.sleep_until(due_s)
                due_s += PERIOD_S
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return states

    def go(self, position_m: Sequence[float], width_m: float = 0.078) -> None:
        """Drive until the TCP is within 8 mm; a busy machine makes a loop late, and the servo then waits for it."""
        wish, goal = self.to(position_m, width_m), np.array(position_m)

        def there() -> bool:
            self.drive(10, wish)
            assert not self.memory.latched, self.told()
            return float(np.linalg.norm(self.arm.state().T_base_tcp[:3, 3] - goal)) < 8e-3

        until(there, "the arm is where it was sent")

    def to(self, position_m: Sequence[float], width_m: float = 0.078) -> Callable[[ArmState], Command]:
        """Return a wish that goes to a position with the orientation of now."""
        rotation = matrix_to_rotvec(self.arm.state().T_base_tcp[:3, :3])

        def wish(state: ArmState) -> Command:
            return Command(
                kind=CommandKind.TCP_POSE,
                target=np.concatenate([position_m, rotation]),
                gripper_width_m=width_m,
                due_s=WallClock().now_s() + PERIOD_S,
            )

        return wish

    def told(self) -> str:
        """Return what stopped it, for a test that did not expect it."""
        return f"{self.memory.reasons!r}, {self.arm.state().fault}, {self.arm.status}"

    def speed(self) -> float:
        """Greatest speed of a joint [rad/s]."""
        return float(np.abs(self.arm.state().dq_rad_s).max())

    def stands(self) -> bool:
        """Look for a third of a second whether the joints stay; the simulator's own hold trembles a little."""
        before = self.arm.state()
        until(lambda: self.arm.state().measured_s > before.measured_s + 0.3, "states go on")
        return float(np.abs(self.arm.state().q_rad - before.q_rad).max()) < 2e-3

    def end(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.board.close()
        for ring in (self.states, self.orders):
            ring.close()


@contextmanager
def franka_servo(config: FrankaArmConfig, folder: Path) -> Iterator[FrankaServo]:
    """The servo's process, ended afterwards in any case."""
    servo = FrankaServo(config, folder)
    try:
        yield servo
    finally:
        servo.end()
