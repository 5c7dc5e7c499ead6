"""From a station file to opened parts: the one place where the pieces of a rig are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from perception.arm_history import KeepsHistory
from perception.camera import Camera
from perception.config import RecordedCameraConfig, SimulatedCameraConfig
from perception.fused_synchroniser import Clouds, FusedSynchroniser, LockStepClouds
from perception.fused_view import FusedView
from perception.pose_ring import PoseRing
from perception.recorded_camera import RecordedCamera
from perception.simulated_camera import SimulatedCamera
from perception.synchroniser import Synchroniser
from policy.action_space import ActionSpace
from policy.bundle import Bundle, load_bundle
from policy.chunk_source import ChunkSource
from policy.episode_header import Outcome
from policy.episode_schema import EpisodeSpec
from policy.observation_history import history_of
from policy.reward_model import RewardModel, load_reward_model
from robot.arm import Arm
from robot.arm_state import ArmState
from robot.clock import Clock, WallClock
from robot.config import RecordedArmConfig, SimulatedArmConfig
from robot.environment.actuation_filter import ActuationFilter
from robot.environment.config import ActuationActions, GymnasiumArmConfig
from robot.errors import BadInputError
from robot.fr3 import HOME_Q_RAD, FR3Kinematics
from robot.franka_config import FrankaArmConfig
from robot.kinematics import Kinematics
from robot.recorded_arm import RecordedArm
from robot.recording import Recording
from robot.safety import SafetyFilter
from robot.safety_gate import SafetyGate
from robot.simulation.insert_task import InsertTask
from robot.simulation.layout import Layout, Split
from robot.simulation.place_task import PlaceTask
from robot.simulation.simulated_arm import SimulatedArm
from robot.simulation.task import SimulatedTask, TaskStatus
from robot.simulation.task_config import TaskConfig
from robot.simulation.task_setup import TaskSetup, task_setup
from robot.simulation.world import SimulatedWorld
from teleop.arbiter import Arbiter
from teleop.chunk_parts import condemn_if_hung, make_chunk_plan, make_chunk_source
from teleop.environment_parts import EnvironmentLayout, EnvironmentParts
from teleop.fused_cameras import fused_cameras, required_cloud_age_s
from teleop.homing import Homing
from teleop.human_input import AssistMode
from teleop.inject import Fault, process_injections
from teleop.judge import Judge
from teleop.live_parts import LiveParts
from teleop.playback_judge import PlaybackJudge
from teleop.policy_cameras import policy_cameras
from teleop.recorder_streams import StreamSource
from teleop.reward_watch import RewardWatch, check_cost, make_reward_watch, misfits_of
from teleop.rig_misfits import rig_misfits
from teleop.station import LoadedStation, Station
from teleop.supervision import ChildPlan
from teleop.supervisor import Supervisor
from teleop.tick import TickPipeline

Array = NDArray[np.float64]
_LED_S, _AT_REST_S = 2.0, 0.5  # that a person takes to lead an arm home, and then to let go of it
R_DOWN = np.diag([1.0, -1.0, -1.0])  # hand straight down, fingers along base y
_OUTCOMES = {
    TaskStatus.RUNNING: None,
    TaskStatus.SUCCESS: Outcome.SUCCESS,
    TaskStatus.FAILURE: Outcome.FAILURE,
}


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What only a simulated rig has; in real time the world is the mirror of another process's."""

    world: SimulatedWorld
    setup: TaskSetup
    task: PlaceTask | InsertTask


class TaskJudge:
    """The simulated task's own verdict."""

    def __init__(self, task: SimulatedTask) -> None:
        self._task = task

    def reset(self) -> None:
        """Forget the last episode."""
        self._task.reset()

    def outcome(self, state: ArmState) -> Outcome | None:
        """SUCCESS or FAILURE once it is plain."""
        return _OUTCOMES[self._task.status(state)]


class Rig:
    """An opened station: clock, arm, cameras, safety filter, bundle. A context manager; opening does the I/O.

    On a virtual clock all of it is in this process. In real time an arm that moves, its cameras and a slow policy have
    processes of their own under a supervisor.

    Args:
        loaded: the station.
        clock: on a `WallClock` the parts have processes of their own.
        seed: of the cameras' jitter and drops.
        recording: for a recorded arm and its cameras.
        companions: more processes for the supervisor, such as the person's window.
        others: names of processes that are not the supervisor's but can be hit by faults.
        faults: to be injected.
    """

    def __init__(
        self,
        loaded: LoadedStation,
        clock: Clock,
        *,
        seed: int,
        recording: Recording | None = None,
        companions: Sequence[ChildPlan] = (),
        others: Sequence[str] = (),
        faults: Sequence[Fault] = (),
    ) -> None:
        self.loaded, self.clock, self._seed, self._recording = loaded, clock, seed, recording
        self._companions, self._others, self._faults = tuple(companions), tuple(others), tuple(faults)
        self._stack = ExitStack()
        self._live: LiveParts | None = None
        self._clouds: Clouds | None = None
        self.supervisor: Supervisor | None = None
        self.simulation: Simulation | None = None
        self.environment: EnvironmentParts | None = None
        self.judge: Judge | None = None

    def __enter__(self) -> Self:
        """Load and check the bundle, open everything and warm up.

        Raises:
            BadInputError: the bundle does not fit the station, or a part cannot be opened.
        """
        station = self.station
        self.bundle = load_bundle(self.loaded.bundle_path, station.policy.provider, station.policy.threads)
        self.actions = ActionSpace(self.bundle.manifest.action)
        self.kinematics: Kinematics | None = None
        with ExitStack() as stack:
            arm, cameras = self.parts(stack, self.bundle)
            if self._recording is not None:
                self._recording.select(0, self.clock.now_s())  # so that the arm has a state to start from
            for line in rig_misfits(self.loaded, self.bundle, arm, cameras, self.readings):
                raise BadInputError(line)
            reward = self._reward_model()
            self.supervise(stack)
            self.arm: Arm = stack.enter_context(arm)
            self.cameras: list[Camera] = [stack.enter_context(camera) for camera in cameras]
            self.bundle.warm_up()
            self.synchroniser = self._make_synchroniser()
            self.reward: RewardWatch | None = None
            if reward is not None:
                self.reward = make_reward_watch(station, reward, self.spec, timed=not self.clock.virtual)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def station(self) -> Station:
        """The station's values."""
        return self.loaded.station

    @property
    def spec(self) -> EpisodeSpec:
        """Layout of the log's rows."""
        return episode_spec(self.bundle, self.arm.joint_count, self.station, self.readings)

    @property
    def reward_sha256(self) -> str | None:
        """Content hash of the reward model that looks on, None without one."""
        return self.reward.model.sha256 if self.reward else None

    @property
    def T_base_home(self) -> Array:
        """Home pose of the TCP, (4, 4) [m]."""
        pose = np.eye(4)
        if isinstance(self.station.arm, (SimulatedArmConfig, FrankaArmConfig)):
            pose[:3, :3] = R_DOWN
            pose[:3, 3] = self.station.arm.home_m
            return pose
        if self._recording is not None:
            T_base_start: Array = self._recording.episodes[0].T_base_tcp[0]
            return T_base_start  # where the recording begins, whatever plays now
        return self.arm.state().T_base_tcp

    @property
    def readings(self) -> dict[str, int]:
        """What the arm measures beside its state, name -> how many numbers."""
        return self.environment.readings if self.environment else {}

    @property
    def harmless(self) -> bool:
        """True where nothing real moves: a stand-in for a person may arm anew."""
        return self.simulation is not None or self.environment is not None or self.arm.open_loop

    def safety(self) -> SafetyGate:
        """The station's safety filter."""
        return make_safety(self.station, self.arm.joint_count, self.T_base_home[:3, :3])

    def homing(self) -> Homing | None:
        """The way home, None for an arm that a reset puts at its beginning: a recording, an environment."""
        if self.arm.open_loop or self.environment is not None:
            return None
        closed = self.simulation is not None and self.simulation.setup.begins_closed
        return Homing(self.actions, self.T_base_home, gripper_open_m=self.actions.spec.gripper_open_m, closed=closed)

    def task_reward(self) -> Callable[[], float] | None:
        """What asks for the reward of the last step, None where the task gives none."""
        environment = self.environment
        return None if environment is None else lambda: environment.arm.step_reward

    def chunks(self) -> ChunkSource | None:
        """What answers requests of a slow policy, None for one that is asked within the tick."""
        return self._live.chunks if self._live else make_chunk_source(self.station, self.bundle)

    @property
    def streams(self) -> Sequence[StreamSource]:
        """Full-size frames to be recorded; only in real time."""
        return self._live.streams if self._live else ()

    def check(self) -> None:
        """Look whether the run can go on, at every tick. Raises HardwareError when it cannot."""
        if self.supervisor is not None:
            self.supervisor.check()
        if self._live is not None:
            if self._live.world is not None:
                self._live.world.refresh()
            if self._live.chunks is not None and self.supervisor is not None:
                condemn_if_hung(self._live.chunks, self.supervisor)

    def _make_synchroniser(self) -> Synchroniser:
        """Of the cameras that the bundle looks at, in its order."""
        station, manifest = self.station, self.bundle.manifest
        keys = [entry.key for entry in manifest.proprio]
        order = {camera.name: i for i, camera in enumerate(manifest.cameras)}
        used = sorted(
            (camera for camera in self.cameras if camera.name in order), key=lambda camera: order[camera.name]
        )
        arm_history = self.arm.history if isinstance(self.arm, KeepsHistory) else None
        if self._clouds is None:
            return Synchroniser(used, station.synchroniser, keys, arm_history)
        return FusedSynchroniser(
            used,
            station.synchroniser,
            keys,
            arm_history,
            clouds=self._clouds,
            required_age_s=required_cloud_age_s(station, self.bundle),
        )

    def _reward_model(self) -> RewardModel | None:
        """Load the station's reward model. Raises BadInputError."""
        if self.loaded.reward_path is None:
            return None
        policy = self.station.policy
        model = load_reward_model(self.loaded.reward_path, policy.provider, policy.threads)
        for line in misfits_of(self.station, model.manifest, self.bundle.manifest):
            raise BadInputError(line)
        if self.clock.virtual:
            model.warm_up(1)
        else:
            check_cost(model, self.station.period_s)
        return model

    def supervise(self, stack: ExitStack) -> None:
        """Start all processes of `parts` and wait until they work; `stack` ends them. Raises as `Supervisor` does."""
        children = [*(self._live.children if self._live else ()), *self._companions]
        if not children:
            if any(fault.kind.deed is not None for fault in self._faults):
                raise BadInputError("--inject: faults of processes need --real-time; in lock-step there are none")
            return
        names = [child.name for child in children] + list(self._others)
        cameras = [camera.name for camera in self.station.camera]
        injections = process_injections(self._faults, names, cameras)
        self.supervisor = stack.enter_context(Supervisor(children, self._others, injections))
        self.supervisor.wait_ready()

    def draw_layout(self, split: Split, seed: int, index: int) -> Layout | EnvironmentLayout | None:
        """Return layout `index` of `seed` for the simulated table or an environment; None for a real one."""
        if self.environment is not None:
            return self.environment.draw_layout(split, seed, index)
        return None if self.simulation is None else self.simulation.setup.draw_layout(split, seed, index)

    def clear(self) -> None:
        """Take away what a simulated arm could be stuck in, before it goes home; a person clears a real table."""
        if self.simulation is not None and self.simulation.setup.cleared is not None:
            self.simulation.world.lay(self.simulation.setup.cleared)

    def free(self) -> None:
        """Lead a simulated arm out of what it is stuck in, in lock-step; a person takes a real one by the hand."""
        if self.simulation is None or not self.clock.virtual:
            return
        state, now_s = self.arm.state(), self.clock.now_s()
        self.simulation.world.set_target(np.array(HOME_Q_RAD), state.gripper_width_m, now_s + _LED_S)
        self.clock.sleep_until(now_s + _LED_S + _AT_REST_S)

    def lay(self, layout: Layout | EnvironmentLayout | None, recorded_episode: int | None, start_s: float) -> None:
        """Lay the simulated table, reset an environment, or begin a recorded episode; a person lays a real one."""
        if isinstance(layout, EnvironmentLayout):
            if self.environment is not None:
                self.environment.arm.reset(layout.reset_seed)
        elif self.simulation is not None and layout is not None:
            self.simulation.world.lay(layout.arrangement)
        if self._recording is not None and recorded_episode is not None:
            self._recording.select(recorded_episode, start_s)

    def parts(self, stack: ExitStack, bundle: Bundle | None) -> tuple[Arm, list[Camera]]:
        """Make arm and cameras without entering them; what they share with others goes on `stack`.

        Cameras give what `bundle` wants; without one (lock-step alone), what the station says.

        Raises:
            BadInputError: a recording is missing, or the station cannot run in real time.
        """
        config = self.station.arm
        match config:
            case SimulatedArmConfig() | FrankaArmConfig() if isinstance(self.clock, WallClock):
                assert bundle is not None, "a slow policy's process is one of the parts"
                live = stack.enter_context(LiveParts(self.loaded, bundle, self.clock, seed=self._seed))
                self._live, self._clouds = live, live.clouds
                simulator = config if isinstance(config, SimulatedArmConfig) else config.simulator
                if simulator is not None and live.world is not None:
                    self._simulated(live.world, simulator.task)
                return live.arm, list(live.cameras)
            case FrankaArmConfig():
                raise BadInputError(
                    f"station {self.loaded.path}: arm 'franka' runs in real time only, as run_robot.py does; lock-step "
                    "is for a simulated arm"
                )
            case SimulatedArmConfig():
                world = SimulatedWorld(start_s=self.clock.now_s(), scene=task_setup(config.task).scene)
                self._simulated(world, config.task)
                simulated: list[SimulatedCamera] = []
                view = self.station.fused_view
                fused = fused_cameras(self.loaded)
                for camera in policy_cameras(self.loaded, bundle.manifest) if bundle else self.station.camera:
                    if not isinstance(camera, SimulatedCameraConfig):
                        raise BadInputError(
                            f"station {self.loaded.path}: camera {camera.name!r} is of kind {camera.kind!r}, lock-step "
                            "knows simulated ones only; add --real-time"
                        )
                    keeps_full = camera.name in fused
                    simulated.append(SimulatedCamera(camera, world, seed=self._seed, keeps_full=keeps_full))
                if view is not None:
                    poses = PoseRing.new()
                    stack.callback(poses.close)
                    deep = [camera for camera in simulated if camera.name in fused]
                    self._clouds = LockStepClouds(FusedView(view, fused, deep, poses, self.clock), poses, view.rate_hz)
                return SimulatedArm(world, self.clock), list(simulated)
            case GymnasiumArmConfig():
                self.environment = EnvironmentParts.open(stack, self.loaded, config, self.clock)
                self.judge = self.environment.judge
                return self.environment.arm, self.environment.cameras
            case RecordedArmConfig():
                if self._recording is None:
                    raise BadInputError(
                        f"station {self.loaded.path}: plays a recording and none was given; add --recording PATH"
                    )
                self.judge = PlaybackJudge(self._recording, self.clock)
                arm = RecordedArm(
                    self._recording,
                    self.clock,
                    gripper_open_m=config.gripper_open_m,
                    gripper_closed_m=config.gripper_closed_m,
                )
                recorded: list[Camera] = [
                    RecordedCamera(self._recording, camera.name, camera.view, camera.latency_s)
                    for camera in self.station.camera
                    if isinstance(camera, RecordedCameraConfig)
                ]
                return arm, recorded

    def _simulated(self, world: SimulatedWorld, task: TaskConfig) -> None:
        setup = task_setup(task)
        self.simulation = Simulation(world=world, setup=setup, task=setup.task(world))
        self.judge = TaskJudge(self.simulation.task)


def make_safety(station: Station, joint_count: int, R_base_home: Array) -> SafetyGate:
    """The safety filter of a station; also what a replay rebuilds from a logged one."""
    if isinstance(station.arm, GymnasiumArmConfig):
        if isinstance(station.arm.action, ActuationActions):
            watches = station.arm.state.tcp_position_m is not None
            return ActuationFilter(station.safety, max_change=station.arm.action.max_change, watches=watches)
        return SafetyFilter(station.safety, None, station.period_s, R_base_home)
    tool = station.arm.tool.T_flange_tcp if isinstance(station.arm, FrankaArmConfig) else None
    kinematics = FR3Kinematics(T_flange_tcp=tool) if joint_count == 7 else None
    return SafetyFilter(station.safety, kinematics, station.period_s, R_base_home)


def make_pipeline(station: Station, bundle: Bundle, safety: SafetyGate) -> TickPipeline:
    """The stages of a tick for a station; also what a replay rebuilds from a logged one."""
    return TickPipeline(
        bundle=bundle,
        arbiter=Arbiter(
            mode=AssistMode.TAKEOVER if station.operator.mode == "takeover" else AssistMode.NUDGE,
            silence_s=station.operator.silence_s,
            motion=ActionSpace(bundle.manifest.action).motion,
            perturb=station.operator.perturb,
        ),
        safety=safety,
        gate_enabled=station.residual is not None and station.residual.gate,
        open_loop=isinstance(station.arm, RecordedArmConfig),
        ahead=make_chunk_plan(station, bundle),
        history=history_of(bundle.manifest, station.residual),
    )


def episode_spec(
    bundle: Bundle, joint_count: int, station: Station, readings: Mapping[str, int] | None = None
) -> EpisodeSpec:
    """Layout of the log's rows for a bundle on a station."""
    manifest = bundle.manifest
    return EpisodeSpec(
        cameras=tuple((camera.name, camera.height, camera.width) for camera in manifest.cameras),
        proprio=tuple((entry.key, entry.size) for entry in manifest.proprio),
        action_size=manifest.action.size,
        chunk_length=manifest.chunk_length,
        feature_size=manifest.feature_size,
        joint_count=joint_count,
        asynchronous=station.policy.asynchronous,
        reward_model=bool(station.reward.path),
        cloud_points=station.fused_view.points if station.fused_view else 0,
        readings=tuple((readings or {}).items()),
        task_reward=isinstance(station.arm, GymnasiumArmConfig),
        wrench=isinstance(station.arm, FrankaArmConfig),
    )
