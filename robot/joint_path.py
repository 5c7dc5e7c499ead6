"""Ways of the joints from one instant on, all inside limits of velocity, acceleration and jerk."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import ruckig

Values = tuple[float, ...]

_TURNING_S = 0.1  # some two periods of a loop


@dataclass(frozen=True, kw_only=True)
class MotionLimits:
    """What no joint ever exceeds, N values each.

    Attributes:
        q_min_rad: least position that a target may have [rad].
        q_max_rad: greatest [rad].
        dq_rad_s: greatest speed [rad/s].
        ddq_rad_s2: greatest acceleration, braking included [rad/s^2].
        dddq_rad_s3: greatest jerk [rad/s^3].
    """

    q_min_rad: Values
    q_max_rad: Values
    dq_rad_s: Values
    ddq_rad_s2: Values
    dddq_rad_s3: Values

    def braking_rad(self, joint: int, speed_rad_s: float) -> float:
        """Return the way at most to standstill from a speed with whatever acceleration is allowed [rad].

        The jerk that takes an acceleration back first costs time in which it goes on, which the second term covers.
        """
        a, j = self.ddq_rad_s2[joint], self.dddq_rad_s3[joint]
        speed = abs(speed_rad_s) + 0.5 * a * a / j
        return 0.5 * speed * speed / a + 1.5 * speed * a / j

    def span_rad(self, joint: int, q: float, q_next: float, dq: float, within_s: float) -> tuple[float, float]:
        """Return the least and the greatest position on a way between two that makes no detour [rad].

        Beyond its ends it goes only where it already heads: as far as braking would, or as a ball that is thrown up
        and comes back within that time, which is how a smooth wish turns round between two targets.
        """
        slack = self.braking_rad(joint, 0.0)
        turning = 0.5 * abs(dq) * min(within_s, _TURNING_S)  # twice the ball: Bezier points lie outside their curve
        heads_out = max(self.braking_rad(joint, dq), turning)
        low, high = min(q, q_next), max(q, q_next)
        return low - (heads_out if dq < 0.0 else slack), high + (heads_out if dq > 0.0 else slack)


@dataclass(frozen=True, kw_only=True)
class JointMotion:
    """Positions [rad], velocities [rad/s] and accelerations [rad/s^2] of N joints at one instant."""

    q: Values
    dq: Values
    ddq: Values

    @property
    def at_rest(self) -> bool:
        """True when nothing moves."""
        return not (any(self.dq) or any(self.ddq))


class JointPath(Protocol):
    """A way from `begin_s` on, defined for all times after it.

    Attributes:
        end_s: when it has got to its end; what comes after is only meant for a way that ends at rest [s].
    """

    end_s: float

    def at(self, time_s: float) -> JointMotion:
        """Return the motion at a time from the beginning on."""
        ...


class Standing:
    """No motion."""

    def __init__(self, q: Sequence[float], begin_s: float) -> None:
        zeros = (0.0,) * len(q)
        self._motion = JointMotion(q=tuple(q), dq=zeros, ddq=zeros)
        self.end_s = begin_s

    def at(self, time_s: float) -> JointMotion:
        """Return the same at any time."""
        return self._motion


class Quintic:
    """The smoothest way between two motions: fifth order, with the Bezier points that bound it.

    A curve lies between the least and the greatest of its Bezier points, and its derivatives between theirs, so a few
    differences prove its limits over all of its length.
    """

    def __init__(self, start: JointMotion, end: JointMotion, begin_s: float, end_s: float) -> None:
        self._begin_s, self.end_s, self._start = begin_s, end_s, start
        T = end_s - begin_s
        self._points: list[Values] = []
        for q0, v0, a0, q1, v1, a1 in zip(start.q, start.dq, start.ddq, end.q, end.dq, end.ddq, strict=True):
            v0, a0, v1, a1 = v0 * T / 5.0, a0 * T * T / 20.0, v1 * T / 5.0, a1 * T * T / 20.0
            self._points.append((q0, q0 + v0, q0 + 2.0 * v0 + a0, q1 - 2.0 * v1 + a1, q1 - v1, q1))

    def within(self, limits: MotionLimits) -> bool:
        """Return whether it keeps all limits, those of braking from anywhere on it too, and makes no detour."""
        T = self.end_s - self._begin_s
        per_s, per_s2, per_s3 = 5.0 / T, 20.0 / T**2, 60.0 / T**3
        for joint, points in enumerate(self._points):
            velocity, acceleration = limits.dq_rad_s[joint], limits.ddq_rad_s2[joint]
            jerk = limits.dddq_rad_s3[joint]
            # braking begins by taking an acceleration back, in which time the speed still grows
            velocity -= 0.5 * acceleration * acceleration / jerk
            first = [b - a for a, b in itertools.pairwise(points)]
            second = [b - a for a, b in itertools.pairwise(first)]
            third = [b - a for a, b in itertools.pairwise(second)]
            for differences, factor, most in (
                (first, per_s, velocity), (second, per_s2, acceleration), (third, per_s3, jerk),
            ):  # fmt: skip
                if max(differences) * factor > most or min(differences) * factor < -most:
                    return False
            low, high = limits.span_rad(joint, points[0], points[5], self._start.dq[joint], T)
            if min(points) < low or max(points) > high:
                return False
        return True

    def at(self, time_s: float) -> JointMotion:
        """Return the motion at a time from the beginning on, by de Casteljau's construction."""
        T = self.end_s - self._begin_s
        s = (time_s - self._begin_s) / T
        r, per_s, per_s2 = 1.0 - s, 5.0 / T, 20.0 / T**2
        q, dq, ddq = [], [], []
        for a, b, c, d, e, f in self._points:
            a, b, c, d, e = r * a + s * b, r * b + s * c, r * c + s * d, r * d + s * e, r * e + s * f
            a, b, c, d = r * a + s * b, r * b + s * c, r * c + s * d, r * d + s * e
            a, b, c = r * a + s * b, r * b + s * c, r * c + s * d
            ddq.append(per_s2 * (a - 2.0 * b + c))
            a, b = r * a + s * b, r * b + s * c
            dq.append(per_s * (b - a))
            q.append(r * a + s * b)
        return JointMotion(q=tuple(q), dq=tuple(dq), ddq=tuple(ddq))


class Fastest:
    """A way of ruckig's: as fast as the limits allow, or as slow as it is asked to be."""

    def __init__(self, trajectory: ruckig.Trajectory, begin_s: float) -> None:
        self._trajectory, self._begin_s = trajectory, begin_s
        self.end_s = begin_s + trajectory.duration
        q, dq, ddq = trajectory.at_time(trajectory.duration)
        self._rests = not any(abs(value) > 1e-9 for value in (*dq, *ddq))
        self._last = Standing(q, self.end_s)

    def extremes(self) -> list[tuple[float, float]]:
        """Return the least and the greatest position of each joint [rad]."""
        return [(bound.min, bound.max) for bound in self._trajectory.position_extrema]

    def at(self, time_s: float) -> JointMotion:
        """Return the motion at a time from the beginning on."""
        if self._rests and time_s >= self.end_s:
            return self._last.at(time_s)
        q, dq, ddq = self._trajectory.at_time(max(0.0, time_s - self._begin_s))
        return JointMotion(q=tuple(q), dq=tuple(dq), ddq=tuple(ddq))


class PathPlanner:
    """Makes ways that keep the limits, from any motion that keeps them.

    Args:
        limits: of every way.
    """

    def __init__(self, limits: MotionLimits) -> None:
        self.limits = limits
        self._joints = len(limits.dq_rad_s)
        self._ruckig = ruckig.Ruckig(self._joints)

    def to(self, start: JointMotion, end: JointMotion, begin_s: float, end_s: float) -> JointPath | None:
        """Return a way that is at `end` at `end_s`, or as soon after as the limits allow; None where there is none.

        Where the smooth way would leave the limits it is ruckig's, which ends without acceleration. Joints that would
        have to take a run-up for the velocity at the end come to rest there instead.
        """
        if end_s > begin_s:
            smooth = Quintic(start, end, begin_s, end_s)
            if smooth.within(self.limits):
                return smooth
        order = self._order(start)
        order.target_position = end.q
        if end_s > begin_s:
            order.minimum_duration = end_s - begin_s
        order.target_velocity = end.dq
        path = self._solve(order, begin_s)
        if path is not None:
            straight = self._straight(path, start, end)
            if all(straight):
                return path
            order.target_velocity = [v if goes else 0.0 for v, goes in zip(end.dq, straight, strict=True)]
            path = self._solve(order, begin_s)
            if path is not None and all(self._straight(path, start, end)):
                return path
        order.target_velocity = [0.0] * self._joints
        return self._solve(order, begin_s)

    def _straight(self, path: Fastest, start: JointMotion, end: JointMotion) -> list[bool]:
        """Return for each joint whether its way makes no detour."""
        within = []
        for joint, (least, greatest) in enumerate(path.extremes()):
            low, high = self.limits.span_rad(joint, start.q[joint], end.q[joint], start.dq[joint], 0.0)
            within.append(low <= least and greatest <= high)
        return within

    def brake(self, start: JointMotion, begin_s: float) -> JointPath:
        """Return the way to standstill, each joint as hard as allowed."""
        if start.at_rest:
            return Standing(start.q, begin_s)
        order = self._order(start)
        order.control_interface = ruckig.ControlInterface.Velocity
        order.synchronization = ruckig.Synchronization.No
        path = self._solve(order, begin_s)
        if path is None:
            # no such case is known; standing still at once is then the lesser evil
            return Standing(start.q, begin_s)
        return path

    def settle(self, start: JointMotion, q: Values, begin_s: float) -> JointPath | None:
        """Return the way to rest at `q`, nowhere faster than now but for a crawl; None where there is none."""
        order = self._order(start)
        order.target_position = q
        order.max_velocity = [
            min(most, max(abs(v) + 0.5 * a * a / j, 0.05 * most))
            for most, v, a, j in zip(self.limits.dq_rad_s, start.dq, start.ddq, self.limits.dddq_rad_s3, strict=True)
        ]
        return self._solve(order, begin_s)

    def _order(self, start: JointMotion) -> ruckig.InputParameter:
        order = ruckig.InputParameter(self._joints)
        order.current_position, order.current_velocity, order.current_acceleration = start.q, start.dq, start.ddq
        order.max_velocity = self.limits.dq_rad_s
        order.max_acceleration = self.limits.ddq_rad_s2
        order.max_jerk = self.limits.dddq_rad_s3
        return order

    def _solve(self, order: ruckig.InputParameter, begin_s: float) -> Fastest | None:
        trajectory = ruckig.Trajectory(self._joints)
        try:
            result = self._ruckig.calculate(order, trajectory)
        except ruckig.RuckigError:
            return None
        return Fastest(trajectory, begin_s) if result in (ruckig.Result.Working, ruckig.Result.Finished) else None
