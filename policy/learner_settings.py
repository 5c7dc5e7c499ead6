"""What a learner process is told when it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from policy.episode_header import RunId
from policy.hindsight import LevelMotion
from policy.manifest import Sha256
from policy.observation_history import PRESENT, HistoryTicks
from policy.residual import Dims
from robot.errors import BadInputError
from robot.strict import Strict

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Method = Literal["handrail", "hg_dagger", "resfit", "rlpd"]


class LockStep(Strict):
    """A fixed number of updates and one version per episode: the same numbers on every run of a seed.

    The weights after the k-th episode (counted from 1) have version k, or k + 1 when offline updates made a first one.
    """

    mode: Literal["lock_step"] = "lock_step"
    updates_per_episode: Count


class FreeRunning(Strict):
    """Updates as fast as they go, within bounds per new tick.

    Attributes:
        min_updates_per_tick: below it the learner publishes nothing and says that it is behind.
        max_updates_per_tick: at it the learner waits for the robot.
        publish_every_updates: how often weights go to the robot.
    """

    mode: Literal["free_running"] = "free_running"
    min_updates_per_tick: Annotated[float, Field(ge=0.0, le=100.0)] = 0.25
    max_updates_per_tick: Annotated[float, Field(gt=0.0, le=100.0)] = 4.0
    publish_every_updates: Positive = 50

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_updates_per_tick > self.max_updates_per_tick:
            raise ValueError(
                f"min_updates_per_tick {self.min_updates_per_tick} exceeds "
                f"max_updates_per_tick {self.max_updates_per_tick}"
            )
        return self


class LearnerSettings(Strict):
    """Settings of one learner process.

    Attributes:
        state_dir: folder of the checkpoint and the stored episodes; a learner started on it again goes on there.
        run_id: named in the weights messages.
        bundle_sha256: content hash of the base policy whose features are learned on.
        feature_size, proprio_size, action_size: F, P and A of that base, at one tick.
        history: how many ticks of the former two the residual sees.
        action_names: of the action's dimensions, for messages; their numbers when empty.
        endpoint: where robots connect, e.g. tcp://127.0.0.1:5757, `*` for any free port, or ipc://PATH;
            None learns offline, from `episodes` and `demonstrations` alone, and ends.
        seed: of the networks and of what is drawn from the buffer.
        schedule: when updates are made and weights published.
        n_step: greatest window of a return [ticks].
        discount: gamma of one tick.
        doubt_ticks: of the policy before a takeover that do not count as approved.
        cut_at_handover: windows end at a takeover and at a handback.
        hindsight: how actions move the arm across the table, for what a takeover says of the ticks of doubt before it;
            None lets it say nothing.
        batch_size: transitions per update.
        shown_share: of a batch that is from demonstrations and corrections, where there are any.
        min_transitions: no update before so many are there.
        max_frames: of the replay buffer.
        replay_ram_mb: a replay buffer of up to this size is read and checked whole at the start; a larger one is read
            as it is drawn from [MB].
        prefetch: batches are drawn in a thread of their own; changes no number.
        device: where updates are made: "cpu", "cuda", or "auto" for cuda where there is one. Not part of a checkpoint.
        method: the algorithm, see `policy.learner_method`.
        algorithm: its fields, for "handrail" those of `LearnerConfig`.
        demonstrations, episodes: folders of episode files to start from; a person drove the former. A learner that goes
            on refuses what it did not start from.
        offline_updates: made on those before the first live episode.
        threads: of torch. More than one pays only where a core is free, for they wait for each other by spinning.
        niceness: added to the process, so that the control loop goes first.
        checkpoint_every_s: wall time between checkpoints [s].
    """

    state_dir: Path
    run_id: RunId
    bundle_sha256: Sha256
    feature_size: Annotated[int, Field(ge=1, le=4096)]
    proprio_size: Annotated[int, Field(ge=0, le=4096)]
    action_size: Annotated[int, Field(ge=1, le=64)]
    history: HistoryTicks = PRESENT
    action_names: tuple[str, ...] = ()
    endpoint: str | None = "tcp://127.0.0.1:*"
    seed: Count = 0
    schedule: Annotated[LockStep | FreeRunning, Field(discriminator="mode")] = FreeRunning()
    n_step: Annotated[int, Field(ge=1, le=50)] = 3
    discount: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    doubt_ticks: Count = 0
    cut_at_handover: bool = True
    hindsight: LevelMotion | None = None
    batch_size: Annotated[int, Field(ge=2, le=65536)] = 256
    shown_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    min_transitions: Positive = 256
    max_frames: Annotated[int, Field(ge=1, le=500_000_000)] = 1_000_000
    replay_ram_mb: Count = 2048
    prefetch: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    method: Method = "handrail"
    algorithm: dict[str, JsonValue] = Field(default_factory=dict)
    demonstrations: tuple[Path, ...] = ()
    episodes: tuple[Path, ...] = ()
    offline_updates: Count = 0
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    niceness: Annotated[int, Field(ge=0, le=19)] = 5
    checkpoint_every_s: Annotated[float, Field(gt=0.0)] = 20.0

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.action_names and len(self.action_names) != self.action_size:
            raise ValueError(f"action_names are {len(self.action_names)}, action_size is {self.action_size}")
        if self.hindsight is not None and max(*self.hindsight.dims, self.hindsight.gripper or 0) >= self.action_size:
            raise ValueError(f"hindsight names dimension {self.hindsight}, action_size is {self.action_size}")
        return self

    @property
    def dims(self) -> Dims:
        """Sizes of what the residual takes and gives."""
        return Dims(
            features=self.feature_size * self.history.features_ticks,
            proprio=self.proprio_size * self.history.proprio_ticks,
            action=self.action_size,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint depends on: a learner that goes on must have the same, and no more."""
        same = (
            "bundle_sha256",
            "feature_size",
            "proprio_size",
            "action_size",
            "seed",
            "n_step",
            "discount",
            "doubt_ticks",
            "cut_at_handover",
            "hindsight",
            "shown_share",
        )
        windows = {"history"} if self.history.longest > 1 else set()
        return self.model_dump(mode="json", include={*same, *windows, "max_frames", "method", "algorithm"})


def load_settings(path: Path) -> LearnerSettings:
    """Read settings from JSON. Raises BadInputError naming the first wrong key."""
    try:
        return LearnerSettings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror}); name a learner settings file") from error
    except ValidationError as error:
        raise BadInputError(f"{path}: {first_fault(error)}") from error


def first_fault(error: ValidationError) -> str:
    """Say in one line where the first wrong value is, what is wrong with it and what it was."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the top"
    return f"wrong at {where}: {first['msg']} (got {str(first['input'])[:80]!r})"
