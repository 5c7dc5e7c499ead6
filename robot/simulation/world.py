"""The physics of the simulated station, stepped to wherever the loop's clock stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot import fr3
from robot.arm_state import ArmState
from robot.simulation.layout import Arrangement
from robot.simulation.place_scene import PLACE_SCENE
from robot.simulation.scene import Scene, scene_xml

Array = NDArray[np.float64]
TIMESTEP_S = 0.005
_PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION


class Captures(Protocol):
    """A camera that wants the world stopped at its capture times."""

    def next_capture_s(self) -> float:
        """Time of its next picture [s]."""
        ...

    def capture(self) -> None:
        """Take it; the world stands at `next_capture_s`."""
        ...


@dataclass(frozen=True, kw_only=True)
class WorldSnapshot:
    """All that a world is at one instant; restored, it goes on with the same bits.

    Attributes:
        start_s: the loop clock's reading at the world's first instant [s].
        steps: physics steps since then.
        physics: MuJoCo's integration state.
        target_xy_m: centre of the target, shape (2,) [m].
        ramp_from: servo set-points (9,) at the ramp's start [rad, m].
        ramp_to: at its end.
        ramp_s: start and end of the ramp [s].
        arm: state of the arm, which cannot be computed from the rest (contact forces, velocities of the last step).
    """

    start_s: float
    steps: int
    physics: Array
    target_xy_m: Array
    ramp_from: Array
    ramp_to: Array
    ramp_s: tuple[float, float]
    arm: ArmState


class SimulatedWorld:
    """MuJoCo model and data of one station. Owned by one process; deterministic for the same calls.

    Time is the loop's clock: `start_s` is its reading at the world's first instant.

    Attributes:
        changes: counts up whenever something may have moved.
    """

    def __init__(self, *, start_s: float, scene: Scene = PLACE_SCENE) -> None:
        self._model = mujoco.MjModel.from_xml_string(scene_xml(scene, timestep_s=TIMESTEP_S))
        self._data = mujoco.MjData(self._model)
        self._start_s, self._steps = start_s, 0
        self._cameras: list[Captures] = []
        self.changes = 0
        self._arm: ArmState | None = None  # of the world as it stands
        model = self._model
        self._joint_q = slice(0, 7)
        self._finger_q = slice(7, 9)
        self._finger_v = slice(7, 9)
        self._object_q = int(model.joint("object").qposadr[0])
        self._object_v = int(model.joint("object").dofadr[0])
        self._tcp = int(model.site("tcp").id)
        self._target = int(model.body("target").id)
        self._moved, self._standing = ({int(model.geom(name).id) for name in names} for names in scene.felt)
        self._data.qpos[self._joint_q] = fr3.HOME_Q_RAD
        self._data.qpos[self._finger_q] = 0.04
        self._from = np.array([*fr3.HOME_Q_RAD, 0.04, 0.04])
        self._to, self._ramp_start_s, self._ramp_end_s = self._from.copy(), start_s, start_s
        self._data.ctrl[:] = self._from
        self._refresh()

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled model, for rendering."""
        return self._model

    @property
    def data(self) -> mujoco.MjData:
        """The physics state, for rendering."""
        return self._data

    @property
    def time_s(self) -> float:
        """Where the world stands on the loop's clock [s]."""
        return self._start_s + self._steps * TIMESTEP_S

    def attach(self, camera: Captures) -> None:
        """Stop at this camera's capture times from now on."""
        self._cameras.append(camera)

    def detach(self, camera: Captures) -> None:
        """Forget a camera."""
        self._cameras.remove(camera)

    def lay(self, arrangement: Arrangement) -> None:
        """Put thing and target where they are to be, as a person re-lays the table; the arm is not moved.

        Fingers that are to hold the thing are put round it. They stay closed where they were told to be before.
        """
        at, turned = np.array(arrangement.object_m), np.array(arrangement.object_quat_wxyz)
        if arrangement.grip_m > 0.0:
            data, hand = self._data, np.empty(4)
            mujoco.mju_mat2Quat(hand, data.site_xmat[self._tcp])
            at = data.site_xpos[self._tcp] + data.site_xmat[self._tcp].reshape(3, 3) @ at
            in_hand = turned.copy()
            mujoco.mju_mulQuat(turned, hand, in_hand)
            data.qpos[self._finger_q] = arrangement.grip_m / 2.0
            data.qvel[self._finger_v] = 0.0
        self._data.qpos[self._object_q : self._object_q + 3] = at
        self._data.qpos[self._object_q + 3 : self._object_q + 7] = turned
        self._data.qvel[self._object_v : self._object_v + 6] = 0.0
        self._model.body_pos[self._target, :2] = arrangement.target_xy_m
        self._refresh()
        mujoco.mj_collision(self._model, self._data)  # what pressed on what is felt no more

    def set_target(self, q_rad: Array, gripper_width_m: float, due_s: float) -> None:
        """Ramp the joint servos from their present set-points to `q_rad` by `due_s`."""
        self._from = self._set_point(self.time_s)
        self._to = np.concatenate([q_rad, np.full(2, gripper_width_m / 2.0)])
        self._ramp_start_s, self._ramp_end_s = self.time_s, max(due_s, self.time_s + TIMESTEP_S)

    def advance(self, to_s: float) -> None:
        """Step physics to `to_s`, taking every picture that falls due on the way."""
        while True:
            due = [(camera.next_capture_s(), i) for i, camera in enumerate(self._cameras)]
            when_s, index = min(due, default=(np.inf, -1))
            if when_s > to_s + 1e-9:
                break
            self._step_to(when_s)
            self._cameras[index].capture()
        self._step_to(to_s)

    def skip(self, by_s: float) -> None:
        """Let time pass without physics: for a process that stood still and must not catch up in a burst."""
        self._start_s += by_s
        self._ramp_start_s += by_s
        self._ramp_end_s += by_s
        self.changes += 1
        self._arm = None

    def snapshot(self, fault: str | None = None) -> WorldSnapshot:
        """Return all that the world is now, with the driver's `fault` on its arm."""
        physics = np.empty(self.physics_size)
        mujoco.mj_getState(self._model, self._data, physics, _PHYSICS)
        return WorldSnapshot(
            start_s=self._start_s,
            steps=self._steps,
            physics=physics,
            target_xy_m=self.target_xy_m(),
            ramp_from=self._from.copy(),
            ramp_to=self._to.copy(),
            ramp_s=(self._ramp_start_s, self._ramp_end_s),
            arm=self.arm_state(fault),
        )

    def restore(self, snapshot: WorldSnapshot) -> None:
        """Become what a world of the same model was; it puts the joints where they were, so never for one that runs."""
        self._start_s, self._steps = snapshot.start_s, snapshot.steps
        mujoco.mj_setState(self._model, self._data, snapshot.physics, _PHYSICS)
        self._model.body_pos[self._target, :2] = snapshot.target_xy_m
        self._from, self._to = snapshot.ramp_from.copy(), snapshot.ramp_to.copy()
        self._ramp_start_s, self._ramp_end_s = snapshot.ramp_s
        self._refresh()
        self._arm = snapshot.arm

    @property
    def physics_size(self) -> int:
        """Numbers in a snapshot's `physics`."""
        return int(mujoco.mj_stateSize(self._model, _PHYSICS))

    def arm_state(self, fault: str | None = None) -> ArmState:
        """State of the arm where the world stands, with the driver's `fault` on it; read-only arrays."""
        if self._arm is None:
            self._arm = self._read_arm()
        return self._arm if fault is None else replace(self._arm, fault=fault)

    def object_position_m(self) -> Array:
        """Centre of the thing in the base frame, shape (3,) [m]. Simulator truth: never for the learner."""
        position_m: Array = self._data.qpos[self._object_q : self._object_q + 3].copy()
        return position_m

    def object_axis(self) -> tuple[float, float, float]:
        """Direction of the thing's z axis in the base frame; (0, 0, 1) when it stands upright."""
        w, x, y, z = self._data.qpos[self._object_q + 3 : self._object_q + 7].tolist()
        return 2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)

    def object_speed_m_s(self) -> float:
        """Speed of the thing's centre [m/s]."""
        return math.hypot(*self._data.qvel[self._object_v : self._object_v + 3].tolist())

    def target_xy_m(self) -> Array:
        """Centre of the target on the table, shape (2,) [m]."""
        position_m: Array = self._model.body_pos[self._target, :2].copy()
        return position_m

    def _step_to(self, to_s: float) -> None:
        # never ahead of the time asked for: on a wall clock the arm's state would come from the future
        steps = math.floor((to_s - self._start_s) / TIMESTEP_S + 1e-6) - self._steps
        for _ in range(steps):
            self._data.ctrl[:] = self._set_point(self.time_s + TIMESTEP_S)
            mujoco.mj_step(self._model, self._data)
            self._steps += 1
        if steps > 0:
            self._refresh()

    def _set_point(self, at_s: float) -> Array:
        span_s = self._ramp_end_s - self._ramp_start_s
        share = 1.0 if span_s <= 0.0 else min(1.0, max(0.0, (at_s - self._ramp_start_s) / span_s))
        point: Array = self._from + share * (self._to - self._from)
        point[7:] = self._to[7:]  # the gripper has its own speed, it is not interpolated
        return point

    def _refresh(self) -> None:
        """Bring poses in line with the joint positions (mj_step leaves them one step behind)."""
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        self.changes += 1
        self._arm = None

    def _read_arm(self) -> ArmState:
        data = self._data
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(self._model, data, mujoco.mjtObj.mjOBJ_SITE, self._tcp, velocity, 0)
        pose = np.eye(4)
        pose[:3, :3] = data.site_xmat[self._tcp].reshape(3, 3)
        pose[:3, 3] = data.site_xpos[self._tcp]
        state = ArmState(
            measured_s=self.time_s,
            q_rad=data.qpos[self._joint_q].copy(),
            dq_rad_s=data.qvel[self._joint_q].copy(),
            T_base_tcp=pose,
            tcp_velocity=np.concatenate([velocity[3:], velocity[:3]]),
            gripper_width_m=float(data.qpos[self._finger_q].sum()),
            force_n=self._external_force_n(),
        )
        for array in (state.q_rad, state.dq_rad_s, state.T_base_tcp, state.tcp_velocity):
            array.setflags(write=False)
        return state

    def _external_force_n(self) -> float:
        """Force with which the hand and what it moves press on what stands [N]: a wrist sensor's view of a crash."""
        total = 0.0
        for i in range(self._data.ncon):
            contact = self._data.contact[i]
            pair = {int(contact.geom1), int(contact.geom2)}
            if pair & self._standing and pair & self._moved:
                force = np.zeros(6)
                mujoco.mj_contactForce(self._model, self._data, i, force)
                total += abs(float(force[0]))
        return total
