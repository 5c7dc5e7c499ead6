"""The time between two clocks from how fast both see the same thing turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import correlate
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
_GRID_S = 0.01
_BASE_S = 0.25  # speed is the turn over this time: shorter is noisier
_OVERLAP, _OVERLAP_S = 0.5, 3.0
_PEAKS, _APART_S = 4, 0.15
_MOST_STEPS = 2_000_000


@dataclass(frozen=True, kw_only=True)
class OffsetCurve:
    """Correlation against offset.

    Attributes:
        offset_s: what is added to the second stream's times (m,).
        correlation: of angular speeds (m,), NaN where too little overlaps.
        peaks_s: offsets of the highest peaks, highest first.
    """

    offset_s: Array
    correlation: Array
    peaks_s: tuple[float, ...]

    @property
    def best(self) -> float:
        """Correlation at the highest peak."""
        return float(np.nanmax(self.correlation))


def correlate_speeds(t_a: Array, quat_a: Array, t_b: Array, quat_b: Array) -> OffsetCurve | None:
    """Return the correlation of angular speeds over all offsets that leave half of the shorter stream.

    The speed of a rigid body is the same seen from any frame fixed to it or to the base, so that no calibration is
    needed. Angles of B that the arm cannot have turned by are outliers and left out. Gaps are masked: Padfield,
    "Masked object registration in the Fourier domain", 2012.

    Args:
        t_a, t_b: times (n,) and (m,) [s], strictly increasing, on clocks of their own.
        quat_a, quat_b: unit quaternions xyzw (n, 4) and (m, 4).

    Returns:
        None when the streams are too short, or nothing turns.
    """
    if min(len(t_a), len(t_b)) < 8:
        return None
    fastest = float(np.quantile(_steps(t_a, quat_a), 0.995))
    kept = _plausible(t_b, quat_b, fastest)
    if kept.sum() < 8:
        return None
    speed_a, speed_b = _speeds(t_a, quat_a), _speeds(t_b[kept], quat_b[kept])
    if min(len(speed_a), len(speed_b)) < _OVERLAP_S / _GRID_S or len(speed_a) + len(speed_b) > _MOST_STEPS:
        return None
    speed_b = np.minimum(speed_b, 1.3 * np.nanmax(speed_a))
    a, b = np.nan_to_num(speed_a), np.nan_to_num(speed_b)
    in_a, in_b = np.isfinite(speed_a).astype(float), np.isfinite(speed_b).astype(float)
    overlap = np.maximum(correlate(in_a, in_b), 1e-9)
    sum_a, sum_b = correlate(a, in_b), correlate(in_a, b)
    square_a = correlate(a * a, in_b) - sum_a**2 / overlap
    square_b = correlate(in_a, b * b) - sum_b**2 / overlap
    both = correlate(a, b) - sum_a * sum_b / overlap
    floor = 1e-6 * max(float(square_a.max()), 1e-12), 1e-6 * max(float(square_b.max()), 1e-12)
    correlation = both / np.sqrt(np.maximum(square_a, floor[0]) * np.maximum(square_b, floor[1]))
    needed = max(_OVERLAP * min(in_a.sum(), in_b.sum()), _OVERLAP_S / _GRID_S)
    correlation[overlap < needed] = np.nan
    if not np.isfinite(correlation).any():
        return None
    # index 0 shifts B so that its last sample meets A's first
    offset_s = (np.arange(len(correlation)) - (len(b) - 1)) * _GRID_S + (t_a[0] - t_b[kept][0])
    return OffsetCurve(offset_s=offset_s, correlation=correlation, peaks_s=_peaks(offset_s, correlation))


def _steps(t: Array, quat: Array) -> Array:
    turned = (Rotation.from_quat(quat[:-1]).inv() * Rotation.from_quat(quat[1:])).magnitude()
    speed: Array = turned / np.diff(t)
    return speed


def _plausible(t: Array, quat: Array, fastest: float) -> NDArray[np.bool_]:
    """Return which rotations most of their neighbours in time can be reached from at a speed of `fastest` [rad/s]."""
    n, reach = len(t), 6
    rotation = Rotation.from_quat(quat)
    angles = [(rotation[:-k].inv() * rotation[k:]).magnitude() for k in range(1, reach + 1)]
    spans = [t[k:] - t[:-k] for k in range(1, reach + 1)]
    # where half of the poses are wrong, three in four neighbours differ by what is no noise
    noise = 2.0 * float(np.quantile(angles[0], 0.15)) + np.deg2rad(1.0)
    votes, voters = np.zeros(n), np.zeros(n)
    for k, (angle, span) in enumerate(zip(angles, spans, strict=True), 1):
        near = (span < 1.0).astype(float)
        agree = near * (angle < 1.3 * fastest * span + noise)
        votes[:-k] += agree
        votes[k:] += agree
        voters[:-k] += near
        voters[k:] += near
    return votes >= 0.3 * np.maximum(voters, 1.0)


def _speeds(t: Array, quat: Array) -> Array:
    """Return angular speed (m,) [rad/s] on a grid of 10 ms from t[0], NaN in gaps."""
    grid = np.arange(0.0, t[-1] - t[0], _GRID_S)
    before, after = grid - _BASE_S / 2.0, grid + _BASE_S / 2.0
    (q_before, covered_before), (q_after, covered_after) = (_interpolated(t - t[0], quat, at) for at in (before, after))
    speed = 2.0 * np.arccos(np.clip(np.abs((q_before * q_after).sum(axis=1)), 0.0, 1.0)) / _BASE_S
    return np.where(covered_before & covered_after, speed, np.nan)


def _interpolated(t: Array, quat: Array, at: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return normalised linear interpolation (m, 4), and which of the times `at` lie in no gap."""
    index = np.clip(np.searchsorted(t, at, side="right") - 1, 0, len(t) - 2)
    span = t[index + 1] - t[index]
    share = np.clip((at - t[index]) / span, 0.0, 1.0)[:, None]
    second = quat[index + 1] * np.where((quat[index] * quat[index + 1]).sum(axis=1) < 0.0, -1.0, 1.0)[:, None]
    q = (1.0 - share) * quat[index] + share * second
    inside = (at >= t[0]) & (at <= t[-1]) & (span < max(0.4, 4.0 * float(np.median(np.diff(t)))))
    return q / np.linalg.norm(q, axis=1, keepdims=True), inside


def _peaks(offset_s: Array, correlation: Array) -> tuple[float, ...]:
    left = np.where(np.isfinite(correlation), correlation, -np.inf)
    found: list[float] = []
    for _ in range(_PEAKS):
        top = int(np.argmax(left))
        if not np.isfinite(left[top]) or (found and left[top] < 0.3):
            break
        found.append(float(offset_s[top]))
        left = np.where(np.abs(offset_s - offset_s[top]) < _APART_S, -np.inf, left)
    return tuple(found)
