"""From logged episodes to an exported reward model with its figures on episodes that it never saw."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy.manifest import CameraInput, ProprioInput
from policy.reward_calibration import Judged, Per, calibration_report, choose_threshold, fit_log_odds
from policy.reward_export import export_reward_model
from policy.reward_frames import NONE, LabelledEpisode, Splits
from policy.reward_manifest import RewardCalibration
from policy.reward_network import RewardGraph
from policy.reward_rule import RewardRule
from policy.reward_training import Progress, RewardPlan, Trained, episode_logits, train_reward
from robot.errors import BadInputError

_SAMPLES = 16  # frames on which the export is compared with torch


@dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """What a person chose.

    Attributes:
        cameras: whose pictures the model sees; all when empty.
        proprio: keys of the proprioception that it sees.
        positive_s: a frame shows success in this time before the end of a success [s].
        debounce_ticks: ticks in a row over the threshold.
        allowed: false-positive rate on the calibration split.
        per: whether that rate is of frames or of episodes.
    """

    cameras: tuple[str, ...] = ()
    proprio: tuple[str, ...] = ()
    positive_s: float = 0.3
    debounce_ticks: int = 3
    allowed: float = 0.05
    per: Per = "episode"


@dataclass(frozen=True, kw_only=True)
class MadeReward:
    """An exported reward model and what is known of it.

    Attributes:
        calibration: figures of the held-out episodes.
        held_out: those episodes as it saw them.
        trained: its training.
    """

    folder: Path
    calibration: RewardCalibration
    held_out: tuple[Judged, ...]
    trained: Trained


def make_reward_model(
    folder: Path,
    splits: Splits,
    options: RewardOptions,
    plan: RewardPlan,
    *,
    seed: int,
    threads: int,
    progress: Progress,
) -> MadeReward:
    """Train on one split, stop and choose the threshold on the second, report on the third, and export.

    Raises:
        BadInputError: the episodes have no such camera or proprioception, or the folder holds something else.
        ExportError: ONNX Runtime computes something else than torch.
    """
    header = splits.training[0].episode.header
    cameras, proprio = _inputs(splits.training[0], options)
    names, keys = [camera.name for camera in cameras], [entry.key for entry in proprio]
    trained = train_reward(
        splits.training,
        splits.calibration,
        cameras=names,
        proprio=keys,
        plan=plan,
        seed=seed,
        threads=threads,
        progress=progress,
    )
    logit = list(episode_logits(trained.network, splits.calibration, names, keys))
    label = np.concatenate([episode.label for episode in splits.calibration])
    slope, offset = fit_log_odds(np.concatenate(logit)[label >= NONE], label[label >= NONE])
    chosen = _judged(splits.calibration, names, logit, slope, offset)
    threshold = choose_threshold(
        chosen, debounce_ticks=options.debounce_ticks, allowed=options.allowed, per=options.per
    )
    rule = RewardRule(threshold=threshold, debounce_ticks=options.debounce_ticks)
    unseen = episode_logits(trained.network, splits.held_out, names, keys)
    held_out = _judged(splits.held_out, names, list(unseen), slope, offset)
    calibration = calibration_report(
        held_out, rule, allowed=options.allowed, per=options.per, positive_s=options.positive_s
    )
    samples = next(episode for episode in splits.held_out if len(episode.rows))
    places = np.unique(np.linspace(0, len(samples.rows) - 1, _SAMPLES).astype(np.int64))
    images, values = samples.inputs(names, keys, places)
    export_reward_model(
        folder,
        graph=RewardGraph(trained.network, slope, offset),
        rate_hz=header.rate_hz,
        cameras=cameras,
        proprio=proprio,
        rule=rule,
        calibration=calibration,
        training=_facts(splits, trained, plan, seed),
        images=images,
        values=values,
    )
    return MadeReward(folder=folder, calibration=calibration, held_out=tuple(held_out), trained=trained)


def _inputs(episode: LabelledEpisode, options: RewardOptions) -> tuple[list[CameraInput], list[ProprioInput]]:
    """Return what the model will take. Raises BadInputError for what the episodes do not have."""
    spec = episode.episode.header.spec
    sizes = {name: (height, width) for name, height, width in spec.cameras}
    widths = dict(spec.proprio)
    for what, asked, there in (("camera", options.cameras, sizes), ("proprio", options.proprio, widths)):
        for name in asked:
            if name not in there:
                raise BadInputError(f"--{what} {name}: the episodes have none (they have {', '.join(there) or 'none'})")
    cameras = [CameraInput(name=name, height=sizes[name][0], width=sizes[name][1]) for name in options.cameras or sizes]
    return cameras, [ProprioInput(key=key, size=widths[key]) for key in options.proprio]


def _judged(
    episodes: Sequence[LabelledEpisode],
    cameras: Sequence[str],
    logit: Sequence[np.ndarray],
    slope: float,
    offset: float,
) -> list[Judged]:
    return [
        Judged(
            success=episode.success,
            label=episode.label,
            probability=1.0 / (1.0 + np.exp(-(slope * found + offset))),
            repeated=episode.repeated(cameras),
            name=episode.episode.path.name,
        )
        for episode, found in zip(episodes, logit, strict=True)
    ]


def _facts(splits: Splits, trained: Trained, plan: RewardPlan, seed: int) -> dict[str, str | int | float]:
    """Facts that tell one model from another; the digest is of who was in which split, and of all labels."""
    digest = hashlib.sha256()
    for part in splits:
        for episode in part:
            digest.update(f"{episode.episode.identity} ".encode() + episode.label.tobytes())
        digest.update(b";")
    counts = {f"{name}_episodes": len(part) for name, part in zip(Splits._fields, splits, strict=True)}
    return {
        **counts,
        "frames": trained.frames,
        "positive_frames": trained.positives,
        "updates": trained.updates,
        "seed": seed,
        "data_sha256": digest.hexdigest(),
        **{name: value for name, value in dataclasses.asdict(plan).items() if name != "updates"},
    }
