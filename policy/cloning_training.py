"""Behaviour cloning of a simulated station's base policy from recorded demonstrations, images and all.

Besides the person's actions the encoder learns to tell where the hand will grasp and where it will let go, which
makes the features carry positions to a millimetre or so; the chunk alone does not ask for that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from policy.cloning_demonstrations import CHUNK, Demonstrations, Progress, load_demonstrations
from policy.cloning_export import export_clone
from policy.cloning_network import Act, Encode
from policy.episode_reader import Episode
from policy.learner_checkpoint import load_checkpoint, save_checkpoint
from policy.manifest import CameraCalibration
from robot.errors import BadInputError

_SAVE_EVERY_S = 60.0
_SAMPLES = 8  # ticks on which the export is compared with torch


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How long and how wide.

    Attributes:
        updates: gradient steps.
        batch: ticks per step.
        rate: greatest learning rate of the one-cycle schedule.
        target_weight: weight of the two hindsight targets beside the actions.
        held_out: share of the episodes kept for validation.
    """

    updates: int = 3000
    batch: int = 128
    rate: float = 2e-3
    target_weight: float = 1.0
    held_out: float = 0.08


def clone_demonstrations(
    folders: Sequence[Path],
    out: Path,
    *,
    plan: TrainingPlan,
    seed: int,
    rate_hz: float,
    calibration: dict[str, CameraCalibration],
    threads: int,
    progress: Progress,
    checkpoint: Path | None = None,
) -> dict[str, float]:
    """Train on the demonstrations in `folders` and export a bundle to `out`; return validation figures.

    Args:
        folders: of episode files.
        out: folder of the bundle.
        plan: how long and how wide.
        seed: of the network's start and of what is drawn.
        rate_hz: of the demonstrations [Hz].
        calibration: where the cameras are believed to stand.
        threads: of torch.
        progress: called with updates done, updates in all and a word.
        checkpoint: file to go on from when it is there, written every minute and at the end; None for none.

    Raises:
        BadInputError: the demonstrations cannot be used together, or the checkpoint is of another training.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    demos, first = load_demonstrations(folders, progress)
    training = _Training(demos, first, plan, seed)
    training.about |= {
        "rate_hz": rate_hz,
        "calibration": {name: where.model_dump(mode="json") for name, where in calibration.items()},
    }
    if checkpoint is not None and checkpoint.exists():
        training.resume(checkpoint)
    training.run(progress, checkpoint)
    figures = training.validate()
    training.about["figures"] = figures
    if checkpoint is not None:
        save_checkpoint(checkpoint, training.state())
    export_clone(training.state(), out)
    return figures


class _Training:
    """Networks, optimiser, schedule and random state: what a checkpoint holds."""

    def __init__(self, demos: Demonstrations, first: Episode, plan: TrainingPlan, seed: int) -> None:
        spec, action = first.header.spec, first.header.action
        self._plan, self._demos = plan, demos
        self._bound = 1.0 - action.headroom
        mean, std = (torch.from_numpy(part) for part in (demos.proprio.mean(0), demos.proprio.std(0).clip(1e-3)))
        _, height, width = spec.cameras[0]
        self._targets = demos.targets.shape[1]
        self.encode = Encode(height, width, self._targets, mean, std)
        self.act = Act(CHUNK, action.size, self._targets, self._bound, mean, std)
        self._parameters = [*self.encode.parameters(), *self.act.parameters()]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=plan.rate, weight_decay=1e-4)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, plan.rate, total_steps=plan.updates, pct_start=0.1
        )
        self._rng = np.random.default_rng(seed)
        self._updates = 0
        self._spread = np.nanstd(demos.targets, axis=0)
        self._wanted = torch.from_numpy(demos.targets / self._spread)
        self._chunks = torch.from_numpy(demos.chunks.clip(-self._bound, self._bound))
        self._proprio = torch.from_numpy(demos.proprio)
        self._images = [torch.from_numpy(images) for images in demos.images.values()]
        last = max(1, int(plan.held_out * (demos.episode[-1] + 1)))
        self._validation = np.flatnonzero(demos.episode < last)
        self._training = np.flatnonzero(demos.episode >= last)
        if not len(self._training):
            raise BadInputError(f"demonstrations: {last} episodes, one is kept for validation; record more")
        pick = np.random.default_rng(seed).choice(len(demos.proprio), min(_SAMPLES, len(demos.proprio)), replace=False)
        self._samples = {name: images[pick] for name, images in demos.images.items()}
        self._sample_proprio = demos.proprio[pick]
        # what an export needs beside the networks
        self.about: dict[str, Any] = {
            "cameras": [list(camera) for camera in spec.cameras],
            "proprio": [list(entry) for entry in spec.proprio],
            "action": action.model_dump(mode="json"),
            "episodes": int(demos.episode[-1]) + 1,
            "ticks": len(demos.proprio),
            "seed": seed,
            "plan": dataclasses.asdict(plan),
            "data_sha256": hashlib.sha256(demos.chunks.tobytes() + demos.targets.tobytes()).hexdigest(),
        }

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the training and the export depend on."""
        return {
            "about": self.about,
            "updates": self._updates,
            "encode": self.encode.state_dict(),
            "act": self.act.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "rng": self._rng.bit_generator.state,
            "sample_images": self._samples,
            "sample_proprio": self._sample_proprio,
        }

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint. Raises BadInputError when it is of another training."""
        state = load_checkpoint(path)
        for name in ("data_sha256", "seed", "plan"):
            made = state.get("about", {}).get(name)
            if made != self.about[name]:
                what = "other demonstrations" if name == "data_sha256" else f"{name} {made} (now {self.about[name]})"
                raise BadInputError(f"{path}: made with {what}; move it away or name another with --checkpoint")
        self.encode.load_state_dict(state["encode"])
        self.act.load_state_dict(state["act"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._rng.bit_generator.state = state["rng"]
        self._updates = state["updates"]

    def run(self, progress: Progress, checkpoint: Path | None) -> None:
        """Make the updates that are still to be made."""
        saved_s = time.monotonic()
        try:
            while self._updates < self._plan.updates:
                loss = self._update()
                progress(self._updates, self._plan.updates, f"training, loss {loss:.3f}")
                if checkpoint is not None and time.monotonic() - saved_s >= _SAVE_EVERY_S:
                    save_checkpoint(checkpoint, self.state())
                    saved_s = time.monotonic()
        except (KeyboardInterrupt, SystemExit):
            if checkpoint is not None:
                save_checkpoint(checkpoint, self.state())
            raise

    def _update(self) -> float:
        rows = torch.from_numpy(self._rng.choice(self._training, self._plan.batch))
        # bfloat16 is what makes this bearable on a CPU: seven times faster here than float32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = self.encode(*(image[rows] for image in self._images), self._proprio[rows])
            chunk = self.act(features, self._proprio[rows])
        loss = functional.l1_loss(chunk.float(), self._chunks[rows])
        loss = loss + self._plan.target_weight * _target_loss(features[:, -self._targets :].float(), self._wanted[rows])
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        self._schedule.step()
        self._updates += 1
        return float(loss.detach())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Median miss of the targets in the table's plane [mm] and mean miss of the actions, on unseen episodes."""
        misses, actions = [], []
        for start in range(0, len(self._validation), 512):
            part = torch.from_numpy(self._validation[start : start + 512])
            features = self.encode(*(image[part] for image in self._images), self._proprio[part])
            misses.append(features[:, -self._targets :].numpy() * self._spread - self._demos.targets[part.numpy()])
            actions.append((self.act(features, self._proprio[part]) - self._chunks[part]).abs().mean().item())
        miss_mm: NDArray[np.float64] = np.concatenate(misses).reshape(-1, self._targets // 3, 3) * 1e3
        names = ["validation_grasp_mm", "validation_release_mm"][-miss_mm.shape[1] :]
        median_mm = np.nanmedian(np.linalg.norm(miss_mm[:, :, :2], axis=2), axis=0)
        return {
            **{name: round(float(value), 2) for name, value in zip(names, median_mm, strict=True)},
            "validation_action": round(float(np.mean(actions)), 4),
        }


def _target_loss(guess: Tensor, wanted: Tensor) -> Tensor:
    known = torch.isfinite(wanted)
    miss = functional.smooth_l1_loss(guess, torch.where(known, wanted, guess.detach()), beta=0.05, reduction="none")
    return (miss * known).sum() / known.sum().clamp(min=1)
