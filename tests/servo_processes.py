"""Servo and simulated hardware in their real processes, for tests with the wall clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from robot import fr3
from robot.clock import WallClock
from robot.command import Command, CommandKind, SafeCommand
from robot.fr3 import FR3Kinematics
from robot.process_board import ProcessBoard
from robot.safety import SafetyFilter
from robot.servo import Cause, ServoMode
from robot.servo_arm import ServoArm
from robot.servo_process import ServoProcessConfig
from robot.servo_record import ServoStatus
from robot.simulation.world import TIMESTEP_S
from robot.simulation.world_process import WorldProcessConfig
from robot.simulation.world_record import unpack_world
from robot.simulation.world_stream import unpack_reading
from tests.filter_bench import LIMITS
from tests.servo_bench import PERIOD_S, Rings
from tests.servo_bench import SERVO as SERVO_CONFIG

ROOT = Path(__file__).parents[1]
PATIENCE_S = 20.0  # a safety net for a machine that is busy
WORLD, SERVO = 0, 1
AT_REST_RAD_S = 2e-3
# on a busy machine neither is punctual without it, and an arm state may be older than any station would allow
PRIORITY = 20
PATIENT = ServoProcessConfig(servo=SERVO_CONFIG.model_copy(update={"max_state_age_s": 0.1}), loop_period_s=PERIOD_S)


def until(claim: Callable[[], bool], what: str) -> None:
    """Wait until `claim` holds; fail after `PATIENCE_S`."""
    ends_s = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < ends_s, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.002)


class Processes:
    """Both processes, as the supervisor would start them, and the loop's `arm`."""

    def __init__(self, config: ServoProcessConfig = PATIENT) -> None:
        self.rings, self.board = Rings(), ProcessBoard.new(2)
        self._config = config
        self.processes: list[subprocess.Popen[bytes] | None] = [None, None]
        self.arm = ServoArm(self.rings.servo, self.rings.servo_orders, WallClock(), age_s=0.1)

    def start(self, place: int) -> None:
        """Start one of them and wait until it does its work."""
        rings, board = self.rings, self.board
        common = ["--world", rings.world.file, "--set-points", rings.set_points.file]
        if place == WORLD:
            module, config = "robot.simulation.world_process", WorldProcessConfig().model_dump_json()
            files = [*common, "--world-orders", *rings.world_orders.files]
        else:
            module, config = "robot.servo_process", self._config.model_dump_json()
            files = [*common, "--servo", rings.servo.file, "--servo-orders", *rings.servo_orders.files]
        numbers = [item for item in files if isinstance(item, int)]
        board.places["ready"][place] = 0
        self.processes[place] = subprocess.Popen(
            [
                *(sys.executable, "-m", module, "--config", config, *map(str, files)),
                *("--board", str(board.file), "--place", str(place), "--parent", str(os.getpid())),
            ],
            cwd=ROOT,
            pass_fds=[*numbers, board.file],
        )
        until(lambda: bool(board.places["ready"][place]), f"{module} is ready")
        assert os.sched_getscheduler(self.process(place).pid) == os.SCHED_OTHER, "it asks for nothing itself"
        # as the supervisor does, where the system allows it
        with suppress(PermissionError):
            os.sched_setscheduler(self.process(place).pid, os.SCHED_FIFO, os.sched_param(PRIORITY))

    def process(self, place: int) -> subprocess.Popen[bytes]:
        process = self.processes[place]
        assert process is not None
        return process

    def reading_and_time(self, number: int) -> tuple[np.ndarray, float] | None:
        record = bytearray(self.rings.world.record_bytes)
        if not self.rings.world.read(number, record):
            return None
        return np.array(unpack_reading(record).q_set_rad), unpack_world(record).arm.measured_s

    def in_force(self, since: int) -> tuple[np.ndarray, np.ndarray]:
        """Set-points that the arm's controller had in force, (n, 7) [rad], and their times (n,) [s]."""
        found = [self.reading_and_time(number) for number in range(since, self.rings.world.count)]
        kept = [entry for entry in found if entry is not None]
        return np.array([q for q, _ in kept]), np.array([time_s for _, time_s in kept])

    def speed(self) -> float:
        """Greatest speed of a joint of the real arm, as the hardware measures it [rad/s]."""
        record = bytearray(self.rings.world.record_bytes)
        assert self.rings.world.read(self.rings.world.count - 1, record)
        return float(np.abs(unpack_reading(record).arm.dq_rad_s).max())

    @property
    def status(self) -> ServoStatus:
        """How the servo did at its last step; it has made one once it works."""
        status = self.arm.status
        assert status is not None
        return status

    def check_following(self) -> None:
        """The servo goes to what the loop sends."""
        assert self.status.mode is ServoMode.FOLLOWING

    def check_limits(self, since: int) -> None:
        """What the controller had in force kept the arm's own limits, over every step of the hardware.

        The velocity that a set-point has between two steps is known to half a step, for servo and hardware have clocks
        of their own, so that acceleration is looked at over longer spans.
        """
        q, times_s = self.in_force(since)
        assert len(q) > 50
        np.testing.assert_allclose(np.diff(times_s), TIMESTEP_S, atol=1e-9)
        velocity = np.diff(q, axis=0) / TIMESTEP_S
        assert (np.abs(velocity).max(axis=0) <= np.array(fr3.DQ_MAX_RAD_S) + 1e-6).all()
        span = 4
        acceleration = (velocity[span:] - velocity[:-span]) / (span * TIMESTEP_S)
        assert (np.abs(acceleration).max(axis=0) <= np.array(fr3.DDQ_MAX_RAD_S2) + 1.0).all()

    def check_rests(self) -> None:
        """Wait until the arm stands, and see that it stays where it is."""
        until(lambda: self.speed() < AT_REST_RAD_S, "the arm is at rest")
        count = self.rings.world.count
        until(lambda: self.rings.world.count > count + 60, "the world goes on")
        q, _ = self.in_force(count)
        assert np.abs(q - q[-1]).max() < 1e-9
        assert self.speed() < AT_REST_RAD_S

    def drive(self, ticks: int, step_m: float = 0.008) -> None:
        """What a loop does, down at a steady speed: a target each period, paced by the real clock."""
        clock = WallClock()
        state = self.arm.state()
        safety = SafetyFilter(LIMITS, FR3Kinematics(), PERIOD_S, state.T_base_tcp[:3, :3])
        memory = safety.rearm(safety.start(state), state)
        due_s = clock.now_s() + PERIOD_S
        for _ in range(ticks):
            wanted = Command(
                kind=CommandKind.TCP_DELTA,
                target=np.array([0.0, 0.0, -step_m, 0.0, 0.0, 0.0]),
                gripper_width_m=0.08,
                due_s=due_s,
            )
            memory, command = safety.step(memory, self.arm.state(), wanted)
            assert isinstance(command, SafeCommand)
            self.arm.send(command)
            clock.sleep_until(due_s)
            due_s += PERIOD_S

    def close(self) -> None:
        for process in self.processes:
            if process is not None and process.poll() is None:
                process.kill()
        for process in self.processes:
            if process is not None:
                process.wait()


@contextmanager
def running(config: ServoProcessConfig = PATIENT) -> Iterator[Processes]:
    """Both processes at work, the controller following the servo."""
    both = Processes(config)
    try:
        both.start(WORLD)
        both.start(SERVO)
        until(lambda: both.arm.status is not None and both.arm.status.cause is Cause.IDLE, "the servo is idle")
        with both.arm:
            yield both
    finally:
        both.close()
