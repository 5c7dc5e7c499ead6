"""The simulated station with small pictures and a tiny policy, for runs that take seconds."""

from __future__ import annotations

import json
from pathlib import Path

from teleop.station import LoadedStation, load_station

STATION = Path(__file__).parents[1] / "launch" / "stations" / "sim_place.toml"
INSERT_STATION = STATION.with_name("sim_insert.toml")
_SIZE = (("height", "32"), ("width", "40"))


def tiny_station(bundle: Path, *overrides: tuple[str, str], station: Path = STATION) -> LoadedStation:
    """Load a shipped station with `bundle` and `overrides`, (dotted key, TOML value)."""
    return load_station(
        station,
        [
            ("policy.bundle", json.dumps(str(bundle))),
            ("policy.provider", '"cpu"'),
            *((f"camera.{name}.{edge}", pixels) for name in ("front", "wrist") for edge, pixels in _SIZE),
            *overrides,
        ],
    )
