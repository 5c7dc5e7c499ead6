"""How blurred the board's edges are, and which views of a set are worth having."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardView

Array = NDArray[np.float64]
_REACH = 0.3  # of a square, each side of an edge
_SAMPLES = 41
BLURRED_PX = 6.0
_BLURRED_RATIO = 2.0
_SAME = 0.003  # of the picture's width


def edge_width_px(picture: NDArray[np.uint8], board: Board, view: BoardView) -> float | None:
    """Return the width of the edges between neighbouring corners [px], in the direction in which they are wider.

    Width is the step in brightness over the steepest slope, which for a blur of standard deviation s is 2.5 s. The
    edges along x and along y are judged apart, as motion blurs one direction only. None without neighbours.
    """
    place = np.full((board.corner_count, 2), np.nan)
    place[view.ids] = view.pixels
    grid = place.reshape(board.rows - 1, board.columns - 1, 2)
    widths = []
    for a, b in ((grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:])):
        first, second = a.reshape(-1, 2), b.reshape(-1, 2)
        there = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
        found = _widths(picture, first[there], second[there])
        if len(found):
            widths.append(float(np.median(found)))
    return max(widths) if widths else None


def _widths(picture: NDArray[np.uint8], first: Array, second: Array) -> Array:
    along = second - first
    length = np.linalg.norm(along, axis=1, keepdims=True)
    good = length[:, 0] > 4.0
    first, along, length = first[good], along[good], length[good]
    if not len(first):
        return np.zeros(0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / length
    # beside the middle of an edge a white square has its marker, so look near both ends
    profiles = []
    offsets = np.linspace(-1.0, 1.0, _SAMPLES)
    for share in (0.15, 0.85):
        points = (first + share * along)[:, None] + (_REACH * length * offsets)[:, :, None] * across[:, None]
        maps = points.astype(np.float32)
        profiles.append(cv2.remap(picture, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR).astype(np.float64))
    profile = np.stack(profiles)
    # at both ends of an edge the same side is dark
    step_px = 2.0 * _REACH * length[:, 0] / (_SAMPLES - 1)
    smooth = profile.mean(axis=0)
    contrast = smooth.max(axis=1) - smooth.min(axis=1)
    span = 2
    slope = np.abs(smooth[:, span:] - smooth[:, :-span]).max(axis=1) / span
    seen = contrast > 15.0
    widths: Array = contrast[seen] / np.maximum(slope[seen], 1e-9) * step_px[seen]
    return widths


def blurred(edges_px: Sequence[float | None]) -> NDArray[np.bool_]:
    """Return which of a set's pictures are blurred, by the widths of their edges: absolutely, and for this lens."""
    widths = np.array([np.nan if edge is None else edge for edge in edges_px], dtype=np.float64)
    known = widths[np.isfinite(widths)]
    if not len(known):
        return np.zeros(len(widths), dtype=bool)
    limit = max(BLURRED_PX, _BLURRED_RATIO * float(np.median(known)))
    return np.isfinite(widths) & (widths > limit)


def duplicates(views: Sequence[BoardView]) -> NDArray[np.bool_]:
    """Return which views show the board where an earlier one does.

    They would make intervals too narrow, and a view held out would have its twin among those that were fitted.
    """
    again = np.zeros(len(views), dtype=bool)
    kept: list[BoardView] = []
    for number, view in enumerate(views):
        again[number] = any(_same(view, other) for other in kept)
        if not again[number]:
            kept.append(view)
    return again


def _same(a: BoardView, b: BoardView) -> bool:
    _, at_a, at_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    if len(at_a) < 0.8 * max(len(a.ids), len(b.ids)):
        return False
    moved = np.linalg.norm(a.pixels[at_a] - b.pixels[at_b], axis=1)
    return bool(np.sqrt(np.mean(moved**2)) < _SAME * a.size[1])
