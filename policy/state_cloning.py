"""Behaviour cloning without images: of a station whose arm tells by readings what a camera would show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from policy.episode_reader import Episode, latest_revisions
from policy.export import Sample, export_bundle
from policy.learner_episode import HUMAN, of_episode
from policy.manifest import ProprioInput
from robot.errors import BadInputError

CHUNK, EXECUTE = 4, 2
WIDTH = 128
FEATURES = 32
_RATE = 1e-3
_BATCH = 256
_HELD_OUT = 0.1
_SAMPLES = 8

Progress = Callable[[int, int, str], None]


class StateEncode(nn.Module):
    """Entry point `encode`: proprioception to features in -1 to 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.trunk = nn.Sequential(
            nn.Linear(len(mean), WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, FEATURES)
        )

    def forward(self, proprio: Tensor) -> Tensor:
        """Map (B, P) to (B, F)."""
        return torch.tanh(self.trunk((proprio - self.mean) / self.std))


class StateAct(nn.Module):
    """Entry point `act`: (features, proprio) to a chunk (B, H, A) within the base's share of the action range."""

    mean: Tensor
    std: Tensor

    def __init__(self, action_size: int, bound: float, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.shape, self.bound = (CHUNK, action_size), bound
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.head = nn.Sequential(
            nn.Linear(FEATURES + len(mean), WIDTH), nn.ReLU(), nn.Linear(WIDTH, CHUNK * action_size)
        )

    def forward(self, features: Tensor, proprio: Tensor) -> Tensor:
        """Return the chunk, clipped to the bound that leaves headroom for a residual."""
        flat: Tensor = self.head(torch.cat([features, (proprio - self.mean) / self.std], dim=1))
        return flat.reshape(-1, *self.shape).clamp(-self.bound, self.bound)


def clone_states(
    folders: Sequence[Path], out: Path, *, episodes: int | None, updates: int, seed: int, progress: Progress
) -> dict[str, float]:
    """Train on the successful demonstrations in `folders` and export a bundle to `out`; return figures.

    Args:
        folders: of episode files.
        out: folder of the bundle.
        episodes: take only so many, the first ones; None for all.
        updates: gradient steps.
        seed: of the networks and of what is drawn.
        progress: called with updates done, updates in all and a word.

    Raises:
        BadInputError: there are no demonstrations, they differ from each other, or they have images.
    """
    torch.manual_seed(seed)
    shown = _demonstrations(folders)[:episodes]
    header = shown[0].header
    bound = 1.0 - header.action.headroom
    parts = [_ticks(episode) for episode in shown]
    proprio = torch.from_numpy(np.concatenate([seen for seen, _ in parts]))
    chunks = torch.from_numpy(np.concatenate([done for _, done in parts])).clamp(-bound, bound)
    number = np.repeat(np.arange(len(parts)), [len(seen) for seen, _ in parts])
    held_out = max(1, int(_HELD_OUT * len(parts)))
    training, validation = np.flatnonzero(number >= held_out), np.flatnonzero(number < held_out)
    if not len(training):
        raise BadInputError(f"demonstrations: {len(parts)} episodes, one is kept for validation; record more")
    mean, std = proprio[training].mean(0), proprio[training].std(0).clamp(min=1e-3)
    encode, act = StateEncode(mean, std), StateAct(header.action.size, bound, mean, std)
    parameters = [*encode.parameters(), *act.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    rng = np.random.default_rng(seed)
    for update in range(updates):
        rows = torch.from_numpy(rng.choice(training, _BATCH))
        loss = functional.l1_loss(act(encode(proprio[rows]), proprio[rows]), chunks[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        if update % 50 == 49 or update == updates - 1:
            progress(update + 1, updates, f"training, loss {float(loss.detach()):.3f}")
    rows = torch.from_numpy(validation)
    with torch.no_grad():
        miss = (act(encode(proprio[rows]), proprio[rows]) - chunks[rows]).abs().mean().item()
    figures = {"episodes": len(parts), "ticks": len(proprio), "seed": seed, "updates": updates}
    pick = rng.choice(len(proprio), min(_SAMPLES, len(proprio)), replace=False)
    export_bundle(
        out,
        encode=encode,
        act=act,
        name=out.name,
        version=1,
        rate_hz=header.rate_hz,
        cameras=[],
        proprio=[ProprioInput(key=key, size=size) for key, size in header.spec.proprio],
        action=header.action,
        execute_steps=EXECUTE,
        calibration={},
        training={**figures, "validation_action": round(miss, 4)},
        samples=[Sample(images={}, proprio=proprio[row].numpy()) for row in pick.tolist()],
    )
    return {**figures, "validation_action": round(miss, 4)}


def _demonstrations(folders: Sequence[Path]) -> list[Episode]:
    episodes = [episode for folder in folders for episode in latest_revisions(folder) if episode.outcome.success]
    if not episodes:
        raise BadInputError(f"demonstrations {', '.join(map(str, folders))}: no episode is a success; record some")
    first = episodes[0].header
    if first.spec.cameras:
        raise BadInputError(f"{episodes[0].path}: has images; train_base_policy.py clone learns from those")
    for episode in episodes:
        if (episode.header.spec, episode.header.action) != (first.spec, first.action):
            raise BadInputError(
                f"{episode.path}: other proprioception or actions than {episodes[0].path}; train on one kind only"
            )
    return episodes


def _ticks(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    """Return what was seen (N, P) and what the person did in the H ticks from there (N, H, A), float32."""
    arrays = of_episode(episode)
    rows = np.flatnonzero((arrays.source == HUMAN) & arrays.engaged)
    ahead = np.minimum(np.arange(len(rows))[:, None] + np.arange(CHUNK), len(rows) - 1)
    return arrays.proprio[rows], arrays.human[rows][ahead]
