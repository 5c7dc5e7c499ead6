"""Target poses from pictures of the board, as a pose file would hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from calibration.board import Board
from calibration.board_pose import BoardPose, board_pose
from calibration.picture_views import (
    PictureView,
    ViewsFile,
    check_board_seen,
    check_one_size,
    look,
    picture_files,
)
from calibration.pose_file import PoseFile, one_sign
from perception.camera_model import CameraModel
from robot.errors import BadInputError


def poses_from_pictures(
    folder: Path,
    board: Board,
    model: CameraModel,
    store: ViewsFile | None,
    progress: Callable[[PictureView], None],
) -> PoseFile:
    """Return T_target_camera of each picture that shows the board; its time is the number that it is named by.

    Poses that the board's other tilt would explain nearly as well are left out, with the pictures that show no board.

    Args:
        folder: pictures, each named by the `t` of its row of arm poses.
        board: what they show.
        model: the camera's lens.
        store: what is known of pictures already; None to keep nothing.
        progress: told of each picture.

    Raises:
        BadInputError: no pictures, a name that is no number or is there twice, another size than the lens's, or no
            board in any of them.
    """
    files = picture_files(folder)
    times = [_time(path) for path in files]
    if len(set(times)) < len(times):
        twice = next(path.name for number, path in enumerate(files) if times[number] in times[:number])
        raise BadInputError(f"{folder}: '{twice}' has the time of another picture; remove one of them")
    seen = look(files, board, store, progress)
    check_board_seen(seen, files, board)
    check_one_size(seen, folder)
    found: list[tuple[float, BoardPose]] = []
    without = ambiguous = 0
    for t, picture in zip(times, seen, strict=True):
        if picture.view is None:
            without += 1
            continue
        height, width = picture.view.size
        if (height, width) != (model.height, model.width):
            raise BadInputError(
                f"{folder / picture.name}: {width}x{height}, the lens was calibrated at {model.width}x{model.height}; "
                "calibrate it at this size, or take pictures of that size"
            )
        pose = board_pose(model, board, picture.view)
        if pose is None or pose.ambiguous:
            ambiguous += 1
        else:
            found.append((t, pose))
    if not found:
        raise BadInputError(f"{folder}: no picture shows the board so that its pose is clear; tilt it, or go nearer")
    found.sort(key=lambda one: one[0])
    T = np.array([pose.T_target_camera for _, pose in found])
    notes = [f"{without} pictures without the board left out"] if without else []
    notes += [f"{ambiguous} pictures left out in which the board's tilt is ambiguous"] if ambiguous else []
    together = hashlib.sha256("".join(sorted(picture.sha256 for picture in seen)).encode())
    return PoseFile(
        path=folder,
        t_s=np.array([t for t, _ in found]),
        position_m=T[:, :3, 3],
        quat_xyzw=one_sign(Rotation.from_matrix(T[:, :3, :3]).as_quat()),
        sha256=together.hexdigest(),
        notes=tuple(notes),
    )


def _time(path: Path) -> float:
    try:
        t = float(path.stem)
    except ValueError:
        t = np.nan
    if not np.isfinite(t):
        raise BadInputError(f"{path}: is named by no number; name each picture by the t of its row of arm poses")
    return t
