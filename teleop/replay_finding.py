"""What a replay found wrong, and bit-for-bit comparison of two values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One logged value that is not what it must be.

    Attributes:
        tick: `tick/index` of its row; None for the episode as a whole.
        field: dataset, with the place of the first differing element.
        logged: what the file holds there.
        expected: what the replay gives.
        difference: greatest absolute difference over the field; infinite where that is no number.
        arithmetic: True for the result of floating-point work, which another processor may round otherwise.
    """

    tick: int | None
    field: str
    logged: str
    expected: str
    difference: float = float("inf")
    arithmetic: bool = False


def differing(
    field: str, logged: NDArray[np.generic], expected: NDArray[np.generic], *, tick: int | None, arithmetic: bool
) -> Finding | None:
    """Compare two arrays of one type and shape by their bytes, so that NaN equals NaN and -0 is not 0."""
    if logged.tobytes() == expected.tobytes():
        return None
    left, right = np.ascontiguousarray(logged), np.ascontiguousarray(expected)
    size = left.dtype.itemsize
    unequal = (left.reshape(-1).view(np.uint8) != right.reshape(-1).view(np.uint8)).reshape(-1, size).any(axis=1)
    place = int(np.flatnonzero(unequal)[0])
    where = "".join(f"[{i}]" for i in np.unravel_index(place, left.shape)) if left.ndim else ""
    with np.errstate(all="ignore"):
        gaps = np.abs(left.astype(np.float64) - right.astype(np.float64)).reshape(-1)[unequal]
    difference = float(gaps.max()) if np.isfinite(gaps).all() else float("inf")
    return Finding(
        tick=tick,
        field=field + where,
        logged=str(left.reshape(-1)[place]),
        expected=str(right.reshape(-1)[place]),
        difference=difference,
        arithmetic=arithmetic,
    )
