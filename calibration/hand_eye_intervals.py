"""How sure the fit may be, from how much it changes when stretches of the data are left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from calibration.hand_eye_fit import Fit
from calibration.hand_eye_model import PARAMETERS

Array = NDArray[np.float64]
_MOST_BLOCKS, _LEAST_BLOCKS = 40, 8
_SHORTEST_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Errors of the 13 parameters of `HandEye`.

    Attributes:
        covariance: (13, 13); zero for what was not fitted, infinite on the diagonal where the data do not say.
        half_width: of the 95 % intervals (13,).
        blocks: how many independent stretches it rests on.
        block_s: their length [s]; None for stills, of which each is one.
    """

    covariance: Array
    half_width: Array
    blocks: int
    block_s: float | None


def uncertainty(fit: Fit, t_s: Array | None) -> Uncertainty:
    """Return the delete-a-block jackknife's covariance with Student's intervals.

    No sigma is assumed: MacKinnon, Nielsen and Webb, "Cluster-robust inference: a guide to empirical practice", 2023,
    eq. 21 (CV3), with one Newton step in place of each new fit. Blocks are longer than errors last, since neighbours
    in a stream share the errors of their view; each still is a block of its own.

    Args:
        fit: a settled fit.
        t_s: times of its sightings in order (n,) [s]; None for stills.
    """
    used = fit.inlier
    block, block_s = _blocks(fit, t_s)
    labels, block = np.unique(block[used], return_inverse=True)
    count = len(labels)
    free = fit.free
    scores = fit.scores[used][:, free]
    hessians = fit.hessians[used][:, free][:, :, free]
    sums, curvatures = np.zeros((count, free.sum())), np.zeros((count, free.sum(), free.sum()))
    np.add.at(sums, block, scores)
    np.add.at(curvatures, block, hessians)
    total = curvatures.sum(axis=0)
    unit = 1.0 / np.sqrt(np.maximum(np.diag(total), 1e-300))
    left = (total - curvatures) * unit[:, None] * unit
    covariance = np.zeros((PARAMETERS, PARAMETERS))
    place = np.ix_(free, free)
    try:
        changes = unit * np.linalg.solve(left, (sums * unit)[:, :, None])[:, :, 0]
        covariance[place] = (count - 1) / count * changes.T @ changes
        if (np.linalg.eigvalsh(left)[:, 0] <= 0.0).any():
            raise np.linalg.LinAlgError
    except np.linalg.LinAlgError:
        covariance[place] = np.diag(np.full(free.sum(), np.inf))
    half = student.ppf(0.975, max(count - 1, 1)) * np.sqrt(np.diag(covariance))
    return Uncertainty(covariance=covariance, half_width=half, blocks=count, block_s=block_s)


def _blocks(fit: Fit, t_s: Array | None) -> tuple[NDArray[np.intp], float | None]:
    """Return the block of each sighting (n,), and the blocks' length."""
    n = len(fit.inlier)
    if t_s is None:
        return np.arange(n), None
    span = float(t_s[-1] - t_s[0])
    length = float(np.clip(3.0 * _memory_s(fit, t_s), max(_SHORTEST_S, span / _MOST_BLOCKS), span / _LEAST_BLOCKS))
    return np.minimum((t_s - t_s[0]) / length, span / length - 1e-9).astype(np.intp), length


def _memory_s(fit: Fit, t_s: Array) -> float:
    """Return how long errors last: the integrated autocorrelation time of the inliers' residuals, the longest of six.

    Summed up to the first lag that is not positive: Geyer, "Practical Markov chain Monte Carlo", 1992, section 3.3.
    """
    white = (fit.residuals / fit.noise.scale * np.sqrt(fit.weights)[:, None])[fit.inlier]
    step_s = float(np.median(np.diff(t_s[fit.inlier])))
    longest = 0.0
    for column in (white - white.mean(axis=0)).T:
        spectrum = np.abs(np.fft.rfft(column, 2 * len(column))) ** 2
        correlation = np.fft.irfft(spectrum)[: len(column) // 2]
        correlation /= max(correlation[0], 1e-300)
        noise = 2.0 / np.sqrt(len(column))
        ends = np.flatnonzero(correlation < noise)
        last = int(ends[0]) if len(ends) else len(correlation)
        longest = max(longest, step_s * 2.0 * float(correlation[1:last].sum()))
    return longest
