"""The simulated station with small pictures and a tiny policy, for runs that take seconds."""

from __future__ import annotations

import json
from pathlib import Path

from teleop.station import LoadedStation, load_station
from tests.tiny_bundle import CAMERAS

STATION = Path(__file__).parents[1] / "launch" / "stations" / "sim_place.toml"
INSERT_STATION = STATION.with_name("sim_insert.toml")
INSERT_CAMERAS = {"front": (32, 40), "side": (32, 40)}  # for `make_tiny_bundle`


def tiny_station(bundle: Path, *overrides: tuple[str, str], station: Path = STATION) -> LoadedStation:
    """Load a shipped station with `bundle` and `overrides`, (dotted key, TOML value)."""
    cameras = INSERT_CAMERAS if station == INSERT_STATION else CAMERAS
    return load_station(
        station,
        [
            ("policy.bundle", json.dumps(str(bundle))),
            ("policy.provider", '"cpu"'),
            *((f"camera.{name}.height", str(height)) for name, (height, _) in cameras.items()),
            *((f"camera.{name}.width", str(width)) for name, (_, width) in cameras.items()),
            *overrides,
        ],
    )
