"""How far a long piece of work is: a bar on a terminal, lines where the output is kept."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import NoReturn, Self

from tqdm import tqdm

_BAR = "{desc:<34} {percentage:3.0f} % |{bar}| {n_fmt}/{total_fmt} {elapsed} {postfix}"
_LINES = 10


class Progress:
    """`total` steps of one piece of work, shown on stderr.

    On a terminal it is a bar. In a file or a pipe, where a bar would leave its control characters, it is a line at
    the start and at each tenth of the way.
    """

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self.done = name, total, 0
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = tqdm(total=self._total, desc=self._name, bar_format=_BAR)
        else:
            self._line("")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, news: str = "") -> None:
        """One step is done; `news` says what came of it so far."""
        self.done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(news, refresh=False)
            self._bar.update()
        elif self.done * _LINES // self._total > (self.done - 1) * _LINES // self._total:
            self._line(f", {news}" if news else "")

    def _line(self, news: str) -> None:
        print(f"{self._name}: {self.done}/{self._total}{news}", file=sys.stderr, flush=True)
