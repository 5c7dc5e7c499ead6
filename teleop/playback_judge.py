"""Ends an episode of a recorded arm with the recording."""

from __future__ import annotations

from policy.episode_header import Outcome
from robot.arm_state import ArmState
from robot.clock import Clock
from robot.recording import Recording


class PlaybackJudge:
    """Cuts the episode short once the playing episode's last step has passed: nobody knows how it would end."""

    def __init__(self, recording: Recording, clock: Clock) -> None:
        self._recording, self._clock = recording, clock

    def reset(self) -> None:
        """Do nothing: the recording knows where it is."""

    def outcome(self, state: ArmState) -> Outcome | None:
        """Return TIMEOUT at the end of the recording, None before."""
        return Outcome.TIMEOUT if self._recording.finished(self._clock.now_s()) else None
