from unittest.mock import ANY

import numpy as np
import pytest

from policy.episode_schema import STAGES
from teleop.tick_times import TickTimes


def test_overhead_leaves_out_the_network_and_the_simulation() -> None:
    times = TickTimes()
    times.add(dict.fromkeys(STAGES, 1.0), missed=False)
    times.add(dict.fromkeys(STAGES, 2.0) | {"encode": 50.0, "act": 50.0, "state": 50.0}, missed=True)
    stages = len(STAGES) - 3
    np.testing.assert_allclose(times.overhead_ms(), [stages, 2.0 * stages])
    assert len(times) == 2
    summary = times.summary()
    assert (summary["count"], summary["deadline_misses"]) == (2, 1)
    assert summary["overhead_ms"] == {
        "p50": 1.5 * stages,
        "p99": round(stages * 1.99, 4),
        "p99_9": round(stages * 1.999, 4),
        "max": 2.0 * stages,
    }


def test_lateness_and_age_are_told_with_their_tails_and_of_one_episode_alone() -> None:
    times = TickTimes()
    for late_s in (0.5, 0.001, 0.002):
        times.add({}, missed=late_s > 0.4, late_s=late_s, age_s=0.05 + late_s)
    times.add({}, missed=False, late_s=0.0)  # no frames, no age
    whole, episode = times.summary(), times.summary(start=1)
    assert whole["late_ms"] == {"p50": 1.5, "p99": pytest.approx(485.06, abs=0.01), "p99_9": ANY, "max": 500.0}
    assert episode["count"] == 3
    assert episode["deadline_misses"] == 0
    assert episode["late_ms"]["max"] == 2.0  # type: ignore[index]
    assert episode["age_ms"] == {"p50": 51.5, "p99": 51.99, "p99_9": 51.999, "max": 52.0}


def test_stages_that_were_not_timed_count_as_nothing() -> None:
    times = TickTimes()
    times.add({"filter": 0.25}, missed=False)
    assert times.stages_ms()["filter"].tolist() == [0.25]
    assert times.stages_ms()["send"].tolist() == [0.0]
    assert times.overhead_ms().tolist() == [0.25]


def test_run_without_a_tick_has_a_summary() -> None:
    assert TickTimes().summary()["count"] == 0
    assert TickTimes().stages_ms()["record"].shape == (0,)
