"""Where a station's cameras are by its own word: what a policy's manifest keeps of the rig it was trained on."""

from __future__ import annotations

from perception.config import LiveCameraConfig
from perception.simulated_camera import in_image_px
from policy.manifest import CameraCalibration
from teleop.station import LoadedStation
from teleop.station_calibration import camera_lenses, camera_poses, station_calibrations


def nominal_calibration(loaded: LoadedStation) -> dict[str, CameraCalibration]:
    """Return the calibration of each camera of which pose and lens are known; a bump is what nobody knows.

    Raises:
        BadInputError: a calibration file of the station cannot be used.
    """
    calibrations = station_calibrations(loaded)
    poses, lenses = camera_poses(loaded, calibrations), camera_lenses(loaded, calibrations)
    found = {}
    for camera in loaded.station.camera:
        pose, lens = poses.get(camera.name), lenses.get(camera.name)
        if pose is None or lens is None or not isinstance(camera, LiveCameraConfig):
            continue
        fx, fy, cx, cy = in_image_px(camera, (lens.fx, lens.fy, lens.cx, lens.cy))
        found[camera.name] = CameraCalibration(
            mount=pose.mount,
            T_mount_camera=tuple(pose.T_mount_camera.ravel().tolist()),
            fx=fx,
            fy=fy,
            cx=cx,
            cy=cy,
        )
    return found
