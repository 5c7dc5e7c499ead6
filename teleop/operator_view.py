"""Shows the loop to the person through their window, without ever delaying a tick."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from perception.observation import Observation
from policy.episode_header import Outcome
from robot.clock import Clock
from robot.command import Reason
from teleop.arbiter import HoldReason, Source
from teleop.human_input import HumanCommand
from teleop.loop import EpisodeResult, Tick
from teleop.operator_status import OperatorStatus
from teleop.window import OperatorWindow


class OperatorView:
    """Watches the loop and draws when there is time left in the tick."""

    def __init__(self, window: OperatorWindow, clock: Clock, rate_hz: float, results: Sequence[EpisodeResult]) -> None:
        self._window, self._clock, self._rate_hz, self._results = window, clock, rate_hz, results
        self._starts_s: deque[float] = deque(maxlen=20)

    def tick(self, tick: Tick, slack_s: float) -> None:
        """Show a tick of an episode."""
        self._starts_s.append(tick.inputs.now_s)
        self._show(
            tick.inputs.observation,
            slack_s,
            source=tick.outputs.decision.source,
            armed=tick.after.arbiter.armed and not tick.after.filter.latched,
            connected=tick.inputs.human.connected,
            hold_reason=tick.outputs.decision.reason,
            safety=tick.after.filter.reasons,
            tick=tick.inputs.index,
        )

    def waiting(self, observation: Observation, human: HumanCommand, slack_s: float) -> None:
        """Show that the robot waits to be armed."""
        self._starts_s.append(self._clock.now_s())
        reason = HoldReason.NOT_ARMED if human.connected else HoldReason.DEVICE_UNPLUGGED
        self._show(observation, slack_s, source=Source.HOLD, armed=False, connected=human.connected, hold_reason=reason)

    def _show(
        self,
        observation: Observation,
        slack_s: float,
        *,
        source: Source,
        armed: bool,
        connected: bool,
        hold_reason: HoldReason,
        safety: Reason = Reason.NONE,
        tick: int = 0,
    ) -> None:
        outcomes = [result.outcome.outcome for result in self._results if result.outcome]
        starts = self._starts_s
        elapsed_s = starts[-1] - starts[0] if len(starts) > 1 else 0.0
        self._window.show(
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
                successes=outcomes.count(Outcome.SUCCESS),
                failures=outcomes.count(Outcome.FAILURE) + outcomes.count(Outcome.TIMEOUT),
            ),
            now_s=self._clock.now_s(),
            slack_s=slack_s,
        )
