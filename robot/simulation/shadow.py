"""A simulated table under an arm that is not in its physics: the table's own arm goes where the other one is."""

from __future__ import annotations

from dataclasses import replace

from robot.joint_path import JointMotion
from robot.joint_stream import Joints, JointStream, Reading, SetPoint
from robot.shared_ring import SharedRing
from robot.simulation.world_stream import WorldStream

_STILL = (0.0,) * 7


class ShadowController:
    """Stands for the `JointController` of a table's arm that follows another one's measured joints.

    Args:
        q: joints at the start, where the other arm is to be too [rad].
        width_m: of the gripper at the start [m].
    """

    following = True

    def __init__(self, q: Joints, width_m: float) -> None:
        self.motion = JointMotion(q=q, dq=_STILL, ddq=_STILL)
        self.width_m, self.clears = width_m, 0
        self.fault: str | None = None

    def step(self, now_s: float, point: SetPoint | None) -> JointMotion:
        """Return where the joints are to be: where the other arm was measured last."""
        if point is not None:
            self.motion = JointMotion(q=point.q_rad, dq=_STILL, ddq=_STILL)
            self.width_m = point.gripper_width_m
            if point.clears != self.clears:
                self.clears, self.fault = point.clears, None
        return self.motion

    def fail(self, fault: str) -> None:
        """Show a fault until it is cleared, and go on where the other arm is, which stops for it."""
        self.fault = fault


class ShadowedStream:
    """A stream whose arm also moves the one of a simulated table.

    Fingers that close on something on the table stop at it there only: the gripper's width is the greater of the two. A
    fault of the table's arm is the arm's as well, until the arm heeds the person's verb.

    Args:
        stream: of the arm.
        world: ring that the table's process writes.
        set_points: ring that it reads.
    """

    def __init__(self, stream: JointStream, world: SharedRing, set_points: SharedRing) -> None:
        self._stream, self._table = stream, WorldStream(world, set_points)
        self._told_s = -1.0

    def read(self) -> Reading | None:
        """Return the arm's newest reading, and have the table's arm go there."""
        reading = self._stream.read()
        if reading is None:
            return None
        arm = reading.arm
        if arm.measured_s > self._told_s:
            self._told_s = arm.measured_s
            self._table.write(
                SetPoint(
                    time_s=arm.measured_s,
                    q_rad=tuple(arm.q_rad.tolist()),
                    dq_rad_s=_STILL,
                    ddq_rad_s2=_STILL,
                    gripper_width_m=arm.gripper_width_m,
                    clears=reading.clears,
                )
            )
        table = self._table.read()
        if table is None:
            return reading
        # what it showed before the arm heeded the verb was cleared by that
        fault = arm.fault or (table.arm.fault if table.clears == reading.clears else None)
        width_m = max(arm.gripper_width_m, table.arm.gripper_width_m)
        return replace(reading, arm=replace(arm, gripper_width_m=width_m, fault=fault))

    def write(self, point: SetPoint) -> None:
        """Stream the arm's next set-point."""
        self._stream.write(point)
