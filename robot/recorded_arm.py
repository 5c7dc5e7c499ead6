"""An arm that plays what a real one did."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np

from robot.arm_state import ArmState
from robot.clock import Clock
from robot.command import SafeCommand
from robot.recording import Recording


class RecordedArm:
    """Plays the episode that is selected in a `Recording`; commands are taken and change nothing.

    The state is the newest recorded one, never interpolated towards the next: an arm cannot know it. After the
    last step the state stays and grows old.
    """

    joint_count = 0
    open_loop = True

    def __init__(self, recording: Recording, clock: Clock, *, gripper_open_m: float, gripper_closed_m: float) -> None:
        self._recording = recording
        self._clock = clock
        self._open_m = gripper_open_m
        self._closed_m = gripper_closed_m

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def state(self) -> ArmState:
        """Return the newest recorded state; at rest in the first one until the playback begins.

        Raises:
            HardwareError: no episode is playing.
        """
        episode = self._recording.playing
        now_s = self._clock.now_s()
        played = self._recording.step(now_s)
        step = max(played, 0)
        return ArmState(
            measured_s=float(self._recording.times_s[step]) if played >= 0 else now_s,
            q_rad=np.zeros(0),
            dq_rad_s=np.zeros(0),
            T_base_tcp=episode.T_base_tcp[step],
            tcp_velocity=episode.tcp_velocity[step],
            gripper_width_m=self._closed_m + float(episode.opening[step]) * (self._open_m - self._closed_m),
        )

    def send(self, command: SafeCommand) -> None:
        """Take a safe command and play on. Raises TypeError for anything else."""
        if not isinstance(command, SafeCommand):
            raise TypeError(f"an arm accepts a SafeCommand only, got {type(command).__name__}; use robot.safety.step")

    def hold(self) -> None:
        """Play on: what happened cannot be held."""

    def clear_fault(self) -> None:
        """Do nothing: a recording has no faults."""
