"""`calibrate_rig.py board`: a ChArUco board to print, and the file that tells later steps what was printed."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from calibration.board import Board, Dictionary
from calibration.board_page import Page, rulers_mm, save_pdf
from calibration.command import Outcome
from robot.errors import BadInputError

SUMMARY = """Makes a ChArUco board as PDF of true size, and its description as JSON.

Print it at 100 % and glue it to something stiff and flat. Then measure the two rulers on the paper: where they are not
as long as printed, say so with --measured-mm, which corrects the description; nothing else notices a scaled print."""
EXAMPLES = [
    "calibrate_rig.py board --out calibration/board.pdf",
    "calibrate_rig.py board --out calibration/board.pdf --page a3 --columns 7 --rows 9",
    "calibrate_rig.py board --out calibration/board.pdf --measured-mm 178.9   # the ruler of 180 mm, as printed",
]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of board."""
    parser.add_argument("--out", type=Path, required=True, metavar="PDF", help="the description goes beside it, .json")
    parser.add_argument("--page", default="a4", help="a4 (default), a3, a2, letter, or WIDTHxHEIGHT in mm")
    parser.add_argument("--columns", type=int, default=6, metavar="N", help="squares across (default 6)")
    parser.add_argument("--rows", type=int, default=8, metavar="N", help="squares along (default 8)")
    parser.add_argument("--square-mm", type=float, metavar="X", help="edge of a square (default: what fits the page)")
    parser.add_argument("--marker-mm", type=float, metavar="X", help="edge of a marker (default 0.75 of the square)")
    parser.add_argument("--dictionary", choices=get_args(Dictionary), default="4X4_50", help="default 4X4_50")
    parser.add_argument(
        "--measured-mm", type=float, metavar="X", help="what the ruler across measures on the printed paper"
    )


def run(options: Namespace) -> Outcome:
    """Write the PDF and the description beside it, or correct the description after measuring."""
    page = Page.named(options.page)
    beside = options.out.with_suffix(".json")
    if options.out.suffix.lower() != ".pdf":
        raise BadInputError(f"--out {options.out}: must end in .pdf; the description goes beside it as .json")
    board = _board(options, page)
    if options.measured_mm is not None:
        board = _measured(board, options.measured_mm)
        _write(beside, board)
        print(f"{beside}: {board.words}, corrected for the printer; the PDF is left as it is")
    else:
        try:
            options.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"--out {options.out}: cannot be written ({error.strerror}); name another") from None
        save_pdf(board, page, options.out)
        _write(beside, board)
        across, along = rulers_mm(board)
        print(f"{options.out}: {board.words}")
        print(f"{beside}: its description, which the other steps take as --board")
        print(
            f"print at 100 % and check the rulers: {across:g} mm across, {along:g} mm along; if not, see --measured-mm"
        )
    return Outcome(passed=True, document={"board": board.model_dump(), "sha256": board.sha256, "file": beside})


def _board(options: Namespace, page: Page) -> Board:
    for name in ("columns", "rows"):
        if not 3 <= getattr(options, name) <= 40:
            raise BadInputError(f"--{name} {getattr(options, name)}: allowed 3 to 40")
    square_mm = options.square_mm or page.largest_square_mm(options.columns, options.rows)
    try:
        return Board(
            columns=options.columns,
            rows=options.rows,
            square_m=round(1e-3 * square_mm, 9),
            marker_m=round(1e-3 * (options.marker_mm or 0.75 * square_mm), 9),
            dictionary=options.dictionary,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
        raise BadInputError(f"board: {where}{first['msg'].removeprefix('Value error, ')}; give other sizes") from None


def _measured(board: Board, measured_mm: float) -> Board:
    nominal = rulers_mm(board)[0]
    share = measured_mm / nominal
    if not 0.8 <= share <= 1.25:
        raise BadInputError(
            f"--measured-mm {measured_mm:g}: the ruler across is {nominal:g} mm long here; allowed {0.8 * nominal:g} "
            f"to {1.25 * nominal:g}, give the same options as when it was made"
        )
    return board.model_copy(update={"square_m": board.square_m * share, "marker_m": board.marker_m * share})


def _write(path: Path, board: Board) -> None:
    try:
        path.write_text(json.dumps(board.model_dump(), indent=2) + "\n")
    except OSError as error:
        raise BadInputError(f"{path}: cannot be written ({error.strerror}); name another --out") from None
