"""Timed joint targets to set-points for an arm that needs a stream: a step without clock and without I/O."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

from robot.joint_path import JointMotion, JointPath, MotionLimits, PathPlanner, Standing
from robot.joint_stream import Joints, Reading, SetPoint

_REST_RAD_S = 1e-9
# One due later than that is a wrong clock's, and nothing after it would ever be in order.
_FARTHEST_DUE_S = 1.0
_CLOSEST_DUE_S = 1e-3  # nearer together, their difference tells no velocity
# How fast the set-point may come up to targets that went on while it rested, as a share of the joint speeds: nobody has
# bounded that way in space. With all of their speed, joints move an FR3's TCP straight at up to 2.9 m/s (by its
# Jacobian, in all directions over the table); with this share at up to 0.45 m/s, in most directions at some 0.15 m/s.
CATCH_UP_SHARE = 0.15
# The targets' own speed is bounded in space. At no more than that they would not be met while they go on.
CATCH_UP_RATIO = 1.25
_MET_S = 1e-6


class ServoMode(enum.IntEnum):
    """What the servo does."""

    FOLLOWING = 1  # on the way to a target
    BRAKING = 2
    HELD = 3  # stands until the next target
    FAULT = 4  # brakes or stands until the person arms again


class Cause(enum.IntEnum):
    """Why it does not follow."""

    NONE = 0
    IDLE = 1  # no target yet
    LOOP = 2  # the loop said hold
    LATE = 3  # the last target's time passed without another
    WATCHDOG = 4  # the newest target is too old
    TRACKING = 5  # the arm is too far from its set-point
    CONTROLLER = 6  # the arm's controller does not follow the stream
    STATE_OLD = 7  # the arm's state is too old
    ARM = 8  # the arm's own fault
    ENDING = 9  # the process comes to its end


@dataclass(frozen=True, kw_only=True)
class JointTarget:
    """What a `SafeCommand` asks of the joints.

    Attributes:
        q_rad: N joints [rad].
        gripper_width_m: distance between the fingers [m].
        due_s: when it is to be reached [s].
        sent_s: when the loop sent it [s]; its age counts from here, however long it lay in a queue.
    """

    q_rad: Joints
    gripper_width_m: float
    due_s: float
    sent_s: float


@dataclass(frozen=True, kw_only=True)
class ServoLimits:
    """Thresholds of one servo.

    Attributes:
        loop_period_s: of the loop that sends the targets [s].
        delay_s: how long after its due time a target is reached [s].
        watchdog_s: age of the newest target at which it holds [s].
        max_state_age_s: an arm that was not seen for longer may be anywhere [s].
        max_tracking_rad: how far a joint may be from its set-point [rad].
    """

    loop_period_s: float
    delay_s: float
    watchdog_s: float
    max_state_age_s: float
    max_tracking_rad: float


class Servo:
    """Leads the joints from target to target, and to rest whenever anything is not as it should be.

    A target is reached `delay_s` after its due time, with the velocity and acceleration that it and the two before it
    show. When the next one comes the way is planned anew from where the set-point is. If none has come by then, the
    set-point brakes at once. All ways keep the planner's limits, whatever the targets are.

    Args:
        planner: with the limits of every set-point.
        limits: thresholds.
        reading: of the arm, which may be in any state.
        now_s: present time.
    """

    def __init__(self, planner: PathPlanner, limits: ServoLimits, reading: Reading, now_s: float) -> None:
        self._planner, self._limits = planner, limits
        self._path: JointPath = Standing(reading.q_set_rad, now_s)
        self._until_s: float | None = None  # when another target must be there; None when it comes to rest anyway
        self._targets: list[tuple[float, Joints]] = []  # due time and joints of the newest, at most three
        self._sent_s = -math.inf
        self._width_m = reading.gripper_set_m
        self._clears = reading.clears
        self._fault: str | None = None
        self._blocked: Cause | None = Cause.CONTROLLER  # for which targets are not followed now
        self._at_rest = True
        self._catching_up = False  # after a rest, until a target is reached in time
        self.cause = Cause.IDLE
        self.refused = 0
        self.tracking_rad = 0.0

    @property
    def mode(self) -> ServoMode:
        """What the servo did in the last step."""
        if self._fault is not None:
            return ServoMode.FAULT
        if self._until_s is not None:
            return ServoMode.FOLLOWING
        return ServoMode.HELD if self._at_rest else ServoMode.BRAKING

    @property
    def fault(self) -> str | None:
        """What it is stopped for until `clear_fault`, in one line; None without."""
        return self._fault

    @property
    def at_rest(self) -> bool:
        """True when the last set-point does not move."""
        return self._at_rest

    @property
    def clears(self) -> int:
        """How often a fault was cleared."""
        return self._clears

    def target_age_s(self, now_s: float) -> float:
        """Return the age of the newest target that was taken, infinite before the first [s]."""
        return now_s - self._sent_s

    def target(self, target: JointTarget, now_s: float) -> bool:
        """Go to a target from now on; False when it is refused: unusable, too old, out of order or not the time for it.

        A target whose time has passed is gone to as fast as the limits allow; the first ones after a rest no faster
        than `CATCH_UP_SHARE` of them or `CATCH_UP_RATIO` times as fast as the targets go themselves, until one of them
        is reached in time.
        """
        usable = self._fits(target) and now_s - target.sent_s <= self._limits.watchdog_s
        # a loop sends for one period after its tick began: what it saw then must not be older than the watchdog allows
        tick_s = target.due_s - self._limits.loop_period_s
        usable = usable and now_s - tick_s <= self._limits.watchdog_s and target.due_s < now_s + _FARTHEST_DUE_S
        in_order = not self._targets or target.due_s > self._targets[-1][0] + _CLOSEST_DUE_S
        if not (usable and in_order and self._fault is None and self._blocked is None):
            self.refused += 1
            return False
        here = self._motion(now_s)
        limits, before = self._limits, self._targets[-2:]
        planner, catching_up = self._planner, self._catching_up
        if catching_up:
            before = before[-1:]  # the one before it may be where the set-point was, and no target
        if self._until_s is None or target.due_s - before[-1][0] > limits.watchdog_s:
            catching_up = True
            # after a rest the older ones tell nothing; where the set-point is counts as the one before
            before = [(min(now_s - limits.delay_s, target.due_s - limits.loop_period_s), here.q)]
        targets = [*before, (target.due_s, target.q_rad)]
        arrive_s = max(target.due_s + limits.delay_s, now_s + 0.5 * limits.loop_period_s)
        if catching_up:
            planner = PathPlanner(self._catch_up_limits(here, target))
        path = planner.to(here, self._arrival(targets, planner.limits), now_s, arrive_s)
        if path is None:
            self.refused += 1
            return False
        self._path, self._until_s, self._targets = path, arrive_s, targets
        self._catching_up = catching_up and path.end_s > arrive_s + _MET_S
        self._sent_s, self._width_m = min(target.sent_s, now_s), target.gripper_width_m
        self.cause = Cause.NONE
        return True

    def hold(self, now_s: float, cause: Cause = Cause.LOOP) -> None:
        """Come to rest: at the last target where that is near, as after the loop has braked to it, or at once.

        A later target is followed again.
        """
        if self._until_s is None:
            return
        here = self._motion(now_s)
        if self._until_s is None:
            return  # its time passed just now: it brakes
        brake = self._planner.brake(here, now_s)
        settle = self._planner.settle(here, self._targets[-1][1], now_s)
        near = settle is not None and settle.end_s <= brake.end_s + 2.0 * self._limits.loop_period_s
        self._rest_on(settle if settle is not None and near else brake, cause)

    def clear_fault(self) -> None:
        """Follow again, and have the arm clear its own fault. For the person's arm verb only."""
        self._clears += 1
        if self._fault is not None:
            self._fault, self.cause = None, Cause.IDLE

    def step(self, now_s: float, reading: Reading) -> SetPoint:
        """Return the set-point for now; `reading` is the newest of the arm."""
        if not reading.following:
            # the stream can only begin where the controller stands
            self._rest_on(Standing(reading.q_set_rad, now_s), Cause.CONTROLLER)
            self._width_m = reading.gripper_set_m  # what was wanted before is nobody's wish any more
        elif self.cause is Cause.CONTROLLER:
            self.cause = Cause.IDLE
        self._judge(now_s, reading)
        motion = self._motion(now_s)
        self._at_rest = all(abs(v) < _REST_RAD_S for v in (*motion.dq, *motion.ddq))
        return SetPoint(
            time_s=now_s,
            q_rad=motion.q,
            dq_rad_s=motion.dq,
            ddq_rad_s2=motion.ddq,
            gripper_width_m=self._width_m,
            clears=self._clears,
            resting=self._until_s is None,
        )

    def _judge(self, now_s: float, reading: Reading) -> None:
        """Brake for whatever is wrong, and remember what only a person may end."""
        limits, arm = self._limits, reading.arm
        set_point = self._motion(now_s).q
        off = [abs(q - at) for q, at in zip(set_point, arm.q_rad.tolist(), strict=True)]
        # a joint that is no number is nowhere near its set-point
        self.tracking_rad = max(off) if all(map(math.isfinite, off)) else math.inf
        self._blocked = None
        age_s = now_s - arm.measured_s
        if not age_s <= limits.max_state_age_s:
            self._stop(
                now_s,
                Cause.STATE_OLD,
                f"servo: arm state is {1e3 * age_s:.0f} ms old (limit {1e3 * limits.max_state_age_s:.0f} ms); "
                "look at the arm's controller and its link, then arm again",
            )
        elif arm.fault is not None and reading.clears == self._clears:
            self._stop(now_s, Cause.ARM, arm.fault)
        elif not self.tracking_rad <= 2.0 * limits.max_tracking_rad:
            self._stop(
                now_s,
                Cause.TRACKING,
                f"servo: a joint is {self.tracking_rad:.3f} rad from its set-point "
                f"(limit {2.0 * limits.max_tracking_rad:.3f} rad); free the arm, then arm again",
            )
        elif not reading.following:
            self._blocked = Cause.CONTROLLER
        elif self.tracking_rad > limits.max_tracking_rad:
            self._blocked = Cause.TRACKING
            self._brake(now_s, Cause.TRACKING)
        if self._until_s is not None and self.target_age_s(now_s) > limits.watchdog_s:
            self._brake(now_s, Cause.WATCHDOG)
        elif self.cause is Cause.LATE and self.target_age_s(now_s) > limits.watchdog_s:
            self.cause = Cause.WATCHDOG
        if self._fault is not None and self.cause is Cause.TRACKING and age_s <= limits.max_state_age_s:
            self._relax(now_s, arm.q_rad.tolist())

    def _relax(self, now_s: float, measured: list[float]) -> None:
        """Once stopped for a blocked arm, take the set-point back to half the bound, so that nothing springs free."""
        here, bound = self._motion(now_s), self._limits.max_tracking_rad
        if here.at_rest and bound < self.tracking_rad < math.inf:
            goal = tuple(
                at + max(-0.5 * bound, min(0.5 * bound, q - at)) for q, at in zip(here.q, measured, strict=True)
            )
            back = self._planner.settle(here, goal, now_s)
            if back is not None:
                self._path = back

    def _stop(self, now_s: float, cause: Cause, fault: str) -> None:
        if self._fault is None:
            self._rest_on(self._planner.brake(self._motion(now_s), now_s), cause)
            self._fault = fault

    def _brake(self, now_s: float, cause: Cause) -> None:
        if self._until_s is not None:
            here = self._motion(now_s)
            if self._until_s is not None:
                self._rest_on(self._planner.brake(here, now_s), cause)
        if self._fault is None:
            self.cause = cause

    def _rest_on(self, path: JointPath, cause: Cause) -> None:
        self._path, self._until_s, self._targets = path, None, self._targets[-1:]
        if self._fault is None:
            self.cause = cause

    def _motion(self, now_s: float) -> JointMotion:
        """Return where the set-point is, braking from the instant at which the last target had no successor."""
        if self._until_s is not None and now_s >= self._until_s:
            until_s = self._until_s
            self._rest_on(self._planner.brake(self._path.at(until_s), until_s), Cause.LATE)
        return self._path.at(now_s)

    def _fits(self, target: JointTarget) -> bool:
        limits = self._planner.limits
        numbers = (target.gripper_width_m, target.due_s, target.sent_s, *target.q_rad)
        return (
            len(target.q_rad) == len(limits.q_min_rad)
            and all(map(math.isfinite, numbers))
            and all(
                low <= q <= high for low, q, high in zip(limits.q_min_rad, target.q_rad, limits.q_max_rad, strict=True)
            )
        )

    def _catch_up_limits(self, here: JointMotion, target: JointTarget) -> MotionLimits:
        """Return the limits of a way to targets that may have gone on without the set-point."""
        limits = self._planner.limits
        due_s, q_rad = self._targets[-1] if self._targets else (-math.inf, target.q_rad)
        speeds = []
        for joint, most in enumerate(limits.dq_rad_s):
            a, j = here.ddq[joint], limits.dddq_rad_s3[joint]
            targets = abs(target.q_rad[joint] - q_rad[joint]) / (target.due_s - due_s)
            # what it has already is no more than it had before it began to brake
            speeds.append(
                min(most, max(CATCH_UP_SHARE * most, CATCH_UP_RATIO * targets, abs(here.dq[joint]) + 0.5 * a * a / j))
            )
        return replace(limits, dq_rad_s=tuple(speeds))

    @staticmethod
    def _arrival(targets: list[tuple[float, Joints]], limits: MotionLimits) -> JointMotion:
        """Return the motion at the last of two or three targets: of the parabola through them, inside the limits."""
        (t1, q1), (t2, q2) = targets[-2:]
        t0, q0 = targets[0] if len(targets) == 3 else (t1, q1)
        velocities, accelerations = [], []
        for joint, (a, b, c) in enumerate(zip(q0, q1, q2, strict=True)):
            late = (c - b) / (t2 - t1)
            change = 0.0 if t1 == t0 else (late - (b - a) / (t1 - t0)) / (0.5 * (t2 - t0))
            most_a, most_j = limits.ddq_rad_s2[joint], limits.dddq_rad_s3[joint]
            most_v = max(0.0, 0.95 * limits.dq_rad_s[joint] - 0.5 * most_a * most_a / most_j)
            velocities.append(max(-most_v, min(most_v, late + 0.5 * change * (t2 - t1))))
            accelerations.append(max(-0.9 * most_a, min(0.9 * most_a, change)))
        return JointMotion(q=q2, dq=tuple(velocities), ddq=tuple(accelerations))
