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
_FOLDS, _STILL_FOLDS = 5, 20
_EACH, _STRETCH_S, _GUARD_S = 4, 1.5, 0.5


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

    A moving arm's recording is cut into 20 stretches (fewer when it is short), every fifth of which is judged by a fit
    to the others. What is within 0.5 s of a judged stretch is not fitted either: neighbours in a stream share their
    errors, and samples drawn at random would flatter. Stills are drawn one by one, or in 20 groups.

    Args:
        seen: all sightings, in order of time.
        fit: of all of them; the folds start there.
        step: called after each fold.
    """
    n = len(seen)
    t_s = seen.t_s if seen.track is not None else None
    folds = min(n, _STILL_FOLDS) if t_s is None else _FOLDS
    if t_s is None:
        stretch = np.random.default_rng(0).permutation(n)
        edges = np.zeros(0)
    else:
        span_s = float(t_s[-1] - t_s[0])
        each = int(np.clip(span_s / (_FOLDS * _STRETCH_S), 1, _EACH))
        edges = np.linspace(t_s[0], t_s[-1], folds * each + 1)
        stretch = np.clip(np.searchsorted(edges, t_s, side="right") - 1, 0, folds * each - 1)
        guard_s = min(_GUARD_S, span_s / 40.0)
    translation, rotation = np.full(n, np.nan), np.full(n, np.nan)
    inlier = np.zeros(n, bool)
    for index in range(folds):
        judged = stretch % folds == index
        learned = ~judged
        if t_s is not None:
            for number in range(index, len(edges) - 1, folds):
                learned &= (t_s < edges[number] - guard_s) | (t_s > edges[number + 1] + guard_s)
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
    if not len(believed):
        return np.zeros(len(seen), bool)
    return fit.noise.squared_distances(r) <= outlier_beyond(believed, 0.99)
