"""Which cameras of a station make its fused view, and where they are."""

from __future__ import annotations

from perception.cloud_config import CameraGeometry, FusedViewConfig
from perception.config import CameraConfig, RealSenseCameraConfig, SimulatedCameraConfig
from perception.simulated_camera import intrinsics_px, nominal_pose
from policy.bundle import Bundle
from policy.manifest import CloudInput
from robot.errors import BadInputError
from teleop.station import LoadedStation, Station

_WITH_DEPTH = (SimulatedCameraConfig, RealSenseCameraConfig)


def fused_cameras(loaded: LoadedStation, view: FusedViewConfig) -> dict[str, CameraGeometry]:
    """Return the geometry of each camera of the fused view by its name, in the station's order.

    A simulated camera is where its calibration says, whatever bump it has.

    Raises:
        BadInputError: there is none, or one has no depth or no geometry, or is not in the station.
    """
    cameras = {camera.name: camera for camera in loaded.station.camera}
    where = f"station {loaded.path}: fused_view"
    for name in (*view.cameras, *view.geometry):
        if name not in cameras:
            raise BadInputError(f"{where} names camera {name!r} (the station has {sorted(cameras)}); correct the name")
    found: dict[str, CameraGeometry] = {}
    for name, camera in cameras.items():
        geometry = _geometry(camera, view)
        wanted = name in view.cameras
        if wanted and not isinstance(camera, _WITH_DEPTH):
            raise BadInputError(f"{where} names camera {name!r}, which is of kind {camera.kind!r} and has no depth")
        if wanted and geometry is None:
            raise BadInputError(f"{where}: camera {name!r} has no geometry; add [fused_view.geometry.{name}]")
        if geometry is not None and isinstance(camera, _WITH_DEPTH) and (wanted or not view.cameras):
            found[name] = geometry
    if not found:
        raise BadInputError(f"{where}: no camera has depth and a geometry; add [fused_view.geometry.<camera>]")
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


def _geometry(camera: CameraConfig, view: FusedViewConfig) -> CameraGeometry | None:
    if camera.name in view.geometry:
        return view.geometry[camera.name]
    if not isinstance(camera, SimulatedCameraConfig):
        return None
    fx, fy, cx, cy = intrinsics_px(camera)
    return CameraGeometry(
        mount=camera.mount, T_mount_camera=tuple(nominal_pose(camera).ravel().tolist()), fx=fx, fy=fy, cx=cx, cy=cy
    )
