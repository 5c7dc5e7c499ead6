"""Why a bundle cannot run on a rig's parts: one line each, before anything moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perception.camera import Camera
from policy.bundle import Bundle, misfits
from policy.manifest import Manifest
from policy.observation_history import history_of
from robot.arm import Arm
from robot.command import CommandKind
from robot.config import SimulatedArmConfig
from robot.franka_config import FrankaArmConfig
from teleop.chunk_parts import policy_misfits
from teleop.fused_cameras import cloud_misfits
from teleop.station import LoadedStation

_BLIND = ("playback", "pattern")  # kinds of camera that show something, and no table


def rig_misfits(
    loaded: LoadedStation,
    bundle: Bundle,
    arm: Arm,
    cameras: Sequence[Camera],
    readings: Mapping[str, int] | None = None,
) -> list[str]:
    """One line per reason why the bundle cannot run on these parts; empty when it fits."""
    station, manifest = loaded.station, bundle.manifest
    lines = misfits(
        bundle,
        cameras={camera.name: camera.size for camera in cameras},
        rate_hz=station.loop.rate_hz,
        joint_count=arm.joint_count,
        station=f"station '{station.name}'",
        readings=readings,
    )
    goes_home = isinstance(station.arm, (SimulatedArmConfig, FrankaArmConfig))
    if goes_home and manifest.action.kind is not CommandKind.TCP_DELTA:
        lines.append(
            f"station {loaded.path}: bundle {manifest.name!r} has actions of kind {manifest.action.kind.value!r}; only "
            "'tcp_delta' can be driven by a person and led home, so the others are for recordings; train it on those"
        )
    if isinstance(station.arm, FrankaArmConfig) and station.arm.simulator is None:
        lines += [
            f"station {loaded.path}: camera {camera.name!r} is of kind {camera.kind!r} and does not see the arm that "
            "the policy would move by it; name a real camera"
            for camera in station.camera
            if camera.kind in _BLIND and camera.name in (wanted.name for wanted in manifest.cameras)
        ]
    return lines + residual_misfits(loaded, manifest) + cloud_misfits(loaded, bundle) + policy_misfits(loaded, bundle)


def residual_misfits(loaded: LoadedStation, manifest: Manifest) -> list[str]:
    """One line per reason why the station's residual is none for a bundle of this manifest."""
    residual, dims = loaded.station.residual, manifest.action.dims
    if residual and len(residual.scale) != manifest.action.size:
        return [
            f"station {loaded.path}: residual.scale has {len(residual.scale)} values, "
            f"bundle {manifest.name!r} has {manifest.action.size} action dimensions {dims}"
        ]
    if residual and residual.gripper and (manifest.action.gripper == "none" or residual.scale[dims.index("gripper")]):
        return [
            f"station {loaded.path}: residual.gripper needs a gripper among the bundle's dimensions {dims} and 0 at "
            f"its place in residual.scale {residual.scale}; set that to 0 or leave residual.gripper out"
        ]
    if manifest.pictures is not None and history_of(manifest, residual).features_ticks > 1:
        return [
            f"station {loaded.path}: residual.history.features_ticks is above 1, but the features of bundle "
            f"{manifest.name!r} end with pictures, of which the present ones are seen; set it to 1"
        ]
    return []
