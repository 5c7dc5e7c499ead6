"""Which frames belong together: pure choices among the last stamps of each camera."""

from __future__ import annotations

from collections.abc import Sequence

from perception.frame import FrameStamp

_ROUNDING_S = 1e-6  # of times that were summed in another order than the clock's
Row = Sequence[FrameStamp]  # of one camera, oldest first
Chosen = tuple[FrameStamp, ...]  # one frame of each camera


def latest_common(rows: Sequence[Row], *, tolerance_s: float, max_extra_age_s: float) -> list[Chosen]:
    """Return sets of one frame of each camera, the best first, each of which could be used.

    For a given oldest frame, the set with the least skew takes the first frame of every other camera that is not
    older. So there is one set to look at for each frame that may be the oldest, not one for each combination.

    First come the sets whose skew is within `tolerance_s` of the least possible, newest first, then the others with the
    least skew first. A set is as old as its oldest frame. Those that are more than `max_extra_age_s` older than the
    newest possible set are left out: a good match of the past is not worth so much.

    Args:
        rows: for each camera at least one stamp, oldest first.
        tolerance_s: skew that is not worth an older set [s].
        max_extra_age_s: age that less skew may cost [s].
    """
    newest_s = min(row[-1].captured_s for row in rows)
    sets: dict[tuple[float, float], Chosen] = {}
    for row in rows:
        for oldest in row:
            if newest_s - max_extra_age_s <= oldest.captured_s <= newest_s:
                chosen = tuple(_first_from(other, oldest.captured_s) for other in rows)
                skew_s = max(stamp.captured_s for stamp in chosen) - oldest.captured_s
                sets[oldest.captured_s, skew_s] = chosen
    limit_s = min(skew_s for _, skew_s in sets) + tolerance_s
    order = sorted(sets, key=lambda key: (key[1] > limit_s, key[1] if key[1] > limit_s else 0.0, -key[0]))
    return [sets[key] for key in order]


def nearest(rows: Sequence[Row]) -> Chosen:
    """Return each camera's frame that was taken nearest to the reference.

    The reference is the newest frame of the camera that is furthest behind: nothing newer can be had of that one, and
    every other camera has frames on both sides of it. Of two equally near frames the newer is taken.
    """
    reference_s = min(row[-1].captured_s for row in rows)
    return tuple(min(reversed(row), key=lambda stamp: abs(stamp.captured_s - reference_s)) for row in rows)


def usable(stamps: Sequence[FrameStamp], used: FrameStamp | None, now_s: float) -> list[FrameStamp]:
    """Return those stamps that may be used at `now_s`, oldest first.

    Neither frames from the future nor any from before the one that was `used` last, by its number or its time; of
    frames out of order the later ones are left out. A time that is no number is from the future.
    """
    kept: list[FrameStamp] = []
    last = used
    for stamp in stamps:
        again = used is not None and stamp.frame_id == used.frame_id and stamp.captured_s == used.captured_s
        later = last is None or (stamp.frame_id > last.frame_id and stamp.captured_s > last.captured_s)
        if (later or (again and not kept)) and stamp.captured_s <= now_s + _ROUNDING_S:
            kept.append(stamp)
            last = stamp
    return kept


def _first_from(row: Row, time_s: float) -> FrameStamp:
    """The oldest stamp that is not older than `time_s`; there is one, as `time_s` is not after any row's newest."""
    for stamp in row:
        if stamp.captured_s >= time_s:
            return stamp
    return row[-1]
