"""The joint robust fit of X, Y and the time offset, by iteratively reweighted Gauss-Newton steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, f

from calibration.hand_eye_model import PARAMETERS, HandEye, jacobian, residuals
from calibration.hand_eye_noise import NoiseModel, tails_of
from calibration.sightings import Sightings

Array = NDArray[np.float64]
_ROUNDS, _STEPS, _LEAST = 4, 40, 3
_SETTLED = 1e-2  # of a standard error
_FAR = 1.0 - 5e-8  # share of Gaussian noise that is nearer than what the fit leaves out; the t weights see to the rest
_MEDIAN = float(chi2.median(6))
_LARGEST = np.repeat([0.2, 0.05, 0.2, 0.05, 0.05], [3, 3, 3, 3, 1])  # [rad], [m], [s]: further, it is not linear


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A settled fit.

    Attributes:
        estimate: X, Y and offset.
        noise: what was learned of the sightings' noise.
        inlier: which sightings count (n,).
        weights: of the sightings (n,), zero for outliers.
        residuals: (n, 6), about the noise's centre.
        scores: gradient of each sighting's share of the objective (n, 13).
        hessians: second derivative of each sighting's share (n, 13, 13), by Gauss-Newton with the weights' change.
        free: which parameters were fitted (13,): not the offset of stills.
    """

    estimate: HandEye
    noise: NoiseModel
    inlier: NDArray[np.bool_]
    weights: Array
    residuals: Array
    scores: Array
    hessians: Array
    free: NDArray[np.bool_]


def fit_hand_eye(seen: Sightings, start: HandEye, inlier: NDArray[np.bool_] | None = None) -> Fit:
    """Fit from a start that is near.

    Args:
        seen: the sightings.
        start: from a closed form.
        inlier: which sightings to believe at first (n,); all when left out.
    """
    inlier = np.ones(len(seen), bool) if inlier is None else inlier
    free = np.ones(PARAMETERS, bool)
    free[12] = seen.timed
    estimate = start
    noise = _first_noise(seen, start, inlier)
    for _ in range(_ROUNDS):
        estimate, noise = _settle(seen, estimate, noise, inlier, free)
        squared = noise.squared_distances(residuals(seen, estimate, noise.centre_m))
        near = squared < outlier_beyond(squared[inlier], _FAR)
        if (near == inlier).all() or near.sum() < _LEAST:
            break
        inlier = near
    return _finished(seen, estimate, noise, inlier, free)


def outlier_beyond(squared: Array, share: float) -> float:
    """Return the squared distance that `share` of Gaussian noise is within, from the distances (n,) of those believed.

    By their median, which tails do not move. Few sightings are told apart with less rigour, as Fisher's distribution
    has it, and a fit to few of them is nearer to these than to others: by the factor (1 + h) / (1 - h), h being the
    mean leverage.
    """
    values = 6.0 * len(squared)
    leverage = min(12.0 / values, 0.75)
    beyond = 6.0 * float(f.ppf(share, 6, max(values - 12.0, 3.0)))
    return beyond * (1.0 + leverage) / (1.0 - leverage) * max(float(np.median(squared)), 1e-9) / _MEDIAN


def _settle(
    seen: Sightings, estimate: HandEye, noise: NoiseModel, inlier: NDArray[np.bool_], free: NDArray[np.bool_]
) -> tuple[HandEye, NoiseModel]:
    """Alternate steps of the estimate with steps of the noise until both stand still."""
    freedom = max(1.0 - free.sum() / max(6.0 * inlier.sum(), 1.0), 0.1)
    for _ in range(_STEPS):
        arm = seen.arm(estimate.offset_s)
        r = residuals(seen, estimate, noise.centre_m, arm)
        weights = noise.weights(noise.squared_distances(r)) * inlier
        before = noise
        noise = noise.recentred(r, weights, seen.R_camera_target)
        r = residuals(seen, estimate, noise.centre_m, arm)
        noise = noise.rescaled(r, weights, freedom)
        weights = noise.weights(noise.squared_distances(r)) * inlier
        J = jacobian(seen, estimate, noise.centre_m, r[:, :3], arm)[:, :, free]
        root = np.sqrt(weights)[:, None] / noise.scale
        white_J, white_r = (J * root[:, :, None]).reshape(-1, J.shape[2]), (r * root).ravel()
        H, g = white_J.T @ white_J, white_J.T @ white_r
        step = np.zeros(PARAMETERS)
        unit = 1.0 / np.sqrt(np.maximum(np.diag(H), 1e-300))
        step[free] = -unit * np.linalg.lstsq(H * unit[:, None] * unit, unit * g, rcond=1e-13)[0]
        shorter = max(1.0, float(np.max(np.abs(step) / _LARGEST)))
        step /= shorter
        estimate = estimate.moved(step)
        still = float(step[free] @ H @ step[free]) < _SETTLED**2 * PARAMETERS
        if still and np.allclose(before.scale, noise.scale, rtol=3e-3):
            break
    return estimate, noise


def _first_noise(seen: Sightings, start: HandEye, inlier: NDArray[np.bool_]) -> NoiseModel:
    """Return scales from the median sizes of the start's residuals."""
    r = np.abs(residuals(seen, start, np.zeros(3))[inlier])
    sizes = np.repeat([np.median(r[:, :3]), np.median(r[:, 3:])], 3)
    return NoiseModel(scale=np.maximum(1.5 * sizes, [1e-5] * 3 + [1e-6] * 3), tails=tails_of(int(inlier.sum())))


def _finished(
    seen: Sightings, estimate: HandEye, noise: NoiseModel, inlier: NDArray[np.bool_], free: NDArray[np.bool_]
) -> Fit:
    arm = seen.arm(estimate.offset_s)
    r = residuals(seen, estimate, noise.centre_m, arm)
    squared = noise.squared_distances(r)
    weights = noise.weights(squared) * inlier
    white_r = r / noise.scale
    white_J = jacobian(seen, estimate, noise.centre_m, r[:, :3], arm) / noise.scale[:, None]
    pulled = (white_J.transpose(0, 2, 1) @ white_r[:, :, None])[:, :, 0]
    # the weight falls as a residual grows: d(w r) = w dr - 2 w^2 / (dof + 6) r (r . dr)
    fall = 2.0 * weights**2 / (noise.tails + 6.0)
    hessians = weights[:, None, None] * (white_J.transpose(0, 2, 1) @ white_J)
    hessians -= fall[:, None, None] * pulled[:, :, None] * pulled[:, None, :]
    return Fit(
        estimate=estimate,
        noise=noise,
        inlier=inlier,
        weights=weights,
        residuals=r,
        scores=weights[:, None] * pulled,
        hessians=hessians,
        free=free,
    )
