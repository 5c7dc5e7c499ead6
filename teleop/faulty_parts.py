"""Faults that the loop's own process shows on demand: of the person's device, the arm, the base policy, the learner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from policy.bundle import Bundle, Features
from policy.onnx_session import PolicyError
from robot.arm import Arm
from robot.arm_state import ArmState
from robot.clock import Clock
from robot.command import SafeCommand
from teleop.human_input import HumanCommand, HumanInput
from teleop.inject import LocalFaults
from teleop.recorder import RecorderProcess
from teleop.recorder_messages import RecorderFault

_HANG_S = 1.0  # how long a base policy in the loop's own process keeps it from going on


class FaultyInput:
    """A person's device that is unplugged or says nothing while `pad-unplug` or `pad-silent` is shown."""

    def __init__(self, device: HumanInput, faults: LocalFaults) -> None:
        self._device, self._faults = device, faults
        self._last = HumanCommand()

    def __enter__(self) -> Self:
        self._device.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._device.__exit__(kind, error, trace)

    def poll(self, now_s: float) -> HumanCommand:
        """Return what the person wants, or what is left of it."""
        command = self._device.poll(now_s)
        if self._faults.active("pad-unplug"):
            return HumanCommand(polled_s=now_s, connected=False)
        if self._faults.active("pad-silent"):
            return replace(self._last, events=type(command.events)(0))
        self._last = command
        return command


class FaultyArm:
    """An arm that reports a fault from `arm-fault` on, until it is cleared."""

    def __init__(self, arm: Arm, faults: LocalFaults) -> None:
        self._arm, self._faults = arm, faults
        self._cleared = self._faulty = False

    @property
    def joint_count(self) -> int:
        """Number of joints."""
        return self._arm.joint_count

    @property
    def open_loop(self) -> bool:
        """True when the arm plays a recording."""
        return self._arm.open_loop

    def __enter__(self) -> Self:
        self._arm.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arm.__exit__(kind, error, trace)

    def state(self) -> ArmState:
        """Return the latest state, with the injected fault on it."""
        if self._faults.active("arm-fault") and not self._cleared:
            self._faulty = True
        state = self._arm.state()
        return replace(state, fault="injected fault") if self._faulty else state

    def send(self, command: SafeCommand) -> None:
        """Hand on a command; a faulty arm holds."""
        if self._faulty:
            self._arm.hold()
        else:
            self._arm.send(command)

    def hold(self) -> None:
        """Hand on a hold."""
        self._arm.hold()

    def clear_fault(self) -> None:
        """Clear the injected fault and the arm's own."""
        self._faulty, self._cleared = False, self._faulty or self._cleared
        self._arm.clear_fault()


class FaultyRecorder:
    """Makes the recorder's disk full or slow while `disk-full` or `disk-slow` is shown."""

    def __init__(self, recorder: RecorderProcess, faults: LocalFaults) -> None:
        self._recorder, self._faults = recorder, faults
        self._shown: set[RecorderFault] = set()

    def look(self) -> None:
        """Begin or end what is due."""
        for name, number in (("disk-full", RecorderFault.DISK_FULL), ("disk-slow", RecorderFault.SLOW_DISK)):
            fault = self._faults.active(name)
            if fault and number not in self._shown:
                self._shown.add(number)
                self._recorder.inject(number, fault.amount or 1.0)
            elif not fault and number in self._shown:
                self._shown.remove(number)
                self._recorder.inject(number, 0.0)


class FaultyBundle(Bundle):
    """A base policy in the loop's own process that raises, stalls the loop or gives NaN."""

    def __init__(self, bundle: Bundle, faults: LocalFaults, clock: Clock) -> None:
        self.__dict__.update(bundle.__dict__)
        self._faults, self._clock = faults, clock

    def encode(
        self,
        images: Mapping[str, NDArray[np.uint8]],
        proprio: NDArray[np.float32],
        cloud: NDArray[np.float32] | None = None,
    ) -> Features:
        """Return the features, unless a fault is shown."""
        slow = self._faults.active("base-slow")
        if slow or self._faults.active("base-hang"):
            self._clock.sleep_until(self._clock.now_s() + (slow.amount if slow else _HANG_S))
        if self._faults.active("base-raise"):
            raise PolicyError("injected fault")
        return super().encode(images, proprio, cloud)

    def act(self, features: Features, proprio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the action chunk, or NaN in place of every action."""
        chunk = super().act(features, proprio)
        return np.full_like(chunk, np.nan) if self._faults.active("base-nan") else chunk
