"""Franka Research 3 with the Franka Hand: numbers of its data sheet and its kinematics.

Source: Franka Control Interface documentation, "Robot and interface specifications" (modified Denavit-Hartenberg
parameters after Craig, limits of joint position, velocity, acceleration and jerk of the FR3, Franka Hand's default end
effector frame).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robot.geometry import inverse_pose, pose, rotation_matrix
from robot.kinematics import JointLimits, solve_damped

Array = NDArray[np.float64]

# Per joint: a [m] of the link before, alpha [rad] of the link before, d [m].
DH: tuple[tuple[float, float, float], ...] = (
    (0.0, 0.0, 0.333),
    (0.0, -math.pi / 2, 0.0),
    (0.0, math.pi / 2, 0.316),
    (0.0825, math.pi / 2, 0.0),
    (-0.0825, -math.pi / 2, 0.384),
    (0.0, math.pi / 2, 0.0),
    (0.088, math.pi / 2, 0.0),
)
FLANGE_M = 0.107  # joint 7 to the flange, along z
TCP_M = 0.1034  # flange to between the hand's finger tips, along z
HAND_YAW_RAD = -math.pi / 4  # the hand is mounted turned about the flange's z
T_FLANGE_HAND_TCP = pose(rotation_matrix(0.0, 0.0, HAND_YAW_RAD), np.array((0.0, 0.0, TCP_M)))  # the hand's, (4, 4)

Q_MIN_RAD = (-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159)
Q_MAX_RAD = (2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159)
DQ_MAX_RAD_S = (2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26)
DDQ_MAX_RAD_S2 = (10.0,) * 7
DDDQ_MAX_RAD_S3 = (5000.0,) * 7
HOME_Q_RAD = (0.0, -math.pi / 4, 0.0, -3.0 * math.pi / 4, 0.0, math.pi / 2, math.pi / 4)

# alpha is 0 or a quarter turn, so turning a frame by it only swaps two axes: -1, 0, 1
_LINKS = tuple((a, round(math.sin(alpha)), d) for a, alpha, d in DH)
_HAND_C, _HAND_S = math.cos(HAND_YAW_RAD), math.sin(HAND_YAW_RAD)


def _frozen(values: tuple[float, ...]) -> Array:
    array = np.array(values)
    array.setflags(write=False)
    return array


class FR3Kinematics:
    """Kinematics of the FR3 with its tool. Keeps its last answer, and nothing that changes one.

    Args:
        q_rest_rad: posture (7,) [rad] that the elbow is pulled to.
        T_flange_tcp: pose of the TCP in the flange's frame, (4, 4) [m]; the Franka Hand's where left out.
    """

    def __init__(self, q_rest_rad: tuple[float, ...] = HOME_Q_RAD, T_flange_tcp: Array | None = None) -> None:
        self._q_rest_rad = _frozen(q_rest_rad)
        self._T_hand_tcp: Array | None = None
        if T_flange_tcp is not None:
            T_hand_tcp = inverse_pose(T_FLANGE_HAND_TCP) @ T_flange_tcp
            # the common tool keeps the bits that it has without being named
            self._T_hand_tcp = None if np.allclose(T_hand_tcp, np.eye(4), atol=1e-9) else T_hand_tcp
        self._limits = JointLimits(
            q_min_rad=_frozen(Q_MIN_RAD), q_max_rad=_frozen(Q_MAX_RAD), dq_max_rad_s=_frozen(DQ_MAX_RAD_S)
        )
        self._last: _Links | None = None

    @property
    def joint_limits(self) -> JointLimits:
        """Limits of the data sheet."""
        return self._limits

    def forward(self, q_rad: Array) -> Array:
        """Return `T_base_tcp` (4, 4) [m] for joints (7,) [rad], read-only."""
        return self._links(q_rad).T_base_tcp

    def jacobian(self, q_rad: Array) -> Array:
        """Return the geometric Jacobian (6, 7) of the TCP in the base frame, linear rows first, read-only."""
        return self._links(q_rad).jacobian()

    def solve(self, T_base_tcp: Array, q_start_rad: Array) -> Array | None:
        """Return joints (7,) near `q_start_rad` that reach the pose within 0.2 mm and 0.1 degrees, or None."""
        return solve_damped(self, T_base_tcp, q_start_rad, self._q_rest_rad)

    def _links(self, q_rad: Array) -> _Links:
        """Keep the last ones: a tick asks for the joints that it ends in, and the next one begins with them."""
        key = q_rad.tobytes()
        if self._last is None or self._last.key != key:
            self._last = _Links(key, q_rad, self._T_hand_tcp)
        return self._last


class _Links:
    """Where the links are for given joints: plain floats, for numpy's calls cost more than arithmetic this small.

    Attributes:
        key: the joints' bytes.
        T_base_tcp: shape (4, 4) [m], read-only.
    """

    def __init__(self, key: bytes, q_rad: Array, T_hand_tcp: Array | None = None) -> None:
        """One pass over the links, axis by axis; `T_hand_tcp` is the tool's TCP beyond the hand's."""
        self.key = key
        xx, xy, xz = 1.0, 0.0, 0.0  # the frame's axes in the base frame
        yx, yy, yz = 0.0, 1.0, 0.0
        zx, zy, zz = 0.0, 0.0, 1.0
        px = py = pz = 0.0
        self._axes: list[tuple[float, ...]] = []
        self._jacobian: Array | None = None
        for (a, quarter, d), angle in zip(_LINKS, q_rad.tolist(), strict=True):
            if a:
                px, py, pz = px + a * xx, py + a * xy, pz + a * xz
            if quarter > 0:
                yx, yy, yz, zx, zy, zz = zx, zy, zz, -yx, -yy, -yz
            elif quarter < 0:
                yx, yy, yz, zx, zy, zz = -zx, -zy, -zz, yx, yy, yz
            c, s = math.cos(angle), math.sin(angle)
            xx, yx = c * xx + s * yx, c * yx - s * xx
            xy, yy = c * xy + s * yy, c * yy - s * xy
            xz, yz = c * xz + s * yz, c * yz - s * xz
            if d:
                px, py, pz = px + d * zx, py + d * zy, pz + d * zz
            self._axes.append((zx, zy, zz, px, py, pz))
        reach = FLANGE_M + TCP_M
        px, py, pz = px + reach * zx, py + reach * zy, pz + reach * zz
        self._tcp_m = px, py, pz
        c, s = _HAND_C, _HAND_S
        # flat lists: numpy takes twice as long for nested ones
        self.T_base_tcp = np.array(
            [
                *(c * xx + s * yx, c * yx - s * xx, zx, px),
                *(c * xy + s * yy, c * yy - s * xy, zy, py),
                *(c * xz + s * yz, c * yz - s * xz, zz, pz),
                *(0.0, 0.0, 0.0, 1.0),
            ]
        ).reshape(4, 4)
        if T_hand_tcp is not None:
            self.T_base_tcp = self.T_base_tcp.dot(T_hand_tcp)
            px, py, pz = self.T_base_tcp[:3, 3].tolist()
            self._tcp_m = px, py, pz
        self.T_base_tcp.setflags(write=False)

    def jacobian(self) -> Array:
        """Return the Jacobian (6, 7), linear rows first, read-only; worked out when it is first asked for."""
        if self._jacobian is None:
            px, py, pz = self._tcp_m
            columns: list[float] = []
            for ax, ay, az, ox, oy, oz in self._axes:
                rx, ry, rz = px - ox, py - oy, pz - oz
                columns += (ay * rz - az * ry, az * rx - ax * rz, ax * ry - ay * rx, ax, ay, az)
            self._jacobian = np.array(columns).reshape(7, 6).T
            self._jacobian.setflags(write=False)
        return self._jacobian
