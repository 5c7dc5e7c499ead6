"""Episodes for tests of reward models: success is plain to see, as the picture turns red."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from policy.episode_commit import commit_episode
from policy.episode_header import EpisodeHeader, EpisodeOutcome, LabelSource, Outcome
from policy.episode_schema import EpisodeSpec, seal
from policy.episode_writer import EpisodeWriter
from tests.episodes import header, make_rows

SPEC = EpisodeSpec(
    cameras=(("front", 16, 18), ("wrist", 16, 18)),
    proprio=(("tcp_position_m", 3), ("gripper_width_m", 1)),
    action_size=4,
    chunk_length=2,
    feature_size=2,
    joint_count=7,
)
RESET_TICKS, TICKS = 3, 24
RED_TICKS = 6


def reward_header(episode: int, *, layout: int | None = None, reward_sha256: str | None = None) -> EpisodeHeader:
    spec = SPEC.model_copy(update={"reward_model": reward_sha256 is not None})
    made = header(episode, SPEC)
    described = {} if layout is None else {"block_m": [0.1 * layout, 0.2]}
    return made.model_copy(
        update={"spec": spec, "layout": described, "reward_sha256": reward_sha256, "run_id": "reward-1"}
    )


def make_episode(
    folder: Path,
    episode: int,
    outcome: Outcome,
    *,
    red: bool | None = None,
    source: LabelSource = LabelSource.TASK,
    layout: int | None = None,
    reward_sha256: str | None = None,
    complete: bool = True,
) -> Path:
    """Commit an episode whose last `RED_TICKS` pictures of the front camera are red, by default if it is a success."""
    folder.mkdir(parents=True, exist_ok=True)
    red = outcome is Outcome.SUCCESS if red is None else red
    made = reward_header(episode, layout=layout, reward_sha256=reward_sha256)
    rng = np.random.default_rng(episode)
    writer = EpisodeWriter(folder, made)
    for tick, row in enumerate(make_rows(TICKS, made.spec, seed=episode)):
        row["tick/start_s"] = 100.0 + 0.05 * tick
        row["tick/reset"] = 0.0 if tick < RESET_TICKS else np.nan
        row["tick/frame_id"] = tick
        row["tick/verdict"] = row["tick/overrun"] = 0
        for camera in ("front", "wrist"):
            row[f"obs/{camera}_image"] = rng.integers(60, 120, (16, 18, 3), np.uint8)
        if red and tick >= TICKS - RED_TICKS:
            row["obs/front_image"][4:10, 4:10] = (230, 20, 20)
        for key, _ in made.spec.proprio:
            row[f"obs/{key}"] = rng.normal()
        seal(row)
        writer.append(row)
    label = EpisodeOutcome(outcome=outcome, label_source=source, complete=complete)
    return commit_episode(writer.finish(label)).path
