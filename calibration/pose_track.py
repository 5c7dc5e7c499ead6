"""A pose over time between its samples, with its velocity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
_GAP_STEPS, _GAP_S = 5.0, 0.1


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Poses T_base_hand at n times, with how they move.

    Attributes:
        R: (n, 3, 3).
        p: (n, 3) [m].
        omega: angular velocity in the hand's own axes (n, 3) [rad/s].
        v: velocity of the hand's origin in base axes (n, 3) [m/s].
    """

    R: Array
    p: Array
    omega: Array
    v: Array

    def inverse(self) -> Motion:
        """Return the motion of T_hand_base."""
        R_inverse = self.R.transpose(0, 2, 1)
        p = -np.einsum("nij,nj->ni", R_inverse, self.p)
        omega = -np.einsum("nij,nj->ni", self.R, self.omega)
        v = -np.cross(self.omega, p) - np.einsum("nij,nj->ni", R_inverse, self.v)
        return Motion(R=R_inverse, p=p, omega=omega, v=v)


class PoseTrack:
    """Interpolates poses by cubic splines through all samples, position and unit quaternion alike.

    A line between samples misses a turning arm by a dt^2 / 8, which at 10 Hz and 2 m/s^2 is 2.5 mm; the spline's error
    falls with dt^4. The quaternion is interpolated by components and normalised, the samples lying close to each other.
    """

    def __init__(self, t_s: Array, position_m: Array, quat_xyzw: Array) -> None:
        """Take strictly increasing times (n,), positions (n, 3) and unit quaternions (n, 4) of one sign; n >= 2."""
        self.t_s = t_s
        self._origin_s = float(t_s[0])
        t = t_s - self._origin_s
        self._position = CubicSpline(t, position_m)
        self._quat = CubicSpline(t, quat_xyzw)
        self._position_v, self._quat_v = self._position.derivative(), self._quat.derivative()
        steps = np.diff(t)
        self.step_s = float(np.median(steps))
        self._gaps = steps > max(_GAP_STEPS * self.step_s, _GAP_S)

    def covers(self, t_s: Array, margin_s: float = 0.0) -> NDArray[np.bool_]:
        """Return which times (n,), and `margin_s` around them, lie between samples that are not a gap apart."""
        covered = np.ones(len(t_s), bool)
        for shifted in (t_s - margin_s, t_s + margin_s):
            inside = (shifted >= self.t_s[0]) & (shifted <= self.t_s[-1])
            before = np.clip(np.searchsorted(self.t_s, shifted, side="right") - 1, 0, len(self._gaps) - 1)
            covered &= inside & ~self._gaps[before]
        return covered

    def at(self, t_s: Array) -> Motion:
        """Return poses and velocities at the times (n,); outside of the samples those of the nearest end."""
        t = np.clip(t_s, self.t_s[0], self.t_s[-1]) - self._origin_s
        q, dq = self._quat(t), self._quat_v(t)
        length = np.linalg.norm(q, axis=1, keepdims=True)
        q, dq = q / length, dq / length
        # dq = q * (0, omega) / 2, so that omega is twice the vector part of conj(q) * dq; scaling of q drops out
        xyz, w = q[:, :3], q[:, 3:]
        omega = 2.0 * (w * dq[:, :3] - dq[:, 3:] * xyz - np.cross(xyz, dq[:, :3]))
        return Motion(R=Rotation.from_quat(q).as_matrix(), p=self._position(t), omega=omega, v=self._position_v(t))
