"""The small policy for recorded WidowX episodes: principal components of coarse images, then an ensemble of nets.

A few hundred steps are all there is, so nothing that sees pixels is learned by gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

GRID = 8  # each view is averaged to 8 x 8 cells
COMPONENTS = 15
HIDDEN = 32
AT_REST = 0.005  # below this in every component of the TCP velocity [m/s, rad/s] the arm counts as standing
DROPOUT = 0.3
INPUT_NOISE = 0.3


def coarse(image: Tensor) -> Tensor:
    """Average (N, H, W, 3) uint8 to (N, GRID * GRID * 3) in [0, 1]."""
    cell = (image.shape[1] // GRID, image.shape[2] // GRID)
    return avg_pool2d(image.permute(0, 3, 1, 2).float() / 255.0, cell).flatten(1)


class Encoder(nn.Module):
    """Images and proprioception to features (N, COMPONENTS + 1): principal components, and whether the arm stands."""

    mean: Tensor
    basis: Tensor

    def __init__(self, mean: Tensor, basis: Tensor, velocity_start: int) -> None:
        """Take the mean (D,) and scaled basis (D, COMPONENTS) of coarse views side by side, and where in the
        proprioception the six velocities start."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self._velocity = slice(velocity_start, velocity_start + 6)

    @classmethod
    def fitted(cls, views: list[Tensor], velocity_start: int) -> Encoder:
        """Fit to the views (N, H, W, 3) of the training steps; the largest component gets unit spread."""
        cells = torch.cat([coarse(view) for view in views], dim=1).double()
        mean = cells.mean(dim=0)
        basis = torch.linalg.svd(cells - mean, full_matrices=False).Vh[:COMPONENTS].T
        # the sign of a singular vector is arbitrary and differs between machines
        basis = basis * basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)).sign()
        basis = basis / ((cells - mean) @ basis).std(dim=0).max()
        return cls(mean.float(), basis.float(), velocity_start)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Take one image (N, H, W, 3) uint8 per view, then proprioception (N, P)."""
        *views, proprio = inputs
        cells = torch.cat([coarse(view) for view in views], dim=1)
        standing = (proprio[:, self._velocity].abs().amax(dim=1, keepdim=True) < AT_REST).float()
        return torch.cat([(cells - self.mean) @ self.basis, standing], dim=1)


class Ensemble(nn.Module):
    """M one-layer nets with a linear path, side by side: (M, N, D) to (M, N, K)."""

    def __init__(self, start: Tensor, inputs: int, generator: torch.Generator) -> None:
        """Start at the constants `start` (M, 1, K), from which training moves only where the data ask for it."""
        super().__init__()
        members, _, outputs = start.shape
        self.inward = nn.Parameter(torch.randn(members, inputs, HIDDEN, generator=generator) / inputs**0.5)
        self.inward_bias = nn.Parameter(torch.zeros(members, 1, HIDDEN))
        self.outward = nn.Parameter(torch.zeros(members, HIDDEN, outputs))
        self.straight = nn.Parameter(torch.zeros(members, inputs, outputs))
        self.bias = nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return every member's output."""
        return self.output(x, torch.tanh(x @ self.inward + self.inward_bias))

    def noisy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return every member's output in training: with noise on the inputs and dropout on the hidden layer."""
        x = x + INPUT_NOISE * torch.randn(x.shape, generator=generator)
        hidden = torch.tanh(x @ self.inward + self.inward_bias)
        kept = torch.rand(hidden.shape, generator=generator) >= DROPOUT
        return self.output(x, hidden * kept / (1.0 - DROPOUT))

    def output(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Join the hidden layer and the linear path."""
        return hidden @ self.outward + x @ self.straight + self.bias

    def members(self, rows: slice) -> Ensemble:
        """Return some of the members as an ensemble of their own."""
        own = Ensemble(self.bias[rows].detach(), self.inward.shape[1], torch.Generator())
        own.load_state_dict({name: value[rows] for name, value in self.state_dict().items()})
        return own


class Actor(nn.Module):
    """Features and proprioception to the chunk (N, C, A) of normalised actions: the ensemble's mean."""

    centre: Tensor
    width: Tensor
    gain: Tensor
    shift: Tensor

    def __init__(self, ensemble: Ensemble, centre: Tensor, width: Tensor, gain: Tensor, shift: Tensor) -> None:
        """Take the inputs' centre and width (D,), and gain and shift (A,) from net units to actions."""
        super().__init__()
        self.ensemble = ensemble
        for name, value in (("centre", centre), ("width", width), ("gain", gain), ("shift", shift)):
            self.register_buffer(name, value)

    def forward(self, features: Tensor, proprio: Tensor) -> Tensor:
        """Take features (N, F) and proprioception (N, P)."""
        x = (torch.cat([features, proprio], dim=1) - self.centre) / self.width
        mean = self.ensemble(x.unsqueeze(0)).mean(dim=0)
        chunk = mean.reshape(mean.shape[0], -1, self.gain.shape[0]) * self.gain + self.shift
        bounded: Tensor = chunk.clamp(-1.0, 1.0)
        return bounded
