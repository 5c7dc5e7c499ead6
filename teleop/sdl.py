"""The one place that sets pygame up; everybody else takes `pygame` and `controller` from here.

SDL is process-wide and must be driven from one thread: the one that owns the operator window.
"""

from __future__ import annotations

import os

# Read by SDL and pygame when they start, hence before the import.
# The person looks at the robot, not at the window: the pad must drive, and above all stop, without its focus.
os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
# SDL would turn SIGTERM into a QUIT event, which a stuck loop never reads.
os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import pygame
from pygame._sdl2 import controller

from robot.errors import BadInputError

__all__ = ["close_display", "controller", "open_display", "pygame"]

# SDL falls back to these without a word where there is no display; a person would wait for a window in vain.
_DESKTOP = ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR")
_INVISIBLE_DRIVERS = ("offscreen", "dummy", "evdev")


def open_display(size: tuple[int, int], title: str) -> pygame.Surface:
    """Open the window and SDL's event queue.

    Args:
        size: width and height [px].
        title: of the window.

    Raises:
        BadInputError: there is no display to open a window on.
    """
    asked = os.environ.get("SDL_VIDEODRIVER", "")
    try:
        if not asked and not any(os.environ.get(name) for name in _DESKTOP):  # SDL would add a line of its own
            raise pygame.error("no X11 or Wayland display found")
        pygame.display.init()
        driver = pygame.display.get_driver()
        if not asked and driver in _INVISIBLE_DRIVERS:
            raise pygame.error("no X11 or Wayland display found")
        pygame.font.init()
        surface = pygame.display.set_mode(size)
    except pygame.error as error:
        close_display()
        got = f"SDL_VIDEODRIVER={asked}" if asked else f"DISPLAY={os.environ.get('DISPLAY', '')!r}"
        raise BadInputError(
            f"operator window: cannot open a display ({error}; {got}); log in to a desktop session, set DISPLAY, "
            f"or set SDL_VIDEODRIVER=dummy to run a gamepad without a window"
        ) from error
    pygame.display.set_caption(title)
    pygame.display.set_allow_screensaver(False)  # a locked screen hides the robot's cameras mid-run
    return surface


def close_display() -> None:
    """Close the window and the event queue; harmless when they are closed."""
    pygame.font.quit()
    pygame.display.quit()
