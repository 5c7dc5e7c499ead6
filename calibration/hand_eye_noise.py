"""How noisy sightings are, learned from their residuals: no sigma is wished for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from calibration.rotations import crosses

Array = NDArray[np.float64]
_DIMS = 6
_SHAPE = np.array([1.0, 1.0, 0.3, 0.1, 0.1, 0.2])  # [rad] and [m], of boards some decimetres wide
_SHAPE_SIGHTINGS = 10.0
_PRIOR_CENTRE_M = 0.2
_FLOOR = np.array([1e-7] * 3 + [1e-8] * 3)  # [rad] and [m]: exact data must not divide by zero


def tails_of(sightings: int) -> float:
    """Return the degrees of freedom for a number of sightings.

    5 where there are 20 or more: a near and a far board differ in noise by factors, and some poses are worse. Fewer
    cannot tell bad poses from good ones, and heavy tails would let the fit go through some of them exactly.
    """
    return max(5.0, 100.0 / max(sightings, 1))


@dataclass(frozen=True, kw_only=True)
class NoiseModel:
    """Multivariate t noise of T_camera_target, in camera axes.

    Attributes:
        scale: per component (6,): rotation about the image's axes and the optical one [rad], position of the centre
            across and along the optical axis [m].
        centre_m: the point of the target (3,) where errors of rotation and of position are least coupled.
        tails: degrees of freedom of the t distribution, see `tails_of`.
    """

    scale: Array
    tails: float
    centre_m: Array = field(default_factory=lambda: np.zeros(3))

    def squared_distances(self, residuals: Array) -> Array:
        """Return the Mahalanobis distances, squared (n,), of residuals (n, 6)."""
        distances: Array = ((residuals / self.scale) ** 2).sum(axis=1)
        return distances

    def weights(self, squared: Array) -> Array:
        """Return the weights (n,) of sightings at squared distances (n,)."""
        return (self.tails + _DIMS) / (self.tails + squared)

    def rescaled(self, residuals: Array, weights: Array, freedom: float) -> NoiseModel:
        """Return the model after one step of expectation maximisation.

        Lange, Little and Taylor, "Robust statistical modeling using the t distribution", 1989, section 3. The two axes
        across the image share their scales, and a shape as boards have it counts as ten sightings: few poses cannot
        tell the scales apart, and would let one of them fall to nothing.

        Args:
            residuals: (n, 6) about this model's centre.
            weights: (n,), zero for outliers.
            freedom: share of the residuals' freedom that the fit's parameters left, 0 to 1.
        """
        inliers = max(float(np.count_nonzero(weights)), 1.0)
        variance = (weights[:, None] * residuals**2).sum(axis=0) / (inliers * freedom)
        variance[0:2] = variance[0:2].mean()
        variance[3:5] = variance[3:5].mean()
        usual = _SHAPE**2 * (variance / _SHAPE**2).mean()
        variance = (inliers * variance + _SHAPE_SIGHTINGS * usual) / (inliers + _SHAPE_SIGHTINGS)
        return replace(self, scale=np.maximum(np.sqrt(variance), _FLOOR))

    def recentred(self, residuals: Array, weights: Array, R_camera_target: Array) -> NoiseModel:
        """Return the model about the point whose position varies least.

        A board's pose turns about its middle, and where that lies from its origin is not in a pose file. Moving the
        point by d changes a position residual by r x (R d), r being the residual rotation: linear in d.
        """
        lever = crosses(residuals[:, :3]) @ R_camera_target / self.scale[3:, None]
        wanted = -residuals[:, 3:] / self.scale[3:]
        normal = np.einsum("n,nij,nik->jk", weights, lever, lever)
        right = np.einsum("n,nij,ni->j", weights, lever, wanted)
        # a prior of 0.2 m about where we are, for residuals that say nothing
        step = np.linalg.solve(normal + np.eye(3) / _PRIOR_CENTRE_M**2, right - self.centre_m / _PRIOR_CENTRE_M**2)
        return replace(self, centre_m=self.centre_m + step)
