"""Cameras and arm to one observation with a verdict. It never blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from perception.arm_history import ArmHistory, Around
from perception.camera import Camera
from perception.config import SynchroniserConfig
from perception.frame import Frame, FrameStamp
from perception.frame_choice import Chosen, latest_common, nearest, usable
from perception.frame_verdict import judge, middle_s, repeated, skew_s
from perception.observation import Observation, Verdict
from perception.proprioception import proprioception
from robot.arm_state import ArmState

Rows = dict[str, list[FrameStamp]]  # stamps that may be used, by camera, oldest first; none of them is empty


class Synchroniser:
    """Chooses one frame of each camera such that they belong together, and copies those only.

    Frames never go back: each is the one used before or a newer one. A set that the loop may act on is preferred to
    one with less skew for which it would have to hold.

    Args:
        cameras: opened by the caller.
        config: how to choose, and thresholds.
        proprio_keys: what the bundle asks for, in its order.
        arm_history: gives the states that the arm measured between two looks, where it has them.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        config: SynchroniserConfig,
        proprio_keys: Sequence[str],
        arm_history: Callable[[], Sequence[ArmState]] | None = None,
    ) -> None:
        self._cameras = {camera.name: camera for camera in cameras}
        self._config, self._proprio_keys, self._arm_history = config, proprio_keys, arm_history
        self._used: dict[str, Frame] = {}
        self._repeats: dict[str, int] = {}
        self._states = ArmHistory(span_s=config.max_age_s + 1.0)

    def observe(self, now_s: float, state: ArmState) -> Observation:
        """Return what is known at `now_s`; frames are used only when `verdict` is FRESH."""
        frames = self._frames(now_s)
        self._repeats = repeated(self._repeats, self._used, frames)
        there = {name: frame for name, frame in frames.items() if frame is not None}
        self._used |= there
        then, around = self._arm_at(middle_s(frames), state)
        return Observation(
            images={name: frame.rgb for name, frame in there.items()},
            proprio=proprioception(then, self._proprio_keys),
            proprio_s=then.measured_s,
            around=around,
            state=state,
            captured_s={name: frame.captured_s if frame else math.nan for name, frame in frames.items()},
            arrived_s={name: frame.arrived_s if frame else math.nan for name, frame in frames.items()},
            uncertainty_s={name: frame.uncertainty_s if frame else math.nan for name, frame in frames.items()},
            frame_ids={name: frame.frame_id if frame else -1 for name, frame in frames.items()},
            skew_s=skew_s(frames),
            verdict=judge(frames, self._repeats, now_s, self._config),
        )

    def rehearse(self, now_s: float) -> None:
        """Do what `observe` does with the frames and keep nothing, to have it in the caches."""
        self._frames(now_s)

    def _frames(self, now_s: float) -> dict[str, Frame | None]:
        """Choose and copy; where a chosen frame is gone meanwhile, choose again without it."""
        rows: Rows = {}
        for name, camera in self._cameras.items():
            row = usable(camera.recent(now_s, self._config.history), self._used.get(name), now_s)
            if row:
                rows[name] = row
        frames: dict[str, Frame | None] = dict.fromkeys(self._cameras)
        while rows:
            chosen = dict(zip(rows, self._choose(rows, now_s), strict=True))
            gone = None
            for name, stamp in chosen.items():
                frames[name] = self._copy(name, stamp, frames[name])
                if frames[name] is None:
                    gone = name
                    break
            if gone is None:
                break
            rows[gone].remove(chosen[gone])
            if not rows[gone]:
                del rows[gone]
        return frames

    def _choose(self, rows: Rows, now_s: float) -> Chosen:
        """The best set for which the loop need not hold; without any, the best."""
        config = self._config
        if config.policy == "nearest":
            return nearest(list(rows.values()))
        ranked = latest_common(
            list(rows.values()), tolerance_s=config.skew_tolerance_s, max_extra_age_s=config.extra_age_s
        )
        for chosen in ranked:
            stamps: dict[str, FrameStamp | None] = dict(zip(rows, chosen, strict=True))
            if judge(stamps, repeated(self._repeats, self._used, stamps), now_s, config) is Verdict.FRESH:
                return chosen
        return ranked[0]

    def _copy(self, name: str, stamp: FrameStamp, copied: Frame | None) -> Frame | None:
        """The frame in memory of our own; what was copied for this look or the last one is not copied again."""
        for frame in (copied, self._used.get(name)):
            if frame is not None and (frame.frame_id, frame.captured_s) == (stamp.frame_id, stamp.captured_s):
                return frame
        return self._cameras[name].frame(stamp)

    def _arm_at(self, frames_s: float | None, state: ArmState) -> tuple[ArmState, Around | None]:
        """The state that the proprioception is made from, and what it was interpolated from if it is not `state`."""
        if self._config.proprio_time == "tick":
            return state, None
        for past in self._arm_history() if self._arm_history else ():
            self._states.add(past)
        self._states.add(state)
        if frames_s is None or frames_s >= state.measured_s:
            return state, None
        around = self._states.around(frames_s)
        return around.at(frames_s), around
