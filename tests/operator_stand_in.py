"""The operator's process with a device in a script's hands: `teleop.operator_process` and nothing else, but for a
virtual pad that is plugged in within it, as SDL shows virtual devices to their own process alone.

Started as `python -m tests.operator_stand_in SCRIPT ...` with the rest of the arguments as for the real one; SCRIPT is
the reading end of a pipe. One command a line: `plug`, `unplug`, `press`, `release`, `tap`, `pull`, `move` of the pad,
`plug other` of one of another model, `key`, `focus` and `close` of the window, `picture PATH`.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

from teleop.operator_process import main
from teleop.sdl import pygame
from tests.virtual_pad import VirtualPad


class Script:
    """Does what comes through the pipe."""

    def __init__(self, file: int) -> None:
        os.set_blocking(file, False)
        self._file, self._rest = file, b""
        self._pad = VirtualPad("Test Pad A")

    def obey(self) -> None:
        """Do all commands that came since."""
        try:
            self._rest += os.read(self._file, 65536)
        except BlockingIOError:
            return
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self._do(*line.decode().split())

    def close(self) -> None:
        os.close(self._file)

    def _do(self, verb: str, *words: str) -> None:
        match verb, words:
            case "plug", ():
                self._pad.plug()
            case "plug", ("other",):
                VirtualPad("Test Pad B", product_id=2).plug()
            case "unplug", ():
                self._pad.unplug()
            case "press", buttons:
                self._pad.press(*buttons)
            case "release", buttons:
                self._pad.release(*buttons)
            case "tap", buttons:
                for button in buttons:
                    self._pad.tap(button)
            case "pull", (trigger,):
                for travel in (1.0, 0.0):
                    self._pad.move(**{trigger: travel})
                    self._pad.report()
            case "move", (axis, travel):
                self._pad.move(**{axis: float(travel)})
            case "key", (name, "down" | "up" as way):
                kind = pygame.KEYDOWN if way == "down" else pygame.KEYUP
                pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(name), mod=0))
            case "focus", ("gained" | "lost" as way,):
                kind = pygame.WINDOWFOCUSGAINED if way == "gained" else pygame.WINDOWFOCUSLOST
                pygame.event.post(pygame.event.Event(kind))
            case "close", ():
                pygame.event.post(pygame.event.Event(pygame.QUIT))
            case "picture", (path,):
                part = Path(path).with_suffix(".part.png")
                pygame.image.save(pygame.display.get_surface(), part)
                part.rename(path)
            case _:
                raise ValueError(f"script: {verb} {words}")


if __name__ == "__main__":
    with closing(Script(int(sys.argv[1]))) as script:
        pygame.joystick.init()
        script.obey()
        sys.exit(main(sys.argv[2:], script.obey))
