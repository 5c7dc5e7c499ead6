"""A station's calibration files, where they say that its cameras are, and how that differs from a policy's training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from perception.calibration_file import CalibrationFile, CameraPose, read_calibration
from perception.config import LiveCameraConfig, SimulatedCameraConfig
from perception.simulated_camera import nominal_pose
from policy.manifest import CameraCalibration
from robot.errors import BadInputError
from robot.geometry import rotation_angle
from teleop.station import LoadedStation


def station_calibrations(loaded: LoadedStation) -> dict[str, CalibrationFile]:
    """Return the calibration file of each camera that the station names one for.

    Raises:
        BadInputError: a file is missing, damaged, of another camera, or of another size of pictures.
    """
    cameras = {camera.name: camera for camera in loaded.station.camera}
    found: dict[str, CalibrationFile] = {}
    for name, file in loaded.station.calibration.files.items():
        path = loaded.calibration_path(file)
        where = f"station {loaded.path}: calibration.files.{name}"
        try:
            calibration = read_calibration(path)
        except BadInputError as error:
            raise BadInputError(f"{where}: {error}") from None
        pose = calibration.pose(name)
        if calibration.poses and pose is None:
            raise BadInputError(f"{where}: {path} has cameras {sorted(calibration.poses)}, not {name!r}; correct it")
        camera = cameras[name]
        lens = pose.lens if pose is not None else None
        if (
            lens is not None
            and isinstance(camera, LiveCameraConfig)
            and (lens.width, lens.height) != (camera.width, camera.height)
        ):
            raise BadInputError(
                f"{where}: {path} was made from pictures of {lens.width}x{lens.height}, the camera gives "
                f"{camera.width}x{camera.height}; calibrate at that size"
            )
        found[name] = calibration
    return found


def camera_poses(loaded: LoadedStation, calibrations: Mapping[str, CalibrationFile]) -> dict[str, CameraPose]:
    """Return where each camera is by the station's own word: its calibration file, or the station itself.

    Cameras of which neither says it are left out; a bump of a simulated one is what nobody knows.
    """
    station = loaded.station
    found: dict[str, CameraPose] = {}
    for camera in station.camera:
        name = camera.name
        measured = calibrations[name].pose(name) if name in calibrations else None
        geometry = station.fused_view.geometry.get(name) if station.fused_view else None
        if measured is not None:
            found[name] = measured
        elif geometry is not None:
            T = np.array(geometry.T_mount_camera).reshape(4, 4)
            found[name] = CameraPose(mount=geometry.mount, T_mount_camera=T)
        elif isinstance(camera, SimulatedCameraConfig):
            found[name] = CameraPose(mount=camera.mount, T_mount_camera=nominal_pose(camera))
    return found


def moved_since_training(
    loaded: LoadedStation, poses: Mapping[str, CameraPose], trained: Mapping[str, CameraCalibration]
) -> list[str]:
    """One line per camera that is elsewhere than where it was in training, by both their calibrations."""
    config = loaded.station.calibration
    lines = []
    for name, then in trained.items():
        now = poses.get(name)
        if now is None:
            continue
        where = f"camera '{name}': the policy was trained with another calibration than the station's"
        if now.mount != then.mount:
            lines.append(f"{where}: it was fixed to the {then.mount} and now is to the {now.mount}; mount it as it was")
            continue
        T_then = np.array(then.T_mount_camera).reshape(4, 4)
        apart_mm = 1e3 * float(np.linalg.norm(now.T_mount_camera[:3, 3] - T_then[:3, 3]))
        apart_deg = math.degrees(rotation_angle(now.T_mount_camera[:3, :3], T_then[:3, :3]))
        if apart_mm > config.same_mm or apart_deg > config.same_deg:
            lines.append(
                f"{where}: {apart_mm:.1f} mm and {apart_deg:.2f} degrees apart (limits {config.same_mm:g} mm, "
                f"{config.same_deg:g} degrees); put it back, or train with pictures from where it is"
            )
    return lines
