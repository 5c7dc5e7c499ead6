"""What an episode says about itself: the header, known at its start, and the outcome, known at its end."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, ValidationError, model_validator

from policy.episode_schema import EpisodeSpec, Name, Pixels
from policy.manifest import ActionSpec, Sha256
from policy.provenance import Provenance, Utc
from policy.stream_codec import Codec, PictureCodec, picture_codec
from robot.errors import BadInputError
from robot.strict import Strict

Version = Annotated[int, Field(ge=0)]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$")]


class Outcome(enum.StrEnum):
    """How an episode ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    TIMEOUT = "timeout"
    ABORT = "abort"
    RERECORD = "rerecord"  # the person asked for it again; kept and marked
    INCOMPLETE = "incomplete"  # the recording ended before the episode did


class LabelSource(enum.StrEnum):
    """Who said so."""

    PERSON = "person"
    TASK = "task"
    REWARD_MODEL = "reward_model"
    OPERATOR_SIMULATED = "operator_simulated"
    NONE = "none"


class Record(Strict):
    """JSON in which every float64 comes back bit for bit, NaN and infinities included."""

    model_config = ConfigDict(allow_inf_nan=True)

    def to_json(self) -> str:
        """Return one line of ASCII JSON."""
        return json.dumps(self.model_dump(mode="python"), default=_plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> Self:
        """Read what `to_json` wrote. Raises BadInputError naming `where` and the first wrong key."""
        try:
            return cls.model_validate(json.loads(text))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise BadInputError(
                f"{where}: {cls.__name__} is wrong at {key or 'the top'}: {first['msg']}; record it again"
            ) from None
        except ValueError as error:
            raise BadInputError(f"{where}: {cls.__name__} is not JSON ({error}); record it again") from None


def _plain(value: Any) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


class StreamSpec(Strict):
    """One stream of full-size frames that an episode may hold beside its rows.

    Attributes:
        camera: whose frames they are.
        codec: what the bytes of a frame are; `depth` is the camera's depth, the others its colour.
        height, width: of the full frame [px].
        quality: of a JPEG, None for the others.
    """

    camera: Name
    codec: Codec
    height: Pixels
    width: Pixels
    quality: Annotated[int, Field(ge=1, le=100)] | None = None

    @property
    def name(self) -> str:
        """Name of its group below /data/demo_0/streams."""
        return f"{self.camera}_depth" if self.codec is Codec.DEPTH else self.camera

    def picture_codec(self) -> PictureCodec:
        """Return a codec of its own, for one thread."""
        return picture_codec(self.codec, self.height, self.width, self.quality)

    @model_validator(mode="after")
    def _quality_of_jpeg_only(self) -> Self:
        if (self.quality is None) == (self.codec is Codec.JPEG):
            raise ValueError(f"quality {self.quality} for codec {self.codec}: JPEG has one, the others have none")
        return self


class EpisodeHeader(Record):
    """Everything a replay needs beside the rows, known before the first tick.

    Attributes:
        episode: index within the run, from 0.
        started_utc: e.g. 20261101T101530.123456Z.
        rate_hz: nominal tick rate [Hz].
        env_args: what robomimic-style readers look for (env_name, type, env_kwargs).
        bundle_sha256: content hash of the bundle; None where no policy ran.
        reward_sha256: content hash of the reward model; None where none looked on.
        calibrations: by camera or part, SHA-256 of the calibration in the run folder.
        weights: residual version -> SHA-256 of the weights file, those in force at the start.
        residual_scale: bound of the residual per action dimension; empty without a residual.
        filter_state, arbiter_state: as those parts gave them, opaque here.
        inference_provider: what computed the bundle's outputs, e.g. CPUExecutionProvider.
        seed: of the layout; None on a real rig.
        open_loop: True when the arm played a recording, so that `commanded` was never executed.
        streams: of full-size frames, in the order of their cameras; empty in lock-step.
    """

    schema_version: Literal[2] = 2
    run_id: RunId
    episode: Annotated[int, Field(ge=0)]
    started_utc: Utc
    rate_hz: Annotated[float, Field(gt=0.0, le=1000.0)]
    spec: EpisodeSpec
    env_args: dict[str, JsonValue]
    station_sha256: Sha256
    bundle_sha256: Sha256 | None
    reward_sha256: Sha256 | None = None
    calibrations: dict[str, Sha256] = Field(default_factory=dict)
    weights: dict[Version, Sha256] = Field(default_factory=dict)
    action: ActionSpec
    residual_scale: tuple[float, ...] = ()
    filter_state: dict[str, JsonValue]
    arbiter_state: dict[str, JsonValue]
    inference_provider: str | None = None
    seed: int | None = None
    layout: dict[str, JsonValue] = Field(default_factory=dict)
    open_loop: bool
    provenance: Provenance
    streams: tuple[StreamSpec, ...] = ()

    @property
    def file_name(self) -> str:
        """Name of the finished file."""
        return f"{self.started_utc}-{self.run_id}-{self.episode:06d}.h5"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.action.size != self.spec.action_size:
            raise ValueError(f"action has {self.action.size} dimensions, the rows {self.spec.action_size}")
        if len(self.residual_scale) not in (0, self.action.size):
            raise ValueError(f"residual_scale has {len(self.residual_scale)} values, the action {self.action.size}")
        if (self.reward_sha256 is not None) != self.spec.reward_model:
            raise ValueError(f"reward_sha256 is {self.reward_sha256}, spec.reward_model {self.spec.reward_model}")
        names = [stream.name for stream in self.streams]
        if len(set(names)) != len(names):
            raise ValueError(f"a stream is named twice: {names}")
        return self


class EpisodeOutcome(Record):
    """How an episode ended and who said so.

    Attributes:
        complete: False when ticks are missing for whatever reason.
        dropped_ticks: ticks that ran and were not recorded.
        skipped_ticks: ticks that never ran, because the loop was late; nothing of the episode is missing.
        reason: why it is incomplete or was aborted, in words.
        weights: versions taken over during the episode, beside those of the header.
        timing: on a wall clock, of this episode's ticks: count, missed deadlines, and p50, p99, p99_9 and max of
            overhead, lateness and age [ms]; empty in lock-step.
    """

    outcome: Outcome
    label_source: LabelSource
    complete: bool = True
    dropped_ticks: Annotated[int, Field(ge=0)] = 0
    skipped_ticks: Annotated[int, Field(ge=0)] = 0
    reason: str | None = None
    weights: dict[Version, Sha256] = Field(default_factory=dict)
    timing: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def success(self) -> bool:
        """True for a success, whoever said so."""
        return self.outcome is Outcome.SUCCESS

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.complete and (self.outcome is Outcome.INCOMPLETE or self.dropped_ticks):
            raise ValueError(f"{self.outcome} with {self.dropped_ticks} dropped ticks cannot be complete")
        return self

    def with_gaps(self, dropped_ticks: int, reason: str) -> EpisodeOutcome:
        """Return the same outcome, marked as not complete."""
        return self.model_copy(
            update={
                "complete": False,
                "dropped_ticks": self.dropped_ticks + dropped_ticks,
                "reason": "; ".join(filter(None, (self.reason, reason))),
            }
        )


def incomplete(reason: str) -> EpisodeOutcome:
    """Return the outcome of a recording that ended before its episode."""
    return EpisodeOutcome(
        outcome=Outcome.INCOMPLETE, label_source=LabelSource.NONE, complete=False, reason=reason or None
    )
