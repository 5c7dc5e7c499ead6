"""What a capture shows while it goes on: what each camera sees, what is there, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration.capture import CameraNow, Capture
from calibration.capture_guide import CameraGuide, hand_turned_deg
from calibration.coverage import ROWS

_ADVICE = 2  # lines for each camera; the first come first
KEYS = "Enter: take a shot now    q: end"


def screen(capture: Capture, *, count: int, news: Sequence[str]) -> list[str]:
    """Return the lines of the screen.

    Args:
        capture: as it stands.
        count: shots that are wanted.
        news: what else is to be known, newest last.
    """
    width = max(8, *(len(name) for name in capture.cameras))
    lines = [f"--- {capture.folder.path}: {capture.count} of {count} shots    {KEYS}"]
    for name, now in capture.cameras.items():
        lines.append(f"{name:<{width}}  {_now(now, capture)}")
    lines.append(f"{'next':<{width}}  waits for {capture.waits_for}")
    lines += _maps(capture.guides, width)
    if capture.has_arm:
        turned = ", ".join(
            f"{axis} {deg:.0f}" for axis, deg in zip("xyz", hand_turned_deg(capture.folder.poses), strict=True)
        )
        lines.append(f"{'hand':<{width}}  {len(capture.folder.poses)} poses, turned about {turned} degrees")
    lines += missing_lines(capture.missing(), width, most=_ADVICE)
    if capture.hint:
        lines.append(f"{'look':<{width}}  {capture.hint}")
    return lines + [f"{'news':<{width}}  {line}" for line in news]


def missing_lines(missing: Mapping[str, Sequence[str]], width: int = 8, most: int | None = None) -> list[str]:
    """Return what is missing, `most` lines for each camera and for the hand."""
    if not missing:
        return [f"{'missing':<{width}}  nothing"]
    lines = []
    for name, advice in missing.items():
        for text in advice[:most]:
            lines.append(f"{'missing':<{width}}  {name}: {text}")
        if most is not None and len(advice) > most:
            lines[-1] += f"  (+{len(advice) - most})"
    return lines


def _now(now: CameraNow, capture: Capture) -> str:
    if now.view is None:
        return now.why_not
    marks = ["still" if now.still else "moving"]
    marks += ["BLURRED"] * now.blurred
    marks += ["a new view"] if now.new else ["known view"]
    return f"{len(now.view.ids):>3} of {capture.board.corner_count} corners, {', '.join(marks)}"


def _maps(guides: Mapping[str, CameraGuide], width: int) -> list[str]:
    """Where corners were seen, a map for each camera side by side."""
    columns = [
        [f"{name} {guide.count}".ljust(width + 4), *(row.ljust(width + 4) for row in guide.picture_of_cells())]
        for name, guide in guides.items()
    ]
    pad = " " * (width + 2)
    return [pad + "  ".join(column[row] for column in columns).rstrip() for row in range(ROWS + 1)]
