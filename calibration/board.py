"""The ChArUco board: what was printed, and where its corners are in a picture."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from robot.errors import BadInputError
from robot.strict import Strict

Array = NDArray[np.float64]
Dictionary = Literal[
    "4X4_50", "4X4_100", "4X4_250", "5X5_50", "5X5_100", "5X5_250", "6X6_50", "6X6_100", "6X6_250", "7X7_50",
    "7X7_100", "7X7_250", "APRILTAG_16h5", "APRILTAG_25h9", "APRILTAG_36h10", "APRILTAG_36h11",
]  # fmt: skip
LEAST_CORNERS = 6  # a pose takes 4; with fewer than 6, one wrong corner goes unnoticed
_MOST_FOUND = 0.7


class Board(Strict):
    """A ChArUco board, as it is on paper.

    Its frame: origin at the outer corner of the first square, x along its columns, y along its rows, z into the paper,
    away from who looks at it. Corners are counted along x first, as OpenCV does.

    Attributes:
        columns, rows: squares along x and y.
        square_m, marker_m: edge lengths [m], as measured on the paper.
        dictionary: of the markers, which are its first ones.
        legacy_pattern: True for boards with an even number of rows from OpenCV before 4.6, which begin with a white
            square.
    """

    columns: Annotated[int, Field(ge=3, le=40)]
    rows: Annotated[int, Field(ge=3, le=40)]
    square_m: Annotated[float, Field(gt=0.001, lt=1.0)]
    marker_m: Annotated[float, Field(gt=0.0005, lt=1.0)]
    dictionary: Dictionary = "4X4_50"
    legacy_pattern: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.marker_m > 0.95 * self.square_m:
            raise ValueError(
                f"markers of {1e3 * self.marker_m:g} mm on squares of {1e3 * self.square_m:g} mm; "
                "allowed up to 0.95 of the square"
            )
        there = len(dictionary_of(self.dictionary).bytesList)
        if self.marker_count > there:
            raise ValueError(f"{self.marker_count} markers; {self.dictionary} has {there}; take a larger dictionary")
        return self

    @classmethod
    def read(cls, path: Path) -> Board:
        """Read a board's JSON file. Raises BadInputError."""
        try:
            return cls.model_validate(json.loads(path.read_text()))
        except FileNotFoundError:
            cure = "make one with launch/calibrate_rig.py board"
            raise BadInputError(f"board {path}: no such file; {cure}") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BadInputError(f"board {path}: cannot be read as JSON ({error}); name the board's .json") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "board"
            raise BadInputError(f"board {path}: {where}: {first['msg']}; correct it or make it anew") from None

    @property
    def marker_count(self) -> int:
        """Number of markers; one in every white square."""
        return self.columns * self.rows // 2

    @property
    def corner_count(self) -> int:
        """Number of inner corners."""
        return (self.columns - 1) * (self.rows - 1)

    @property
    def size_m(self) -> tuple[float, float]:
        """Its extent along x and y [m]."""
        return self.columns * self.square_m, self.rows * self.square_m

    @property
    def corners_m(self) -> Array:
        """Positions (corner_count, 3) of the corners in the board's frame [m]."""
        x, y = np.meshgrid(np.arange(1, self.columns), np.arange(1, self.rows))
        places = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
        return np.asarray(places * self.square_m, dtype=np.float64)

    @property
    def sha256(self) -> str:
        """Of everything above; two boards with the same one are the same."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def words(self) -> str:
        """What a person calls it."""
        legacy = ", legacy pattern" if self.legacy_pattern else ""
        return (
            f"{self.columns} x {self.rows} squares of {1e3 * self.square_m:.4g} mm, markers {1e3 * self.marker_m:.4g} "
            f"mm of {self.dictionary}{legacy}"
        )

    def opencv(self) -> cv2.aruco.CharucoBoard:
        """Return the same board as OpenCV has it."""
        board = cv2.aruco.CharucoBoard(
            (self.columns, self.rows), self.square_m, self.marker_m, dictionary_of(self.dictionary)
        )
        board.setLegacyPattern(self.legacy_pattern)
        return board


def dictionary_of(name: Dictionary) -> cv2.aruco.Dictionary:
    """Return OpenCV's dictionary of that name."""
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, f"DICT_{name}"))


@dataclass(frozen=True, kw_only=True, eq=False)
class BoardView:
    """Where one picture shows corners of the board.

    Attributes:
        ids: shape (N,), numbers of the corners, rising.
        pixels: shape (N, 2) [px]; (0, 0) is the middle of the first pixel.
        size: (height, width) of the picture [px].
    """

    ids: NDArray[np.int64]
    pixels: Array
    size: tuple[int, int]


class Unseen(StrEnum):
    """Why a picture is of no use."""

    NO_MARKERS = "shows no markers of the board"
    OTHER_BOARD = "shows markers that do not lie as on this board"
    FEW_CORNERS = f"shows fewer than {LEAST_CORNERS} corners of the board, or all on one line"


class BoardDetector:
    """Finds the board in pictures."""

    def __init__(self, board: Board) -> None:
        self.board = board
        # where markers are half hidden, OpenCV's own check of their neighbourhood decides whether corners are right
        self._detector = cv2.aruco.CharucoDetector(board.opencv())

    def detect(self, picture: NDArray[np.uint8]) -> BoardView | Unseen:
        """Return the corners in a picture, (H, W) grey or (H, W, 3) RGB, uint8; part of the board is enough."""
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture
        pixels, ids, _, marker_ids = self._detector.detectBoard(grey)
        if ids is None or len(ids) < _MOST_FOUND * self.board.corner_count:
            # cells of markers below 3 px are often misread; in a picture of twice the size they are not
            large = cv2.resize(grey, None, fx=2.0, fy=2.0, interpolation=cv2.INTER_CUBIC)
            more, more_ids, _, more_markers = self._detector.detectBoard(large)
            if more_ids is not None and len(more_ids) > (0 if ids is None else len(ids)):
                # the middle of the first small pixel lies between the first two large ones
                pixels, ids, marker_ids = (np.asarray(more) + 0.5) / 2.0 - 0.5, more_ids, more_markers
            elif marker_ids is None:
                marker_ids = more_markers
        seen = 0 if marker_ids is None else len(marker_ids)
        if ids is None or len(ids) == 0:
            known = 0 if marker_ids is None else int((np.asarray(marker_ids) < self.board.marker_count).sum())
            if seen == 0:
                return Unseen.NO_MARKERS
            return Unseen.OTHER_BOARD if known >= 4 or seen > known else Unseen.FEW_CORNERS
        order = np.argsort(ids.ravel(), kind="stable")
        view = BoardView(
            ids=ids.ravel()[order].astype(np.int64),
            pixels=np.asarray(pixels, dtype=np.float64).reshape(-1, 2)[order],
            size=(grey.shape[0], grey.shape[1]),
        )
        if len(view.ids) < LEAST_CORNERS or self._on_one_line(view.ids):
            return Unseen.FEW_CORNERS
        return view if self._is_plausible(view) else Unseen.OTHER_BOARD

    @cached_property
    def _grid(self) -> NDArray[np.int64]:
        x, y = np.meshgrid(np.arange(self.board.columns - 1), np.arange(self.board.rows - 1))
        return np.stack([x.ravel(), y.ravel()], axis=1)

    def _on_one_line(self, ids: NDArray[np.int64]) -> bool:
        grid = self._grid[ids].astype(np.float64)
        return bool(np.linalg.svd(grid - grid.mean(axis=0), compute_uv=False)[1] < 0.5)

    def _is_plausible(self, view: BoardView) -> bool:
        """False where corners lie as no lens shows a plane.

        With a board of another layout whose markers are the same, corners come out in a muddle: neighbours on the
        board are then not neighbours in the picture. Every lens keeps the sense of a small triangle of a plane.
        """
        place = np.full((self.board.rows - 1, self.board.columns - 1, 2), np.nan)
        place.reshape(-1, 2)[view.ids] = view.pixels
        right, down = place[:-1, 1:] - place[:-1, :-1], place[1:, :-1] - place[:-1, :-1]
        area = (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]).ravel()
        area = area[np.isfinite(area)]
        return bool(len(area) == 0 or (area > 0.0).all() or (area < 0.0).all())


def likely_dictionary(picture: NDArray[np.uint8]) -> Dictionary | None:
    """Return the smallest dictionary of which a picture (H, W), uint8, shows at least four markers."""
    names: tuple[Dictionary, ...] = Dictionary.__args__  # type: ignore[attr-defined]
    best: Dictionary | None = None
    most = 3
    for name in names:
        _, ids, _ = cv2.aruco.ArucoDetector(dictionary_of(name)).detectMarkers(picture)
        if ids is not None and len(ids) > most:
            best, most = name, len(ids)
    return best
