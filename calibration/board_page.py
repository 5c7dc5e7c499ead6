"""The board on paper: vector graphics in true size, with rulers that show whether the printer kept it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from calibration.board import Board
from calibration.board_rendering import marker_bits, squares
from robot.errors import BadInputError

MM_PER_INCH = 25.4
PAGES_MM = {"a4": (210.0, 297.0), "a3": (297.0, 420.0), "a2": (420.0, 594.0), "letter": (215.9, 279.4)}
MARGIN_MM = 10.0  # what office printers leave white
_FOOT_MM = 22.0  # ruler and text
_SIDE_MM = 5.0  # ruler along y


@dataclass(frozen=True, kw_only=True)
class Page:
    """A sheet, `width_mm` by `height_mm`."""

    width_mm: float
    height_mm: float

    @classmethod
    def named(cls, text: str) -> Page:
        """Return a page by its name or as WIDTHxHEIGHT in mm. Raises BadInputError."""
        if text.lower() in PAGES_MM:
            width, height = PAGES_MM[text.lower()]
            return cls(width_mm=width, height_mm=height)
        try:
            width, height = (float(part) for part in text.lower().split("x"))
        except ValueError:
            width = height = math.nan
        if not (50.0 <= width <= 3000.0 and 50.0 <= height <= 3000.0):
            raise BadInputError(
                f"--page {text}: allowed {', '.join(PAGES_MM)} or WIDTHxHEIGHT in mm, each 50 to 3000, such as 600x400"
            )
        return cls(width_mm=width, height_mm=height)

    def largest_square_mm(self, columns: int, rows: int) -> float:
        """Return the largest edge of a square [mm], whole or a multiple of 5 where that is not much less."""
        across = (self.width_mm - 2.0 * MARGIN_MM - 2.0 * _SIDE_MM) / columns
        along = (self.height_mm - 2.0 * MARGIN_MM - _FOOT_MM) / rows
        most = min(across, along)
        return max(1.0, 5.0 * math.floor(most / 5.0) if most >= 20.0 else float(math.floor(most)))

    def check_fits(self, board: Board) -> None:
        """Raise BadInputError where the board is larger than the page has room for."""
        width, height = (1e3 * side for side in board.size_m)
        room = self.width_mm - 2.0 * MARGIN_MM, self.height_mm - 2.0 * MARGIN_MM - _FOOT_MM
        if width > room[0] + 1e-6 or height > room[1] + 1e-6:
            raise BadInputError(
                f"board of {width:g} x {height:g} mm: the page of {self.width_mm:g} x {self.height_mm:g} mm has room "
                f"for {room[0]:g} x {room[1]:g} mm; take smaller squares, fewer of them, or a larger --page"
            )


def rulers_mm(board: Board) -> tuple[float, float]:
    """Return the lengths of the rulers along x and along y [mm]: whole centimetres, within the board."""
    across, along = (10.0 * math.floor(100.0 * side + 1e-9) for side in board.size_m)
    return max(across, 10.0), max(along, 10.0)


def origin_mm(board: Board, page: Page) -> tuple[float, float]:
    """Return where the board's own origin lies on the page: from its left and from its upper edge [mm]."""
    return 0.5 * (page.width_mm - 1e3 * board.size_m[0]), MARGIN_MM


def draw(board: Board, page: Page) -> Figure:
    """Return the page as a figure of true size. Raises BadInputError where the board does not fit."""
    page.check_fits(board)
    figure = Figure(figsize=(page.width_mm / MM_PER_INCH, page.height_mm / MM_PER_INCH), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, page.width_mm)
    axes.set_ylim(page.height_mm, 0.0)
    axes.axis("off")
    left, top = origin_mm(board, page)
    edge, inner = 1e3 * board.square_m, 1e3 * board.marker_m

    def box(x: float, y: float, width: float, height: float, colour: str) -> None:
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0, antialiased=True))

    white = squares(board)
    for row, column in np.argwhere(~white):
        box(left + column * edge, top + row * edge, edge, edge, "black")
    for number, (row, column) in enumerate(np.argwhere(white)):
        x, y = left + column * edge + 0.5 * (edge - inner), top + row * edge + 0.5 * (edge - inner)
        box(x, y, inner, inner, "black")
        bits = marker_bits(board, number)
        cell = inner / len(bits)
        for i, j, length in _runs(bits):
            box(x + j * cell, y + i * cell, length * cell, cell, "white")
    _rulers(figure, board, page)
    return figure


def save_pdf(board: Board, page: Page, path: Path) -> None:
    """Write the page as PDF. Raises BadInputError when it does not fit or cannot be written."""
    with mpl.rc_context({"pdf.fonttype": 42}):
        figure = draw(board, page)
        try:
            # no date of the moment: the same board gives the same file
            with PdfPages(path, metadata={"Title": f"ChArUco board, {board.words}", "CreationDate": None}) as pdf:
                pdf.savefig(figure)
        except OSError as error:
            raise BadInputError(f"--out {path}: cannot be written ({error.strerror}); name another file") from None


def _runs(bits: np.ndarray) -> list[tuple[int, int, int]]:
    """White runs of a marker as (row, first column, length)."""
    found = []
    for i, row in enumerate(bits):
        steps = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        found += [(i, int(a), int(b - a)) for a, b in zip(steps[::2], steps[1::2], strict=True)]
    return found


def _rulers(figure: Figure, board: Board, page: Page) -> None:
    axes = figure.axes[0]
    left, top = origin_mm(board, page)
    across, along = rulers_mm(board)
    y = top + 1e3 * board.size_m[1] + 6.0
    x = left - 3.5
    axes.plot([left, left + across], [y, y], color="black", linewidth=0.4, solid_capstyle="butt")
    axes.plot([x, x], [top, top + along], color="black", linewidth=0.4, solid_capstyle="butt")
    for mark in np.arange(0.0, across + 1.0, 10.0):
        axes.plot([left + mark] * 2, [y - (2.0 if mark in (0.0, across) else 1.0), y], color="black", linewidth=0.4)
    for mark in np.arange(0.0, along + 1.0, 10.0):
        axes.plot([x - (2.0 if mark in (0.0, along) else 1.0), x], [top + mark] * 2, color="black", linewidth=0.4)
    text = (
        f"rulers: {across:g} mm across, {along:g} mm along, end mark to end mark. Print at 100 %, on a flat, stiff, "
        f"matt sheet.\n{board.words}; {board.sha256[:12]}"
    )
    axes.text(left, y + 2.5, text, fontsize=min(7.0, 0.017 * 1e3 * board.size_m[0] + 3.0), va="top", ha="left")
