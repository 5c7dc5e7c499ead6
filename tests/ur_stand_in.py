"""The two interfaces of ur-rtde in front of a point that follows, in the loop's virtual time."""

from __future__ import annotations

import numpy as np

from robot.clock import VirtualClock
from robot.ur import Pose, URArm

STEP_S = 0.008
START = [0.4, -0.1, 0.3, np.pi, 0.0, 0.0]


class URStandIn:
    """Control and Receive in one: it goes to the last servoL within its time, and has the robot's watchdog."""

    def __init__(self) -> None:
        self.pose, self.speed = list(START), [0.0] * 6
        self.now_s = self.kicked_s = 0.0
        self.min_frequency = 0.0
        self.running, self.protective, self.emergency, self.connected = True, False, False, True
        self.calls: list[tuple[object, ...]] = []
        self.frozen = self.refuses = False

    def advance(self, by_s: float) -> None:
        """Let the robot's own time pass."""
        if self.frozen:
            return
        self.now_s += by_s
        if self.min_frequency and self.now_s - self.kicked_s > 1.0 / self.min_frequency:
            self.running = False

    def servoL(
        self, pose: Pose, speed: float, acceleration: float, time: float, lookahead_time: float, gain: float
    ) -> bool:
        self.calls.append(("servoL", tuple(pose), time, lookahead_time, gain))
        if not self.running or self.protective or self.refuses:
            return False
        self.speed = [(after - before) / time for after, before in zip(pose, self.pose, strict=True)]
        self.pose = list(pose)
        return True

    def servoStop(self, a: float) -> bool:
        self.calls.append(("servoStop", a))
        return True

    def setWatchdog(self, min_frequency: float) -> bool:
        self.min_frequency, self.kicked_s = min_frequency, self.now_s
        return True

    def kickWatchdog(self) -> bool:
        self.kicked_s = self.now_s
        return True

    def isProgramRunning(self) -> bool:
        return self.running

    def reuploadScript(self) -> bool:
        self.calls.append(("reuploadScript",))
        self.running = True
        return True

    def stopScript(self) -> None:
        self.calls.append(("stopScript",))

    def disconnect(self) -> None:
        self.calls.append(("disconnect",))

    def getTimestamp(self) -> float:
        return self.now_s

    def getActualTCPPose(self) -> list[float]:
        return list(self.pose)

    def getActualTCPSpeed(self) -> list[float]:
        return list(self.speed)

    def getActualTCPForce(self) -> list[float]:
        return [3.0, 0.0, 4.0, 0.0, 0.0, 0.0]

    def isProtectiveStopped(self) -> bool:
        return self.protective

    def isEmergencyStopped(self) -> bool:
        return self.emergency

    def isConnected(self) -> bool:
        return self.connected


class CyclingClock:
    """Runs an arm's cycles and its robot while a virtual clock moves; `stopped` is a dead servo thread."""

    virtual = True

    def __init__(self, clock: VirtualClock, robot: URStandIn) -> None:
        self._clock, self._robot = clock, robot
        self.arm: URArm | None = None
        self.stopped = False
        self._last_s = clock.now_s()

    def now_s(self) -> float:
        self.catch_up()
        return self._clock.now_s()

    def sleep_until(self, deadline_s: float) -> None:
        self._clock.sleep_until(deadline_s)
        self.catch_up()

    def catch_up(self) -> None:
        """Make the cycles that fell due since the last look; the clock may have been moved by others."""
        while self._last_s + STEP_S <= self._clock.now_s() + 1e-9:
            self._last_s += STEP_S
            self._robot.advance(STEP_S)
            if self.arm is not None and not self.stopped:
                self.arm.cycle(self._last_s)
