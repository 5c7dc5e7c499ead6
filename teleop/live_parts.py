"""A rig in real time: one process per camera, the servo, simulated hardware, a slow policy, and what they share."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from perception.camera_process import CameraProcessConfig
from perception.cloud_config import CameraGeometry, FusedViewConfig
from perception.cloud_ring import CloudRing
from perception.config import LiveCamera, LiveCameraConfig, PlaybackCameraConfig, SimulatedCameraConfig
from perception.frame_ring import FrameRing
from perception.fused_synchroniser import SharedClouds
from perception.fused_view_process import FusedViewProcessConfig
from perception.playback_source import check_footage
from perception.pose_ring import PoseRing
from perception.shared_camera import SharedCamera
from policy.bundle import Bundle
from policy.chunk_ring import RingSource
from robot.clock import Clock
from robot.config import SimulatedArmConfig
from robot.errors import BadInputError
from robot.franka_config import FrankaArmConfig
from robot.servo_arm import ServoArm
from robot.servo_config import ServoConfig
from robot.servo_orders import new_order_ring
from robot.servo_process import ServoProcessConfig
from robot.servo_record import ServoRecord
from robot.simulation.franka_simulator import FrankaSimulatorProcessConfig
from robot.simulation.mirrored_world import MirroredWorld
from robot.simulation.scenes import SceneName, scene_named
from robot.simulation.world_process import WorldProcessConfig
from robot.simulation.world_record import new_world_orders, new_world_ring
from robot.simulation.world_stream import new_set_point_ring
from robot.strict import Strict
from teleop.chunk_parts import ChunkChild
from teleop.fused_cameras import fused_cameras
from teleop.policy_cameras import policy_cameras
from teleop.recorder_streams import StreamSource
from teleop.station import LoadedStation
from teleop.supervision import ChildPlan

SERVO, HARDWARE, TABLE, FRANKA_SIMULATOR = "servo", "simulated arm", "simulated table", "franka simulator"
_CAMERA_SILENCE_S = 1.0
_SIMULATOR_SILENCE_S = 5.0  # a program among others, which may have to wait


class _Closes(Protocol):
    def close(self) -> None: ...


Part = TypeVar("Part", bound=_Closes)


class LiveParts:
    """Makes the shared memory, and says which processes a supervisor has to start for it.

    Attributes:
        children: the processes.
        arm: behind the servo.
        cameras: in the station's order.
        world: the simulated hardware's, as it stands; `refresh` brings it to now. None where nothing is simulated.
        streams: full-size frames to be recorded.
        chunks: asks a slow policy, None where it is asked within the tick.
        clouds: of the fused view, None without one.
    """

    arm: ServoArm
    world: MirroredWorld | None = None
    read_only = False  # the arm is looked at and never moved

    def __init__(self, loaded: LoadedStation, bundle: Bundle | None, clock: Clock, *, seed: int) -> None:
        self._loaded, self._bundle, self._clock, self._seed = loaded, bundle, clock, seed
        self._stack = ExitStack()
        self.children: list[ChildPlan] = []
        self.cameras: list[SharedCamera] = []
        self.streams: list[StreamSource] = []
        self.chunks: RingSource | None = None
        self.clouds: SharedClouds | None = None
        self._scene: SceneName = "place"
        self._rings: dict[str, FrameRing] = {}
        self._fused: dict[str, CameraGeometry] = {}

    def __enter__(self) -> Self:
        """Make everything; nothing runs yet. Raises BadInputError where the station cannot run in real time."""
        with ExitStack() as stack:
            self._keep = stack.callback
            try:
                self._make()
            except OSError as error:
                raise BadInputError(f"station {self._loaded.path}: no memory to share ({error}); free some") from None
            self._stack = stack.pop_all()
        return self

    _keep: Callable[..., Any]

    def _make(self) -> None:
        self._make_arm()
        assert self._bundle is not None, "what a run's cameras give is for its bundle"
        view = self._loaded.station.fused_view
        self._fused = fused_cameras(self._loaded)
        for camera in policy_cameras(self._loaded, self._bundle.manifest):
            if isinstance(camera, LiveCameraConfig):
                self._make_camera(camera)
        if view is not None:
            self._make_fused_view(view)
        if self._loaded.station.policy.asynchronous:
            self._make_policy(self._bundle)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _own(self, part: Part) -> Part:
        self._keep(part.close)
        return part

    def _make_arm(self) -> None:
        station = self._loaded.station
        match station.arm:
            case SimulatedArmConfig(servo=None):
                raise BadInputError(
                    f"station {self._loaded.path}: has no [arm.servo], which real time needs; add it as in "
                    "launch/stations/sim_place.toml, or run in lock-step"
                )
            case SimulatedArmConfig(servo=ServoConfig() as servo, task=task):
                self._make_servo(servo, self._make_world(task.kind, shadow=False))
            case FrankaArmConfig() as arm:
                files: dict[str, tuple[int, ...]] = {}
                if arm.simulator is not None:
                    files = self._make_world(arm.simulator.task.kind, shadow=True)
                if arm.simulator is not None and arm.simulator.start:
                    self._child(
                        FRANKA_SIMULATOR,
                        "robot.simulation.franka_simulator",
                        FrankaSimulatorProcessConfig(address=arm.address),
                        {},
                        restart=False,
                        stop_order=2,
                        silence_s=_SIMULATOR_SILENCE_S,
                        priority=self._priority(2),
                    )
                self._make_servo(arm.servo, files, arm)

    def _make_world(self, kind: SceneName, *, shadow: bool) -> dict[str, tuple[int, ...]]:
        """Make the simulated table and return the files of the servo's end of it."""
        scene = scene_named(kind)
        world, set_points = self._own(new_world_ring(scene)), self._own(new_set_point_ring())
        world_orders = self._own(new_world_orders())
        files: dict[str, tuple[int, ...]] = {"world": (world.file,), "set-points": (set_points.file,)}
        self._child(
            TABLE if shadow else HARDWARE,
            "robot.simulation.world_process",
            WorldProcessConfig(scene=kind, shadow=shadow),
            files | {"world-orders": world_orders.files},
            restart=False,
            stop_order=2,
            # it stands for an arm's own controller, which no other work on this machine delays
            priority=self._priority(2),
        )
        self.world = MirroredWorld(world, world_orders, scene=scene)
        self._world_file, self._scene = world.file, kind
        return files

    def _make_servo(
        self, servo: ServoConfig, files: dict[str, tuple[int, ...]], franka: FrankaArmConfig | None = None
    ) -> None:
        """Make the servo; `files` are of the world whose arm it moves."""
        orders, states = self._own(new_order_ring()), self._own(ServoRecord(ServoArm.joint_count).new_ring())
        self._child(
            SERVO,
            "robot.servo_process",
            ServoProcessConfig(
                servo=servo, loop_period_s=self._loaded.station.period_s, franka=franka, read_only=self.read_only
            ),
            files | {"servo": (states.file,), "servo-orders": orders.files},
            restart=False,
            stop_order=0,
            priority=self._priority(1),
        )
        self.arm = ServoArm(states, orders, self._clock, age_s=servo.arm_age_s)

    def _priority(self, above: int) -> int:
        """Return the real-time priority of what has to run before the loop, 0 where the station asks for none."""
        priority = self._loaded.station.realtime.priority
        return priority + above if priority else 0

    def _make_camera(self, camera: LiveCamera) -> None:
        if isinstance(camera, SimulatedCameraConfig) and self.world is None:
            raise BadInputError(
                f"station {self._loaded.path}: camera {camera.name!r} is simulated, and there is no simulated table "
                "for it; name a real camera, or add arm.simulator"
            )
        if isinstance(camera, PlaybackCameraConfig):
            path = self._loaded.path.parent / Path(camera.file).expanduser()
            check_footage(camera, path)
            camera = camera.model_copy(update={"file": str(path)})
        usable_s = self._loaded.station.synchroniser.max_age_s
        config = CameraProcessConfig(
            camera=camera, seed=self._seed, usable_s=usable_s, scene=self._scene, depth=camera.name in self._fused
        )
        ring = self._rings[camera.name] = self._own(FrameRing.new(config.layout))
        files: dict[str, tuple[int, ...]] = {"ring": (ring.file,)}
        if isinstance(camera, SimulatedCameraConfig):
            files["world"] = (self._world_file,)
        self._child(
            f"camera {camera.name}",
            "perception.camera_process",
            config,
            files,
            restart=True,
            silence_s=_CAMERA_SILENCE_S,
            priority=max(0, self._loaded.station.realtime.priority - 1),
        )
        self.cameras.append(SharedCamera(ring))
        source = StreamSource.of(camera, ring)
        if source is not None:
            self.streams.append(source)

    def _make_fused_view(self, view: FusedViewConfig) -> None:
        rings = [self._rings[name] for name in self._fused]
        clouds, poses = self._own(CloudRing.new(view.points)), self._own(PoseRing.new())
        layouts = tuple(ring.layout for ring in rings)
        self._child(
            "fused view",
            "perception.fused_view_process",
            FusedViewProcessConfig(view=view, geometry=self._fused, layouts=layouts),
            {"frames": tuple(ring.file for ring in rings), "clouds": (clouds.file,), "poses": (poses.file,)},
            restart=True,
            silence_s=_CAMERA_SILENCE_S + 2.0 / view.rate_hz,
        )
        self.clouds = SharedClouds(clouds, poses)

    def _make_policy(self, bundle: Bundle) -> None:
        policy = ChunkChild(self._loaded.station, bundle)
        self._keep(policy.__enter__().__exit__, None, None, None)
        self.children.append(policy.plan)
        self.chunks = policy.source

    def _child(
        self,
        name: str,
        module: str,
        config: Strict,
        files: dict[str, tuple[int, ...]],
        *,
        restart: bool,
        stop_order: int = 1,
        silence_s: float = 1.0,
        priority: int = 0,
    ) -> None:
        words = ["--config", json.dumps(config.model_dump(mode="json"))]
        for option, numbers in files.items():
            words += [f"--{option}", *map(str, numbers)]
        self.children.append(
            ChildPlan(
                name=name,
                module=module,
                arguments=tuple(words),
                files=tuple(number for numbers in files.values() for number in numbers),
                restart=restart,
                silence_s=silence_s,
                stop_order=stop_order,
                priority=priority,
            )
        )
