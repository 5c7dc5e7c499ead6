"""Work for a device that is recorded once and then started as a whole.

A learner's update is hundreds of small kernels, and on a GPU it takes longer to start them one by one from Python than
to run them. A CUDA graph starts all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


class CapturedCall:
    """Calls `body`; on CUDA by a graph of its kernels, on the CPU plainly.

    `body` reads and writes tensors that stay where they are, draws from `generators` alone, waits for nothing on the
    device and takes the same way each time. It must have run before, so that what it makes once is made.
    """

    def __init__(self, body: Callable[[], None], device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._body = body
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._graph = torch.cuda.CUDAGraph()
            for generator in generators:
                self._graph.register_generator_state(generator)
            torch.cuda.synchronize(device)
            with torch.cuda.graph(self._graph):
                body()

    def __call__(self) -> None:
        """Do the work once; on CUDA this returns before the device has done it."""
        if self._graph is None:
            self._body()
        else:
            self._graph.replay()
