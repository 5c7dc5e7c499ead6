"""From a folder of pictures to views of the board: what each shows is kept, so that starting again goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardDetector, BoardView, Unseen, likely_dictionary
from calibration.sharpness import edge_width_px
from robot.errors import BadInputError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm")
UNREADABLE = "cannot be read as a picture"


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureView:
    """What one picture shows.

    Attributes:
        name: of the file.
        sha256: of the file.
        view: the corners; None where there are none to use.
        edge_px: width of the board's edges [px], how blurred it is; None without a view.
        why_not: reason why there is no view.
    """

    name: str
    sha256: str
    view: BoardView | None
    edge_px: float | None = None
    why_not: str = ""


class ViewsFile:
    """Detections as JSON lines, one a picture; a line that a crash cut off is detected anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = dict(self._read())

    def get(self, picture_sha256: str, board_sha256: str) -> Mapping[str, Any] | None:
        """Return what is known of a picture with a board."""
        return self._known.get((picture_sha256, board_sha256))

    def add(self, row: Mapping[str, Any]) -> None:
        """Append what was found. Raises BadInputError when it cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as stream:
                stream.write("\n" * self._broken_end + json.dumps(row) + "\n")
        except OSError as error:
            raise BadInputError(f"{self._path}: cannot be written ({error.strerror}); name another --session") from None
        self._broken_end = False
        self._known[row["sha256"], row["board"]] = row

    _broken_end = False

    def _read(self) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"{self._path}: cannot be read ({error}); remove it to start anew") from None
        self._broken_end = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                yield (row["sha256"], row["board"]), row
            except (json.JSONDecodeError, KeyError, TypeError):
                continue


def picture_files(folder: Path) -> list[Path]:
    """Return the pictures of a folder, by name. Raises BadInputError where there are none."""
    if not folder.is_dir():
        raise BadInputError(f"{folder}: no such folder; name the folder with the pictures")
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    )
    if not files:
        raise BadInputError(f"{folder}: has no pictures; allowed {', '.join(ENDINGS)}")
    return files


def read_picture(path: Path) -> NDArray[np.uint8] | None:
    """Return a picture (H, W) in grey, as the sensor gave it, whatever EXIF says about turning; None if it is none."""
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if not len(content):
        return None
    picture = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if picture is None else np.asarray(picture, dtype=np.uint8)


def look(
    files: Sequence[Path], board: Board, store: ViewsFile | None, progress: Callable[[PictureView], None]
) -> list[PictureView]:
    """Return what each picture shows; `progress` is told of each."""
    detector = BoardDetector(board)
    found = []
    for path in files:
        try:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise BadInputError(f"{path}: cannot be read ({error.strerror}); correct its rights") from None
        row = store.get(sha256, board.sha256) if store else None
        if row is None:
            row = _row(path, sha256, detector)
            if store is not None:
                store.add(row)
        found.append(_from_row(path.name, row))
        progress(found[-1])
    return found


def check_one_size(pictures: Sequence[PictureView], where: Path) -> None:
    """Raise BadInputError where views come from pictures of different sizes."""
    by_size: dict[tuple[int, int], list[str]] = {}
    for picture in pictures:
        if picture.view is not None:
            by_size.setdefault(picture.view.size, []).append(picture.name)
    if len(by_size) > 1:
        told = sorted(by_size.items(), key=lambda one: -len(one[1]))
        sizes = ", ".join(
            f"{len(names)} of {width}x{height}" + (f" ({names[0]})" if number else "")
            for number, ((height, width), names) in enumerate(told)
        )
        raise BadInputError(
            f"{where}: pictures of different sizes, {sizes}; a calibration holds for one, remove the rest"
        )


def check_board_seen(pictures: Sequence[PictureView], files: Sequence[Path], board: Board) -> None:
    """Raise BadInputError where no picture shows the board, with what they show instead."""
    if any(picture.view is not None for picture in pictures):
        return
    reasons = [picture.why_not for picture in pictures]
    most = max(set(reasons), key=reasons.count)
    hint = "check that the board's file is that of the printed board"
    if most == Unseen.NO_MARKERS:
        for path in files[:: max(1, len(files) // 3)][:3]:
            picture = read_picture(path)
            other = None if picture is None else likely_dictionary(picture)
            if other is not None and other != board.dictionary:
                hint = f"they show markers of {other}, the board's file says {board.dictionary}; give the right file"
                break
    elif most == UNREADABLE:
        hint = f"allowed {', '.join(ENDINGS)}"
    raise BadInputError(f"none of {len(pictures)} pictures is of use: most {_plural(most)}; {hint}")


def _plural(reason: str) -> str:
    return reason.replace("shows", "show", 1)


def _row(path: Path, sha256: str, detector: BoardDetector) -> dict[str, Any]:
    base = {"picture": path.name, "sha256": sha256, "board": detector.board.sha256}
    picture = read_picture(path)
    if picture is None:
        return {**base, "why_not": UNREADABLE}
    view = detector.detect(picture)
    if isinstance(view, Unseen):
        return {**base, "why_not": str(view)}
    return {
        **base,
        "size": list(view.size),
        "edge_px": edge_width_px(picture, detector.board, view),
        "ids": view.ids.tolist(),
        "pixels": view.pixels.tolist(),
    }


def _from_row(name: str, row: Mapping[str, Any]) -> PictureView:
    if "why_not" in row:
        return PictureView(name=name, sha256=row["sha256"], view=None, why_not=row["why_not"])
    height, width = row["size"]
    view = BoardView(ids=np.array(row["ids"], dtype=np.int64), pixels=np.array(row["pixels"]), size=(height, width))
    return PictureView(name=name, sha256=row["sha256"], view=view, edge_px=row["edge_px"])
