"""A person's terminal while a capture goes on: keys without Enter's wait, a block of lines that stays in place."""

from __future__ import annotations

import os
import select
import shutil
import sys
import tempfile
import termios
import textwrap
import time
import tty
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any, Self

_LINE_EVERY_S = 5.0
_UP_AND_CLEAR = "\x1b[{}F\x1b[J"
_KEPT = 4  # lines of others
_INDENT = 10


class Terminal:
    """Reads single keys and draws; works over ssh. Without a terminal it prints what is new as lines, and has no keys.

    While it draws, what other processes say on standard error is read from a file and shown within the block: a line in
    between would break it. At the end, and before any traceback, standard error is as it was and all of that on it.
    """

    def __init__(self) -> None:
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._stack = ExitStack()
        self._drawn = 0
        self._last_line, self._last_s = "", -_LINE_EVERY_S
        self._said: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self.interactive:
            with ExitStack() as stack:
                file = sys.stdin.fileno()
                before: list[Any] = termios.tcgetattr(file)
                stack.callback(termios.tcsetattr, file, termios.TCSADRAIN, before)
                tty.setcbreak(file)  # Ctrl-C goes on working
                if sys.stderr.isatty():
                    self._overhear(stack)
                self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def keys(self) -> str:
        """Return the keys pressed since the last call."""
        if not self.interactive:
            return ""
        found = b""
        while select.select([sys.stdin], [], [], 0.0)[0]:
            more = os.read(sys.stdin.fileno(), 64)
            if not more:  # hung up
                return found.decode(errors="replace") + "q"
            found += more
        return found.decode(errors="replace")

    def draw(self, lines: Sequence[str], line: str) -> None:
        """Show a block in place of the last one; without a terminal, `line` where it is another one, now and then."""
        if not self.interactive:
            now_s = time.monotonic()
            if line != self._last_line and now_s - self._last_s >= _LINE_EVERY_S:
                print(line, flush=True)
                self._last_line, self._last_s = line, now_s
            return
        width, height = shutil.get_terminal_size()
        block = [piece for text in (*lines, *self._news()) for piece in _folded(text, width - 1)][: height - 1]
        self._erase()
        sys.stdout.write("".join(text + "\n" for text in block))
        sys.stdout.flush()
        self._drawn = len(block)

    def say(self, line: str, *, ring: bool = False) -> None:
        """Print a line that stays, above the block; `ring` the bell for whoever looks at the board and not here."""
        self._erase()
        print(line + "\a" * (ring and self.interactive), flush=True)

    def _erase(self) -> None:
        if self._drawn:
            sys.stdout.write(_UP_AND_CLEAR.format(self._drawn))
            self._drawn = 0

    def _overhear(self, stack: ExitStack) -> None:
        self._said = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (it is entered)
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(self._said.fileno(), 2)
        said = self._said

        def restore() -> None:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            os.write(2, said.read())
            self._said = None

        stack.callback(restore)

    def _news(self) -> list[str]:
        """The last lines that somebody said on standard error."""
        if self._said is None:
            return []
        size = os.fstat(self._said.fileno()).st_size
        data = os.pread(self._said.fileno(), 4096, max(0, size - 4096))
        return data.decode(errors="replace").splitlines()[-_KEPT:]


def _folded(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, max(width, 2 * _INDENT), subsequent_indent=" " * _INDENT)
