"""What a hand-eye fit sees: target poses from the camera, and the arm's pose for each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.pose_track import Motion, PoseTrack

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Sightings:
    """n sightings of the target, with the arm's poses at their times.

    A camera on the hand obeys T_base_hand X = Y T_target_camera with X = T_hand_camera, Y = T_base_target. One beside
    the arm that sees a target on the hand obeys the same with T_hand_base in place of T_base_hand, X = T_base_camera
    and Y = T_hand_target. So `mount` is the frame that the camera is fixed to, `world` that of the target, and all
    solvers work on T_world_mount alone.

    Attributes:
        t_s: times of the sightings on their own clock (n,) [s]; for stills their index.
        R_camera_target: (n, 3, 3).
        p_camera_target: (n, 3) [m].
        track: the arm's T_base_hand over time; None for stills.
        stills: the arm's pose at each sighting (n,); None with a track.
        inverted: True for a camera beside the arm.
    """

    t_s: Array
    R_camera_target: Array
    p_camera_target: Array
    track: PoseTrack | None = None
    stills: Motion | None = None
    inverted: bool = False

    def __len__(self) -> int:
        return len(self.t_s)

    @property
    def timed(self) -> bool:
        """Whether a time offset can be looked for."""
        return self.track is not None

    def arm(self, offset_s: float) -> Motion:
        """Return T_world_mount with its velocities at all sightings, `offset_s` added to their times."""
        motion = self.stills if self.track is None else self.track.at(self.t_s + offset_s)
        assert motion is not None
        return motion.inverse() if self.inverted else motion

    def T_target_camera(self) -> Array:
        """Return B (n, 4, 4)."""
        R = self.R_camera_target.transpose(0, 2, 1)
        return homogeneous(R, -np.einsum("nij,nj->ni", R, self.p_camera_target))

    def with_track(self, track: PoseTrack) -> Sightings:
        """Return these with a moving arm."""
        return replace(self, track=track, stills=None)

    def with_stills(self, stills: Motion) -> Sightings:
        """Return these with an arm that stood still at each."""
        return replace(self, track=None, stills=stills)

    def subset(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Sightings:
        """Return the chosen sightings, by mask or index."""
        stills = self.stills
        if stills is not None:
            stills = Motion(R=stills.R[chosen], p=stills.p[chosen], omega=stills.omega[chosen], v=stills.v[chosen])
        return replace(
            self,
            t_s=self.t_s[chosen],
            R_camera_target=self.R_camera_target[chosen],
            p_camera_target=self.p_camera_target[chosen],
            stills=stills,
        )


def still_arm(T_base_hand: Array) -> Motion:
    """Return an arm that stood still at each of the poses (n, 4, 4)."""
    zero = np.zeros((len(T_base_hand), 3))
    return Motion(R=T_base_hand[:, :3, :3], p=T_base_hand[:, :3, 3], omega=zero, v=zero)


def homogeneous(R: Array, p: Array) -> Array:
    """Return transforms (n, 4, 4) of rotations (n, 3, 3) and positions (n, 3)."""
    T = np.zeros((len(R), 4, 4))
    T[:, :3, :3], T[:, :3, 3], T[:, 3, 3] = R, p, 1.0
    return T
