"""A first estimate that outliers cannot spoil: closed forms on what a random search agrees on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.closed_forms import METHODS, kronecker
from calibration.hand_eye_model import HandEye
from calibration.sightings import Sightings, homogeneous

Array = NDArray[np.float64]
_DRAWS, _EACH = 250, 4
_MOST = 250
_REFINED = 8
_AGREE = 0.4
"""Share of the sightings that must fit: the search stands up to 60 % of outliers."""
_LEVER_M = 0.5  # a turn of 1 rad counts as this way
_NEAR = 4.0


@dataclass(frozen=True, kw_only=True)
class Seed:
    """The best closed form.

    Attributes:
        estimate: X, Y and the offset that it was sought at.
        method: its name.
        inlier: sightings that agree (n,).
        spread_m: what `_AGREE` of the sightings stay within, rotations as 0.5 m a radian; less is better.
    """

    estimate: HandEye
    method: str
    inlier: NDArray[np.bool_]
    spread_m: float


def find_seed(seen: Sightings, offset_s: float = 0.0) -> Seed:
    """Return the closed form that the sightings agree on best, at one time offset; the same for the same sightings.

    Least quantile of squares (Rousseeuw and Leroy, "Robust regression and outlier detection", 1987) over random
    subsets, then all closed forms on those that agree.
    """
    arm = seen.arm(offset_s)
    A, B = homogeneous(arm.R, arm.p), seen.T_target_camera()
    n = len(A)
    rng = np.random.default_rng(0)
    share = max(_AGREE, min(1.0, (_EACH + 2.0) / n))
    looked = np.sort(rng.choice(n, _MOST, replace=False)) if n > _MOST else np.arange(n)
    A_few, B_few = A[looked], B[looked]
    draws = np.argsort(rng.random((_DRAWS, len(looked))), axis=1)[:, :_EACH]
    X, Y = kronecker(A_few[draws], B_few[draws])
    X_all, Y_all = kronecker(A_few, B_few)
    X, Y = np.concatenate([X, X_all[None]]), np.concatenate([Y, Y_all[None]])
    scores = np.quantile(_errors(A_few, B_few, X, Y), share, axis=1)
    best: tuple[float, Array, Array] | None = None
    for index in np.argsort(scores, kind="stable")[:_REFINED]:
        candidate = _refined(A_few, B_few, X[index], Y[index], share)
        if best is None or candidate[0] < best[0]:
            best = candidate
    assert best is not None
    spread, X_best, Y_best = best
    inlier = _errors(A, B, X_best[None], Y_best[None])[0] < _NEAR * spread
    found = {"random search": (X_best, Y_best)}
    if inlier.sum() >= _EACH:
        found |= {name: method(A[inlier], B[inlier]) for name, method in METHODS.items()}
    spreads = {name: float(np.quantile(_errors(A, B, x[None], y[None])[0], share)) for name, (x, y) in found.items()}
    method = min(spreads, key=lambda name: spreads[name])
    x, y = found[method]
    inlier = _errors(A, B, x[None], y[None])[0] <= _NEAR * spreads[method]
    return Seed(estimate=HandEye(X=x, Y=y, offset_s=offset_s), method=method, inlier=inlier, spread_m=spreads[method])


def _refined(A: Array, B: Array, X: Array, Y: Array, share: float) -> tuple[float, Array, Array]:
    """Solve again from the sightings that agree best, until that makes it no better."""
    best = (float(np.quantile(_errors(A, B, X[None], Y[None])[0], share)), X, Y)
    for _ in range(6):
        errors = _errors(A, B, best[1][None], best[2][None])[0]
        near = errors <= np.quantile(errors, share)
        if near.sum() < _EACH:
            break
        x, y = kronecker(A[near], B[near])
        spread = float(np.quantile(_errors(A, B, x[None], y[None])[0], share))
        if not spread < best[0]:
            break
        best = (spread, x, y)
    return best


def _errors(A: Array, B: Array, X: Array, Y: Array) -> Array:
    """Return (h, n) errors of the camera's pose [m] under hypotheses X, Y (h, 4, 4)."""
    C, D = A @ X[:, None], Y[:, None] @ B
    # the chord, as an arc's cosine has no precision near 0; beyond a right angle any error is large
    chord = np.linalg.norm((C - D)[..., :3, :3], axis=(2, 3)) / (2.0 * np.sqrt(2.0))
    errors: Array = np.linalg.norm((C - D)[..., :3, 3], axis=2) + 2.0 * _LEVER_M * np.arcsin(np.minimum(chord, 1.0))
    return errors
