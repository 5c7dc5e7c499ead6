"""How a lens maps directions to pixels: pinhole, with Brown's distortion or its rational extension, or fisheye.

The formulas are OpenCV's (calib3d and fisheye modules of its reference), so that the numbers can be used there as they
are; all but `rays` of a pinhole camera needs OpenCV. Pixel (0, 0) is the middle of the first pixel. Camera axes: x
right, y down, z forward.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from perception.config import Finite
from perception.opencv import load_opencv
from robot.strict import Strict

Array = NDArray[np.float64]
Kind = Literal["pinhole", "brown", "rational", "fisheye"]
DISTORTION: dict[Kind, tuple[str, ...]] = {
    "pinhole": (),
    "brown": ("k1", "k2", "p1", "p2", "k3"),
    "rational": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "fisheye": ("k1", "k2", "k3", "k4"),
}
_ZERO = np.zeros(3)
_NEWTON_STEPS = 8
_ROUNDS = 20  # of OpenCV's own iteration
_EXACT_PX = 1e-3
_CLOSE_PX = 1e-7
_BLOCK = 65536  # pixels at a time: OpenCV's derivatives of a whole large picture take hundreds of MB


def check_distortion(kind: Kind, distortion: tuple[float, ...]) -> None:
    """Raise ValueError where a kind of lens takes another number of coefficients."""
    names = DISTORTION[kind]
    if len(distortion) != len(names):
        takes = f"{len(names)} ({', '.join(names)})" if names else "none"
        raise ValueError(f"distortion has {len(distortion)} numbers; {kind} takes {takes}")


class CameraModel(Strict):
    """Intrinsics of one camera at one image size.

    Attributes:
        kind: `pinhole` has no distortion; `brown` and `rational` are OpenCV's `distCoeffs` in its order; `fisheye` is
            the equidistant model of OpenCV's fisheye module, for lenses of up to 180 degrees.
        width, height: the images' [px].
        fx, fy, cx, cy: focal lengths and principal point [px].
        distortion: as many as `DISTORTION[kind]` names.
    """

    kind: Kind
    width: Annotated[int, Field(ge=8, le=20000)]
    height: Annotated[int, Field(ge=8, le=20000)]
    fx: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    fy: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    cx: Finite
    cy: Finite
    distortion: tuple[Finite, ...] = ()

    @model_validator(mode="after")
    def _distortion_fits(self) -> Self:
        check_distortion(self.kind, self.distortion)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of `values`."""
        return ("fx", "fy", "cx", "cy", *DISTORTION[self.kind])

    @property
    def values(self) -> Array:
        """All parameters (n,), as `names` has them."""
        return np.array([self.fx, self.fy, self.cx, self.cy, *self.distortion])

    @property
    def matrix(self) -> Array:
        """The camera matrix (3, 3) [px]."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def with_values(self, values: Array) -> CameraModel:
        """Return this camera with other parameters (n,). Raises ValueError (pydantic's) where they are no camera."""
        fx, fy, cx, cy, *distortion = (float(value) for value in values)
        return CameraModel(
            kind=self.kind,
            width=self.width,
            height=self.height,
            fx=fx,
            fy=fy,
            cx=cx,
            cy=cy,
            distortion=tuple(distortion),
        )

    def project(self, p_camera: Array) -> Array:
        """Return the pixels (N, 2) of points (N, 3) in the camera's frame; meaningless for those behind it."""
        return self.project_with_jacobian(p_camera)[0]

    def project_with_jacobian(self, p_camera: Array) -> tuple[Array, Array, Array]:
        """Return pixels and their derivatives.

        Args:
            p_camera: shape (N, 3) [m].

        Returns:
            pixels (N, 2); d pixel / d point (N, 2, 3) [px/m]; d pixel / d `values` (N, 2, n).
        """
        points = np.ascontiguousarray(p_camera, dtype=np.float64).reshape(-1, 1, 3)
        count, own = len(points), len(self.names)
        if count == 0:
            return np.zeros((0, 2)), np.zeros((0, 2, 3)), np.zeros((0, 2, own))
        cv2 = load_opencv()
        if self.kind == "fisheye":
            # columns: f 2, c 2, k 4, rotation 3, translation 3, skew
            found, jacobian = cv2.fisheye.projectPoints(points, _ZERO, _ZERO, self.matrix, np.array(self.distortion))
            by_point, by_value = jacobian[:, 11:14], jacobian[:, :8]
        else:
            # columns: rotation 3, translation 3, f 2, c 2, distortion
            distortion = np.array(self.distortion) if self.distortion else np.zeros(4)
            found, jacobian = cv2.projectPoints(points, _ZERO, _ZERO, self.matrix, distortion)
            by_point, by_value = jacobian[:, 3:6], jacobian[:, 6 : 6 + own]
        return (
            np.asarray(found, dtype=np.float64).reshape(count, 2),
            np.asarray(by_point, dtype=np.float64).reshape(count, 2, 3),
            np.asarray(by_value, dtype=np.float64).reshape(count, 2, own),
        )

    def rays(self, pixels: Array) -> Array:
        """Return directions (N, 2), x / z and y / z, that are seen at `pixels` (N, 2).

        NaN where the model has none, as beyond the edge of a polynomial distortion. OpenCV's own inverse stops after a
        few rounds of a fixed-point iteration, which wide lenses need more of; Newton's method ends it here.
        """
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        if not self.distortion:
            straight: Array = (pixels - [self.cx, self.cy]) / [self.fx, self.fy]
            return straight
        if not len(pixels):
            return pixels
        rays = self._close_rays(pixels)
        # bounded: a step that overshoots beyond the model's range would not come back
        for _ in range(_NEWTON_STEPS):
            found, by_point, _ = self.project_with_jacobian(_homogeneous(rays))
            off = pixels - found
            if np.nanmax(np.abs(off), initial=0.0) < _CLOSE_PX:
                break
            J = by_point[:, :, :2]
            determinant = J[:, 0, 0] * J[:, 1, 1] - J[:, 0, 1] * J[:, 1, 0]
            safe = np.where(np.abs(determinant) > 1e-9, determinant, np.nan)
            step = np.stack(
                [
                    (J[:, 1, 1] * off[:, 0] - J[:, 0, 1] * off[:, 1]) / safe,
                    (J[:, 0, 0] * off[:, 1] - J[:, 1, 0] * off[:, 0]) / safe,
                ],
                axis=1,
            )
            bound = 0.5 * (1.0 + np.linalg.norm(rays, axis=1, keepdims=True))
            length = np.linalg.norm(step, axis=1, keepdims=True)
            rays = rays + step * np.minimum(1.0, bound / np.maximum(length, 1e-12))
        else:
            off = self.project(_homogeneous(rays)) - pixels
        good: NDArray[np.bool_] = np.abs(off).max(axis=1, initial=0.0) < _EXACT_PX  # False for NaN
        return np.where(good[:, None], rays, np.nan)

    def _close_rays(self, pixels: Array) -> Array:
        """Return rays (N, 2) near those of `pixels` (N, 2): OpenCV's, or of a plainer lens where those go astray."""
        cv2, matrix, distortion = load_opencv(), self.matrix, np.array(self.distortion)
        straight = (pixels - [self.cx, self.cy]) / [self.fx, self.fy]
        radius = np.linalg.norm(straight, axis=1, keepdims=True)
        end = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _ROUNDS, 1e-12)
        flat = pixels.reshape(-1, 1, 2)
        if self.kind == "fisheye":
            plain = straight * np.tan(np.minimum(radius, 1.55)) / np.maximum(radius, 1e-12)
            theirs = np.asarray(cv2.fisheye.undistortPoints(flat, matrix, distortion, criteria=end)).reshape(-1, 2)
            sound = theirs > -1e5  # it marks what it does not find by -1e6
        else:
            theirs = np.asarray(cv2.undistortPoints(flat, matrix, distortion, criteria=end)).reshape(-1, 2)
            sound = np.abs(theirs - straight) < 0.5 * (1.0 + radius)  # its iteration may run away
            if sound.all():
                return theirs
            first = self.project(_homogeneous(straight))
            plain = straight - np.clip((first - pixels) / [self.fx, self.fy], -0.5, 0.5)
        return np.where(sound.all(axis=1, keepdims=True), theirs, plain)

    def picture_rays(self) -> Array:
        """Return the ray of every pixel, row by row (3, height * width): x / z, y / z and 1, or NaN where none is.

        Of a distorted lens it takes a second and more for a large picture, so it is for once, not for each picture.
        """
        v, u = np.divmod(np.arange(self.width * self.height), self.width)
        pixels = np.stack([u, v], axis=1)
        rays = np.ones((3, len(pixels)))
        for start in range(0, len(pixels), _BLOCK):
            rays[:2, start : start + _BLOCK] = self.rays(pixels[start : start + _BLOCK]).T
        return rays


def _homogeneous(rays: Array) -> Array:
    return np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
