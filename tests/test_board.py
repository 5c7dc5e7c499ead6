"""The board: its file, and its corners in pictures of which the truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.board import Board, BoardDetector, BoardView, Dictionary, Unseen, likely_dictionary
from calibration.board_rendering import BoardRenderer, squares
from robot.errors import BadInputError
from tests.calibration_scenes import BOARD, NARROW, facing

T = facing(0.35, tilt_rad=(0.3, -0.25, 0.4))


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return BoardRenderer(BOARD, NARROW).render(T, random=np.random.default_rng(0))


def seen(picture: NDArray[np.uint8], board: Board = BOARD) -> BoardView:
    view = BoardDetector(board).detect(picture)
    assert isinstance(view, BoardView), view
    return view


def test_corners_are_found_to_a_tenth_of_a_pixel(picture: NDArray[np.uint8]) -> None:
    view = seen(picture)
    true = NARROW.project(BOARD.corners_m[view.ids] @ T[:3, :3].T + T[:3, 3])
    assert len(view.ids) >= 33
    assert np.sqrt(np.mean(np.sum((view.pixels - true) ** 2, axis=1))) < 0.1
    assert np.abs((view.pixels - true).mean(axis=0)).max() < 0.05  # half a pixel would be another convention


def test_a_part_of_the_board_is_enough(picture: NDArray[np.uint8]) -> None:
    part = picture.copy()
    part[:, 320:] = 120
    whole, half = seen(picture), seen(part)
    assert 6 <= len(half.ids) < len(whole.ids)
    at = np.searchsorted(whole.ids, half.ids)
    assert np.abs(half.pixels - whole.pixels[at]).max() < 0.2


def test_colour_pictures_are_taken_as_they_come_from_a_camera(picture: NDArray[np.uint8]) -> None:
    colour = np.repeat(picture[..., None], 3, axis=2)
    assert np.array_equal(seen(colour).ids, seen(picture).ids)


@pytest.mark.parametrize(
    ("columns", "rows", "dictionary", "why"),
    [
        (5, 8, "4X4_50", Unseen.OTHER_BOARD),
        (8, 6, "4X4_50", Unseen.OTHER_BOARD),
        (6, 8, "5X5_50", Unseen.NO_MARKERS),
    ],
)
def test_another_board_is_told_from_ours(
    picture: NDArray[np.uint8], columns: int, rows: int, dictionary: Dictionary, why: Unseen
) -> None:
    other = Board(columns=columns, rows=rows, square_m=0.03, marker_m=0.022, dictionary=dictionary)
    assert BoardDetector(other).detect(picture) == why


def test_a_legacy_board_is_not_taken_for_a_new_one(picture: NDArray[np.uint8]) -> None:
    legacy = BOARD.model_copy(update={"legacy_pattern": True})
    assert BoardDetector(legacy).detect(picture) == Unseen.OTHER_BOARD
    assert squares(legacy)[0, 0] != squares(BOARD)[0, 0]


def test_a_mirrored_picture_shows_no_board(picture: NDArray[np.uint8]) -> None:
    assert isinstance(BoardDetector(BOARD).detect(np.ascontiguousarray(picture[:, ::-1])), Unseen)


def test_the_dictionary_in_a_picture_is_recognised(picture: NDArray[np.uint8]) -> None:
    assert likely_dictionary(picture) == "4X4_50"
    assert likely_dictionary(np.full((100, 100), 128, dtype=np.uint8)) is None


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("rows", [7, 8])
def test_our_rendering_of_a_board_is_opencvs(legacy: bool, rows: int) -> None:
    board = Board(columns=5, rows=rows, square_m=0.02, marker_m=0.015, legacy_pattern=legacy)
    from calibration.board_rendering import _cells

    theirs = board.opencv().generateImage((5 * 120, rows * 120), marginSize=0)
    assert (np.asarray(theirs > 127) != _cells(board)).mean() < 0.01
    assert cv2.__version__.startswith("5.")  # what the even rows of a legacy board mean differs between versions


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    path.write_text(BOARD.model_dump_json())
    assert Board.read(path) == BOARD
    assert Board.read(path).sha256 == BOARD.sha256


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"marker_m": 0.03}, "markers of 30 mm on squares of 30 mm; allowed up to 0.95"),
        ({"columns": 12, "rows": 12}, "72 markers; 4X4_50 has 50"),
        ({"columns": 2}, "columns: Input should be greater than or equal to 3"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_a_bad_board_file_is_one_line(tmp_path: Path, change: dict[str, object], text: str) -> None:
    path = tmp_path / "board.json"
    path.write_text(json.dumps({**BOARD.model_dump(), **change}))
    with pytest.raises(BadInputError, match=text) as caught:
        Board.read(path)
    assert "\n" not in str(caught.value)


def test_a_missing_board_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"make one with launch/calibrate_rig\.py board"):
        Board.read(tmp_path / "none.json")
