"""Everything about one rig, in one TOML file, checked before anything moves."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from perception.cloud_config import FusedViewConfig
from perception.config import CalibrationConfig, CameraConfig, SynchroniserConfig
from policy.learner_settings import Method
from policy.observation_history import HistoryChoice
from robot.config import ArmConfig, SimulatedArmConfig
from robot.environment.config import GymnasiumArmConfig
from robot.errors import BadInputError
from robot.franka_config import FrankaArmConfig
from robot.realtime import RealtimeConfig
from robot.safety_limits import SafetyLimits
from robot.strict import Strict
from teleop.device_config import GamepadConfig, KeyboardConfig
from teleop.station_words import explain, override, taken_for_number

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class LoopConfig(Strict):
    """The control loop.

    Attributes:
        rate_hz: ticks per second.
        stall_s: after it stood still for longer (a stopped process, a suspended machine) the person has to arm again
            [s].
    """

    rate_hz: Annotated[float, Field(ge=5.0, le=100.0)] = 20.0
    stall_s: Annotated[float, Field(ge=0.1, le=10.0)] = 1.0


class PolicyConfig(Strict):
    """The frozen base policy.

    Attributes:
        bundle: its folder, relative to the station file.
        provider: where ONNX Runtime computes it; `auto` takes CUDA where it works and the CPU elsewhere.
        threads: of ONNX Runtime on the CPU.
        mode: a policy that takes no longer than a tick is asked within it (`synchronous`); a slower one ahead of time,
            while its last chunk is executed (`asynchronous`).
        deadline_s: asynchronous: a request that is not answered by then is given up [s].
        seam_ticks: asynchronous: over so many the plan moves from the old chunk to the new one.
        seam_bound: how far from the new chunk it may be meanwhile, normalised action.
        simulated_delay_s: asynchronous, in lock-step: how long each answer takes, as the machine's own time does not
            count [s].
        endpoint: of a policy that runs elsewhere, such as `ws://127.0.0.1:8000`.
        prompt: what such a policy is told to do.
        api_key_variable: environment variable that holds the key for it.
    """

    bundle: str
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    mode: Literal["synchronous", "asynchronous"] = "synchronous"
    deadline_s: Annotated[float, Field(ge=0.05, le=60.0)] = 2.0
    seam_ticks: Annotated[int, Field(ge=0, le=64)] = 4
    seam_bound: Annotated[float, Field(ge=0.0, le=2.0)] = 0.25
    simulated_delay_s: Annotated[float, Field(ge=0.0, le=60.0)] = 0.0
    endpoint: str = ""
    prompt: Annotated[str, Field(max_length=1000)] = ""
    api_key_variable: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""

    @model_validator(mode="after")
    def _answers_count(self) -> Self:
        if self.simulated_delay_s >= self.deadline_s:
            raise ValueError(
                f"simulated_delay_s is {self.simulated_delay_s:g}: no answer would come before deadline_s of "
                f"{self.deadline_s:g}; make it less"
            )
        return self

    @property
    def asynchronous(self) -> bool:
        """True when chunks are asked for ahead of time."""
        return self.mode == "asynchronous"


class ResidualConfig(Strict):
    """What the learned correction may do.

    Attributes:
        scale: bounds it per action dimension, in normalised action units; 0 leaves a dimension to the base.
        gripper: it may also choose to open or to close where the base does not; that dimension's scale is then 0.
        gate: it is added only where the critics that travel with the weights rate it no lower than the base's
            own action.
        history: how many ticks it sees, in place of what the bundle says.
    """

    scale: Annotated[tuple[Share, ...], Field(min_length=1, max_length=32)]
    gripper: bool = False
    gate: bool = False
    history: HistoryChoice | None = None

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a `history` that is not there, so that a station without one keeps its hash."""
        values: dict[str, Any] = serialise(self)
        if values.get("history") is None:
            values.pop("history", None)
        return values


class ExplorationConfig(Strict):
    """Noise on the residual while training.

    Attributes:
        start: its size at the first tick, share of the residual's scale.
        end: its size at the last.
        until_tick: over so many it goes from `start` to `end`.
        burst_share: share of the ticks in which it is there at all.
        burst_ticks: length of the bursts in which it comes, on average.
        gate_pass_share: share of the ticks with noise in which a closed value gate lets the residual through, so that
            it is seen what it keeps out.
    """

    start: Share = 0.0
    end: Share = 0.0
    until_tick: Annotated[int, Field(ge=1)] = 10_000
    burst_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    burst_ticks: Annotated[int, Field(ge=1, le=200)] = 6
    gate_pass_share: Share = 0.1


class OperatorConfig(Strict):
    """The person's device and how their action meets the policy's.

    Attributes:
        mode: the person's action takes the policy's place (`takeover`) or is added to it (`nudge`).
        perturb: adds the exploration noise to what the person drives, so that demonstrations also show the way back
            (DART, Laskey et al. 2017); the log keeps what the person wanted.
        silence_s: how long the device may be silent before the arm holds [s].
    """

    mode: Literal["takeover", "nudge"] = "takeover"
    perturb: bool = False
    silence_s: Annotated[float, Field(ge=0.02, le=1.0)]
    gamepad: GamepadConfig = GamepadConfig()
    keyboard: KeyboardConfig = KeyboardConfig()


class EpisodeConfig(Strict):
    """When an episode that nobody judged ends, and how long homing may take.

    Attributes:
        reset_timeout_s: how long homing may drive the arm at a stretch. An arm that is not at home by then is blocked,
            or its gripper is: the run disarms and the person looks at it [s].
        timeout_s: when an episode ends that nobody judged [s].
    """

    reset_timeout_s: Annotated[float, Field(ge=1.0, le=600.0)] = 20.0
    timeout_s: Annotated[float, Field(ge=0.5, le=3600.0)]


class RewardConfig(Strict):
    """Who says that an episode is a success when the person says nothing; the person's label wins over both.

    Attributes:
        source: `task` is the rig's own task function, where it has one; `model` a reward model; `person` nobody else.
        path: the reward model's folder, relative to the station file; with another `source` it only looks on and is
            logged.
        threshold: least probability that counts as success, in place of the one that it was exported with.
        debounce_ticks: how many in a row have to reach it, in place of what it was exported with.
        dwell_s: how long what the task function says has to last before it ends the episode, so that the log also shows
            what the scene looks like then [s].
    """

    source: Literal["task", "model", "person"] = "task"
    path: str = ""
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    debounce_ticks: Annotated[int, Field(ge=1, le=200)] | None = None
    dwell_s: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0

    @model_validator(mode="after")
    def _model_is_there(self) -> Self:
        if self.source == "model" and not self.path:
            raise ValueError("source 'model' needs path, the folder that train_reward_model.py wrote")
        if not self.path and (self.threshold is not None or self.debounce_ticks is not None):
            raise ValueError("threshold and debounce_ticks are a reward model's; add its path or leave them out")
        return self


class LearningConfig(Strict):
    """How the learner works.

    Attributes:
        endpoint: where `run_learner.py` listens and `run_robot.py --learner` connects.
        keys: folder of this machine's keys, relative to the station file; needed where the two are not the same
            machine.
        updates_per_episode: in lock-step.
        n_step: greatest window of a return [ticks].
        discount: gamma of one tick.
        doubt_s: what the policy did so shortly before a takeover is not taken as approved [s].
        hindsight: a takeover also says what would have been right in the `doubt_s` before it, see `policy.hindsight`;
            only method `handrail` asks.
        cut_at_handover: windows end at a takeover and at a handback.
        batch_size: transitions per update.
        shown_share: of a batch, what a person showed.
        min_transitions: no update before so many are there.
        method: `handrail`; `hg_dagger`, imitation of the person alone; `resfit`, a residual from reward alone; or
            `rlpd`, no base, from reward. See docs/learning.md.
        algorithm: fields of the method to set.
    """

    endpoint: str = "tcp://127.0.0.1:5701"
    keys: str | None = None
    updates_per_episode: Annotated[int, Field(ge=0, le=100_000)] = 100
    n_step: Annotated[int, Field(ge=1, le=50)] = 5
    discount: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.98
    doubt_s: Annotated[float, Field(ge=0.0, le=60.0)] = 1.5
    hindsight: bool = True
    cut_at_handover: bool = True
    batch_size: Annotated[int, Field(ge=2, le=65536)] = 256
    shown_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    min_transitions: Annotated[int, Field(ge=1)] = 256
    method: Method = "handrail"
    algorithm: dict[str, JsonValue] = Field(default_factory=dict)


class Station(Strict):
    """One rig. Every key has a unit in its name; unknown keys are refused.

    Attributes:
        name: of the station, in files and messages.
        camera: one table each, with a name of its own.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    loop: LoopConfig = LoopConfig()
    realtime: RealtimeConfig = RealtimeConfig()
    arm: ArmConfig
    safety: SafetyLimits
    camera: Annotated[tuple[CameraConfig, ...], Field(max_length=8)] = ()
    synchroniser: SynchroniserConfig
    fused_view: FusedViewConfig | None = None
    calibration: CalibrationConfig = CalibrationConfig()
    policy: PolicyConfig
    residual: ResidualConfig | None = None
    exploration: ExplorationConfig = ExplorationConfig()
    operator: OperatorConfig
    episode: EpisodeConfig
    reward: RewardConfig = RewardConfig()
    learner: LearningConfig = LearningConfig()

    @model_validator(mode="after")
    def _one_world(self) -> Self:
        kinds = {self.arm.kind} | {camera.kind for camera in self.camera}
        if len(kinds) > 1 and "recorded" in kinds:
            raise ValueError(f"a recorded arm needs recorded cameras and the reverse; kinds here are {sorted(kinds)}")
        if self.fused_view is not None and "recorded" in kinds:
            raise ValueError("fused_view needs depth, which recorded cameras do not have; leave it out")
        names = [camera.name for camera in self.camera]
        if len(set(names)) != len(names):
            raise ValueError(f"a camera is named twice: {names}")
        foreign = sorted(self.calibration.files.keys() - set(names))
        if foreign:
            raise ValueError(f"calibration.files names camera {foreign[0]!r}, the station has {names}")
        twice = sorted(self.calibration.files.keys() & (self.fused_view.geometry if self.fused_view else {}).keys())
        if twice:
            raise ValueError(
                f"calibration.files.{twice[0]} and fused_view.geometry.{twice[0]} both say where camera {twice[0]!r} "
                "is; leave one of them out"
            )
        if isinstance(self.arm, GymnasiumArmConfig):
            self._of_environment()
        elif not self.camera:
            raise ValueError("camera: the station has none; add a [[camera]]")
        elif "gymnasium" in kinds:
            raise ValueError("a camera of kind 'gymnasium' shows an arm of that kind; this station has another")
        if isinstance(self.arm, (SimulatedArmConfig, FrankaArmConfig)):
            least_m, most_m = self.safety.workspace_min_m, self.safety.workspace_max_m
            if any(not low <= home <= high for low, home, high in zip(least_m, self.arm.home_m, most_m, strict=True)):
                raise ValueError(
                    f"arm.home_m {self.arm.home_m} is outside of the workspace, which no way home leaves; allowed "
                    f"safety.workspace_min_m {least_m} to workspace_max_m {most_m}"
                )
        return self

    def _of_environment(self) -> None:
        """Raise ValueError for what a Gymnasium environment cannot have."""
        kinds = [camera.kind for camera in self.camera]
        if kinds not in ([], ["gymnasium"]):
            raise ValueError(
                f"an arm of kind 'gymnasium' has at most one camera, of kind 'gymnasium'; kinds here are {kinds}"
            )
        if self.synchroniser.proprio_time != "tick":
            raise ValueError(
                "synchroniser.proprio_time must be 'tick' for an arm of kind 'gymnasium', which has no state between "
                "its steps"
            )

    @property
    def learner_run_id(self) -> str:
        """Run id in the weights of a learner that serves this station from run to run (`run_learner.py`)."""
        return f"learner-{self.name}"

    @property
    def period_s(self) -> float:
        """Length of a tick [s]."""
        return 1.0 / self.loop.rate_hz


class LoadedStation(BaseModel):
    """A station with where it came from.

    Attributes:
        station: the checked values.
        path: the file.
        text: canonical JSON of the values with overrides applied; what a run folder keeps.
    """

    station: Station
    path: Path

    @property
    def text(self) -> bytes:
        """Canonical JSON of the values in force, overrides included."""
        return self.station.model_dump_json(indent=1).encode()

    @property
    def bundle_path(self) -> Path:
        """Folder of the bundle."""
        return (self.path.parent / self.station.policy.bundle).resolve()

    def calibration_path(self, file: str) -> Path:
        """Return where a file of [calibration] is."""
        return (self.path.parent / Path(file).expanduser()).resolve()

    @property
    def keys_path(self) -> Path | None:
        """Folder of the keys for the line between robot and learner, None without."""
        keys = self.station.learner.keys
        return None if keys is None else (self.path.parent / Path(keys).expanduser()).resolve()

    @property
    def reward_path(self) -> Path | None:
        """Folder of the reward model, None without one."""
        path = self.station.reward.path
        return (self.path.parent / path).resolve() if path else None


def load_station(path: Path, overrides: Sequence[tuple[str, str]] = ()) -> LoadedStation:
    """Read and check a station file.

    Args:
        path: TOML file.
        overrides: (dotted key, TOML value), such as ("loop.rate_hz", "30").

    Raises:
        BadInputError: the file is missing or is no TOML, or a key is unknown, missing, of another type or out of range.
    """
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # some editors put a mark in front
    except OSError as error:
        raise BadInputError(f"station {path}: cannot be read ({error.strerror}); name a station file") from None
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"station {path}: is no text in UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start}); save it so"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"station {path}: is not TOML ({error}); correct that line") from None
    except RecursionError:
        raise BadInputError(f"station {path}: is nested too deeply; take the brackets away") from None
    for key, value in overrides:
        override(data, key, value)
    try:
        station = Station.model_validate(data)
    except ValidationError as error:
        raise BadInputError(f"station {path}: {explain(error, Station)}") from None
    loaded = LoadedStation(station=station, path=path.resolve())
    flag = taken_for_number(data, station.model_dump())
    if flag is not None:
        raise BadInputError(f"station {path}: {flag}: got true or false (allowed a number); correct it")
    if rb"\u0000" in loaded.text:
        raise BadInputError(f"station {path}: a value holds the character NUL, which no name of a file may; correct it")
    return loaded


def station_from_json(text: bytes, where: str) -> Station:
    """Read what a run folder keeps. Raises BadInputError when it is no station."""
    try:
        return Station.model_validate_json(text)
    except ValidationError as error:
        raise BadInputError(f"{where}: {explain(error, Station)}") from None
