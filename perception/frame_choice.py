"""Which frames belong together: pure choices among the last stamps of each camera."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perception.frame import FrameStamp

_ROUNDING_S = 1e-6  # of times that were summed in another order than the clock's
Row = Sequence[FrameStamp]  # of one camera, oldest first
Chosen = tuple[FrameStamp, ...]  # one frame of each camera


def latest_common(
    rows: Sequence[Row],
    now_s: float,
    *,
    age_weight: float,
    max_extra_age_s: float = math.inf,
    max_age_s: float = math.inf,
    max_skew_s: float = math.inf,
) -> Chosen | None:
    """Return the set of one frame of each camera with the least `skew + age_weight * age`; None where none may be used.

    A set is as old as its oldest frame. Of equally good sets the newest is taken. The answer is the best of all
    combinations: with a given oldest frame, the one with the least skew takes of every other camera the first frame
    that is not older, so that there is one set to look at for each frame that may be the oldest. They are looked at
    from the newest on, until age alone costs more than the best one so far, mostly after two or three.

    Args:
        rows: for each camera at least one stamp, by capture time.
        now_s: the present, from which ages count [s].
        age_weight: what a second of age costs in seconds of skew, 0 or more.
        max_extra_age_s: how much older than the newest possible set the chosen one may be [s].
        max_age_s: how old it may be [s].
        max_skew_s: how much skew it may have [s].
    """
    newest_s = min([row[-1].captured_s for row in rows])
    # of each camera: the first frame that is not older than the set's oldest one, its time, and that of the one before
    places: list[int] = []
    times_s: list[float] = []
    before_s: list[float] = []
    for row in rows:
        place = len(row) - 1
        while place and row[place - 1].captured_s >= newest_s:
            place -= 1
        places.append(place)
        times_s.append(row[place].captured_s)
        before_s.append(row[place - 1].captured_s if place else -math.inf)
    best, least, oldest_s = None, math.inf, newest_s
    while oldest_s >= newest_s - max_extra_age_s and now_s - oldest_s <= max_age_s:
        cost = age_weight * (newest_s - oldest_s)
        if cost >= least:
            break
        skew_s = max(times_s) - oldest_s
        if skew_s <= max_skew_s and skew_s + cost < least:
            best, least = tuple(places), skew_s + cost
        oldest_s = max(before_s)
        if oldest_s == -math.inf:
            break
        camera = before_s.index(oldest_s)
        place = places[camera] = places[camera] - 1
        times_s[camera] = oldest_s
        before_s[camera] = rows[camera][place - 1].captured_s if place else -math.inf
    return None if best is None else tuple([row[place] for row, place in zip(rows, best, strict=True)])


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
    last_id, last_s = (-1, -math.inf) if used is None else (used.frame_id, used.captured_s)
    limit_s = now_s + _ROUNDING_S
    for stamp in stamps:
        frame_id, captured_s = stamp.frame_id, stamp.captured_s
        if frame_id > last_id:
            good = captured_s > last_s
        else:  # the one in use goes on being usable
            good = frame_id == last_id and captured_s == last_s and not kept
        if good and captured_s <= limit_s:
            kept.append(stamp)
            last_id, last_s = frame_id, captured_s
    return kept
