import numpy as np

from policy.episode_schema import STAGES
from teleop.tick_times import TickTimes


def test_overhead_leaves_out_the_network_and_the_simulation() -> None:
    times = TickTimes()
    times.add(dict.fromkeys(STAGES, 1.0), missed=False)
    times.add(dict.fromkeys(STAGES, 2.0) | {"encode": 50.0, "act": 50.0, "state": 50.0}, missed=True)
    stages = len(STAGES) - 3
    np.testing.assert_allclose(times.overhead_ms(), [stages, 2.0 * stages])
    assert len(times) == 2
    assert times.summary() == {
        "count": 2,
        "overhead_ms": {"p50": 1.5 * stages, "p99": round(stages * 1.99, 4)},
        "deadline_misses": 1,
    }


def test_stages_that_were_not_timed_count_as_nothing() -> None:
    times = TickTimes()
    times.add({"filter": 0.25}, missed=False)
    assert times.stages_ms()["filter"].tolist() == [0.25]
    assert times.stages_ms()["send"].tolist() == [0.0]
    assert times.overhead_ms().tolist() == [0.25]


def test_run_without_a_tick_has_a_summary() -> None:
    assert TickTimes().summary()["count"] == 0
    assert TickTimes().stages_ms()["record"].shape == (0,)
