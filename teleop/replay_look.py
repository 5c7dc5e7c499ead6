"""The loop's look at frames and arm once more: proprioception, skew and verdict from what was logged of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from perception.config import SynchroniserConfig
from perception.frame import FrameStamp
from perception.frame_verdict import judge, judge_cloud, middle_s, repeated, skew_s
from perception.observation import Observation, Verdict
from perception.proprioception import proprioception
from policy.episode_schema import EpisodeSpec, Row
from robot.arm_state import ArmState
from teleop.replay_finding import Finding, differing
from teleop.tick import TickInputs
from teleop.tick_row import pack_arm, pack_around


class LoggedLook:
    """Judges logged frames as the loop did.

    How often a frame had been repeated before the first row is not in the log, so until each camera has shown
    a new one, fresh and repeated are taken as logged.
    """

    def __init__(
        self, spec: EpisodeSpec, config: SynchroniserConfig, required_cloud_age_s: float | None = None
    ) -> None:
        self._spec, self._config, self._cloud_age_s = spec, config, required_cloud_age_s
        self._names = [name for name, _, _ in spec.cameras]
        self.restart()

    def restart(self) -> None:
        """Forget the frames seen: an episode begins, or ticks are missing."""
        self._used: dict[str, FrameStamp] = {}
        self._repeats: dict[str, int] = {}
        self._first_ids: dict[str, int] = {}
        self._renewed: set[str] = set()
        self._arms: dict[float, NDArray[np.float64]] = {}  # packed states of the rows, by their time

    def findings(self, row: Row, inputs: TickInputs) -> Iterator[Finding]:
        """Yield what the synchroniser sees otherwise than the log says."""
        look, tick = inputs.observation, inputs.index
        stamps = _stamps(look, self._names)
        for name, stamp in stamps.items():
            if stamp is None:
                if row[f"obs/{name}_image"].any():
                    yield Finding(
                        tick=tick, field=f"obs/{name}_image", logged="a picture", expected="none, as its id is -1"
                    )
            elif self._first_ids.setdefault(name, stamp.frame_id) != stamp.frame_id:
                self._renewed.add(name)
        self._repeats = repeated(self._repeats, self._used, stamps)
        self._used |= {name: stamp for name, stamp in stamps.items() if stamp is not None}
        expected_skew_s = np.array(skew_s(stamps))
        found = differing("tick/skew_s", np.array(look.skew_s), expected_skew_s, tick=tick, arithmetic=False)
        if found:
            yield found
        verdict = judge(stamps, self._repeats, inputs.now_s, self._config)
        cloud_s = look.cloud.captured_s if look.cloud is not None and look.cloud.count else None
        verdict = judge_cloud(verdict, cloud_s, inputs.now_s, self._cloud_age_s)
        unsure = len(self._renewed) < len(self._names)
        verdicts = {look.verdict, verdict}
        if len(verdicts) > 1 and not (unsure and verdicts == {Verdict.FRESH, Verdict.REPEATED}):
            yield Finding(tick=tick, field="tick/verdict", logged=look.verdict.name, expected=verdict.name)
        yield from self._proprioception(row, look, middle_s(stamps), tick)

    def _proprioception(self, row: Row, look: Observation, frames_s: float | None, tick: int) -> Iterator[Finding]:
        """What the arm's states around the frames' time give. They are inputs; what rows have must be the same."""
        then = look.state
        self._arms[look.state.measured_s] = pack_arm(look.state)
        interpolated = self._config.proprio_time == "frames" and frames_s is not None
        if interpolated and look.around is not None and frames_s is not None:
            then = look.around.at(frames_s)
            for state in (look.around.before, look.around.after):
                yield from self._foreign(state, tick)
        elif look.around is not None:
            absent = pack_around(None, self._spec.joint_count)
            found = differing("tick/arm_around", row["tick/arm_around"], absent, tick=tick, arithmetic=False)
            if found:
                yield found
        elif interpolated and frames_s is not None and frames_s < look.state.measured_s:
            yield Finding(
                tick=tick, field="tick/arm_around", logged="absent", expected="the states around the frames' time"
            )
        proprio_s = np.array(then.measured_s)
        found = differing("tick/proprio_s", np.array(look.proprio_s), proprio_s, tick=tick, arithmetic=False)
        if found:
            yield found
        values, start = proprioception(then, [key for key, _ in self._spec.proprio]), 0
        for key, size in self._spec.proprio:
            expected = values[start : start + size]
            found = differing(f"obs/{key}", row[f"obs/{key}"], expected, tick=tick, arithmetic=True)
            if found:
                yield found
            start += size

    def _foreign(self, state: ArmState, tick: int) -> Iterator[Finding]:
        """A state that a row has as well must be that row's."""
        known = self._arms.get(state.measured_s)
        if known is not None:
            found = differing("tick/arm_around", pack_arm(state), known, tick=tick, arithmetic=False)
            if found:
                yield found


def _stamps(look: Observation, names: list[str]) -> Mapping[str, FrameStamp | None]:
    return {
        name: FrameStamp(
            frame_id=look.frame_ids[name],
            captured_s=look.captured_s[name],
            arrived_s=look.arrived_s[name],
            uncertainty_s=look.uncertainty_s[name],
        )
        if look.frame_ids[name] >= 0
        else None
        for name in names
    }
