from __future__ import annotations

from teleop.demo import FULL, QUICK
from teleop.station import load_station
from tests.tiny_station import STATION


def test_a_quick_demo_learns_from_its_first_episodes_and_a_full_one_when_the_station_says() -> None:
    loaded = load_station(STATION)
    assert loaded.station.learner.min_transitions > QUICK.max_steps // 2
    assert FULL.applied(loaded) == loaded
    quick = QUICK.applied(loaded)
    assert quick.station.learner.min_transitions <= QUICK.max_steps // 4
    # what the run folder keeps of it is what ran
    assert b'"min_transitions": 256' in quick.text
    early = load_station(STATION, [("learner.min_transitions", "8")])
    assert QUICK.applied(early) == early
