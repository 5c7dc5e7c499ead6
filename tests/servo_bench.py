"""Servo and simulated hardware in this process on a virtual clock, with the rings and the steps of the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robot.arm_state import ArmState
from robot.clock import VirtualClock
from robot.command import SafeCommand
from robot.message_ring import MessageRing
from robot.servo_arm import ServoArm
from robot.servo_config import ServoConfig
from robot.servo_orders import new_order_ring
from robot.servo_process import ServoProcessConfig, ServoRunner
from robot.servo_record import ServoRecord
from robot.shared_ring import SharedRing
from robot.simulation.hardware import SimulatedHardware
from robot.simulation.world_record import new_world_orders, new_world_ring
from robot.simulation.world_stream import WorldStream, new_set_point_ring

Array = NDArray[np.float64]

SERVO = ServoConfig(
    watchdog_s=0.15,
    max_state_age_s=0.02,
    velocity_share=0.8,
    acceleration_share=0.8,
    jerk_share=0.8,
    max_tracking_rad=0.2,
    rate_hz=250.0,
)
PERIOD_S = 0.05
CONFIG = ServoProcessConfig(servo=SERVO, loop_period_s=PERIOD_S)


@dataclass
class Rings:
    """What the run makes for servo and hardware."""

    world: SharedRing = field(default_factory=lambda: new_world_ring(slots=1024))
    set_points: SharedRing = field(default_factory=new_set_point_ring)
    servo: SharedRing = field(default_factory=lambda: ServoRecord(7).new_ring(slots=4096))
    servo_orders: MessageRing = field(default_factory=new_order_ring)
    world_orders: MessageRing = field(default_factory=new_world_orders)


class Bench:
    """Both, stepped in the order of their times by whoever looks at the arm."""

    def __init__(self, clock: VirtualClock, config: ServoProcessConfig = CONFIG) -> None:
        self.rings, self.clock, self._period_s = Rings(), clock, 1.0 / config.servo.rate_hz
        now_s = clock.now_s()
        rings = self.rings
        self.hardware = SimulatedHardware(rings.world, rings.set_points, rings.world_orders, now_s)
        stream = WorldStream(rings.world, rings.set_points)
        first = stream.read()
        assert first is not None
        self.runner = ServoRunner(config, stream, rings.servo_orders, rings.servo, first, now_s)
        self._next_s = now_s
        self.servo_runs = self.hardware_runs = True
        self.catch_up()

    def catch_up(self) -> None:
        """Make all steps that are due by the clock."""
        now_s = self.clock.now_s()
        while min(self._next_s, self.hardware.next_s) <= now_s + 1e-9:
            if self._next_s <= self.hardware.next_s:
                if self.servo_runs:
                    self.runner.step(self._next_s)
                self._next_s += self._period_s
            elif self.hardware_runs:
                self.hardware.advance(self.hardware.next_s)
            else:
                self.hardware.world.skip(0.005)


class BenchArm(ServoArm):
    """A `ServoArm` on a bench that runs up to the clock's time before each look and each order."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.rings.servo, bench.rings.servo_orders, bench.clock, age_s=0.1)
        self.bench = bench

    def state(self) -> ArmState:
        self.bench.catch_up()
        return super().state()

    def send(self, command: SafeCommand) -> None:
        self.bench.catch_up()
        super().send(command)

    def hold(self) -> None:
        self.bench.catch_up()
        super().hold()
