"""Whether the joints can follow a step of the TCP, and the braking after it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot.command import Reason
from robot.geometry import rotation_matrix, straightened
from robot.kinematics import Kinematics
from robot.safety_limits import SafetyLimits
from robot.step_limits import StepLimits
from robot.stopping import Vector, braked, scaled, stop_gain

Array = NDArray[np.float64]

# Braking is rehearsed, tick by tick, when a straight guess of where the joints stop cannot be trusted: stretched and
# widened by this it leaves the margins, it is this long, the joints are this near to their own greatest speed, or the
# arm is this near to a singularity, where a guess is worth nothing.
GUESS_STRETCH = 1.5
GUESS_SLACK_RAD = 0.02
GUESS_LENGTH_RAD = 0.15
GUESS_SPEED_SHARE = 0.5
# Volume of the Jacobian's rows as a share of the box with the same edges, 0 to 1: the arm's size does not count.
# An FR3 that hangs over a table has 0.03 to 0.3, with its arm 20 degrees from straight 0.02, straight 0.
GUESS_DEXTERITY = 0.02

_NONE = Reason.NONE  # to look up a member of an enum takes 0.1 us


@dataclass(frozen=True, kw_only=True)
class Move:
    """A step that the arm can make.

    Attributes:
        T_base_tcp: pose after it, shape (4, 4) [m].
        q_rad: joints after it, shape (N,) [rad]; empty without kinematics.
        translation: the step [m].
        rotation: the step as a rotation vector, base frame [rad].
    """

    T_base_tcp: Array
    q_rad: Array
    translation: Vector
    rotation: Vector

    @property
    def still(self) -> bool:
        """True when the TCP does not move."""
        return not (any(self.translation) or any(self.rotation))


class Follower:
    """Makes moves out of Cartesian steps, within the joint limits.

    Args:
        kinematics: of the arm; None for an arm without joints, which follows everything.
        limits: thresholds of the station.
        steps: its Cartesian limits per tick.
        period_s: length of a tick [s].
    """

    def __init__(self, kinematics: Kinematics | None, limits: SafetyLimits, steps: StepLimits, period_s: float) -> None:
        self._kinematics = kinematics
        self._steps = steps
        if kinematics is not None:
            joints = kinematics.joint_limits
            # lists: for seven joints plain floats are several times faster than numpy's calls
            self._q_least: list[float] = (joints.q_min_rad + limits.joint_margin_rad).tolist()
            self._q_greatest: list[float] = (joints.q_max_rad - limits.joint_margin_rad).tolist()
            self._dq_own: list[float] = (joints.dq_max_rad_s * period_s).tolist()
            self._dq_share = [limits.max_joint_speed_share * dq for dq in self._dq_own]

    def toward(self, q_rad: Array, q_goal_rad: Array, share: float) -> Array:
        """Return joints (N,) at `share` of the way to a goal, or as far as the joint speeds allow."""
        way = q_goal_rad - q_rad
        for to_go, allowed in zip(way.tolist(), self._dq_share, strict=True):
            if abs(to_go) * share > allowed:
                share = allowed / abs(to_go)
        return q_rad + share * way

    def move(
        self, T: Array, q_rad: Array, translation: Vector, rotation: Vector, q_start_rad: Array
    ) -> tuple[Move | None, Reason]:
        """Return the move from pose `T` (4, 4) and joints `q_rad` (N,), or None and why the joints cannot follow.

        The joint solution nearest to `q_start_rad` (N,) is taken.
        """
        x, y, z = T[:3, 3].tolist()
        T_next = T.copy()
        T_next[0, 3], T_next[1, 3], T_next[2, 3] = self._steps.inside((x, y, z), translation)
        if any(rotation):
            # rounding would otherwise add up over a long run
            T_next[:3, :3] = straightened(rotation_matrix(*rotation).dot(T[:3, :3]))
        if self._kinematics is None:
            return Move(T_base_tcp=T_next, q_rad=q_rad, translation=translation, rotation=rotation), _NONE
        q_next = self._kinematics.solve(T_next, q_start_rad)
        if q_next is None:
            return None, Reason.NO_SOLUTION
        # joints that the person armed inside the margin may leave it and go no deeper
        for before, after, least, greatest in zip(
            q_rad.tolist(), q_next.tolist(), self._q_least, self._q_greatest, strict=True
        ):
            if not (least <= after <= greatest or min(least, before) <= after <= max(greatest, before)):
                return None, Reason.JOINT_LIMIT
        return Move(T_base_tcp=T_next, q_rad=q_next, translation=translation, rotation=rotation), _NONE

    def braking(self, T: Array, q_rad: Array, before_m: Vector, before_rad: Vector) -> Move | None:
        """Return the move that brakes as hard as allowed after a step, or None when the joints cannot follow it.

        It may use all of the arm's own joint speed: to slow down less would be worse.
        """
        translation, rotation = braked(before_m, self._steps.change_m), braked(before_rad, self._steps.change_rad)
        move, _ = self.move(T, q_rad, translation, rotation, q_rad)
        if move is not None and self._kinematics is not None and _excess(q_rad, move.q_rad, self._dq_own) > 1.0:
            return None
        return move

    def excess(self, q_rad: Array, move: Move) -> float:
        """Return the greatest joint speed of a move from `q_rad` as a multiple of the allowed share."""
        if self._kinematics is None:
            return 0.0
        return _excess(q_rad, move.q_rad, self._dq_share)

    def can_stop(self, q_rad: Array, move: Move) -> bool:
        """Return whether the joints can follow all of the braking after a move from `q_rad`."""
        if self._kinematics is None:
            return True
        gain_m = stop_gain(math.hypot(*move.translation), self._steps.change_m)
        gain_rad = stop_gain(math.hypot(*move.rotation), self._steps.change_rad)
        if gain_m == gain_rad == 1.0:
            return True
        if self._guess_can_stop(self._kinematics, q_rad, move, gain_m, gain_rad):
            return True
        rehearsed: Move | None = move
        while rehearsed is not None and not rehearsed.still:
            rehearsed = self.braking(rehearsed.T_base_tcp, rehearsed.q_rad, rehearsed.translation, rehearsed.rotation)
        return rehearsed is not None

    def _guess_can_stop(self, kinematics: Kinematics, q_rad: Array, move: Move, gain_m: float, gain_rad: float) -> bool:
        """Return whether a linear guess is sure that the joints stay in their margins until standstill."""
        if _excess(q_rad, move.q_rad, self._dq_own) > GUESS_SPEED_SHARE:
            return False
        J = kinematics.jacobian(move.q_rad)
        normal = J @ J.T
        if float(np.linalg.det(normal)) < GUESS_DEXTERITY**2 * math.prod(normal.diagonal().tolist()):
            return False
        # translation and rotation come to rest at different times, so each one's way counts by itself
        ways = np.zeros((6, 2))
        ways[:3, 0] = scaled(move.translation, GUESS_STRETCH * (gain_m - 1.0))
        ways[3:, 1] = scaled(move.rotation, GUESS_STRETCH * (gain_rad - 1.0))
        for after, (a, b), least, greatest in zip(
            move.q_rad.tolist(),
            (J.T @ np.linalg.solve(normal, ways)).tolist(),
            self._q_least,
            self._q_greatest,
            strict=True,
        ):
            down, up = min(a, 0.0) + min(b, 0.0), max(a, 0.0) + max(b, 0.0)
            if after + down - GUESS_SLACK_RAD < least or after + up + GUESS_SLACK_RAD > greatest:
                return False
            if max(up, -down) > GUESS_LENGTH_RAD:
                return False
        return True


def _excess(q_rad: Array, q_next_rad: Array, allowed: list[float]) -> float:
    """Return the greatest joint step as a multiple of the allowed one."""
    steps = zip(q_rad.tolist(), q_next_rad.tolist(), allowed, strict=True)
    return float(max([abs(after - before) / most for before, after, most in steps]))
