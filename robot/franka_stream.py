"""A Franka as an arm that takes a stream: what stands between the servo's steps and the vendor's blocking calls."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from robot.arm_lock import ArmLock
from robot.arm_state import ArmState
from robot.errors import BadInputError, HardwareError
from robot.fr3 import FR3Kinematics
from robot.franka_config import FrankaArmConfig
from robot.franka_faults import mode_fault
from robot.franka_hand import FrankaHand
from robot.franka_link import FrankaLink, FrankaSample
from robot.joint_stream import Joints, Reading, SetPoint
from robot.realtime import keep_up_with

_ANSWERS_S = 8.0  # an arm that belongs to another program accepts the connection and never answers
_SIMULATOR_S = 20.0  # the longest that one needs to start
_POLL_S = 0.001  # the arm's own period
_WAIT_S = 0.01

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What the attending thread saw last; replaced as a whole, so that no reader sees half of it."""

    sample: FrankaSample
    measured_s: float
    fault: str | None  # of the arm itself, which then follows nothing
    hand_fault: str | None  # the arm goes on to follow, so that it can be braked
    clears: int


class FrankaStream:
    """The servo's end of a Franka. `read` and `write` never block; all that may does so in a thread of its own.

    It stands disarmed, held by its own controller, until a person arms: only then does tracking start. A reflex, a
    stop button or the end of tracking for any other cause is a fault that stays until the arm verb, which alone has
    the arm recover. The stream is not followed while the arm has a fault; for one of its hand the servo brakes.

    A state's time is when it was first seen on this host: it left the arm at most its period of 1 ms, the network and
    one look (1 ms) before.

    Args:
        config: of the station.
        connect: opens the arm.
        now_s: the host's monotonic clock [s].
    """

    def __init__(
        self,
        config: FrankaArmConfig,
        connect: Callable[[FrankaArmConfig], FrankaLink],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._connect, self._now_s = config, connect, now_s
        self._where = f"franka {config.address}"
        self._kinematics = FR3Kinematics(T_flange_tcp=config.tool.T_flange_tcp)
        self._lock = ArmLock(f"franka-{config.address}")
        self._asked = self._heeded = 0  # counts of clears
        self._tracked, self._ends = False, False
        self._look: _Look | None = None
        self._fault: str | None = None
        self._lost: str | None = None
        self._q_set: Joints | None = None  # the set-point in force, None where the arm's own controller holds it
        self._built: tuple[_Look, ArmState] | None = None

    def __enter__(self) -> Self:
        """Take the arm's lock. Raises BadInputError when another run on this machine has it."""
        self._lock.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Bring the arm to rest and let go of it."""
        self._ends = True
        if self._look is not None:
            self._hand.end()
            self._thread.join(2.0)
            self._link.close()
        self._lock.__exit__(kind, error, trace)

    def open(self, alive: Callable[[], bool]) -> bool:
        """Connect, and see the first state; False when told to end meanwhile.

        Args:
            alive: called all the while; False ends the waiting.

        Raises:
            BadInputError: the arm cannot be had; one line with the cure.
        """
        links: list[FrankaLink] = []
        errors: list[Exception] = []
        simulated = self._config.simulator is not None and self._config.simulator.start
        patience_s = _SIMULATOR_S if simulated else _ANSWERS_S
        until_s = self._now_s() + patience_s

        def connect() -> None:
            while not links:
                try:
                    links.append(self._connect(self._config))
                except Exception as error:  # of whatever kind: the other thread has to hear of it
                    if simulated and isinstance(error, BadInputError) and self._now_s() < until_s:  # it still starts
                        time.sleep(0.1)
                        continue
                    errors.append(error)
                    return

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        while thread.is_alive():
            if not alive():
                return False
            if self._now_s() > until_s:
                raise BadInputError(
                    f"{self._where}: no answer within {patience_s:g} s; another program may hold it, one owner is "
                    "allowed: end that one, or correct arm.address"
                )
            thread.join(_WAIT_S)
        for error in errors:
            raise error
        self.begin(links[0])
        self._thread = threading.Thread(target=self._attend_on, daemon=True)
        self._thread.start()
        self._hand.begin()
        return True

    def begin(self, link: FrankaLink) -> None:
        """Take a connected arm and see its first state. Raises HardwareError when it has none."""
        self._link = link
        self._hand = FrankaHand(link.hand)
        self.attend()

    def read(self) -> Reading | None:
        """Return the newest reading, None before there is one. Raises HardwareError once the connection is lost."""
        if self._lost is not None:
            raise HardwareError(self._lost)
        look = self._look
        if look is None:
            return None
        following = self._tracked and look.sample.tracks and look.fault is None and look.clears == self._asked
        if not following:
            self._q_set = None
            self._hand.drop()
        state = self._state(look)
        return Reading(
            arm=state,
            following=following,
            q_set_rad=tuple(state.q_rad.tolist()) if self._q_set is None else self._q_set,
            gripper_set_m=self._hand.wanted_m,
            clears=look.clears,
        )

    def write(self, point: SetPoint) -> None:
        """Stream the next set-point; one with a new count of clears has the arm recover and begin to track."""
        self._asked = point.clears
        look = self._look
        if look is None or not (self._tracked and look.sample.tracks and look.fault is None):
            return
        if look.clears == point.clears:
            self._link.follow(point.q_rad, point.dq_rad_s)
            self._q_set = point.q_rad
            if point.resting:
                self._hand.drop()
            else:
                self._hand.want(point.gripper_width_m)

    def attend(self) -> None:
        """One round of the thread: heed the arm verb, read a state, see what is wrong. Raises HardwareError."""
        asked = self._asked
        if asked != self._heeded:
            self._rearm()
            self._heeded = asked
        sample = self._link.read()
        if self._fault is None:
            self._fault = mode_fault(self._where, sample.mode, sample.errors)
        if self._fault is None and self._tracked and not sample.tracks:
            self._fault = f"{self._where} stopped tracking ({self._link.ended()}); look at it, then arm again"
        if self._fault is not None:
            self._tracked = self._tracked and sample.tracks
        before = self._look
        old = before is not None and sample.robot_s == before.sample.robot_s
        self._look = _Look(
            sample=sample,
            measured_s=before.measured_s if before is not None and old else self._now_s(),
            fault=self._fault,
            hand_fault=self._hand.fault,
            clears=self._heeded,
        )

    def _rearm(self) -> None:
        """Do what the person's arm verb asks of the arm; what fails is the fault that follows."""
        self._fault = None
        self._hand.clear()
        try:
            sample = self._link.read()
            if sample.mode == "Reflex":
                self._link.recover()
                sample = self._link.read()
            self._fault = mode_fault(self._where, sample.mode, sample.errors)
            if self._fault is None and not sample.tracks:
                self._link.start()
            self._tracked = self._fault is None
        except HardwareError as error:
            self._fault, self._tracked = f"{error}; look at the arm, then arm again", False

    def _attend_on(self) -> None:
        try:
            while not self._ends:
                keep_up_with(os.getpid())
                before = self._look
                self.attend()
                if before is not None and self._look is not None and self._look.measured_s == before.measured_s:
                    time.sleep(_POLL_S)
        except Exception as error:  # of whatever kind: the servo has to hear of it
            self._lost = f"{error}; the arm stops by itself: look at it, then start the run again"

    def _state(self, look: _Look) -> ArmState:
        """Return the state of a look; the same object while there is no newer one but for the gripper."""
        if self._built is not None and self._built[0] is look:
            return self._built[1]
        sample, wrench = look.sample, look.sample.wrench
        state = ArmState(
            measured_s=look.measured_s,
            q_rad=_frozen(sample.q_rad),
            dq_rad_s=_frozen(sample.dq_rad_s),
            T_base_tcp=_frozen(sample.T_base_tcp),
            tcp_velocity=_frozen(self._kinematics.jacobian(sample.q_rad) @ sample.dq_rad_s),
            gripper_width_m=self._hand.width_m,
            force_n=None if wrench is None else float(np.linalg.norm(wrench[:3])),
            fault=look.fault or look.hand_fault,
            wrench=None if wrench is None else _frozen(wrench),
        )
        self._built = look, state
        return state


def _frozen(values: Array) -> Array:
    array = np.array(values, np.float64)
    array.setflags(write=False)
    return array
