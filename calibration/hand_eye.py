"""Hand-eye calibration from first guess to verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.hand_eye_fit import Fit, fit_hand_eye
from calibration.hand_eye_intervals import Uncertainty, uncertainty
from calibration.hand_eye_seed import Seed, find_seed
from calibration.held_out import HeldOut, hold_out
from calibration.motion_diversity import Diversity, motion_diversity
from calibration.pose_track import PoseTrack
from calibration.refused import CalibrationRefusedError
from calibration.sightings import Sightings
from calibration.time_offset import OffsetCurve, correlate_speeds

Array = NDArray[np.float64]
Progress = Callable[[int, int, str], None]
MOST_TRANSLATION_M, MOST_ROTATION_RAD = 0.005, np.deg2rad(0.5)
WIDEST_M, WIDEST_RAD = 0.01, np.deg2rad(1.0)
_LEAST_INLIERS = 0.5
_LEAST_SIGHTINGS, _LEAST_S = 30, 4.0
_MARGIN_S = 0.1
_SURE, _SECOND = 0.8, 0.1
_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A finished calibration and all that it was judged by.

    Attributes:
        seen: the sightings that took part, in order.
        seed: the closed form.
        fit: of all sightings.
        uncertainty: of the fit.
        held_out: errors where it was not fitted.
        diversity: how the arm turned.
        curve: correlation of angular speeds; None for stills.
        failures: why it should not be kept; none when it may.
        warnings: what a person should know.
    """

    seen: Sightings
    seed: Seed
    fit: Fit
    uncertainty: Uncertainty
    held_out: HeldOut
    diversity: Diversity
    curve: OffsetCurve | None
    failures: tuple[str, ...]
    warnings: tuple[str, ...]


def calibrate(seen: Sightings, progress: Progress = lambda done, total, doing: None) -> Calibrated:
    """Find X, Y and the time offset, how sure they are, and how wrong where they were not fitted.

    Args:
        seen: sightings with a moving arm or with stills.
        progress: called with steps done, steps in all and what is next.

    Raises:
        CalibrationRefusedError: the motion or the sightings say too little for any answer.
    """
    progress(0, _STEPS, "motion")
    frame = "base" if seen.inverted else "hand"
    curve: OffsetCurve | None = None
    if seen.track is not None:
        _all_motion(seen, seen.track, frame).check(len(seen))
        progress(0, _STEPS, "time offset")
        curve = _curve(seen, seen.track)
        seen, seed = _best_peak(seen, seen.track, curve)
    else:
        motion_diversity(seen.arm(0.0).R, frame).check(len(seen))
        seed = find_seed(seen)
    diversity = motion_diversity(seen.arm(seed.estimate.offset_s).R, frame)
    diversity.check(len(seen))
    progress(1, _STEPS, "fit")
    fit = fit_hand_eye(seen, seed.estimate, seed.inlier)
    if seen.track is not None:
        covered = seen.track.covers(seen.t_s + fit.estimate.offset_s)
        if not covered.all():
            seen = seen.subset(covered)
            fit = fit_hand_eye(seen, fit.estimate, fit.inlier[covered])
    progress(2, _STEPS, "intervals")
    sure = uncertainty(fit, seen.t_s if seen.track is not None else None)
    progress(3, _STEPS, "held-out errors")
    judged = hold_out(seen, fit)
    progress(_STEPS, _STEPS, "done")
    failures = _failures(fit, sure, judged, diversity)
    return Calibrated(
        seen=seen,
        seed=seed,
        fit=fit,
        uncertainty=sure,
        held_out=judged,
        diversity=diversity,
        curve=curve,
        failures=failures,
        warnings=_warnings(fit, sure, judged, curve, diversity),
    )


def other_way(found: Calibrated) -> bool:
    """Return whether the same poses fit at least three times better with the camera on the other side."""
    other = replace(found.seen, inverted=not found.seen.inverted)
    return find_seed(other, found.fit.estimate.offset_s).spread_m < found.seed.spread_m / 3.0


def _all_motion(seen: Sightings, track: PoseTrack, frame: str) -> Diversity:
    arm = track.at(np.linspace(track.t_s[0], track.t_s[-1], 500))
    return motion_diversity((arm.inverse() if seen.inverted else arm).R, frame)


def _curve(seen: Sightings, track: PoseTrack) -> OffsetCurve:
    B = Rotation.from_matrix(seen.R_camera_target).inv().as_quat()
    A = Rotation.from_matrix(track.at(track.t_s).R).as_quat()
    curve = correlate_speeds(track.t_s, A, seen.t_s, B)
    if curve is None or not curve.peaks_s:
        raise CalibrationRefusedError(
            "no time offset: the two files share less than some seconds of motion, or one holds no rotation; record "
            "30 s of both while the hand turns"
        )
    return curve


def _best_peak(seen: Sightings, track: PoseTrack, curve: OffsetCurve) -> tuple[Sightings, Seed]:
    """Return the sightings that the arm's poses cover and the seed, at the offset that fits best.

    Motion that repeats itself correlates at several offsets, but only one of them fits.
    """
    peaks = curve.peaks_s
    heights = np.interp(peaks, curve.offset_s, np.nan_to_num(curve.correlation, nan=-1.0))
    if len(peaks) == 1 or (heights[0] > _SURE and heights[1] < heights[0] - _SECOND):
        peaks = peaks[:1]
    best: tuple[Sightings, Seed] | None = None
    for peak in peaks:
        part = seen.subset(track.covers(seen.t_s + peak, _MARGIN_S))
        if len(part) < _LEAST_SIGHTINGS or part.t_s[-1] - part.t_s[0] < _LEAST_S:
            continue
        seed = find_seed(part, peak)
        if best is None or seed.spread_m < best[1].spread_m:
            best = part, seed
    if best is None:
        raise CalibrationRefusedError(
            f"fewer than {_LEAST_SIGHTINGS} target poses, or less than {_LEAST_S:g} s of them, lie within the arm's "
            f"poses at any time offset; record 30 s of both"
        )
    return best


def _failures(fit: Fit, sure: Uncertainty, judged: HeldOut, diversity: Diversity) -> tuple[str, ...]:
    found = []
    believed = judged.inlier.mean()
    if believed < _LEAST_INLIERS:
        found.append(
            f"only {100 * believed:.0f} % of the held-out sightings agree (allowed {100 * _LEAST_INLIERS:.0f} % or "
            "more); did the target or the camera move, or are the poses of another convention?"
        )
    translation = float(np.median(judged.translation_m[judged.inlier])) if judged.inlier.any() else np.inf
    rotation = float(np.median(judged.rotation_rad[judged.inlier])) if judged.inlier.any() else np.inf
    if not translation <= MOST_TRANSLATION_M:
        found.append(
            f"held-out translation error {1e3 * translation:.2f} mm (median; allowed {1e3 * MOST_TRANSLATION_M:g} mm)"
        )
    if not rotation <= MOST_ROTATION_RAD:
        found.append(
            f"held-out rotation error {np.rad2deg(rotation):.2f} degrees (median; allowed "
            f"{np.rad2deg(MOST_ROTATION_RAD):g} degrees)"
        )
    wide_m, wide_rad = float(sure.half_width[3:6].max()), float(sure.half_width[0:3].max())
    if not (wide_m <= WIDEST_M and wide_rad <= WIDEST_RAD):
        cov = sure.covariance[3:6, 3:6]
        along = np.linalg.eigh(cov)[1][:, -1] if np.isfinite(cov).all() else np.eye(3)[int(np.argmax(np.diag(cov)))]
        found.append(
            f"the camera's pose is known to {1e3 * wide_m:.1f} mm and {np.rad2deg(wide_rad):.2f} degrees only (95 %; "
            f"allowed {1e3 * WIDEST_M:g} mm and {np.rad2deg(WIDEST_RAD):g} degrees); "
            f"{diversity.cure(along)}"
        )
    return tuple(found)


def _longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _warnings(
    fit: Fit, sure: Uncertainty, judged: HeldOut, curve: OffsetCurve | None, diversity: Diversity
) -> tuple[str, ...]:
    found = list(diversity.advice())
    if curve is not None and curve.best < 0.5:
        found.append(f"angular speeds correlate by {curve.best:.2f} only: turn faster, so that the time offset is sure")
    if fit.inlier.mean() < 0.8:
        found.append(f"{100 * (1 - fit.inlier.mean()):.0f} % of the sightings are outliers: light, blur or the board?")
    run = _longest_run(~judged.inlier)
    if run > max(10, 0.05 * len(judged.inlier)):
        found.append(f"{run} sightings in a row are outliers: did the target, or the camera, move?")
    if sure.blocks < 10:
        found.append(f"the intervals rest on {sure.blocks} independent stretches only: record longer, or more stills")
    return tuple(found)
