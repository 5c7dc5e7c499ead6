"""From sticks and keys to a twist in the base frame."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def shaped(x: float, y: float, *, dead_zone: float, exponent: float) -> tuple[float, float]:
    """Radial dead zone, then a power curve on the length; the direction is kept.

    Radial, because a dead zone per axis snaps slow diagonal motion to an axis. The curve starts at 0 on the
    edge of the dead zone, so that the arm does not jump when the stick leaves it.

    Args:
        x: deflection in [-1, 1].
        y: deflection in [-1, 1].
        dead_zone: radius below which the stick rests, in [0, 1).
        exponent: 1 is linear, more is finer near the centre.

    Returns:
        Deflection of length at most 1.
    """
    radius = math.hypot(x, y)
    if radius <= dead_zone:
        return 0.0, 0.0
    travel = (min(radius, 1.0) - dead_zone) / (1.0 - dead_zone)
    gain = travel**exponent / radius
    return x * gain, y * gain


def twist_base(
    *, forward: float, left: float, up: float, turn: float, view_yaw_rad: float, speed_share: float
) -> NDArray[np.float64]:
    """Twist in the base frame from what the person means.

    Args:
        forward: away from the person, in [-1, 1].
        left: to the person's left, in [-1, 1].
        up: against gravity, in [-1, 1].
        turn: yaw, counter-clockwise seen from above, in [-1, 1].
        view_yaw_rad: direction in which the person looks, as a rotation about base z; 0 for somebody who stands
            behind the base and looks along +x [rad].
        speed_share: share of full speed at full deflection, in (0, 1].

    Returns:
        x, y, z, roll, pitch, yaw; shape (6,), each in [-1, 1] of full speed; the planar part is at most 1 long.
    """
    length = math.hypot(forward, left)
    if length > 1.0:
        forward, left = forward / length, left / length
    cos, sin = math.cos(view_yaw_rad), math.sin(view_yaw_rad)
    twist = np.array([cos * forward - sin * left, sin * forward + cos * left, up, 0.0, 0.0, turn])
    return np.clip(speed_share * twist, -1.0, 1.0)
