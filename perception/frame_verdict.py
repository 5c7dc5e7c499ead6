"""The judgement on a set of frames: pure, so that a replay comes to the same one from what was logged."""

from __future__ import annotations

import math
from collections.abc import Mapping

from perception.config import SynchroniserConfig
from perception.frame import FrameStamp
from perception.observation import Verdict

Set = Mapping[str, FrameStamp | None]  # by camera; None: no frame
Repeats = Mapping[str, int]  # by camera: how many looks in a row before this one showed its frame already


def repeated(before: Repeats, used: Set, chosen: Set) -> dict[str, int]:
    """Count on: `used` are the frames of the look before. A camera without a frame keeps its count and its frame."""
    counts = dict(before)
    for name, stamp in chosen.items():
        if stamp is not None:
            last = used.get(name)
            again = last is not None and last.frame_id == stamp.frame_id
            counts[name] = before.get(name, 0) + 1 if again else 0
    return counts


def skew_s(chosen: Set) -> float:
    """Greatest minus least capture time [s]; NaN when a frame is missing."""
    times = [math.nan if stamp is None else stamp.captured_s for stamp in chosen.values()]
    return math.nan if not times or any(map(math.isnan, times)) else max(times) - min(times)


def judge(chosen: Set, repeats: Repeats, now_s: float, config: SynchroniserConfig) -> Verdict:
    """Say whether a loop may act on these frames at `now_s`. The oldest one decides on age.

    Of a rig without cameras there is nothing to wait for.
    """
    if not chosen:
        return Verdict.FRESH
    times = [stamp.captured_s for stamp in chosen.values() if stamp is not None]
    if not times or len(times) < len(chosen):
        return Verdict.MISSING
    if now_s - min(times) > config.max_age_s:
        return Verdict.STALE
    if max(times) - min(times) > config.max_skew_s:
        return Verdict.SKEWED
    if max(repeats.values()) > config.max_repeats:
        return Verdict.REPEATED
    return Verdict.FRESH


def judge_cloud(verdict: Verdict, captured_s: float | None, now_s: float, required_age_s: float | None) -> Verdict:
    """Judge on with the cloud: taken at `captured_s`, None where nothing was seen; at most `required_age_s` old.

    `required_age_s` is None where the policy takes none.
    """
    if verdict is not Verdict.FRESH or required_age_s is None:
        return verdict
    if captured_s is None:
        return Verdict.MISSING
    return Verdict.STALE if now_s - captured_s > required_age_s else verdict


def middle_s(chosen: Set) -> float | None:
    """The moment that the frames show: the middle of their capture times [s]; None when a frame is missing."""
    times = [stamp.captured_s for stamp in chosen.values() if stamp is not None]
    return None if len(times) < len(chosen) or not times else min(times) + (max(times) - min(times)) / 2.0
