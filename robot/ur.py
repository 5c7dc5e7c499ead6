"""A Universal Robots arm over ur-rtde: the worked example of docs/adding_an_arm.md. NEVER RUN ON HARDWARE.

Written against the interfaces of ur-rtde 1.6.5 (Lindvig et al., sdurobotics.gitlab.io/ur_rtde) and tested against a
stand-in of them. A thread of its own streams `servoL` at `rate_hz` between the loop's targets, since on the robot each
command is in force for its own short time only. The robot's watchdog stops it when that thread dies; the thread stops
it when the loop falls silent. Neither is a safety-rated stop.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Annotated, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from robot.arm_lock import ArmLock
from robot.arm_state import ArmState
from robot.clock import Clock
from robot.command import SafeCommand
from robot.errors import BadInputError, HardwareError
from robot.geometry import interpolate_pose, matrix_to_rotvec, pose, rotvec_to_matrix
from robot.strict import Strict

Array = NDArray[np.float64]
Pose = list[float]  # x, y, z [m] and rotation vector [rad], base frame, as the robot's own programs write it
_DECELERATION_M_S2 = 10.0  # of servoStop, its default


class URArmConfig(Strict):
    """A UR arm with its tool set on the pendant; it is known by its TCP pose only, joints are the robot's own business.

    `lookahead_s` and `gain` are those of servoL (0.03 to 0.2 s, 100 to 2000). After `watchdog_s` without the loop the
    arm stops; a state that is older than `max_state_age_s` is a fault.
    """

    kind: Literal["ur"]
    address: Annotated[str, Field(min_length=1, max_length=253)]
    rate_hz: Annotated[float, Field(ge=50.0, le=500.0)] = 125.0
    lookahead_s: Annotated[float, Field(ge=0.03, le=0.2)] = 0.1
    gain: Annotated[float, Field(ge=100.0, le=2000.0)] = 300.0
    watchdog_s: Annotated[float, Field(ge=0.05, le=1.0)]
    max_state_age_s: Annotated[float, Field(ge=0.01, le=0.5)]


class Control(Protocol):
    """What is used of `rtde_control.RTDEControlInterface`; its names."""

    def servoL(  # noqa: N802, D102
        self, pose: Pose, speed: float, acceleration: float, time: float, lookahead_time: float, gain: float
    ) -> bool: ...

    def servoStop(self, a: float) -> bool: ...  # noqa: N802, D102

    def setWatchdog(self, min_frequency: float) -> bool: ...  # noqa: N802, D102

    def kickWatchdog(self) -> bool: ...  # noqa: N802, D102

    def isProgramRunning(self) -> bool: ...  # noqa: N802, D102

    def reuploadScript(self) -> bool: ...  # noqa: N802, D102

    def stopScript(self) -> None: ...  # noqa: N802, D102

    def disconnect(self) -> None: ...  # noqa: D102


class Receive(Protocol):
    """What is used of `rtde_receive.RTDEReceiveInterface`; its names."""

    def getTimestamp(self) -> float: ...  # noqa: N802, D102

    def getActualTCPPose(self) -> Sequence[float]: ...  # noqa: N802, D102

    def getActualTCPSpeed(self) -> Sequence[float]: ...  # noqa: N802, D102

    def getActualTCPForce(self) -> Sequence[float]: ...  # noqa: N802, D102

    def isProtectiveStopped(self) -> bool: ...  # noqa: N802, D102

    def isEmergencyStopped(self) -> bool: ...  # noqa: N802, D102

    def isConnected(self) -> bool: ...  # noqa: N802, D102

    def disconnect(self) -> None: ...  # noqa: D102


def connect(config: URArmConfig) -> tuple[Control, Receive]:
    """Return both interfaces of the robot, connected. Raises BadInputError where that cannot be done."""
    try:
        from rtde_control import RTDEControlInterface
        from rtde_receive import RTDEReceiveInterface
    except ImportError:
        raise BadInputError(
            "arm 'ur': needs the package ur-rtde, which is not installed; run pip install ur-rtde"
        ) from None
    try:
        return RTDEControlInterface(config.address), RTDEReceiveInterface(config.address)
    except RuntimeError as error:
        raise BadInputError(
            f"arm 'ur': {config.address} does not answer ({error}); check power, network, and that the pendant says "
            "remote control"
        ) from None


class URArm:
    """Follows safe commands by servoL. Has no gripper: its width is 0, and a bundle's gripper must be `none`.

    Args:
        config: of the station.
        clock: of the loop.
        connect: gives the robot's two interfaces.
        threaded: stream from a thread of its own; False where the caller calls `cycle` in its place.
    """

    joint_count = 0
    open_loop = False

    def __init__(
        self,
        config: URArmConfig,
        clock: Clock,
        *,
        connect: Callable[[URArmConfig], tuple[Control, Receive]] = connect,
        threaded: bool = True,
    ) -> None:
        self._config, self._clock, self._connect, self._threaded = config, clock, connect, threaded
        self._lock, self._leaves = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Take the arm's lock, connect, set the robot's watchdog and take a first state. Raises BadInputError."""
        with ExitStack() as stack:
            stack.enter_context(ArmLock(f"ur-{self._config.address}"))
            self._control, self._receive = self._connect(self._config)
            stack.callback(self._let_go)
            self._fault: str | None = None
            self._ramp: tuple[Array, float, Array, float] | None = None
            self._stamp, self._state, self._heard_s = -math.inf, None, self._clock.now_s()
            self._leaves.clear()
            try:
                self._control.setWatchdog(1.0 / self._config.watchdog_s)
                self._read(self._clock.now_s())
            except RuntimeError as error:
                raise BadInputError(
                    f"arm 'ur': {self._config.address} was lost ({error}); check its network link"
                ) from None
            if self._threaded:
                self._thread = threading.Thread(target=self._stream, name="ur servo", daemon=True)
                self._thread.start()
            self._stack = stack.pop_all()
        return self

    _state: ArmState | None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaves.set()
        if self._thread is not None:
            self._thread.join()
        self._stack.close()

    def _let_go(self) -> None:
        """Stop the robot, then its program, then the connection; where one of them is gone, the others all the same."""
        with ExitStack() as stack:
            for end in (self._receive.disconnect, self._control.disconnect, self._control.stopScript):
                stack.callback(_whatever_it_says, end)
            stack.callback(_whatever_it_says, lambda: self._control.servoStop(_DECELERATION_M_S2))

    def state(self) -> ArmState:
        """Return the newest state. Raises HardwareError when it is too old."""
        now_s = self._clock.now_s()
        with self._lock:
            self._heard_s = now_s
            state, fault = self._state, self._fault
        if state is None or now_s - state.measured_s > self._config.max_state_age_s:
            age = "never came" if state is None else f"is {1e3 * (now_s - state.measured_s):.0f} ms old"
            raise HardwareError(
                f"arm 'ur': its state {age} (limit {1e3 * self._config.max_state_age_s:.0f} ms); check its network link"
            )
        return state if fault is None else replace(state, fault=fault)

    def send(self, command: SafeCommand) -> None:
        """Go to the command's pose by its due time. Raises TypeError for anything but a SafeCommand."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"an arm accepts a SafeCommand only, got {type(command).__name__}; use robot.safety.step")
        now_s = self._clock.now_s()
        with self._lock:
            self._heard_s = now_s
            if self._fault is None and self._state is not None:
                here = self._state.T_base_tcp if self._ramp is None else _on_ramp(self._ramp, now_s)
                self._ramp = here, now_s, command.T_base_tcp, command.due_s

    def hold(self) -> None:
        """Keep the last safe target; the filter has braked to it already."""
        now_s = self._clock.now_s()
        with self._lock:
            self._heard_s = now_s

    def clear_fault(self) -> None:
        """Start the robot's program anew where it was stopped; a protective stop is unlocked at the pendant only.

        Raises HardwareError when the connection is gone.
        """
        now_s = self._clock.now_s()
        with self._lock:
            try:
                if not self._control.isProgramRunning():
                    self._control.reuploadScript()
                    self._control.setWatchdog(1.0 / self._config.watchdog_s)
                self._fault, self._ramp = self._stopped(), None
            except RuntimeError as error:
                raise HardwareError(f"arm 'ur': {error}; look at the robot, then start the run again") from None
            self._heard_s = now_s

    def cycle(self, now_s: float) -> None:
        """Read the robot, kick its watchdog and send the set-point of this instant; every `1 / rate_hz`."""
        self._read(now_s)
        with self._lock:
            silent_s = now_s - self._heard_s
            if self._fault is None and silent_s > self._config.watchdog_s:
                self._fault = f"the loop was silent for {1e3 * silent_s:.0f} ms; look at the robot, then arm again"
            if self._fault is not None:
                if self._ramp is not None:
                    self._control.servoStop(_DECELERATION_M_S2)
                    self._ramp = None
                return  # no kick: the robot's own watchdog ends its program
            self._control.kickWatchdog()
            if self._ramp is None:
                return
            T = _on_ramp(self._ramp, now_s)
            target = [*T[:3, 3].tolist(), *matrix_to_rotvec(T[:3, :3]).tolist()]
            config = self._config
            if not self._control.servoL(target, 0.0, 0.0, 1.0 / config.rate_hz, config.lookahead_s, config.gain):
                self._fault = "servoL was refused; see the pendant, then arm again"

    def _stream(self) -> None:
        """Run cycles against absolute deadlines until the arm is left; a thread's error is the arm's fault."""
        period_s = 1.0 / self._config.rate_hz
        deadline_s = self._clock.now_s()
        while not self._leaves.is_set():
            deadline_s = max(deadline_s + period_s, self._clock.now_s())
            self._clock.sleep_until(deadline_s)
            try:
                self.cycle(self._clock.now_s())
            except RuntimeError as error:  # what the library raises when the connection is gone
                with self._lock:
                    self._fault = f"ur-rtde: {error}"

    def _read(self, now_s: float) -> None:
        """Take the robot's newest state; the time is that of its arrival."""
        receive = self._receive
        stamp = receive.getTimestamp()
        if stamp == self._stamp:
            return
        values = np.array(receive.getActualTCPPose(), np.float64)
        T_base_tcp = pose(rotvec_to_matrix(values[3:]), values[:3])
        velocity = np.array(receive.getActualTCPSpeed(), np.float64)
        force = np.array(receive.getActualTCPForce(), np.float64)
        for array in (T_base_tcp, velocity):
            array.setflags(write=False)
        state = ArmState(
            measured_s=now_s,
            q_rad=np.zeros(0),
            dq_rad_s=np.zeros(0),
            T_base_tcp=T_base_tcp,
            tcp_velocity=velocity,
            gripper_width_m=0.0,
            force_n=float(np.linalg.norm(force[:3])),
        )
        with self._lock:
            self._stamp, self._state = stamp, state
            self._fault = self._fault or self._stopped()

    def _stopped(self) -> str | None:
        """Why the robot itself does not move; None while it would."""
        if not self._receive.isConnected():
            return "connection lost; check its network link, then start again"
        if self._receive.isEmergencyStopped():
            return "emergency stop; release it and start the robot at the pendant, then arm again"
        if self._receive.isProtectiveStopped():
            return "protective stop; unlock it at the pendant, then arm again"
        if not self._control.isProgramRunning():
            return "its program was stopped, by the pendant or by its watchdog; arm again"
        return None


def _whatever_it_says(end: Callable[[], object]) -> None:
    """Call `end`; the library raises RuntimeError where the connection is gone, and nobody can heed that any more."""
    with suppress(RuntimeError):
        end()


def _on_ramp(ramp: tuple[Array, float, Array, float], now_s: float) -> Array:
    """Return the pose (4, 4) at `now_s` between two timed ones; the ends beyond them."""
    T_from, from_s, T_to, to_s = ramp
    share = 1.0 if to_s <= from_s else min(1.0, max(0.0, (now_s - from_s) / (to_s - from_s)))
    return interpolate_pose(T_from, T_to, share)
