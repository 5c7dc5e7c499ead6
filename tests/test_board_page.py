"""The printed page: what the detector sees on it, in millimetres."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from calibration.board import Board, BoardDetector, BoardView
from calibration.board_page import MM_PER_INCH, PAGES_MM, Page, draw, origin_mm, rulers_mm, save_pdf
from robot.errors import BadInputError
from tests.calibration_scenes import BOARD

_PIXELS_PER_MM = 6


def pixels_of(board: Board, page: Page) -> NDArray[np.uint8]:
    figure = draw(board, page)
    figure.set_dpi(_PIXELS_PER_MM * MM_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


@pytest.mark.parametrize(
    "board",
    [BOARD, Board(columns=5, rows=7, square_m=0.025, marker_m=0.018, dictionary="5X5_100")],
    ids=["6x8", "5x7"],
)
def test_the_detector_finds_every_corner_where_the_rulers_say(board: Board) -> None:
    page = Page.named("a4")
    view = BoardDetector(board).detect(pixels_of(board, page))
    assert isinstance(view, BoardView)
    assert len(view.ids) == board.corner_count
    found_mm = (view.pixels + 0.5) / _PIXELS_PER_MM - origin_mm(board, page)
    # the rulers are drawn on the same axes, so the scale of both is one
    assert np.abs(found_mm - 1e3 * board.corners_m[:, :2]).max() < 0.1


@pytest.mark.parametrize("name", PAGES_MM)
def test_the_pdf_has_the_size_of_the_sheet_and_no_pixels(name: str, tmp_path: Path) -> None:
    page = Page.named(name)
    edge_m = 1e-3 * page.largest_square_mm(6, 8)
    save_pdf(Board(columns=6, rows=8, square_m=edge_m, marker_m=0.75 * edge_m), page, tmp_path / "board.pdf")
    content = (tmp_path / "board.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
    assert box is not None
    sides_mm = [float(side) / 72.0 * MM_PER_INCH for side in box.groups()]
    assert sides_mm == pytest.approx([page.width_mm, page.height_mm], abs=0.01)
    assert b"/Subtype /Image" not in content


def test_the_same_board_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf"):
        save_pdf(BOARD, Page.named("a4"), tmp_path / name)
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_the_largest_square_fits_each_page() -> None:
    for name in PAGES_MM:
        page = Page.named(name)
        edge_m = 1e-3 * page.largest_square_mm(6, 8)
        board = Board(columns=6, rows=8, square_m=edge_m, marker_m=0.75 * edge_m)
        page.check_fits(board)
        assert rulers_mm(board)[0] <= 1e3 * board.size_m[0]
    assert Page.named("a4").largest_square_mm(6, 8) == 30.0


def test_a_board_too_large_for_the_page_says_what_fits() -> None:
    large = Board(columns=6, rows=8, square_m=0.05, marker_m=0.03)
    with pytest.raises(BadInputError, match="page of 210 x 297 mm has room for 190 x 255 mm"):
        draw(large, Page.named("a4"))


@pytest.mark.parametrize("text", ["a9", "210", "0x50", "x", "nanx100"])
def test_an_unknown_page_names_those_that_are(text: str) -> None:
    with pytest.raises(BadInputError, match="allowed a4, a3, a2, letter or WIDTHxHEIGHT"):
        Page.named(text)
