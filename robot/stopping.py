"""Speeding up and braking in whole ticks, so that whatever moves can always still stop where it must.

Everything here is in displacement per tick: `step` is a move of one tick (3,) in metres or radians, and `change` is the
greatest difference between the steps of two ticks (acceleration times period squared). Plain floats for speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from robot.command import Reason

Vector = tuple[float, float, float]

# Halvings when a feasible step is searched: 1/65536 of a step is far below what an arm resolves.
HALVINGS = 16


def scaled(vector: Vector, factor: float) -> Vector:
    """Return `vector` times `factor`."""
    return vector[0] * factor, vector[1] * factor, vector[2] * factor


def between(a: Vector, b: Vector, share: float) -> Vector:
    """Return the point at `share` of the way from `a` (0) to `b` (1)."""
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2])


def braked(step: Vector, change: float) -> Vector:
    """Return the next step when braking as hard as allowed: shorter by `change` in the same direction, at last zero."""
    length = math.hypot(*step)
    return (0.0, 0.0, 0.0) if length <= change else scaled(step, 1.0 - change / length)


def stop_gain(length: float, change: float) -> float:
    """Return how many times a step of `length` is covered until standstill, that step included.

    The steps are length, length - change, length - 2 change and so on while positive; the gain is their sum over
    `length`, 1 for a step that the next tick can stop.
    """
    if length <= change:
        return 1.0
    count = math.ceil(length / change)
    return count - 0.5 * change * count * (count - 1) / length


def length_to_stop_within(distance: float, change: float) -> float:
    """Return the longest step from which braking ends within `distance`: the inverse of length times `stop_gain`."""
    if distance <= change:
        return distance
    count = math.ceil(0.5 * (math.sqrt(1.0 + 8.0 * distance / change) - 1.0))
    return distance / count + 0.5 * change * (count - 1)


def limited_change(
    previous: Vector, wanted: Vector, change: float, unsafe: Callable[[Vector], Reason]
) -> tuple[Vector, Reason]:
    """Return the step nearest to `wanted` that is safe and within `change` of `previous`, and why it differs.

    Args:
        previous: step of the last tick; braking from it must have been safe then.
        wanted: step asked for.
        change: greatest difference to `previous`.
        unsafe: says why a step must not be made, braking after it included, or NONE. A null step is always safe, and
            a step that is safe stays so when it is shortened.

    Safe by induction: every step returned can be braked after, and `braked(previous)` is what is left when nothing
    else holds, so neither the acceleration nor the walls ever give way to each other.
    """
    reasons = unsafe(wanted)
    if reasons:
        wanted = scaled(wanted, _greatest(lambda share: not unsafe(scaled(wanted, share))))
    distance = math.dist(wanted, previous)
    if distance <= change:
        return wanted, reasons
    reasons |= Reason.ACCELERATION
    nearest = between(previous, wanted, change / distance)
    refused = unsafe(nearest)
    if not refused:
        return nearest, reasons
    # from braking towards the wanted step; both ends of the way are known to be safe, the first one to be possible
    brake = braked(previous, change)
    share = _greatest(
        lambda share: math.dist(step := between(brake, wanted, share), previous) <= change and not unsafe(step)
    )
    return between(brake, wanted, share), reasons | refused


def _greatest(holds: Callable[[float], bool]) -> float:
    """Return a share in 0 to 1 for which `holds`, by bisection from 0, where it is taken to hold."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
