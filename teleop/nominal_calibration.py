"""Where a station's cameras are by its own word: what a policy's manifest keeps of the rig it was trained on."""

from __future__ import annotations

from perception.config import LiveCameraConfig, SimulatedCameraConfig
from perception.simulated_camera import image_intrinsics_px, in_image_px
from policy.manifest import CameraCalibration
from teleop.station import LoadedStation
from teleop.station_calibration import camera_poses, station_calibrations


def nominal_calibration(loaded: LoadedStation) -> dict[str, CameraCalibration]:
    """Return the calibration of each camera that has one, pose and lens; a bump is what it does not know.

    Raises:
        BadInputError: a calibration file of the station cannot be used.
    """
    poses = camera_poses(loaded, station_calibrations(loaded))
    found = {}
    for camera in loaded.station.camera:
        pose = poses.get(camera.name)
        if pose is None or not isinstance(camera, LiveCameraConfig):
            continue
        if pose.lens is not None:
            lens = pose.lens
            fx, fy, cx, cy = in_image_px(camera, (lens.fx, lens.fy, lens.cx, lens.cy))
        elif isinstance(camera, SimulatedCameraConfig):
            fx, fy, cx, cy = image_intrinsics_px(camera)
        else:
            continue
        found[camera.name] = CameraCalibration(
            mount=pose.mount,
            T_mount_camera=tuple(pose.T_mount_camera.ravel().tolist()),
            fx=fx,
            fy=fy,
            cx=cx,
            cy=cy,
        )
    return found
