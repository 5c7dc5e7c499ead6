"""A station's cameras as its bundle wants them: size and window of each image come from the manifest."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from perception.config import CameraConfig, ImageSize, LiveCameraConfig
from policy.manifest import CameraInput, Manifest
from robot.errors import BadInputError
from teleop.station import LoadedStation

Camera = TypeVar("Camera", bound=LiveCameraConfig)


def policy_cameras(loaded: LoadedStation, manifest: Manifest) -> tuple[CameraConfig, ...]:
    """Return the station's cameras with `image` and `crop` of the bundle where the station leaves them out.

    Cameras of a recording are as they are, and so are those that the bundle does not look at.

    Raises:
        BadInputError: the station says another window than the bundle, or the camera's pictures are too small for it.
    """
    inputs = {camera.name: camera for camera in manifest.cameras}
    return tuple(
        _as_wanted(loaded, camera, inputs[camera.name])
        if isinstance(camera, LiveCameraConfig) and camera.name in inputs
        else camera
        for camera in loaded.station.camera
    )


def _as_wanted(loaded: LoadedStation, camera: Camera, wanted: CameraInput) -> Camera:
    where = f"station {loaded.path}: camera {camera.name!r}"
    if camera.crop is not None and camera.crop != wanted.crop:
        what = "the largest window about the middle" if wanted.crop is None else str(list(wanted.crop))
        raise BadInputError(
            f"{where}: crop is {list(camera.crop)}, the bundle was trained on {what}; leave crop out: the bundle has it"
        )
    image = camera.image or ImageSize(height=wanted.height, width=wanted.width)
    try:
        # validated anew: the window may be smaller than the image
        return type(camera).model_validate(camera.model_dump() | {"image": image.model_dump(), "crop": wanted.crop})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise BadInputError(f"{where} does not suit the bundle: {reason}") from None
