"""Cameras and arm to one observation with a verdict. It never blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perception.camera import Camera
from perception.config import SynchroniserConfig
from perception.observation import Observation, Verdict
from perception.proprioception import proprioception
from robot.arm_state import ArmState


class Synchroniser:
    """Takes the newest frame of each camera and judges age, skew and repetition.

    Args:
        cameras: opened by the caller.
        config: thresholds.
        proprio_keys: what the bundle asks for, in its order.
    """

    def __init__(self, cameras: Sequence[Camera], config: SynchroniserConfig, proprio_keys: Sequence[str]) -> None:
        self._cameras, self._config, self._proprio_keys = cameras, config, proprio_keys
        self._last_ids: dict[str, int] = {}
        self._repeats: dict[str, int] = {}

    def observe(self, now_s: float, state: ArmState) -> Observation:
        """Return what is known at `now_s`; frames are used only when `verdict` is FRESH."""
        frames = {camera.name: camera.latest(now_s) for camera in self._cameras}
        there = {name: frame for name, frame in frames.items() if frame is not None}
        captured_s = {name: frame.captured_s if frame else math.nan for name, frame in frames.items()}
        skew_s = max(captured_s.values()) - min(captured_s.values()) if len(there) == len(frames) else math.nan
        for name, frame in there.items():
            repeated = self._last_ids.get(name) == frame.frame_id
            self._repeats[name] = self._repeats.get(name, 0) + 1 if repeated else 0
            self._last_ids[name] = frame.frame_id
        if len(there) < len(frames):
            verdict = Verdict.MISSING
        elif now_s - min(captured_s.values()) > self._config.max_age_s:
            verdict = Verdict.STALE
        elif skew_s > self._config.max_skew_s:
            verdict = Verdict.SKEWED
        elif max(self._repeats.values()) > self._config.max_repeats:
            verdict = Verdict.REPEATED
        else:
            verdict = Verdict.FRESH
        return Observation(
            images={name: frame.rgb for name, frame in there.items()},
            proprio=proprioception(state, self._proprio_keys),
            state=state,
            captured_s=captured_s,
            arrived_s={name: frame.arrived_s if frame else math.nan for name, frame in frames.items()},
            frame_ids={name: frame.frame_id if frame else -1 for name, frame in frames.items()},
            skew_s=skew_s,
            verdict=verdict,
        )
