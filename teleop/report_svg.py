"""Turns matplotlib figures and camera pictures into text that stands inside an HTML page.

The page's ink follows the reader's light or dark setting, so the figures' greys are CSS variables; the colours
of the voices stay what they are in the operator's window.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from teleop.source_colours import SOURCE_COLOURS

P = ParamSpec("P")

WIDTH_IN = 9.6
# Stand for the page's own variables until the figure is text; no colour of ours is as dark.
INK, FAINT, LINE, PAGE, POLICY_WORDS = "#000001", "#000002", "#000003", "#000004", "#000005"
_VARIABLES = {INK: "ink", FAINT: "faint", LINE: "line", PAGE: "page", POLICY_WORDS: "policy-words"}
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
    """Return a figure as wide as the page and its axes, row by row. Needs no display."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, list(figure.subplots(rows, columns, sharex=sharex, squeeze=False).ravel())


def drawn(title: str) -> Callable[[Callable[P, Figure]], Callable[P, str]]:
    """Make a function that draws a figure return it as an inline SVG element, drawn in the report's style.

    `title` is what a screen reader says of it.
    """

    def decorate(draw: Callable[P, Figure]) -> Callable[P, str]:
        @wraps(draw)
        def inline(*args: P.args, **kwargs: P.kwargs) -> str:
            # salted, or ids are random and the same run gives another page; by title, for an id must be unique in it
            with mpl.rc_context(_STYLE | {"svg.hashsalt": title}):  # type: ignore[arg-type]
                return _svg(draw(*args, **kwargs), title)

        return inline

    return decorate


def _svg(figure: Figure, title: str) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    markup = text.getvalue()
    markup = markup[markup.index("<svg") :]
    for stand_in, variable in _VARIABLES.items():
        markup = markup.replace(stand_in, f"var(--{variable})")
    markup = re.sub(r"font: ([^;\"]*px)[^;\"]*", r"font-size: \1; font-family: inherit", markup)
    markup = re.sub(r'<g id="[^"]*"', "<g", markup)  # `axes_1` in every figure
    return markup.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def picture(image: NDArray[np.uint8], *, most_pixels: int) -> str:
    """Return an image (H, W, 3) as a PNG data URI, both edges shrunk by a whole factor to at most `most_pixels`."""
    factor = -(-max(image.shape[:2]) // most_pixels)
    height, width = (edge // factor * factor for edge in image.shape[:2])
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    data = io.BytesIO()
    mpl.image.imsave(data, blocks.mean(axis=(1, 3)).round().astype(np.uint8), format="png")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
