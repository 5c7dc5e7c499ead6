"""Pictures of a board as a known camera would take them: for rehearsals and tests, where the truth must be known.

Every pixel is the mean of rays that go through the lens model backwards and hit the board's plane, so wide lenses,
blur by defocus and noise are real; nothing is warped from another picture.
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, dictionary_of
from perception.camera_model import CameraModel

Array = NDArray[np.float64]
_PAPER, _INK, _BACKGROUND = 225.0, 25.0, 120.0
_MARGIN = 0.5  # white paper round the board, in squares


class BoardRenderer:
    """A camera that looks at one board.

    Args:
        board: what it sees.
        model: its lens.
        samples: rays per pixel along x and along y.
    """

    def __init__(self, board: Board, model: CameraModel, *, samples: int = 3) -> None:
        self._board, self._model, self._samples = board, model, samples
        self._cells = _cells(board)

    def render(
        self,
        T_camera_board: Array,
        *,
        blur_px: float = 0.7,
        noise: float = 2.0,
        random: np.random.Generator | None = None,
    ) -> NDArray[np.uint8]:
        """Return the picture (H, W), uint8.

        Args:
            T_camera_board: pose (4, 4) of the board in the camera's frame.
            blur_px: standard deviation of the lens's blur.
            noise: standard deviation of the sensor's noise, of 255.
            random: source of the noise; none means no noise.
        """
        height, width = self._model.height, self._model.width
        picture = self._sharp(T_camera_board)
        if blur_px > 0.0:
            picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur_px), dtype=np.float64)
        if random is not None and noise > 0.0:
            picture = picture + random.normal(0.0, noise, (height, width))
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    @cached_property
    def _rays(self) -> tuple[Array, Array, Array]:
        """Directions (H, W, 3) through the middles of the pixels, and how they change along x and y per pixel.

        NaN where the lens sees nothing. Within a pixel a lens is straight enough.
        """
        y, x = np.mgrid[: self._model.height, : self._model.width].astype(np.float64)
        rays = self._model.rays(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(*x.shape, 2)
        rays = np.concatenate([rays, np.ones((*x.shape, 1))], axis=-1)
        return rays, np.gradient(rays, axis=1), np.gradient(rays, axis=0)

    def _sharp(self, T_camera_board: Array) -> Array:
        window = self._window(T_camera_board)
        middle, by_x, by_y = (part[window] for part in self._rays)
        offsets = (np.arange(self._samples) + 0.5) / self._samples - 0.5
        picture = np.full((self._model.height, self._model.width), _BACKGROUND)
        shades = [self._shades(middle + dx * by_x + dy * by_y, T_camera_board) for dx in offsets for dy in offsets]
        picture[window] = np.mean(shades, axis=0)
        return picture

    def _shades(self, rays: Array, T_camera_board: Array) -> Array:
        R, p = T_camera_board[:3, :3], T_camera_board[:3, 3]
        board = self._board
        # ray r hits the plane z = 0 of the board at q, where r * depth = R q + p
        direction = rays @ R  # rows: R^T r
        start = R.T @ p
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = start[2] / direction[..., 2]
            x = (direction[..., 0] * depth - start[0]) / board.square_m
            y = (direction[..., 1] * depth - start[1]) / board.square_m
        seen = np.isfinite(depth) & (depth > 0.0)
        scale = self._cells.shape[1] // board.columns
        shades = np.full(depth.shape, _BACKGROUND)
        shades[seen & (x > -_MARGIN) & (y > -_MARGIN) & (x < board.columns + _MARGIN) & (y < board.rows + _MARGIN)] = (
            _PAPER
        )
        on_board = seen & (x >= 0.0) & (y >= 0.0) & (x < board.columns) & (y < board.rows)
        column, row = (x[on_board] * scale).astype(np.int64), (y[on_board] * scale).astype(np.int64)
        shades[on_board] = np.where(self._cells[row, column], _PAPER, _INK)
        return shades

    def _window(self, T_camera_board: Array) -> tuple[slice, slice]:
        """The part of the picture that can show the board: everything, where the board reaches behind the lens."""
        across, along = self._board.columns + 2 * _MARGIN, self._board.rows + 2 * _MARGIN
        x, y = np.meshgrid(np.linspace(0.0, across, 30) - _MARGIN, np.linspace(0.0, along, 30) - _MARGIN)
        points = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1) * self._board.square_m
        in_camera = points @ T_camera_board[:3, :3].T + T_camera_board[:3, 3]
        if (in_camera[:, 2] < 1e-3).any():
            return slice(None), slice(None)
        pixels = self._model.project(in_camera)
        low = np.maximum(np.floor(pixels.min(axis=0)) - 4.0, 0.0).astype(int)
        high = np.maximum(np.ceil(pixels.max(axis=0)) + 5.0, 0.0).astype(int)
        return slice(low[1], high[1]), slice(low[0], high[0])


def squares(board: Board) -> NDArray[np.bool_]:
    """Return which squares (rows, columns) are white."""
    y, x = np.mgrid[: board.rows, : board.columns]
    first_white = board.legacy_pattern and board.rows % 2 == 0
    white: NDArray[np.bool_] = (x + y) % 2 == (0 if first_white else 1)
    return white


def marker_bits(board: Board, number: int) -> NDArray[np.bool_]:
    """Return which cells (n, n) of a marker are white, its black border included."""
    dictionary = dictionary_of(board.dictionary)
    cells = dictionary.markerSize + 2
    return np.asarray(dictionary.generateImageMarker(number, cells, borderBits=1)) > 127


def _cells(board: Board, scale: int = 120) -> NDArray[np.bool_]:
    """The board as cells (rows * scale, columns * scale), True where white."""
    white = squares(board)
    picture = np.kron(white, np.ones((scale, scale), dtype=bool)).astype(bool)
    edge = board.marker_m / board.square_m
    inside = ((np.arange(scale) + 0.5) / scale - 0.5 * (1.0 - edge)) / edge
    for number, (row, column) in enumerate(np.argwhere(white)):
        bits = marker_bits(board, number)
        index = np.floor(inside * len(bits)).astype(int)
        held = (index >= 0) & (index < len(bits))
        window = picture[row * scale : (row + 1) * scale, column * scale : (column + 1) * scale]
        window[np.ix_(held, held)] = bits[np.ix_(index[held], index[held])]
    return picture
