"""Behaviour cloning of the base policy from recorded demonstrations, images and all.

Besides the person's actions the encoder learns to tell where the hand will grasp and where it will let go. Both
are read off each demonstration in hindsight, so nothing but the log is used; they make the features carry
positions to a millimetre or so, which the chunk alone does not ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from policy.episode_reader import Episode, latest_revisions
from policy.export import Sample, export_bundle
from policy.manifest import CameraCalibration, CameraInput, ProprioInput
from policy.place_network import TARGETS, Act, Encode
from robot.errors import BadInputError

Progress = Callable[[int, int, str], None]
CHUNK = 8
EXECUTE = 4
_HUMAN = 1


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


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """All usable ticks of all episodes.

    Attributes:
        images: per camera, (N, H, W, 3) uint8.
        proprio: (N, P) float32.
        chunks: what the person did in the H ticks from here, (N, H, A) float32.
        targets: xyz to the grasp and to the release from here, (N, 6) float32 [m]; NaN once it is past.
        episode: which episode, (N,).
    """

    images: dict[str, NDArray[np.uint8]]
    proprio: NDArray[np.float32]
    chunks: NDArray[np.float32]
    targets: NDArray[np.float32]
    episode: NDArray[np.int64]


def load_demonstrations(folders: Sequence[Path], progress: Progress) -> tuple[Demonstrations, Episode]:
    """Read the successful episodes of `folders`; return them and the first one for its header.

    Raises:
        BadInputError: there are none, or they differ in their cameras, proprioception or actions.
    """
    episodes = [episode for folder in folders for episode in latest_revisions(folder) if episode.outcome.success]
    if not episodes:
        raise BadInputError(f"{', '.join(map(str, folders))}: no successful episodes; record some with record_demos.py")
    spec, action = episodes[0].header.spec, episodes[0].header.action
    parts: list[dict[str, NDArray[np.generic]]] = []
    for number, episode in enumerate(episodes):
        if episode.header.spec != spec or episode.header.action != action:
            raise BadInputError(
                f"episode {episode.path}: cameras, proprioception or actions differ from {episodes[0].path}; "
                "train on episodes of one station"
            )
        parts.append(_ticks(episode))
        progress(number + 1, len(episodes), "reading")
    stacked = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    count = [len(part["proprio"]) for part in parts]
    return Demonstrations(
        images={name: stacked[name].astype(np.uint8, copy=False) for name, _, _ in spec.cameras},
        proprio=stacked["proprio"].astype(np.float32),
        chunks=stacked["chunks"].astype(np.float32),
        targets=stacked["targets"].astype(np.float32),
        episode=np.repeat(np.arange(len(parts)), count),
    ), episodes[0]


def _ticks(episode: Episode) -> dict[str, NDArray[np.generic]]:
    spec = episode.header.spec
    names = [f"obs/{name}_image" for name, _, _ in spec.cameras] + [f"obs/{key}" for key, _ in spec.proprio]
    arrays = episode.arrays([*names, "tick/human", "tick/source", "tick/T_base_tcp", "tick/gripper_width_m"])
    rows = np.flatnonzero(arrays["tick/source"] == _HUMAN)
    human = np.asarray(arrays["tick/human"], np.float32)[rows]
    ahead = np.minimum(np.arange(len(rows))[:, None] + np.arange(CHUNK), len(rows) - 1)
    position = np.asarray(arrays["tick/T_base_tcp"], np.float64)[rows, :3, 3]
    ticks: dict[str, NDArray[np.generic]] = {name: arrays[f"obs/{name}_image"][rows] for name, _, _ in spec.cameras}
    ticks["proprio"] = np.concatenate(
        [np.reshape(arrays[f"obs/{key}"], (len(arrays["tick/source"]), -1))[rows] for key, _ in spec.proprio], axis=1
    )
    ticks["chunks"] = human[ahead]
    gripper = list(episode.header.action.dims).index("gripper")
    ticks["targets"] = _hindsight(position, closing=human[:, gripper] < 0.0)
    return ticks


def _hindsight(position_m: NDArray[np.float64], *, closing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Offsets (N, 6) to the last grasp and to the release after it; the grasp is unknown once it is past."""
    shut = np.flatnonzero(closing)
    release = int(shut[-1]) if len(shut) else len(position_m) - 1
    before = np.flatnonzero(~closing[:release])
    grasp = int(before[-1]) + 1 if len(before) else 0
    targets = np.concatenate([position_m[grasp] - position_m, position_m[release] - position_m], axis=1)
    targets[grasp + 1 :, :3] = np.nan
    targets[release + 1 :, 3:] = np.nan
    return targets


def train_place(
    folders: Sequence[Path],
    out: Path,
    *,
    plan: TrainingPlan,
    seed: int,
    rate_hz: float,
    calibration: dict[str, CameraCalibration],
    threads: int,
    progress: Progress,
) -> dict[str, float]:
    """Train on the demonstrations in `folders` and export a bundle to `out`; return validation figures."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    demos, first = load_demonstrations(folders, progress)
    spec, action = first.header.spec, first.header.action
    mean, std = demos.proprio.mean(0), demos.proprio.std(0).clip(1e-3)
    _, height, width = spec.cameras[0]
    encode = Encode(height, width, torch.from_numpy(mean), torch.from_numpy(std))
    bound = 1.0 - action.headroom
    act = Act(CHUNK, action.size, bound, torch.from_numpy(mean), torch.from_numpy(std))
    figures = _fit(encode, act, demos, plan, seed, bound, progress)
    pick = np.random.default_rng(seed).choice(len(demos.proprio), 8, replace=False)
    export_bundle(
        out,
        encode=encode,
        act=act,
        name=out.name,
        version=1,
        rate_hz=rate_hz,
        cameras=[CameraInput(name=name, height=h, width=w) for name, h, w in spec.cameras],
        proprio=[ProprioInput(key=key, size=size) for key, size in spec.proprio],
        action=action,
        execute_steps=EXECUTE,
        calibration=calibration,
        training={
            "episodes": int(demos.episode[-1]) + 1,
            "ticks": len(demos.proprio),
            "updates": plan.updates,
            "seed": seed,
            **figures,
        },
        samples=[
            Sample(images={name: demos.images[name][i] for name, _, _ in spec.cameras}, proprio=demos.proprio[i])
            for i in pick
        ],
    )
    return figures


def _fit(
    encode: Encode,
    act: Act,
    demos: Demonstrations,
    plan: TrainingPlan,
    seed: int,
    bound: float,
    progress: Progress,
) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    spread = np.nanstd(demos.targets, axis=0)
    wanted = torch.from_numpy(demos.targets / spread)
    chunks = torch.from_numpy(demos.chunks.clip(-bound, bound))
    proprio = torch.from_numpy(demos.proprio)
    images = [torch.from_numpy(images) for images in demos.images.values()]
    last = max(1, int(plan.held_out * (demos.episode[-1] + 1)))
    validation = np.flatnonzero(demos.episode < last)
    training = np.flatnonzero(demos.episode >= last)
    parameters = [*encode.parameters(), *act.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=plan.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, total_steps=plan.updates, pct_start=0.1)
    for update in range(plan.updates):
        rows = torch.from_numpy(rng.choice(training, plan.batch))
        # bfloat16 is what makes this bearable on a CPU: seven times faster here than float32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = encode(*(image[rows] for image in images), proprio[rows])
            chunk = act(features, proprio[rows])
        loss = functional.l1_loss(chunk.float(), chunks[rows])
        loss = loss + plan.target_weight * _target_loss(features[:, -TARGETS:].float(), wanted[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        progress(update + 1, plan.updates, f"training, loss {float(loss.detach()):.3f}")
    return _validate(encode, act, images, proprio, chunks, demos.targets, spread, validation)


def _target_loss(guess: Tensor, wanted: Tensor) -> Tensor:
    known = torch.isfinite(wanted)
    miss = functional.smooth_l1_loss(guess, torch.where(known, wanted, guess.detach()), beta=0.05, reduction="none")
    return (miss * known).sum() / known.sum().clamp(min=1)


@torch.no_grad()
def _validate(
    encode: Encode,
    act: Act,
    images: Sequence[Tensor],
    proprio: Tensor,
    chunks: Tensor,
    targets_m: NDArray[np.float32],
    spread_m: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> dict[str, float]:
    """Median miss of the targets in the table's plane [mm] and mean miss of the actions, on unseen episodes."""
    misses, actions = [], []
    for start in range(0, len(rows), 512):
        part = torch.from_numpy(rows[start : start + 512])
        features = encode(*(image[part] for image in images), proprio[part])
        misses.append(features[:, -TARGETS:].numpy() * spread_m - targets_m[part.numpy()])
        actions.append((act(features, proprio[part]) - chunks[part]).abs().mean().item())
    miss_mm = np.concatenate(misses) * 1e3
    grasp, release = np.linalg.norm(miss_mm[:, :2], axis=1), np.linalg.norm(miss_mm[:, 3:5], axis=1)
    return {
        "validation_grasp_mm": round(float(np.nanmedian(grasp)), 2),
        "validation_release_mm": round(float(np.nanmedian(release)), 2),
        "validation_action": round(float(np.mean(actions)), 4),
    }
