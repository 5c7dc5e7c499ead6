"""Cameras and arm to one observation with a verdict. It never blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from perception.arm_history import ArmHistory, Around
from perception.camera import Camera
from perception.config import SynchroniserConfig
from perception.frame import Frame, FrameStamp
from perception.frame_choice import Chosen, latest_common, nearest, usable
from perception.frame_verdict import judge, middle_s, repeated, skew_s
from perception.observation import Observation
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
        self._copies: dict[str, Frame] = {}  # by camera the last one, used or not
        self._repeats: dict[str, int] = {}
        self._states = ArmHistory(span_s=config.max_age_s + 1.0)

    def observe(self, now_s: float, state: ArmState) -> Observation:
        """Return what is known at `now_s`; frames are used only when `verdict` is FRESH."""
        frames = self._frames(now_s)
        self._repeats = repeated(self._repeats, self._used, frames)
        then, around = self._arm_at(frames, state)
        images: dict[str, NDArray[np.uint8]] = {}
        captured_s: dict[str, float] = {}
        arrived_s: dict[str, float] = {}
        uncertainty_s: dict[str, float] = {}
        frame_ids: dict[str, int] = {}
        for name, frame in frames.items():
            if frame is None:
                captured_s[name] = arrived_s[name] = uncertainty_s[name] = math.nan
                frame_ids[name] = -1
                continue
            self._used[name] = frame
            images[name], frame_ids[name] = frame.rgb, frame.frame_id
            captured_s[name], arrived_s[name] = frame.captured_s, frame.arrived_s
            uncertainty_s[name] = frame.uncertainty_s
        return Observation(
            images=images,
            proprio=proprioception(then, self._proprio_keys),
            proprio_s=then.measured_s,
            around=around,
            state=state,
            captured_s=captured_s,
            arrived_s=arrived_s,
            uncertainty_s=uncertainty_s,
            frame_ids=frame_ids,
            skew_s=skew_s(frames),
            verdict=judge(frames, self._repeats, now_s, self._config),
        )

    def rehearse(self, now_s: float) -> None:
        """Do what `observe` does with the frames, to have it in the caches; copies that fit are there for it already.

        What is used, and how often, stays as it is.
        """
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
            chosen = self._choose(rows, now_s)
            gone = None
            for name, stamp in zip(rows, chosen, strict=True):
                frames[name] = self._copy(name, stamp)
                if frames[name] is None:
                    gone = name, stamp
                    break
            if gone is None:
                break
            name, stamp = gone
            rows[name].remove(stamp)
            if not rows[name]:
                del rows[name]
        return frames

    def _choose(self, rows: Rows, now_s: float) -> Chosen:
        """The best set for which the loop need not hold; without any, the best."""
        config, stamps = self._config, list(rows.values())
        if config.policy == "nearest":
            return nearest(stamps)
        chosen = latest_common(
            [self._unexhausted(name, row) for name, row in rows.items()],
            now_s,
            age_weight=config.age_weight,
            max_extra_age_s=config.extra_age_s,
            max_age_s=config.max_age_s,
            max_skew_s=config.max_skew_s,
        )
        if chosen is None:
            chosen = latest_common(stamps, now_s, age_weight=config.age_weight, max_extra_age_s=config.extra_age_s)
        assert chosen is not None, "the newest set has no limit to keep"
        return chosen

    def _unexhausted(self, name: str, row: list[FrameStamp]) -> list[FrameStamp]:
        """A camera's stamps without the one that it may not show once more, where it has any other."""
        if self._repeats.get(name, 0) < self._config.max_repeats or len(row) == 1:
            return row
        used = self._used.get(name)
        return row[1:] if used is not None and row[0].frame_id == used.frame_id else row

    def _copy(self, name: str, stamp: FrameStamp) -> Frame | None:
        """The frame in memory of our own; what was copied for this look or the last one is not copied again."""
        for copies in (self._copies, self._used):
            frame = copies.get(name)
            if frame is not None and frame.frame_id == stamp.frame_id and frame.captured_s == stamp.captured_s:
                return frame
        frame = self._cameras[name].frame(stamp)
        if frame is not None:
            self._copies[name] = frame
        return frame

    def _arm_at(self, frames: Mapping[str, Frame | None], state: ArmState) -> tuple[ArmState, Around | None]:
        """The state that the proprioception is made from, and what it was interpolated from if it is not `state`."""
        if self._config.proprio_time == "tick":
            return state, None
        for past in self._arm_history() if self._arm_history else ():
            self._states.add(past)
        self._states.add(state)
        frames_s = middle_s(frames)
        if frames_s is None or frames_s >= state.measured_s:
            return state, None
        around = self._states.around(frames_s)
        return around.at(frames_s), around
