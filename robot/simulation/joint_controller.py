"""The controller box of the simulated arm: follows a stream of set-points and stops by itself without one."""

from __future__ import annotations

from robot.joint_path import JointMotion, JointPath, MotionLimits, PathPlanner, Standing
from robot.joint_stream import Joints, SetPoint

STREAM_SILENCE_S = 0.050  # set-points older than this are none
BRIDGED_S = 0.020  # so long a gap is bridged by going on as the last set-point moved; then it brakes
# How far a stream that goes on after the braking began may be from where the controller is, or it would be a jump.
_JUMP_RAD = 1e-3
_JUMP_RAD_S = 0.05


class JointController:
    """Where the joints are to be at each step of the hardware, from the newest set-point.

    It follows a stream that begins at rest where it stands. When set-points stop coming, or one does not continue the
    stream, it brakes within the arm's own limits and stands, and the stream has to begin anew.

    Args:
        limits: of the arm itself.
        q: joints at the start, where it stands [rad].
        width_m: width of the gripper at the start [m].
        now_s: time of the start [s].
    """

    def __init__(self, limits: MotionLimits, q: Joints, width_m: float, now_s: float) -> None:
        self._limits, self._planner = limits, PathPlanner(limits)
        self._stand: JointPath = Standing(q, now_s)  # its own way, while it does not follow
        self._newest: SetPoint | None = None  # followed while there is one
        self.width_m, self.clears = width_m, 0
        self.fault: str | None = None
        self.motion = self._stand.at(now_s)

    @property
    def following(self) -> bool:
        """True while it follows the stream."""
        return self._newest is not None

    def step(self, now_s: float, point: SetPoint | None) -> JointMotion:
        """Return where the joints are to be at `now_s`; `point` is the newest set-point, new or not."""
        if point is not None:
            if point.clears != self.clears:
                self.clears, self.fault = point.clears, None
            if now_s - point.time_s > STREAM_SILENCE_S:
                point = None
        if self._newest is None:
            self.motion = self._stand.at(now_s)
            if point is not None and self.fault is None and _begins_at(point, self.motion):
                self._newest = point
        else:
            self.motion = self._onward(self._newest, now_s)
            if point is None or self.fault is not None or not self._continues(self._newest, point, now_s):
                self._stand, self._newest = self._planner.brake(self.motion, now_s), None
            elif point is not self._newest:
                self._newest, self.motion = point, self._onward(point, now_s)
        if self._newest is not None:
            self.width_m = self._newest.gripper_width_m
        return self.motion

    def fail(self, fault: str) -> None:
        """Brake and stand until the fault is cleared, as a real arm's reflex would."""
        self.fault = fault

    def _onward(self, point: SetPoint, now_s: float) -> JointMotion:
        """Return the motion a little after a set-point, or that of braking after a gap."""
        if now_s - point.time_s <= BRIDGED_S:
            return _extended(point, now_s)
        until_s = point.time_s + BRIDGED_S
        return self._planner.brake(_extended(point, until_s), until_s).at(now_s)

    def _continues(self, last: SetPoint, point: SetPoint, now_s: float) -> bool:
        """Return whether a set-point may follow the last one, by the arm's limits in the time between them."""
        if point is last:
            return True
        here, there = self.motion, self._onward(point, now_s)
        gap_s = now_s - last.time_s
        for q, v, q_next, v_next, most_a in zip(
            here.q, here.dq, there.q, there.dq, self._limits.ddq_rad_s2, strict=True
        ):
            # once it brakes by itself there is no stream that it could differ from by so much
            change = 2.0 * most_a * gap_s if gap_s <= BRIDGED_S else 0.0
            if abs(v_next - v) > _JUMP_RAD_S + change or abs(q_next - q) > _JUMP_RAD + change * gap_s:
                return False
        return True


def _extended(point: SetPoint, at_s: float) -> JointMotion:
    """Return the motion at a time close to a set-point's, under its acceleration."""
    t = at_s - point.time_s
    return JointMotion(
        q=tuple(
            q + v * t + 0.5 * a * t * t for q, v, a in zip(point.q_rad, point.dq_rad_s, point.ddq_rad_s2, strict=True)
        ),
        dq=tuple(v + a * t for v, a in zip(point.dq_rad_s, point.ddq_rad_s2, strict=True)),
        ddq=point.ddq_rad_s2,
    )


def _begins_at(point: SetPoint, motion: JointMotion) -> bool:
    """Return whether a stream that begins with `point` begins at rest where the controller stands."""
    moves = any(abs(value) > 1e-6 for value in (*point.dq_rad_s, *point.ddq_rad_s2))
    near = all(abs(a - b) < 1e-6 for a, b in zip(point.q_rad, motion.q, strict=True))
    return motion.at_rest and near and not moves
