"""Steps of recorded WidowX episodes as a policy sees them, which episodes are held out, and action statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perception.proprioception import proprioception
from perception.recorded_camera import RecordedCamera
from robot.clock import VirtualClock
from robot.errors import BadInputError
from robot.recorded_arm import RecordedArm
from robot.recording import RecordedEpisode, Recording

Array = NDArray[np.float64]

DIMS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
# camera of the station -> dataset of the recording
VIEWS = {"view_0": "image_0", "view_1": "image_1", "view_2": "image_2"}
PROPRIO = {"tcp_position_m": 3, "tcp_quat_xyzw": 4, "tcp_velocity": 6, "gripper_width_m": 1}
# span between the fingers of the WidowX 250 (Interbotix X-Series specification: 30 mm to 74 mm)
GRIPPER_OPEN_M = 0.074
GRIPPER_CLOSED_M = 0.030


def held_out(episode: RecordedEpisode) -> bool:
    """Return whether an episode is kept from training: a quarter, by its content, whatever its name or place."""
    return int(episode.digest[:8], 16) % 4 == 0


def step_digests(episode: RecordedEpisode) -> tuple[str, ...]:
    """Eight hex digits for each step; a bundle lists those it was trained on, so that parts of an episode show too."""
    rows = np.concatenate([episode.T_base_tcp.reshape(len(episode), 16), episode.action], axis=1).round(5)
    return tuple(hashlib.sha256((row + 0.0).tobytes()).hexdigest()[:8] for row in rows)


def was_seen(episode: RecordedEpisode, training: Mapping[str, str | int | float]) -> bool:
    """Return whether a bundle with these training facts was trained on any step of `episode`."""
    return not set(step_digests(episode)).isdisjoint(str(training.get("train_steps", "")).split())


def unseen(recording: Recording, training: Mapping[str, str | int | float]) -> list[int]:
    """Return the numbers of the episodes on which a bundle with these training facts can be judged.

    Raises:
        BadInputError: it was trained on all of them.
    """
    numbers = [n for n, episode in enumerate(recording.episodes) if not was_seen(episode, training)]
    if not numbers:
        raise BadInputError(
            f"recording {recording.path}: the bundle was trained on all {len(recording.episodes)} episodes (at least 1"
            " must be unseen); give a recording with others"
        )
    return numbers


@dataclass(frozen=True, kw_only=True)
class ActionStatistics:
    """Mean and spread (population standard deviation) of the operator's actions in the training episodes.

    Attributes:
        mean: shape (7,), SI units; the gripper as opening, 0 to 1.
        spread: shape (7,), the same units.
    """

    mean: Array
    spread: Array

    @classmethod
    def of(cls, episodes: Sequence[RecordedEpisode]) -> Self:
        """Compute them over all steps of `episodes`."""
        actions = np.concatenate([episode.action for episode in episodes])
        return cls(mean=actions.mean(axis=0), spread=actions.std(axis=0))

    @classmethod
    def from_training(cls, training: Mapping[str, str | int | float], where: str) -> Self:
        """Read them back from a manifest's training facts. Raises BadInputError when they are not there."""
        try:
            mean, spread = (np.array([float(training[f"{kind}_{dim}"]) for dim in DIMS]) for kind in ("mean", "spread"))
        except (KeyError, ValueError) as error:
            raise BadInputError(
                f"{where}: training facts lack {error}; an open-loop report needs a bundle trained on recordings"
            ) from error
        return cls(mean=mean, spread=spread)

    def facts(self) -> dict[str, str | int | float]:
        """Return them as training facts of a manifest."""
        return {
            f"{kind}_{dim}": float(value)
            for kind, values in (("mean", self.mean), ("spread", self.spread))
            for dim, value in zip(DIMS, values, strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class Steps:
    """N steps of some episodes, as the loop would show them to a policy.

    Attributes:
        images: per camera, shape (N, H, W, 3) uint8.
        proprio: shape (N, P), float32, the keys of `PROPRIO`.
        chunk: the operator's actions of this and the next steps, shape (N, C, 7); 0 beyond the episode's end.
        valid: which of those exist, shape (N, C).
        episode: number of each step's episode in the recording, shape (N,).
    """

    images: dict[str, NDArray[np.uint8]]
    proprio: NDArray[np.float32]
    chunk: Array
    valid: NDArray[np.bool_]
    episode: NDArray[np.int64]


def play(recording: Recording, chunk_length: int) -> Steps:
    """Play all episodes through the arm and camera drivers, so that training sees what the loop will see."""
    missing = set(VIEWS.values()) - set(recording.views)
    if missing:
        raise BadInputError(f"recording {recording.path}: it lacks {sorted(missing)}; the policy takes three views")
    clock = VirtualClock()
    cameras = [RecordedCamera(recording, name, view) for name, view in VIEWS.items()]
    arm = RecordedArm(recording, clock, gripper_open_m=GRIPPER_OPEN_M, gripper_closed_m=GRIPPER_CLOSED_M)
    images: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in VIEWS}
    proprio, chunks, valid, numbers = [], [], [], []
    for number in range(len(recording.episodes)):
        start_s = clock.now_s()
        episode = recording.select(number, start_s)
        actions = np.concatenate([episode.action, np.zeros((chunk_length, 7))])
        for step in range(len(episode)):
            clock.sleep_until(start_s + step / recording.rate_hz)
            for camera in cameras:
                (stamp,) = camera.recent(clock.now_s(), 1)
                frame = camera.frame(stamp)
                assert frame is not None
                images[camera.name].append(frame.rgb)
            proprio.append(proprioception(arm.state(), tuple(PROPRIO)))
            chunks.append(actions[step : step + chunk_length])
            valid.append(np.arange(step, step + chunk_length) < len(episode))
            numbers.append(number)
        clock.sleep_until(start_s + len(episode) / recording.rate_hz)
    return Steps(
        images={name: np.stack(frames) for name, frames in images.items()},
        proprio=np.stack(proprio),
        chunk=np.stack(chunks),
        valid=np.stack(valid),
        episode=np.array(numbers),
    )
