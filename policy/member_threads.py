"""Threads that share the members of an ensemble: one hand-over per pass; torch's own threads meet at every product.

Torch's threads wait for each other by spinning, so a pass becomes several times slower as soon as something else wants
their core; these sleep. Which thread works on a member changes no bit of it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import torch


class MemberThreads:
    """The calling thread and `count - 1` others. Without others everything is done where it is called."""

    def __init__(self, count: int = 1) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[int], Any], int] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        self.count = count
        for number in range(count - 1):
            # daemons: a process may end without asking them
            threading.Thread(target=self._serve, name=f"member {number + 1}", daemon=True).start()

    def map(self, task: Callable[[int], Any], count: int) -> list[Any]:
        """Return `[task(0), ..., task(count - 1)]`, made without gradients. Raises what a task raised."""
        results: list[Any] = [None] * count
        if self.count == 1:
            with torch.no_grad():
                for number in range(count):
                    results[number] = task(number)
            return results
        for number in range(1, count):
            self._work.put((task, number))
        faults: list[BaseException] = []
        try:
            with torch.no_grad():
                results[0] = task(0)
        finally:
            for _ in range(1, count):
                number, results_of, fault = self._done.get()
                results[number] = results_of
                if fault is not None:
                    faults.append(fault)
        if faults:
            raise faults[0]
        return results

    def close(self) -> None:
        """End the other threads."""
        for _ in range(self.count - 1):
            self._work.put(None)

    def _serve(self) -> None:
        torch.set_num_threads(1)  # of this thread's products
        with torch.no_grad():
            while (work := self._work.get()) is not None:
                task, number = work
                try:
                    self._done.put((number, task(number), None))
                except BaseException as fault:  # raised where `map` was called
                    self._done.put((number, None, fault))
