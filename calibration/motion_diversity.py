"""Whether an arm turned enough, and about enough axes, for a hand-eye calibration to say anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.refused import CalibrationRefusedError
from calibration.rotations import logarithms, mean_rotation

Array = NDArray[np.float64]
AXES = "xyz"
GOOD_DEG = 30.0
_ONE_AXIS_DEG = 1.0
_LEAST_VIEWS = 4


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """How an arm turned.

    Attributes:
        turned_deg: range of turns about the x, y and z axes of `frame`, from the 5th to the 95th percentile (3,).
        principal_deg: root mean square of the turns along their own main directions, greatest first (3,).
        main_axis: the direction of the greatest (3,), in `frame`.
        frame: `hand`, or `base` for a camera beside the arm.
    """

    turned_deg: Array
    principal_deg: Array
    main_axis: Array
    frame: str

    def advice(self) -> tuple[str, ...]:
        """Return what would make the next recording better; nothing when there is nothing to better."""
        return tuple(
            f"rotate more about {axis} of the {self.frame}: {turned:.0f} degrees seen, {GOOD_DEG:.0f} or more are good"
            for axis, turned in zip(AXES, self.turned_deg.tolist(), strict=True)
            if turned < GOOD_DEG
        )

    def cure(self, along: Array) -> str:
        """Return what would tell the camera's position along the direction `along` (3,) in `frame`.

        A turn about an axis says nothing of a position along it, and the more of one across it.
        """
        blind = int(np.argmax(np.abs(along)))
        other = min((axis for axis in range(3) if axis != blind), key=lambda axis: float(self.turned_deg[axis]))
        return f"rotate more about {AXES[other]} of the {self.frame} ({self.turned_deg[other]:.0f} degrees seen)"

    def check(self, views: int) -> None:
        """Refuse motion that leaves something unknown whatever the noise.

        Tsai and Lenz, 1989, section II: it takes two motions with axes that are not parallel.

        Raises:
            CalibrationRefusedError: saying which.
        """
        if views < _LEAST_VIEWS:
            raise CalibrationRefusedError(
                f"{views} poses: two motions about different axes and one to check them by are the least (allowed "
                f"{_LEAST_VIEWS} or more; 15 are good); add views"
            )
        first, second, _ = self.principal_deg.tolist()
        if first < _ONE_AXIS_DEG:
            raise CalibrationRefusedError(
                f"pure translation: the hand turned by {first:.2f} degrees (root mean square; allowed "
                f"{_ONE_AXIS_DEG:g} or more about two axes), which leaves the camera's position unknown; "
                f"rotate it by {GOOD_DEG:.0f} degrees about two axes at least"
            )
        if second < _ONE_AXIS_DEG:
            named = int(np.argmax(np.abs(self.main_axis)))
            others = " or ".join(axis for n, axis in enumerate(AXES) if n != named)
            direction = ", ".join(f"{value:.2f}" for value in self.main_axis)
            raise CalibrationRefusedError(
                f"one rotation axis: the hand turned about ({direction}) of the {self.frame} alone ({second:.2f} "
                f"degrees across it; allowed {_ONE_AXIS_DEG:g} or more), which leaves the camera's position along "
                f"it unknown; rotate more about {others}"
            )


def motion_diversity(R_world_mount: Array, frame: str) -> Diversity:
    """Return how the orientations (n, 3, 3) differ, about the axes of the mount, here named `frame`."""
    mean = mean_rotation(R_world_mount)
    # a real one as the middle: the mean of a full turn about one axis may lie anywhere
    middle = R_world_mount[int(np.argmax(np.einsum("ij,nij->n", mean, R_world_mount)))]
    turns = np.rad2deg(logarithms(middle.T @ R_world_mount))
    centred = turns - turns.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(turns))
    low, high = np.quantile(turns, [0.05, 0.95], axis=0)
    return Diversity(
        turned_deg=high - low,
        principal_deg=np.sqrt(np.maximum(values[::-1], 0.0)),
        main_axis=vectors[:, -1],
        frame=frame,
    )
