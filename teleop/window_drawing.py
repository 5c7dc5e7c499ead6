"""The picture in the operator's window."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from teleop.operator_status import OperatorStatus, hold_sentence, words
from teleop.sdl import pygame
from teleop.source_colours import SOURCE_COLOURS, Colour

SIZE = (1040, 640)

_GROUND: Colour = (20, 23, 28)
_PANEL: Colour = (31, 36, 44)
_INK: Colour = (236, 239, 244)
_FAINT: Colour = (146, 155, 170)
_GOOD: Colour = (72, 187, 120)
_WARN: Colour = (240, 180, 60)
_BAD: Colour = (224, 76, 76)
_MARGIN = 12
_BANNER = pygame.Rect(0, 0, SIZE[0], 72)
_CAMERAS = pygame.Rect(_MARGIN, 84, 744, 432)
_VERBS = pygame.Rect(768, 84, 260, 432)
_REASON = pygame.Rect(_MARGIN, 526, 1016, 36)
_FIGURES = pygame.Rect(_MARGIN, 570, 1016, 60)
_FONT_SIZES = (22, 24, 26, 30, 64)


class StatusPainter:
    """Draws statuses on the window's surface; lives as long as the window."""

    def __init__(self, surface: pygame.Surface, *, device: str, lost_cure: str, verbs: Mapping[str, str]) -> None:
        """Prepare the fonts.

        Args:
            surface: of `SIZE`.
            device: name of the device that supervises.
            lost_cure: how the person brings that device back.
            verbs: how each verb is given on that device.
        """
        self._surface = surface
        self._device = device
        self._lost_cure = lost_cure
        self._verbs = verbs
        self._fonts = {size: pygame.font.Font(None, size) for size in _FONT_SIZES}

    def draw(self, status: OperatorStatus) -> None:
        """Draw one status, whatever its number of cameras."""
        self._surface.fill(_GROUND)
        self._banner(status)
        self._cameras(status.images)
        self._list_verbs()
        self._reason(status)
        self._figures(status)

    def _banner(self, status: OperatorStatus) -> None:
        self._surface.fill(SOURCE_COLOURS[status.source], _BANNER)
        self._text(status.source.name, 64, _INK, midleft=(_MARGIN + 8, _BANNER.centery + 2))
        if not status.connected:
            state, hint, colour = f"NO {self._device.upper()}", self._lost_cure, _BAD
        elif status.armed:
            state, hint, colour = "ARMED", f"stop: {self._verbs['stop']}", _GOOD
        else:
            state, hint, colour = "DISARMED", f"arm: {self._verbs['arm']}", _WARN
        pill = pygame.Rect(0, 0, 216, 46)
        pill.midright = (SIZE[0] - _MARGIN, _BANNER.centery)
        pygame.draw.rect(self._surface, _GROUND, pill, border_radius=23)
        pygame.draw.rect(self._surface, colour, pill, width=3, border_radius=23)
        self._text(state, 30, colour, center=(pill.centerx, pill.centery + 1))
        self._text(hint, 30, _INK, midright=(pill.left - 20, pill.centery + 1))

    def _cameras(self, images: Mapping[str, NDArray[np.uint8]]) -> None:
        if not images:
            pygame.draw.rect(self._surface, _PANEL, _CAMERAS, border_radius=6)
            self._text("no camera image yet", 30, _FAINT, center=_CAMERAS.center)
            return
        shapes = [(image.shape[1], image.shape[0]) for image in images.values()]
        for (name, image), tile in zip(images.items(), tiles(shapes, _CAMERAS), strict=True):
            pixels = np.ascontiguousarray(image).data
            picture = pygame.image.frombuffer(pixels, (image.shape[1], image.shape[0]), "RGB")
            self._surface.blit(pygame.transform.smoothscale(picture, tile.size), tile)
            label = self._fonts[22].render(name, True, _INK)
            back = pygame.Rect(tile.topleft, (label.get_width() + 14, label.get_height() + 8))
            self._surface.fill(_GROUND, back)
            self._surface.blit(label, label.get_rect(center=back.center))

    def _list_verbs(self) -> None:
        pygame.draw.rect(self._surface, _PANEL, _VERBS, border_radius=6)
        self._text(self._device.upper(), 24, _FAINT, topleft=(_VERBS.x + 16, _VERBS.y + 14))
        pitch = min((_VERBS.height - 56) // max(len(self._verbs), 1), 34)
        for row, (verb, how) in enumerate(self._verbs.items()):
            y = _VERBS.y + 60 + row * pitch
            self._text(verb, 24, _FAINT, midleft=(_VERBS.x + 16, y))
            self._text(how, 24, _INK, midright=(_VERBS.right - 16, y))

    def _reason(self, status: OperatorStatus) -> None:
        if status.hold_reason:
            text, colour = self._why(status), _WARN
        elif status.safety:
            text, colour = f"limited: {words(status.safety)}", _WARN
        else:
            text, colour = status.notice, _FAINT
        if text:
            self._surface.fill(colour, pygame.Rect(_REASON.x, _REASON.y, 6, _REASON.height))
            self._text(self._fitted(text, 26), 26, colour, midleft=(_REASON.x + 18, _REASON.centery))

    def _figures(self, status: OperatorStatus) -> None:
        ended = status.successes + status.failures
        share = f" ({100 * status.successes / ended:.0f} %)" if ended else ""
        slow = status.rate_hz < 0.9 * status.wanted_rate_hz
        figures: list[tuple[str, str, Colour]] = [
            ("episode", f"{status.episode}", _INK),
            ("tick", f"{status.tick}", _INK),
            ("success", f"{status.successes} of {ended}{share}", _INK),
            ("rate", f"{status.rate_hz:.1f} of {status.wanted_rate_hz:g} Hz", _BAD if slow else _INK),
        ]
        pygame.draw.rect(self._surface, _PANEL, _FIGURES, border_radius=6)
        for column, (name, value, colour) in enumerate(figures):
            x = _FIGURES.x + 16 + column * _FIGURES.width // len(figures)
            self._text(name, 22, _FAINT, topleft=(x, _FIGURES.y + 10))
            self._text(value, 30, colour, topleft=(x, _FIGURES.y + 29))

    def _why(self, status: OperatorStatus) -> str:
        return hold_sentence(
            status.hold_reason, status.safety, device=self._device, lost_cure=self._lost_cure, verbs=self._verbs
        )

    def _fitted(self, text: str, size: int) -> str:
        """Text that fits into the line of reasons, cut with dots where it must."""
        room = _REASON.width - 24
        if self._fonts[size].size(text)[0] <= room:
            return text
        while text and self._fonts[size].size(text + "...")[0] > room:
            text = text[:-1]
        return text + "..."

    def _text(self, text: str, size: int, colour: Colour, **place: tuple[int, int]) -> None:
        label = self._fonts[size].render(text, True, colour)
        self._surface.blit(label, label.get_rect(**place))


def tiles(shapes: list[tuple[int, int]], area: pygame.Rect) -> list[pygame.Rect]:
    """Place pictures of (width, height) in a grid that shows them as large as possible, aspect kept."""
    best: list[pygame.Rect] = []
    best_pixels = -1
    for columns in range(1, len(shapes) + 1):
        rows = -(-len(shapes) // columns)
        width, height = (area.width + _MARGIN) // columns - _MARGIN, (area.height + _MARGIN) // rows - _MARGIN
        if width < 1 or height < 1:
            continue
        placed = []
        for index, (w, h) in enumerate(shapes):
            row, column = divmod(index, columns)
            cell = pygame.Rect(0, 0, width, height)
            cell.topleft = (area.x + column * (width + _MARGIN), area.y + row * (height + _MARGIN))
            scale = min(width / w, height / h)
            tile = pygame.Rect(0, 0, max(int(w * scale), 1), max(int(h * scale), 1))
            tile.center = cell.center
            placed.append(tile)
        pixels = sum(tile.width * tile.height for tile in placed)
        if pixels > best_pixels:
            best, best_pixels = placed, pixels
    return best
