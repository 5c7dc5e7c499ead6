"""Where a station's cameras are by its own word: what a policy's manifest keeps of the rig it was trained on."""

from __future__ import annotations

from perception.config import SimulatedCameraConfig
from perception.simulated_camera import image_intrinsics_px, nominal_pose
from policy.manifest import CameraCalibration
from teleop.station import Station


def nominal_calibration(station: Station) -> dict[str, CameraCalibration]:
    """Return the calibration of each camera that has one; a bump is what it does not know."""
    found = {}
    for camera in station.camera:
        if isinstance(camera, SimulatedCameraConfig):
            fx, fy, cx, cy = image_intrinsics_px(camera)
            found[camera.name] = CameraCalibration(
                mount=camera.mount,
                T_mount_camera=tuple(nominal_pose(camera).ravel().tolist()),
                fx=fx,
                fy=fy,
                cx=cx,
                cy=cy,
            )
    return found
