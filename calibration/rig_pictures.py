"""From a folder of shots to sightings: FOLDER/<camera>/<shot>.png, and the arm's poses by the shot's number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.board import Board
from calibration.picture_views import PictureView, ViewsFile, check_board_seen, look, picture_files
from calibration.pose_file import PoseFile
from calibration.rig_sightings import BoardMount, Mount, RigCamera, RigSightings, Sighting
from perception.camera_model import CameraModel
from robot.errors import BadInputError
from robot.geometry import pose

Array = NDArray[np.float64]
_SAME = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedLens:
    """A camera as a person names it: its mount, its lens, and how sure that is (see `LensPrior`)."""

    name: str
    mount: Mount
    model: CameraModel
    root_px: Array | None = None


def gather(
    folder: Path,
    board: Board,
    board_mount: BoardMount,
    lenses: Sequence[NamedLens],
    arm: PoseFile | None,
    session: Path,
    progress: Callable[[str, PictureView], None],
) -> tuple[RigSightings, dict[str, str]]:
    """Look at every camera's pictures; return the sightings and the pictures' SHA-256 by "camera/file".

    Pictures of the same name (but for the ending) are one shot. Where the arm's poses are given, the names are numbers:
    the `t` of the pose that belongs to the shot.

    Raises:
        BadInputError: a camera has no folder, its pictures have another size than its lens, a name is no number, or no
            shot has a pose.
    """
    folders = {lens.name: folder / lens.name for lens in lenses}
    for name, place in folders.items():
        if not place.is_dir():
            raise BadInputError(f"{place}: no such folder; put the pictures of camera '{name}' there, or leave it out")
    seen: dict[str, list[PictureView]] = {}
    for lens in lenses:
        files = picture_files(folders[lens.name])
        _check_names(files, folders[lens.name])
        store = ViewsFile(session / f"views_{lens.name}.jsonl")
        name = lens.name
        seen[name] = look(files, board, store, lambda picture, name=name: progress(name, picture))  # type: ignore[misc]
        check_board_seen(seen[name], files, board)
        _check_size(seen[name], lens, folders[name])
    shots = sorted({Path(picture.name).stem for pictures in seen.values() for picture in pictures}, key=_order)
    number = {shot: index for index, shot in enumerate(shots)}
    rig = RigSightings(
        board=board,
        board_mount=board_mount,
        cameras=tuple(
            RigCamera(name=lens.name, mount=lens.mount, model=lens.model, lens_root_px=lens.root_px) for lens in lenses
        ),
        shots=tuple(shots),
        T_base_hand=tuple(_hands(shots, arm, folder)),
        sightings=tuple(
            Sighting(camera=index, shot=number[Path(picture.name).stem], view=picture.view)
            for index, lens in enumerate(lenses)
            for picture in seen[lens.name]
            if picture.view is not None
        ),
    )
    hashes = {f"{name}/{picture.name}": picture.sha256 for name, all_of in seen.items() for picture in all_of}
    return rig, hashes


def _hands(shots: Sequence[str], arm: PoseFile | None, folder: Path) -> list[Array | None]:
    if arm is None:
        return [None] * len(shots)
    matrices = Rotation.from_quat(arm.quat_xyzw).as_matrix()
    found: list[Array | None] = []
    for shot in shots:
        try:
            t = float(shot)
        except ValueError:
            raise BadInputError(
                f"{folder}: picture '{shot}' is named by no number; name each by the t of its row in {arm.path}"
            ) from None
        nearest = int(np.argmin(np.abs(arm.t_s - t)))
        there = abs(float(arm.t_s[nearest]) - t) <= _SAME
        found.append(pose(matrices[nearest], arm.position_m[nearest]) if there else None)
    if not any(T is not None for T in found):
        raise BadInputError(
            f"{arm.path}: no row belongs to a shot (first t {arm.t_s[0]:g}, first shot '{shots[0]}'); name each "
            "picture by the t of its row"
        )
    return found


def _check_names(files: Sequence[Path], folder: Path) -> None:
    stems = [path.stem for path in files]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise BadInputError(f"{folder}: two pictures are named '{twice}'; one shot has one picture, remove the other")


def _check_size(pictures: Sequence[PictureView], lens: NamedLens, folder: Path) -> None:
    for picture in pictures:
        if picture.view is not None and picture.view.size != (lens.model.height, lens.model.width):
            height, width = picture.view.size
            raise BadInputError(
                f"{folder / picture.name}: {width}x{height}, the lens of camera '{lens.name}' was calibrated at "
                f"{lens.model.width}x{lens.model.height}; calibrate it at this size, or take pictures of that size"
            )


def _order(shot: str) -> tuple[int, float, str]:
    try:
        return 0, float(shot), shot
    except ValueError:
        return 1, 0.0, shot


def named_paths(texts: Sequence[str], option: str) -> Mapping[str, Path]:
    """Read NAME=FILE of each text. Raises BadInputError."""
    found: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path or "/" in name:
            raise BadInputError(f"{option} {text}: write NAME=FILE, such as {option} front=front.json")
        if name in found:
            raise BadInputError(f"{option} {text}: camera '{name}' is named twice; leave one out")
        found[name] = Path(path)
    return found
