"""A station whose cameras play videos of a board that somebody holds still here and there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from calibration.board_rendering import BoardRenderer
from calibration.rehearsal import handheld
from tests.calibration_scenes import BOARD, NARROW
from tests.footage import write_video
from tests.rehearsed_rig import Image8, colour
from tests.scripts import LAUNCH

RATE_HZ = 10.0
_CAMERA = """[[camera]]
kind = "playback"
name = "{name}"
file = "{name}.avi"
height = 480
width = 640
rate_hz = {rate_hz}

"""


def held_views(count: int, *, seed: int = 5, still: int = 9) -> list[Image8]:
    """Pictures of a board in so many places, `still` pictures in each, with a sensor's noise."""
    random, eye = np.random.default_rng(seed), BoardRenderer(BOARD, NARROW, samples=2)
    found = []
    for _ in range(count):
        picture = eye.render(handheld(NARROW, BOARD, random, tilt_rad=0.8), random=random)
        found += [colour(picture)] * still
    return found


def playback_station(
    folder: Path, videos: Mapping[str, Sequence[Image8]], source: str = "sim_place.toml", drop: str = ""
) -> Path:
    """Write videos, a board's file, and a shipped station with these cameras in place of its own; return its path.

    `drop` is a regular expression: lines that match it are left out.
    """
    for name, pictures in videos.items():
        write_video(folder / f"{name}.avi", pictures, fourcc="FFV1", rate_hz=RATE_HZ)
    (folder / "board.json").write_text(BOARD.model_dump_json())
    text = (LAUNCH / "stations" / source).read_text()
    begin, end = text.index("[[camera]]"), text.index("[synchroniser]")
    cameras = "".join(_CAMERA.format(name=name, rate_hz=RATE_HZ) for name in videos)
    lines = (text[:begin] + cameras + text[end:]).splitlines()
    path = folder / "station.toml"
    path.write_text("\n".join(line for line in lines if not drop or not re.match(drop, line)) + "\n")
    return path
