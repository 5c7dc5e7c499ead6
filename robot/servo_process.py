"""The servo in a process of its own: `python -m robot.servo_process`."""

from __future__ import annotations

import argparse
import enum
import math
import os
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

from robot.clock import WallClock
from robot.errors import BadInputError, HardwareError
from robot.franka_config import FrankaArmConfig
from robot.franka_stream import FrankaStream
from robot.joint_path import PathPlanner
from robot.joint_stream import JointStream, Reading
from robot.message_ring import MessageRing
from robot.realtime import without_collections
from robot.servo import Cause, Servo, ServoLimits
from robot.servo_config import ServoConfig, motion_limits
from robot.servo_orders import CLEARING_S, ServoOrder, unpack_target, unpack_time
from robot.servo_record import ServoRecord, ServoStatus
from robot.shared_ring import SharedRing
from robot.simulation.shadow import ShadowedStream
from robot.simulation.world_stream import WorldStream
from robot.strict import Strict
from robot.supervised import Supervised
from robot.time_slice import ask_for_short_slice

_BRAKING_S = 1.0  # the longest that it brakes at its end
_WAIT_S = 0.002  # between two looks for an arm that is not there yet
_BEAT_STEPS = 5


class ServoProcessConfig(Strict):
    """What the process is to be.

    Attributes:
        servo: the station's section.
        loop_period_s: of the loop that sends the targets [s].
        franka: an arm that it drives itself; None for the simulated one behind its rings.
        read_only: the arm is looked at and no more: no order is heeded and no set-point is written, whatever the loop
            sends.
    """

    servo: ServoConfig
    loop_period_s: float
    franka: FrankaArmConfig | None = None
    read_only: bool = False


class ServoFault(enum.IntEnum):
    """Faults that it can show."""

    STALL = 1  # stand still for so many seconds, once


class ServoRunner:
    """One step of the servo with all that it reads and writes, on whatever clock.

    Args:
        stream: of the arm.
        orders: from the loop.
        ring: that it publishes into.
        first: the reading to begin from.
        now_s: present time [s].
    """

    def __init__(
        self,
        config: ServoProcessConfig,
        stream: JointStream,
        orders: MessageRing,
        ring: SharedRing,
        first: Reading,
        now_s: float,
    ) -> None:
        limits = ServoLimits(
            loop_period_s=config.loop_period_s,
            delay_s=config.servo.delay_for_s(config.loop_period_s),
            watchdog_s=config.servo.watchdog_for_s(config.loop_period_s),
            max_state_age_s=config.servo.max_state_age_s,
            max_tracking_rad=config.servo.max_tracking_rad,
        )
        self.servo = Servo(PathPlanner(motion_limits(config.servo)), limits, first, now_s)
        self._stream, self._orders, self._ring = stream, orders, ring
        self._read_only = config.read_only
        self._reading = first
        self._record = ServoRecord(len(first.q_set_rad))
        self._worst_late_s = 0.0

    def step(self, now_s: float, *, late_s: float = 0.0, missed: int = 0, ending: bool = False) -> None:
        """Read the arm, heed the loop, stream the next set-point and say how it went."""
        servo = self.servo
        self._reading = self._stream.read() or self._reading
        while (order := self._orders.take()) is not None:
            if not self._read_only:
                self._heed(*order, now_s, ending)
        if ending:
            servo.hold(now_s, Cause.ENDING)
        point = servo.step(now_s, self._reading)
        if not self._read_only:
            self._stream.write(point)
        self._worst_late_s = max(self._worst_late_s, late_s)
        status = ServoStatus(
            time_s=now_s,
            mode=servo.mode,
            cause=servo.cause,
            target_age_s=servo.target_age_s(now_s),
            tracking_rad=servo.tracking_rad,
            late_s=late_s,
            worst_late_s=self._worst_late_s,
            missed=missed,
            refused=servo.refused,
            clears=self._clears(),
        )
        arm = self._reading.arm
        if servo.fault is not None:
            arm = replace(arm, fault=servo.fault)
        self._ring.write(self._record.pack(arm, status, point))

    def _clears(self) -> int:
        """Return how many clearings have taken effect: not one that the arm has yet to heed, as its state still shows.

        A fault that the servo found since the clearing is a new one, and to be shown as such.
        """
        if self.servo.fault is not None:
            return self.servo.clears
        return min(self.servo.clears, self._reading.clears)

    def _heed(self, kind: int, body: bytes, now_s: float, ending: bool) -> None:
        match kind:
            case ServoOrder.TARGET if not ending:
                self.servo.target(unpack_target(body), now_s)
            case ServoOrder.HOLD:
                self.servo.hold(now_s)
            # one that lay about while this process stood still was meant for what the person saw then
            case ServoOrder.CLEAR_FAULT if now_s - unpack_time(body) <= CLEARING_S:
                self.servo.clear_fault()


def main(arguments: list[str] | None = None) -> int:
    """Run until told to end; the set-point is at rest then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, type=ServoProcessConfig.model_validate_json)
    parser.add_argument("--world", type=int, help="ring of the simulated hardware")
    parser.add_argument("--set-points", type=int, help="ring that it writes for the hardware")
    parser.add_argument("--servo", type=int, required=True, help="ring that it writes for the loop")
    parser.add_argument("--servo-orders", type=int, nargs=2, required=True, metavar=("MEMORY", "BELL"))
    Supervised.add_arguments(parser)
    options = parser.parse_args(arguments)
    process = Supervised(options.board, options.place, options.parent, orphaned=signal.SIGTERM)
    config: ServoProcessConfig = options.config
    orders, ring = MessageRing(*options.servo_orders), SharedRing(options.servo)
    rings = [SharedRing(file) for file in (options.world, options.set_points) if file is not None]
    try:
        with without_collections(), ExitStack() as stack:
            ask_for_short_slice()
            stream = _open_stream(config, rings, process, stack)
            first = _first_reading(stream, process, config.servo.max_state_age_s) if stream else None
            if stream is not None and first is not None:
                runner = ServoRunner(config, stream, orders, ring, first, time.monotonic())
                _run(runner, process, 1.0 / config.servo.rate_hz)
    except (BadInputError, HardwareError) as error:
        print(f"servo: {error}", file=sys.stderr, flush=True)
        status = 2 if isinstance(error, BadInputError) else 1
        # not by way of the interpreter's end: a vendor's thread may still wait for an arm that does not answer
        os._exit(status)
    return 0


def _open_stream(
    config: ServoProcessConfig, rings: list[SharedRing], process: Supervised, stack: ExitStack
) -> JointStream | None:
    """Return the stream of the arm, which `stack` closes; None when told to end before it was there.

    Raises:
        BadInputError: the arm cannot be had.
    """
    if config.franka is None:
        return WorldStream(*rings)
    from robot.franka_sdk import connect_franka

    franka = stack.enter_context(FrankaStream(config.franka, connect_franka))

    def alive() -> bool:
        process.beat()
        return not process.stopping

    if not franka.open(alive):
        return None
    return ShadowedStream(franka, *rings) if rings else franka


def _first_reading(stream: JointStream, process: Supervised, age_s: float) -> Reading | None:
    """Wait for an arm whose states keep coming; None when told to end before."""
    before = stream.read()
    while not process.stopping:
        reading = stream.read()
        if reading is not None and time.monotonic() - reading.arm.measured_s < age_s:
            if before is not None and reading.arm.measured_s > before.arm.measured_s:
                return reading
            before = before or reading
        process.beat()
        time.sleep(_WAIT_S)
    return None


def _run(runner: ServoRunner, process: Supervised, period_s: float) -> None:
    """Step against absolute deadlines; a step that cannot be caught up is left out, never made in a burst."""
    clock = WallClock()
    due_s = deadline_s = clock.now_s()
    missed, steps, shown, ends_s = 0, 0, 0, math.inf
    while clock.now_s() < ends_s:
        clock.sleep_until(deadline_s)
        now_s = clock.now_s()
        # counted from the first step that was left out, or a stall would be told by nothing but their number
        runner.step(now_s, late_s=now_s - due_s, missed=missed, ending=ends_s < math.inf)
        if steps == 0:
            process.ready()  # now there is a state to be read
        if steps % _BEAT_STEPS == 0:
            process.beat()
            shown = _show(process.fault, shown)
            if process.stopping:
                ends_s = min(ends_s, now_s + _BRAKING_S)
        if ends_s < math.inf and runner.servo.at_rest:
            return
        steps += 1
        left_out = int((clock.now_s() - deadline_s) // period_s)
        missed += left_out
        due_s = deadline_s + period_s
        deadline_s = due_s + period_s * left_out


def _show(fault: tuple[int, float], shown: int) -> int:
    """Show an injected fault once; return its number."""
    number, seconds = fault
    if number == ServoFault.STALL and shown != number:
        time.sleep(seconds)
    return number


if __name__ == "__main__":
    sys.exit(main())
