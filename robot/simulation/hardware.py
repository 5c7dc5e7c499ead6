"""The simulated hardware: physics and the arm's controller box, stepped to the present time."""

from __future__ import annotations

import numpy as np

from robot import fr3
from robot.joint_path import MotionLimits
from robot.joint_stream import Reading
from robot.message_ring import MessageRing
from robot.shared_ring import SharedRing
from robot.simulation.joint_controller import JointController
from robot.simulation.place_scene import PLACE_SCENE
from robot.simulation.scene import Scene
from robot.simulation.shadow import ShadowController
from robot.simulation.world import TIMESTEP_S, SimulatedWorld
from robot.simulation.world_record import WorldOrder, pack_world, unpack_arrangement
from robot.simulation.world_stream import SetPoints

# After a stall the rest is let go: a burst of physics would show set-points that nobody could answer to.
MOST_STEPS = 4
ARM_LIMITS = MotionLimits(
    q_min_rad=fr3.Q_MIN_RAD,
    q_max_rad=fr3.Q_MAX_RAD,
    dq_rad_s=fr3.DQ_MAX_RAD_S,
    ddq_rad_s2=fr3.DDQ_MAX_RAD_S2,
    dddq_rad_s3=fr3.DDDQ_MAX_RAD_S3,
)


class SimulatedHardware:
    """What a real arm's own computer does, at the rate of the physics.

    Args:
        ring: that it publishes into at each step.
        set_points: that the servo writes.
        orders: what the loop asks of the world.
        now_s: present time, the world's first instant [s].
        scene: on its table.
        shadow: its arm goes wherever the set-points are, which are the measured joints of another arm.
    """

    def __init__(
        self,
        ring: SharedRing,
        set_points: SharedRing,
        orders: MessageRing,
        now_s: float,
        *,
        scene: Scene = PLACE_SCENE,
        shadow: bool = False,
    ) -> None:
        self.world = SimulatedWorld(start_s=now_s, scene=scene)
        self._ring, self._set_points, self._orders = ring, SetPoints(set_points), orders
        arm = self.world.arm_state()
        q = tuple(arm.q_rad.tolist())
        self.controller: JointController | ShadowController
        if shadow:
            self.controller = ShadowController(q, arm.gripper_width_m)
        else:
            self.controller = JointController(ARM_LIMITS, q, arm.gripper_width_m, now_s)
        self.publishes = True
        self._publish()

    @property
    def next_s(self) -> float:
        """When the next step is due [s]."""
        return self.world.time_s + TIMESTEP_S

    def advance(self, now_s: float) -> int:
        """Make the steps that are due by now, at most `MOST_STEPS`; the world's time keeps up in any case.

        Returns:
            Steps that were let go.
        """
        while (order := self._orders.take()) is not None:
            self._heed(*order)
        due = int((now_s - self.world.time_s) / TIMESTEP_S + 1e-6)
        lost = max(0, due - MOST_STEPS)
        if lost:
            self.world.skip(lost * TIMESTEP_S)
        for _ in range(due - lost):
            at_s = self.next_s
            motion = self.controller.step(at_s, self._set_points.newest())
            self.world.set_target(np.array(motion.q), self.controller.width_m, at_s)
            self.world.advance(at_s)
            self._publish()
        return lost

    def _heed(self, kind: int, body: bytes) -> None:
        match kind:
            case WorldOrder.LAY:
                self.world.lay(unpack_arrangement(body))
                self._publish()  # the camera must not see the old table at a later time
            case WorldOrder.FAIL:
                self.controller.fail(body.decode(errors="replace"))

    def _publish(self) -> None:
        if not self.publishes:
            return
        controller = self.controller
        snapshot = self.world.snapshot(controller.fault)
        reading = Reading(
            arm=snapshot.arm,
            following=controller.following,
            q_set_rad=controller.motion.q,
            gripper_set_m=controller.width_m,
            clears=controller.clears,
        )
        self._ring.write(*pack_world(reading, snapshot))
