"""Turns matplotlib figures and camera pictures into text that stands inside an HTML page.

The page's ink follows the reader's light or dark setting, so the figures' greys are CSS variables; the colours
of the voices stay what they are in the operator's window.
"""

from __future__ import annotations

import base64
import io
import re

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from teleop.source_colours import SOURCE_COLOURS

WIDTH_IN = 9.6
# Stand for the page's own variables until the figure is text; no colour of ours is as dark.
INK, FAINT, LINE, PAGE = "#000001", "#000002", "#000003", "#000004"
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", LINE: "var(--line)", PAGE: "var(--page)"}
SOURCE_HEX = {source: "#{:02x}{:02x}{:02x}".format(*colour) for source, colour in SOURCE_COLOURS.items()}
RESIDUAL = "#1a8c6e"

_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
}


def new_figure(rows: int, height_in: float, *, columns: int = 1, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure as wide as the page and its axes, row by row. Draws without a display."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=sharex, squeeze=False)
    return figure, list(axes.ravel())


def svg(figure: Figure, title: str) -> str:
    """Return the figure as an inline SVG element; `title` is what a screen reader says of it."""
    text = io.StringIO()
    # salted, or ids are random and the same run gives another page; by title, for an id must be unique in a page
    with mpl.rc_context(_STYLE | {"svg.hashsalt": title}):  # type: ignore[arg-type]
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for stand_in, variable in _VARIABLES.items():
        drawn = drawn.replace(stand_in, variable)
    drawn = re.sub(r"font: ([^;\"]*px)[^;\"]*", r"font-size: \1; font-family: inherit", drawn)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)  # `axes_1` in every figure
    return drawn.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def picture(image: NDArray[np.uint8], *, most_pixels: int) -> str:
    """Return an image (H, W, 3) as a PNG data URI, both edges shrunk by a whole factor to at most `most_pixels`."""
    factor = -(-max(image.shape[:2]) // most_pixels)
    height, width = (edge // factor * factor for edge in image.shape[:2])
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    data = io.BytesIO()
    mpl.image.imsave(data, blocks.mean(axis=(1, 3)).round().astype(np.uint8), format="png")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
