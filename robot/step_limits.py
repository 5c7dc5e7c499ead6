"""How far the commanded TCP may move and turn in one tick: workspace, tilt, tracking, speed and acceleration."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robot.command import Reason
from robot.geometry import matrix_to_quat_wxyz
from robot.safety_limits import SafetyLimits
from robot.stopping import Vector, limited_change, scaled, stop_gain

Array = NDArray[np.float64]

# Beyond this a clamp counts as one; below it is rounding.
ROUNDING = 1.0 + 1e-9
# The same for cosines of angles. Where a limit is already exceeded the slack is that of the arithmetic alone, for there
# it is granted anew in every tick.
COSINE_ROUNDING = 1e-12
COSINE_CREEP = 1e-15

_NONE = Reason.NONE  # to look up a member of an enum takes 0.1 us


class StepLimits:
    """The Cartesian limits of one station in displacement per tick.

    A limit that is already exceeded (the person armed with the tool outside the box, or too tilted) is taken to be
    where the arm is now: it may go back inside and never further out.

    Args:
        limits: thresholds of the station.
        period_s: length of a tick [s].
        z_home: direction of the tool's z axis in the home orientation, base frame, shape (3,).
    """

    def __init__(self, limits: SafetyLimits, period_s: float, z_home: Array) -> None:
        self._least = limits.workspace_min_m
        self._greatest = limits.workspace_max_m
        self._tracking_m = limits.max_tracking_m
        self._tracking_rad = limits.max_tracking_rad
        self._tilt_cosine = math.cos(limits.max_tilt_rad)
        self._z_home = z_home.tolist()
        self.max_translation_m = limits.max_speed_m_s * period_s
        self.max_rotation_rad = limits.max_rotation_speed_rad_s * period_s
        self.change_m = limits.max_acceleration_m_s2 * period_s**2
        self.change_rad = limits.max_angular_acceleration_rad_s2 * period_s**2

    def translation(
        self, p: Vector, previous: Vector, wanted: Vector, measured: Vector | None
    ) -> tuple[Vector, Reason]:
        """Return the translation of this tick [m] and why it differs from `wanted`.

        Args:
            p: position commanded last [m].
            previous: translation of the last tick [m].
            wanted: translation asked for [m], finite.
            measured: measured position [m], None where unknown.
        """
        wanted, reasons = _shortened(wanted, self.max_translation_m, Reason.TRANSLATION_STEP)
        (least_x, least_y, least_z), (greatest_x, greatest_y, greatest_z), (px, py, pz) = self._least, self._greatest, p
        least = min(least_x, px) - px, min(least_y, py) - py, min(least_z, pz) - pz
        greatest = max(greatest_x, px) - px, max(greatest_y, py) - py, max(greatest_z, pz) - pz
        # slide along a wall: shorten only the axis that runs into it. The gain of the unshortened step is an upper
        # bound, so the step that comes out can be stopped before every wall.
        gain = stop_gain(math.hypot(*wanted), self.change_m)
        slid = _clipped(
            wanted,
            (least[0] / gain, least[1] / gain, least[2] / gain),
            (greatest[0] / gain, greatest[1] / gain, greatest[2] / gain),
        )
        if slid != wanted:
            reasons |= Reason.WORKSPACE
        lag = None if measured is None else (p[0] - measured[0], p[1] - measured[1], p[2] - measured[2])
        radius = 0.0 if lag is None else max(self._tracking_m * ROUNDING, math.hypot(*lag) * (1.0 + COSINE_CREEP))

        def unsafe(step: Vector) -> Reason:
            x, y, z = scaled(step, stop_gain(math.hypot(*step), self.change_m))
            found = _NONE
            if not (
                least[0] * ROUNDING <= x <= greatest[0] * ROUNDING
                and least[1] * ROUNDING <= y <= greatest[1] * ROUNDING
                and least[2] * ROUNDING <= z <= greatest[2] * ROUNDING
            ):
                found = Reason.WORKSPACE
            if lag is not None and math.hypot(lag[0] + x, lag[1] + y, lag[2] + z) > radius:
                found |= Reason.TRACKING
            return found

        step, found = limited_change(previous, slid, self.change_m, unsafe)
        # ROUNDING let a step reach past a wall by 1e-9 of its length; here the box is exact
        return _clipped(step, least, greatest), both(reasons, found)

    def inside(self, p: Vector, moved: Vector) -> Vector:
        """Return `p + moved`, without what rounding of the sum adds beyond a wall [m]."""
        (x, y, z), (dx, dy, dz) = p, moved
        (least_x, least_y, least_z), (greatest_x, greatest_y, greatest_z) = self._least, self._greatest
        return (
            min(max(x + dx, min(least_x, x)), max(greatest_x, x)),
            min(max(y + dy, min(least_y, y)), max(greatest_y, y)),
            min(max(z + dz, min(least_z, z)), max(greatest_z, z)),
        )

    def rotation(self, R: Array, previous: Vector, wanted: Vector, R_measured: Array | None) -> tuple[Vector, Reason]:
        """Return the rotation vector of this tick [rad] and why it differs from `wanted`; as `translation`.

        `R` and `R_measured` are the orientations (3, 3) commanded last and measured, base frame.
        """
        wanted, reasons = _shortened(wanted, self.max_rotation_rad, Reason.ROTATION_STEP)
        z = tuple(R[:, 2].tolist())
        cosine = _dot(self._z_home, z)
        least_cosine = min(self._tilt_cosine - COSINE_ROUNDING, cosine - COSINE_CREEP)
        wanted, tilted = self._along_tilt(z, cosine, wanted)
        relative = None if R_measured is None else matrix_to_quat_wxyz(R.dot(R_measured.T))
        least_half_cosine = math.cos(0.5 * self._tracking_rad) - COSINE_ROUNDING
        if relative is not None:
            least_half_cosine = min(least_half_cosine, relative[0] - COSINE_CREEP)

        def unsafe(step: Vector) -> Reason:
            length = math.hypot(*step)
            if length == 0.0:
                return _NONE
            axis = scaled(step, 1.0 / length)
            angle = length * stop_gain(length, self.change_rad)
            found = _NONE
            if _least_cosine_on_way(z, self._z_home, axis, angle, cosine) < least_cosine:
                found |= Reason.TILT
            if relative is not None:
                w, *v = relative
                after = math.cos(0.5 * angle) * w - math.sin(0.5 * angle) * _dot(axis, v)
                if abs(after) < least_half_cosine:
                    found |= Reason.TRACKING
            return found

        step, found = limited_change(previous, wanted, self.change_rad, unsafe)
        return step, both(both(reasons, tilted), found)

    def _along_tilt(self, z: tuple[float, ...], cosine: float, wanted: Vector) -> tuple[Vector, Reason]:
        """Take out of a rotation what would tilt the tool too far, so that yaw and the way back stay free."""
        tilt_axis = _cross(self._z_home, z)
        sine = math.hypot(*tilt_axis)
        if sine < 1e-9:
            return wanted, _NONE
        axis = scaled(tilt_axis, 1.0 / sine)
        tilt_rad = math.atan2(sine, cosine)
        gap_rad = max(0.0, math.acos(max(-1.0, min(1.0, self._tilt_cosine))) - tilt_rad)
        outward = _dot(axis, wanted)
        excess = outward - gap_rad / stop_gain(math.hypot(*wanted), self.change_rad)
        if excess <= 0.0:
            return wanted, _NONE
        x, y, z_ = (w - excess * a for w, a in zip(wanted, axis, strict=True))
        return (x, y, z_), Reason.TILT


def both(reasons: Reason, more: Reason) -> Reason:
    """Return `reasons | more`; a flag's own operator takes 1 us, and mostly there is nothing to add."""
    return reasons | more if more else reasons


def _clipped(step: Vector, least: Vector, greatest: Vector) -> Vector:
    return (
        min(max(step[0], least[0]), greatest[0]),
        min(max(step[1], least[1]), greatest[1]),
        min(max(step[2], least[2]), greatest[2]),
    )


def _shortened(step: Vector, longest: float, reason: Reason) -> tuple[Vector, Reason]:
    length = math.hypot(*step)
    if length <= longest * ROUNDING:
        return step, _NONE
    return scaled(step, longest / length), reason


def _dot(a: list[float] | tuple[float, ...], b: list[float] | tuple[float, ...]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: list[float] | tuple[float, ...], b: list[float] | tuple[float, ...]) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _least_cosine_on_way(z: tuple[float, ...], z_home: list[float], axis: Vector, angle: float, cosine: float) -> float:
    """Return the least cosine of the tilt while `z` turns about `axis` from 0 to `angle`.

    By Rodrigues' formula it is m + a cos(t) + b sin(t), so its least value is at the end or at its one trough.
    """
    along = _dot(axis, z) * _dot(axis, z_home)
    a, b = cosine - along, _dot(z_home, _cross(axis, z))
    trough = (math.atan2(b, a) + math.pi) % (2.0 * math.pi)
    return along + (-math.hypot(a, b) if trough <= angle else a * math.cos(angle) + b * math.sin(angle))
