"""Shows the loop to the person, without ever delaying a tick."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from perception.observation import Observation
from policy.episode_header import Outcome
from robot.clock import Clock
from robot.command import Reason
from teleop.arbiter import HoldReason, Source
from teleop.episode_result import EpisodeResult
from teleop.human_input import HumanCommand
from teleop.loop_parts import Tick
from teleop.operator_status import OperatorStatus


class StatusDisplay(Protocol):
    """What the person looks at."""

    def show(self, status: OperatorStatus, *, now_s: float) -> bool:
        """Show a status, or leave it for a newer one; return which.

        Args:
            status: of this tick.
            now_s: host monotonic clock [s].
        """
        ...


class OperatorView:
    """Watches the loop and says on a display how it stands."""

    def __init__(
        self,
        display: StatusDisplay,
        clock: Clock,
        rate_hz: float,
        results: Sequence[EpisodeResult],
        *,
        notice: str = "",
    ) -> None:
        """Args: `notice` is what the person should know before arming."""
        self._display, self._clock, self._rate_hz, self._results = display, clock, rate_hz, results
        self._notice = notice
        self._starts_s: deque[float] = deque(maxlen=20)
        self._counted = self._successes = self._failures = 0

    def tick(self, tick: Tick) -> None:
        """Show a tick of an episode."""
        self._starts_s.append(tick.inputs.now_s)
        self._show(
            tick.inputs.observation,
            source=tick.outputs.decision.source,
            armed=tick.after.arbiter.armed and not tick.after.filter.latched,
            connected=tick.inputs.human.connected,
            hold_reason=tick.outputs.decision.reason,
            safety=tick.after.filter.reasons,
            tick=tick.inputs.index,
        )

    def waiting(self, observation: Observation, human: HumanCommand) -> None:
        """Show that the robot waits to be armed."""
        self._starts_s.append(self._clock.now_s())
        reason = HoldReason.NOT_ARMED if human.connected else HoldReason.DEVICE_UNPLUGGED
        self._show(
            observation,
            source=Source.HOLD,
            armed=False,
            connected=human.connected,
            hold_reason=reason,
            notice=self._notice,
        )

    def _show(
        self,
        observation: Observation,
        *,
        source: Source,
        armed: bool,
        connected: bool,
        hold_reason: HoldReason,
        safety: Reason = Reason.NONE,
        tick: int = 0,
        notice: str = "",
    ) -> None:
        self._count()
        starts = self._starts_s
        elapsed_s = starts[-1] - starts[0] if len(starts) > 1 else 0.0
        self._display.show(
            OperatorStatus(
                images=observation.images,
                source=source,
                armed=armed,
                connected=connected,
                hold_reason=hold_reason,
                safety=safety,
                rate_hz=(len(starts) - 1) / elapsed_s if elapsed_s > 0.0 else 0.0,
                wanted_rate_hz=self._rate_hz,
                tick=tick,
                episode=len(self._results),
                successes=self._successes,
                failures=self._failures,
                notice=notice,
            ),
            now_s=self._clock.now_s(),
        )

    def _count(self) -> None:
        """Take in the episodes that ended since: a long run has thousands, a tick has no time for all of them."""
        for result in self._results[self._counted :]:
            outcome = result.outcome.outcome if result.outcome else None
            self._successes += outcome is Outcome.SUCCESS
            self._failures += outcome in (Outcome.FAILURE, Outcome.TIMEOUT)
        self._counted = len(self._results)
