"""How wrong a calibration is where it was not fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.hand_eye_fit import Fit, fit_hand_eye, outlier_beyond
from calibration.hand_eye_model import residuals
from calibration.sightings import Sightings

Array = NDArray[np.float64]
_FOLDS, _STILL_FOLDS = 5, 10
_GUARD_S = 0.5


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Errors of sightings, each under a fit that did not see it.

    Attributes:
        translation_m: how far the target's origin was seen from where the arm puts it (n,).
        rotation_rad: how far it was turned from that (n,).
        inlier: within the noise that the fit had learned elsewhere (n,).
        folds: how many fits.
    """

    translation_m: Array
    rotation_rad: Array
    inlier: NDArray[np.bool_]
    folds: int


def hold_out(seen: Sightings, fit: Fit, step: Callable[[], None] = lambda: None) -> HeldOut:
    """Return errors by cross-validation.

    A moving arm's recording is cut into five stretches, and what is within 0.5 s of the one that is judged is not
    fitted either: neighbours in a stream share their errors, and samples drawn at random would flatter. Stills are
    drawn one by one, or in ten groups.

    Args:
        seen: all sightings, in order of time.
        fit: of all of them; the folds start there.
        step: called after each fold.
    """
    n = len(seen)
    moving = seen.track is not None
    folds = _FOLDS if moving else min(n, _STILL_FOLDS)
    if moving:
        span = np.linspace(seen.t_s[0], seen.t_s[-1], folds + 1)
        fold = np.clip(np.searchsorted(span, seen.t_s, side="right") - 1, 0, folds - 1)
    else:
        fold = np.random.default_rng(0).permutation(n) % folds
    translation, rotation = np.full(n, np.nan), np.full(n, np.nan)
    inlier = np.zeros(n, bool)
    for index in range(folds):
        judged = fold == index
        learned = ~judged
        if moving:
            learned &= (seen.t_s < span[index] - _GUARD_S) | (seen.t_s > span[index + 1] + _GUARD_S)
        if judged.any():
            part = fit_hand_eye(seen.subset(learned), fit.estimate, fit.inlier[learned])
            left = seen.subset(judged)
            r = residuals(left, part.estimate, np.zeros(3))
            translation[judged] = np.linalg.norm(r[:, 3:], axis=1)
            rotation[judged] = np.linalg.norm(r[:, :3], axis=1)
            inlier[judged] = inliers(left, part)
        step()
    return HeldOut(translation_m=translation, rotation_rad=rotation, inlier=inlier, folds=folds)


def inliers(seen: Sightings, fit: Fit) -> NDArray[np.bool_]:
    """Return which sightings (n,) lie within what 99 % of Gaussian noise of the fit's size would."""
    believed = fit.noise.squared_distances(fit.residuals[fit.inlier])
    r = residuals(seen, fit.estimate, fit.noise.centre_m)
    return fit.noise.squared_distances(r) <= outlier_beyond(believed, 0.99)
