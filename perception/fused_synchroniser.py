"""A synchroniser whose observations also hold the newest point cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from perception.camera import Camera
from perception.cloud_ring import CloudRing, StampedCloud
from perception.config import SynchroniserConfig
from perception.frame_verdict import judge_cloud
from perception.fused_view import FusedView
from perception.observation import Observation
from perception.pose_ring import PoseRing
from perception.synchroniser import Synchroniser
from robot.arm_state import ArmState


class Clouds(Protocol):
    """Where clouds come from."""

    def newest(self, now_s: float, state: ArmState) -> StampedCloud | None:
        """Return the newest cloud, None before the first, and learn where the arm is. Never blocks."""
        ...


class SharedClouds:
    """Those of a process of its own; reading the newest takes some tens of microseconds."""

    def __init__(self, clouds: CloudRing, poses: PoseRing) -> None:
        """Read `clouds` and write `poses`; both stay their maker's to close."""
        self._clouds, self._poses = clouds, poses

    def newest(self, now_s: float, state: ArmState) -> StampedCloud | None:
        """Return the newest cloud that was published."""
        self._poses.write(state.measured_s, state.T_base_tcp)
        return self._clouds.newest()


class LockStepClouds:
    """Those that are made within the tick, where time does not count; at most `rate_hz` of them."""

    def __init__(self, view: FusedView, poses: PoseRing, rate_hz: float) -> None:
        """Look with `view`, which has to know of `poses`."""
        self._view, self._poses, self._period_s = view, poses, 1.0 / rate_hz
        self._newest: StampedCloud | None = None

    def newest(self, now_s: float, state: ArmState) -> StampedCloud | None:
        """Make a cloud if one is due."""
        self._poses.write(state.measured_s, state.T_base_tcp)
        if self._newest is None or now_s - self._newest.made_s > self._period_s - 1e-6:
            self._newest = self._view.look() or self._newest
        return self._newest


class FusedSynchroniser(Synchroniser):
    """Adds the cloud to each observation.

    Args:
        clouds: where they come from.
        required_age_s: how old a cloud may be that the policy acts on [s]; None for a policy that takes none.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        config: SynchroniserConfig,
        proprio_keys: Sequence[str],
        arm_history: Callable[[], Sequence[ArmState]] | None = None,
        *,
        clouds: Clouds,
        required_age_s: float | None,
    ) -> None:
        super().__init__(cameras, config, proprio_keys, arm_history)
        self._clouds, self._required_age_s = clouds, required_age_s

    def observe(self, now_s: float, state: ArmState) -> Observation:
        """Return what is known at `now_s`; a cloud that the policy needs and that is missing or old makes it hold."""
        look = super().observe(now_s, state)
        cloud = self._clouds.newest(now_s, state)
        captured_s = cloud.captured_s if cloud is not None and cloud.count else None
        return replace(look, cloud=cloud, verdict=judge_cloud(look.verdict, captured_s, now_s, self._required_age_s))
