"""Which cameras of a station make its fused view, and where they are."""

from __future__ import annotations

from perception.calibration_file import CameraPose
from perception.camera_model import CameraModel
from perception.cloud_config import CameraGeometry
from perception.config import RealSenseCameraConfig, SimulatedCameraConfig
from policy.bundle import Bundle
from policy.manifest import CloudInput
from robot.errors import BadInputError
from teleop.station import LoadedStation, Station
from teleop.station_calibration import MeasuredCamera, camera_lenses, camera_poses, station_calibrations

_WITH_DEPTH = (SimulatedCameraConfig, RealSenseCameraConfig)


def fused_cameras(loaded: LoadedStation) -> dict[str, CameraGeometry]:
    """Return the geometry of each camera of the fused view by its name, in the station's order; empty without a view.

    It comes from the camera's calibration files, or from the station itself. A simulated camera without a file is where
    the station says, whatever bump it has.

    Raises:
        BadInputError: there is no camera with depth, or one is not in the station, or its place or lens is not known.
    """
    view = loaded.station.fused_view
    if view is None:
        return {}
    cameras = {camera.name: camera for camera in loaded.station.camera}
    where = f"station {loaded.path}: fused_view"
    for name in (*view.cameras, *view.geometry):
        if name not in cameras:
            raise BadInputError(f"{where} names camera {name!r} (the station has {sorted(cameras)}); correct the name")
    calibrations = station_calibrations(loaded)
    poses, lenses = camera_poses(loaded, calibrations), camera_lenses(loaded, calibrations)
    found: dict[str, CameraGeometry] = {}
    for name, camera in cameras.items():
        deep = isinstance(camera, _WITH_DEPTH)
        if name in view.cameras and not deep:
            raise BadInputError(f"{where} names camera {name!r}, which is of kind {camera.kind!r} and has no depth")
        if not deep or (view.cameras and name not in view.cameras):
            continue
        if name not in poses or name not in lenses:
            raise BadInputError(f"{where}: camera {name!r}: {_unknown(name, name in poses, calibrations.get(name))}")
        found[name] = _geometry(poses[name], lenses[name])
    if not found:
        raise BadInputError(f"{where}: the station has no camera with depth; add one, or leave fused_view out")
    return found


def required_cloud_age_s(station: Station, bundle: Bundle) -> float | None:
    """How old a cloud may be that the bundle acts on [s]; None where it takes none."""
    if bundle.manifest.point_cloud is None or station.fused_view is None:
        return None
    return station.fused_view.max_age_s


def cloud_misfits(loaded: LoadedStation, bundle: Bundle) -> list[str]:
    """One line where the bundle takes another cloud than the station makes; empty when it fits."""
    wanted, view = bundle.manifest.point_cloud, loaded.station.fused_view
    if wanted is None:
        return []
    what = f"bundle {bundle.manifest.name!r} takes a point cloud"
    if view is None:
        return [f"{what}, and station {loaded.path} has no [fused_view]; add it"]
    got = CloudInput(
        points=view.points,
        voxel_m=view.voxel_m,
        workspace_min_m=view.workspace_min_m,
        workspace_max_m=view.workspace_max_m,
    )
    if got == wanted:
        return []
    other = [key for key, value in wanted if getattr(got, key) != value]
    return [
        f"{what} of {other[0]} {getattr(wanted, other[0])}, fused_view.{other[0]} of station {loaded.path} is "
        f"{getattr(got, other[0])}; set it to the bundle's"
    ]


def _geometry(pose: CameraPose, lens: CameraModel) -> CameraGeometry:
    return CameraGeometry(
        mount=pose.mount,
        T_mount_camera=tuple(pose.T_mount_camera.ravel().tolist()),
        fx=lens.fx,
        fy=lens.fy,
        cx=lens.cx,
        cy=lens.cy,
        lens=lens.kind,
        distortion=lens.distortion,
    )


def _unknown(name: str, placed: bool, measured: MeasuredCamera | None) -> str:
    """What is not known of a camera and what helps."""
    if measured is None:
        return (
            f"nothing says where it is; name its file of `calibrate_rig.py extrinsics` in calibration.files.{name}, or "
            "leave it out of fused_view.cameras"
        )
    files = " and ".join(file.path.name for file in measured.files)
    says = f"calibration.files.{name} ({files})"
    if placed:
        return f"{says} says where it is and not its lens; name its file of `calibrate_rig.py intrinsics` beside"
    return (
        f"{says} does not say where it is; name that of `calibrate_rig.py extrinsics`, or that of `hand-eye` beside "
        "that of `intrinsics`"
    )
