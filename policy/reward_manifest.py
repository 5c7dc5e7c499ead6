"""The manifest of an exported reward model: what it sees, when it says success, and how well it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policy.manifest import CameraInput, EntryPoint, ProprioInput, Sha256
from policy.model_folder import FolderKind, read_manifest_of
from robot.strict import Strict

REWARD_MANIFEST_FILE = "reward.json"
REWARD_SCHEMA_VERSION = 1
REWARD_MODEL = FolderKind(
    what="reward model",
    file=REWARD_MANIFEST_FILE,
    schema_version=REWARD_SCHEMA_VERSION,
    script="train_reward_model.py",
    again="train the reward model again",
    verb="train",
)

Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Threshold = Annotated[float, Field(gt=0.0, lt=1.0)]
MAX_DEBOUNCE_TICKS = 200
DebounceTicks = Annotated[int, Field(ge=1, le=MAX_DEBOUNCE_TICKS)]


class Rate(Strict):
    """A share that was counted, with its 95 % Wilson interval. `of` 0 leaves the interval at (0, 1)."""

    count: Count
    of: Count
    low: Probability
    high: Probability

    @property
    def rate(self) -> float | None:
        """The share itself, None of nothing."""
        return self.count / self.of if self.of else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.count > self.of or self.low > self.high:
            raise ValueError(f"{self.count} of {self.of} with an interval from {self.low} to {self.high}")
        return self


class FrameFigures(Strict):
    """Each frame by itself, at the threshold and without debounce.

    Attributes:
        precision: of the frames over the threshold, those that show success.
        recall: of the frames that show success, those over the threshold.
        false_positives: of the frames that show none, those over the threshold.
        brier: mean squared difference between probability and truth.
        ece: expected calibration error over ten equal bins of the probability.
    """

    precision: Rate
    recall: Rate
    false_positives: Rate
    brier: Probability
    ece: Probability


class EpisodeFigures(Strict):
    """Each episode as the robot would have seen it: threshold, debounce, and the first time that it fires.

    Attributes:
        precision: of the episodes in which it fired, those in which it did so on frames that show success.
        recall: of the successes, those in which it first fired on frames that show success.
        false_positives: of the failures, those in which it fired.
        early: of the successes, those in which it first fired before there was one to see.
    """

    precision: Rate
    recall: Rate
    false_positives: Rate
    early: Rate


class RewardCalibration(Strict):
    """How well the model does on episodes that neither training nor the choice of the threshold saw.

    Attributes:
        debounce_ticks, threshold: that the figures hold for.
        allowed: false-positive rate that the threshold was chosen for on the calibration split.
        per: whether that rate is of frames or of episodes.
        positive_s: a frame shows success in this time before the end of a success [s].
        episodes, successes: held out.
    """

    threshold: Threshold
    debounce_ticks: DebounceTicks
    allowed: Probability
    per: Literal["frame", "episode"]
    positive_s: Annotated[float, Field(gt=0.0, le=60.0)]
    episodes: Count
    successes: Count
    frame: FrameFigures
    episode: EpisodeFigures


class RewardManifest(Strict):
    """reward.json of a reward model's folder.

    Its graph maps `<camera>_image` (1, H, W, 3) uint8 and, where `proprio` names any, `proprio` (1, P) float32 to
    `probability` (1, 1) float32: that the task is done in these very pictures. Normalisation is inside the graph.
    `calibration` is absent for a model that came without a report.
    """

    schema_version: Literal[1]
    kind: Literal["reward_model"]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    created_utc: str
    rate_hz: Annotated[float, Field(ge=1.0, le=200.0)]
    cameras: Annotated[tuple[CameraInput, ...], Field(min_length=1, max_length=8)]
    proprio: tuple[ProprioInput, ...] = ()
    graph: EntryPoint
    threshold: Threshold
    debounce_ticks: DebounceTicks
    calibration: RewardCalibration | None = None
    training: dict[str, str | int | float]
    content_sha256: Sha256

    @property
    def proprio_size(self) -> int:
        """Length P of its proprioception vector."""
        return sum(entry.size for entry in self.proprio)

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [camera.name for camera in self.cameras] + [entry.key for entry in self.proprio]
        if len(set(names)) != len(names):
            raise ValueError(f"an input is named twice: {names}")
        return self


def read_reward_manifest(folder: Path) -> tuple[RewardManifest, bytes]:
    """Return the checked manifest in a reward model's folder and its bytes; the graph is not looked at.

    Raises:
        BadInputError: one line naming the key that is wrong.
    """
    return read_manifest_of(REWARD_MODEL, folder, RewardManifest)
