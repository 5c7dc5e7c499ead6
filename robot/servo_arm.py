"""The loop's end of an arm behind the servo."""

from __future__ import annotations

import math
from dataclasses import replace
from types import TracebackType
from typing import Self

from robot.arm_state import ArmState
from robot.clock import Clock
from robot.command import SafeCommand
from robot.errors import HardwareError
from robot.message_ring import MessageRing
from robot.servo import JointTarget
from robot.servo_orders import CLEARING_S, ServoOrder, pack_target, pack_time
from robot.servo_record import ServoRecord, ServoStatus, ServoStep
from robot.shared_ring import SharedRing


class ServoArm:
    """Sends safe commands to the servo and reads the states that it publishes. Never waits.

    Args:
        ring: that the servo writes.
        orders: that the servo reads; this is its one writer.
        clock: the loop's.
        age_s: age of the newest state at which there is none any more [s].
    """

    joint_count = 7
    open_loop = False

    def __init__(self, ring: SharedRing, orders: MessageRing, clock: Clock, *, age_s: float) -> None:
        self._ring, self._orders, self._clock, self._age_s = ring, orders, clock, age_s
        self._layout = ServoRecord(self.joint_count)
        self._record = bytearray(self._layout.size)
        self._seen = 0  # records given by `history`
        self._told_s = -math.inf  # time of the last state that it gave [s]
        self._newest: tuple[int, ServoStep] | None = None
        self._cleared: tuple[int, float] | None = None  # count of clears that is awaited, and until when

    def __enter__(self) -> Self:
        self._seen = self._ring.count
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._orders.has_room(0):
            self.hold()

    def state(self) -> ArmState:
        """Return the newest state, with the servo's fault on it if it has stopped.

        Raises:
            HardwareError: there is none fresh enough.
        """
        now_s = self._clock.now_s()
        step = self._step()
        if step is None:
            raise HardwareError("servo: no arm state yet; wait until its process is ready")
        age_s = now_s - step.arm.measured_s
        if not age_s <= self._age_s:
            raise HardwareError(
                f"servo: arm state is {1e3 * age_s:.0f} ms old (allowed {1e3 * self._age_s:.0f} ms); "
                "the servo's process or the arm is gone: look at the arm, then start the run again"
            )
        return self._uncleared(step, now_s)

    def history(self) -> list[ArmState]:
        """Return the states since the last call, oldest first, as many as the ring still holds; no state twice."""
        count = self._ring.count
        states: list[ArmState] = []
        for number in range(max(self._seen, count - self._ring.slots + 1, 0), count):
            if self._ring.read(number, self._record):
                arm = self._layout.unpack(self._record).arm
                if arm.measured_s > self._told_s:  # the servo steps more often than some arms tell their state
                    states.append(arm)
                    self._told_s = arm.measured_s
        self._seen = count
        return states

    @property
    def status(self) -> ServoStatus | None:
        """How the servo did at its last step, None before the first."""
        step = self._step()
        return None if step is None else step.status

    def send(self, command: SafeCommand) -> None:
        """Have the servo go to a safe command's joints.

        Raises:
            TypeError: it is no SafeCommand.
            HardwareError: the servo takes no orders any more.
        """
        if not isinstance(command, SafeCommand):
            raise TypeError(f"an arm accepts a SafeCommand only, got {type(command).__name__}; use robot.safety.step")
        target = JointTarget(
            q_rad=tuple(command.q_rad.tolist()),
            gripper_width_m=command.gripper_width_m,
            due_s=command.due_s,
            sent_s=self._clock.now_s(),
        )
        self._put(ServoOrder.TARGET, pack_target(target))

    def hold(self) -> None:
        """Have the servo come to rest. Raises HardwareError when it takes no orders any more."""
        self._put(ServoOrder.HOLD)

    def clear_fault(self) -> None:
        """Clear a latched fault of servo and arm. Called for the person's arm verb only, never by code on its own.

        Until servo and arm have heeded it, which takes a few of their steps, states are given without the old fault.
        """
        step, now_s = self._step(), self._clock.now_s()
        self._put(ServoOrder.CLEAR_FAULT, pack_time(now_s))
        if step is not None:
            self._cleared = step.status.clears + 1, now_s + CLEARING_S

    def _uncleared(self, step: ServoStep, now_s: float) -> ArmState:
        if self._cleared is not None:
            clears, until_s = self._cleared
            if step.status.clears < clears and now_s < until_s:
                return replace(step.arm, fault=None)
            self._cleared = None
        return step.arm

    def _step(self) -> ServoStep | None:
        """Return the newest step; the same object as long as there is no newer one."""
        for _ in range(3):  # the writer may have gone round the ring meanwhile
            number = self._ring.count - 1
            if number < 0 or (self._newest is not None and self._newest[0] == number):
                break
            if self._ring.read(number, self._record):
                self._newest = number, self._layout.unpack(self._record)
                break
        return None if self._newest is None else self._newest[1]

    def _put(self, kind: ServoOrder, body: bytes = b"") -> None:
        if not self._orders.has_room(len(body)):
            raise HardwareError("servo: it takes no orders; its process is gone or hangs: start the run again")
        self._orders.put(kind, body)
