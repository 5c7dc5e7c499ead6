"""What a station's calibration files say of its cameras, and how that differs from a policy's training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perception.calibration_file import CalibrationFile, CameraPose, read_calibration
from perception.camera_model import CameraModel
from perception.config import CameraConfig, LiveCameraConfig, SimulatedCameraConfig
from perception.simulated_camera import intrinsics_px, nominal_pose
from policy.manifest import CameraCalibration
from robot.errors import BadInputError
from robot.geometry import rotation_angle
from teleop.station import LoadedStation


@dataclass(frozen=True, kw_only=True)
class MeasuredCamera:
    """What the calibration files of one camera say together.

    Attributes:
        files: as the station names them.
        pose: where it is, None where none of them says it.
        lens: for its full-size pictures, None where none of them has it.
    """

    files: tuple[CalibrationFile, ...]
    pose: CameraPose | None
    lens: CameraModel | None


def station_calibrations(loaded: LoadedStation) -> dict[str, MeasuredCamera]:
    """Return what is measured of each camera that the station names calibration files for.

    Raises:
        BadInputError: a file is missing, damaged, of another camera or of another size of pictures, or two files say
            the same of a camera.
    """
    cameras = {camera.name: camera for camera in loaded.station.camera}
    return {name: _measured(loaded, cameras[name], files) for name, files in loaded.station.calibration.files.items()}


def camera_poses(loaded: LoadedStation, calibrations: Mapping[str, MeasuredCamera]) -> dict[str, CameraPose]:
    """Return where each camera is by the station's own word: its calibration file, or the station itself.

    Cameras of which neither says it are left out; a bump of a simulated one is what nobody knows.
    """
    station = loaded.station
    found: dict[str, CameraPose] = {}
    for camera in station.camera:
        name = camera.name
        measured = calibrations[name].pose if name in calibrations else None
        geometry = station.fused_view.geometry.get(name) if station.fused_view else None
        if measured is not None:
            found[name] = measured
        elif geometry is not None:
            T = np.array(geometry.T_mount_camera).reshape(4, 4)
            found[name] = CameraPose(mount=geometry.mount, T_mount_camera=T)
        elif isinstance(camera, SimulatedCameraConfig):
            found[name] = CameraPose(mount=camera.mount, T_mount_camera=nominal_pose(camera))
    return found


def camera_lenses(loaded: LoadedStation, calibrations: Mapping[str, MeasuredCamera]) -> dict[str, CameraModel]:
    """Return the lens of each camera, for its full-size pictures, from where `camera_poses` has its place."""
    station = loaded.station
    found: dict[str, CameraModel] = {}
    for camera in station.camera:
        name = camera.name
        measured = calibrations[name].lens if name in calibrations else None
        geometry = station.fused_view.geometry.get(name) if station.fused_view else None
        if measured is not None:
            found[name] = measured
        elif geometry is not None and isinstance(camera, LiveCameraConfig):
            found[name] = geometry.model(camera.height, camera.width)
        elif isinstance(camera, SimulatedCameraConfig):
            fx, fy, cx, cy = intrinsics_px(camera)
            found[name] = CameraModel(
                kind="pinhole", width=camera.width, height=camera.height, fx=fx, fy=fy, cx=cx, cy=cy
            )
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


def _measured(loaded: LoadedStation, camera: CameraConfig, names: tuple[str, ...]) -> MeasuredCamera:
    where = f"station {loaded.path}: calibration.files.{camera.name}"
    pose: CameraPose | None = None
    lens: CameraModel | None = None
    files: list[CalibrationFile] = []
    for name in names:
        path = loaded.calibration_path(name)
        try:
            file = read_calibration(path)
        except BadInputError as error:
            raise BadInputError(f"{where}: {error}") from None
        if any(file.kind == other.kind for other in files):
            raise BadInputError(f"{where}: {' and '.join(names)} are two of kind {file.kind!r}; leave one of them out")
        own_pose, own_lens = file.pose(camera.name), file.lens(camera.name)
        known = sorted({*file.poses, *file.lenses})
        if known and own_pose is None and own_lens is None:
            raise BadInputError(f"{where}: {path} has cameras {known}, not {camera.name!r}; correct it")
        for what, one, other in (("where it is", pose, own_pose), ("its lens", lens, own_lens)):
            if one is not None and other is not None:
                raise BadInputError(f"{where}: {' and '.join(names)} both say {what}; leave one of them out")
        pose, lens = own_pose or pose, own_lens or lens
        files.append(file)
        if (
            own_lens is not None
            and isinstance(camera, LiveCameraConfig)
            and (own_lens.width, own_lens.height) != (camera.width, camera.height)
        ):
            raise BadInputError(
                f"{where}: {path} was made from pictures of {own_lens.width}x{own_lens.height}, the camera gives "
                f"{camera.width}x{camera.height}; calibrate at that size"
            )
    return MeasuredCamera(files=tuple(files), pose=pose, lens=lens)
