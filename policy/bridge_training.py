"""Behaviour cloning on recorded WidowX episodes, its cross-validation, and the export.

Absolute error is what the report measures, so absolute error is what is minimised: where the data say nothing,
the answer is the median action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from policy.bridge_data import (
    DIMS,
    GRIPPER_CLOSED_M,
    GRIPPER_OPEN_M,
    PROPRIO,
    ActionStatistics,
    Steps,
    held_out,
    play,
    step_digests,
)
from policy.bridge_model import COMPONENTS, GRID, Actor, Encoder, Ensemble
from policy.export import Sample, export_bundle
from policy.manifest import ActionSpec, CameraInput, ProprioInput
from robot.command import CommandKind
from robot.errors import BadInputError
from robot.recording import Recording

Progress = Callable[[int, int], None]  # updates done, updates in all

CHUNK_LENGTH = 4
MEMBERS = 8
UPDATES = 300
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
# greatest action seen, times this, is full scale: held-out operators go further than the training ones
SCALE_MARGIN = 1.25
VELOCITY_START = sum(size for key, size in list(PROPRIO.items())[: list(PROPRIO).index("tcp_velocity")])


@dataclass(frozen=True, kw_only=True)
class BridgePolicy:
    """A trained policy and the action space of its chunks."""

    encoder: Encoder
    actor: Actor
    spec: ActionSpec

    def predict(self, steps: Steps, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the first actions of the chunks for the steps `rows`, shape (n, 7), SI units and opening 0 to 1."""
        views = [torch.from_numpy(values[rows]) for values in steps.images.values()]
        proprio = torch.from_numpy(steps.proprio[rows])
        with torch.no_grad():
            action = self.actor(self.encoder(*views, proprio), proprio)[:, 0].double().numpy()
        return np.concatenate([action[:, :6] * np.array(self.spec.scale[:6]), (action[:, 6:] + 1.0) / 2.0], axis=1)


def train_bridge(recording_path: Path, out: Path, seed: int, progress: Progress) -> Path:
    """Train on the episodes that are not held out and write a bundle to `out`; the same seed gives the same weights.

    Raises:
        BadInputError: the recording cannot be used.
    """
    recording = Recording.open(recording_path)
    seen = [number for number, episode in enumerate(recording.episodes) if not held_out(episode)]
    if len(seen) < 2:
        raise BadInputError(f"recording {recording_path}: {len(seen)} episodes to train on (at least 2); record more")
    steps = play(recording, CHUNK_LENGTH)
    episodes = [recording.episodes[number] for number in seen]
    policy = fit(steps, [np.isin(steps.episode, seen)], seed, progress)[0]
    images = {name: values.shape[1:3] for name, values in steps.images.items()}
    training = {
        "method": "behaviour cloning, absolute error",
        "source": "BridgeData V2, CC BY 4.0",
        "seed": seed,
        "train_episodes": " ".join(episode.name for episode in episodes),
        "train_steps": " ".join(digest for episode in episodes for digest in step_digests(episode)),
        **ActionStatistics.of(episodes).facts(),
    }
    return export_bundle(
        out,
        encode=policy.encoder,
        act=policy.actor,
        name="bridge",
        version=1,
        rate_hz=recording.rate_hz,
        cameras=[CameraInput(name=name, height=height, width=width) for name, (height, width) in images.items()],
        proprio=[ProprioInput(key=key, size=size) for key, size in PROPRIO.items()],
        action=policy.spec,
        execute_steps=1,
        calibration={},  # nobody published where the cameras stood
        training=training,
        samples=[
            Sample(images={name: values[row] for name, values in steps.images.items()}, proprio=steps.proprio[row])
            for row in range(0, len(steps.proprio), 7)
        ],
    )


def action_spec(steps: Steps, rows: NDArray[np.bool_]) -> ActionSpec:
    """Return the action space: full scale is a margin above the greatest action of the steps `rows`.

    No headroom: an arm that plays a recording is never corrected.
    """
    greatest = np.abs(steps.chunk[rows, 0, :6]).max(axis=0)
    return ActionSpec(
        kind=CommandKind.TCP_DELTA,
        frame="base",
        dims=DIMS,
        scale=(*(round(float(value), 6) for value in greatest * SCALE_MARGIN), 1.0),
        offset=(0.0,) * 7,
        headroom=0.0,
        gripper="width",
        gripper_open_m=GRIPPER_OPEN_M,
        gripper_closed_m=GRIPPER_CLOSED_M,
    )


def fit(steps: Steps, folds: Sequence[NDArray[np.bool_]], seed: int, progress: Progress) -> list[BridgePolicy]:
    """Train one policy for each fold (mask (N,) of its training steps), all at once; return them in order.

    Nothing of a fold's other steps enters its policy, neither scales nor components.
    """
    generator = torch.Generator().manual_seed(seed)
    views = [torch.from_numpy(values) for values in steps.images.values()]
    if any(size % GRID for view in views for size in view.shape[1:3]):
        sizes = [tuple(view.shape[1:3]) for view in views]
        raise BadInputError(f"the recording's images are {sizes} (allowed multiples of {GRID} px); resize them")
    proprio, chunk = torch.from_numpy(steps.proprio), torch.from_numpy(steps.chunk).float()
    masks = torch.from_numpy(np.stack(folds))
    encoders = [Encoder.fitted([view[mask] for view in views], VELOCITY_START) for mask in masks]
    with torch.no_grad():
        raw = [torch.cat([encoder(*views, proprio), proprio], dim=1) for encoder in encoders]
    centres = [inputs[mask].mean(dim=0) for inputs, mask in zip(raw, masks, strict=True)]
    widths = [inputs[mask].std(dim=0) + 1e-6 for inputs, mask in zip(raw, masks, strict=True)]
    spreads = [chunk[mask, 0].std(dim=0) for mask in masks]
    for width, spread in zip(widths, spreads, strict=True):
        width[:COMPONENTS] = 1.0  # components keep their sizes: the small ones are mostly noise
        spread[6] = 1.0  # the gripper's opening is of order 1 as it is
    x = torch.stack([(inputs - centre) / width for inputs, centre, width in zip(raw, centres, widths, strict=True)])
    targets = torch.stack([chunk / spread for spread in spreads])
    start = torch.stack([target[mask, 0].median(dim=0).values for target, mask in zip(targets, masks, strict=True)])
    ensemble = Ensemble(
        start.repeat(1, steps.chunk.shape[1])[:, None].repeat_interleave(MEMBERS, dim=0), x.shape[2], generator
    )
    weights = (masks[:, :, None] & torch.from_numpy(steps.valid)).float()
    per_member = (tensor.repeat_interleave(MEMBERS, dim=0) for tensor in (x, targets, weights))
    _minimise(ensemble, *per_member, generator=generator, progress=progress)
    policies = []
    for fold, (encoder, mask, spread) in enumerate(zip(encoders, folds, spreads, strict=True)):
        spec = action_spec(steps, mask)
        gain = spread / torch.tensor(spec.scale)
        gain[6] = 2.0  # opening 0 to 1 -> gripper action -1 to 1
        shift = torch.tensor([0.0] * 6 + [-1.0])
        members = ensemble.members(slice(fold * MEMBERS, (fold + 1) * MEMBERS))
        policies.append(
            BridgePolicy(encoder=encoder, actor=Actor(members, centres[fold], widths[fold], gain, shift), spec=spec)
        )
    return policies


def _minimise(
    ensemble: Ensemble,
    x: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    generator: torch.Generator,
    progress: Progress,
) -> None:
    """Run full-batch updates with a learning rate that falls linearly to zero."""
    decayed: list[torch.nn.Parameter] = [ensemble.inward, ensemble.outward, ensemble.straight]
    groups: list[dict[str, Any]] = [
        {"params": decayed},
        {"params": [ensemble.inward_bias, ensemble.bias], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(
        groups,
        lr=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, UPDATES)
    for update in range(UPDATES):
        optimiser.zero_grad()
        error = (ensemble.noisy(x, generator).reshape(targets.shape) - targets).abs().mean(dim=3)
        # per member, so that a member trains the same alone or beside others
        loss = ((error * weights).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))).sum()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        progress(update + 1, UPDATES)
