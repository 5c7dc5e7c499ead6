"""A run that is killed with its children or without them, as benchmarks/kill_run.py does many times."""

import json
import tempfile
from pathlib import Path

import pytest

from benchmarks.kill_run import KINDS, Kind, kill_once
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import STATION

TICKS = 80  # beyond the first episode of 20 ticks and its reset


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("killed") / "bundle")
    values = {"policy.bundle": json.dumps(str(bundle)), "episode.timeout_s": "1.0", "learner.updates_per_episode": "1"}
    values |= {f"camera.{name}.{edge}": size for name in ("front", "wrist") for edge, size in SIZE.items()}
    return [str(STATION), *(word for key, value in values.items() for word in (f"--{key}", value))]


SIZE = {"height": "32", "width": "40"}


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[1], KINDS[3]], ids=lambda kind: kind.name)
def test_killed_run_loses_less_than_half_a_second_and_leaves_nothing_behind(kind: Kind, words: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:  # sockets need a short path
        killed = kill_once(kind, 0.0, Path(folder), words, seed=1, ticks=TICKS)
    assert killed.problems == [], killed
    assert killed.ticks >= TICKS
    assert killed.children == 1 + kind.learner
    # of an episode that is killed with its recorder before the first flush there is nothing yet
    assert killed.committed >= killed.episodes - kind.everything >= 1
    assert killed.rows + killed.lost_ticks == killed.ticks
    assert killed.resumed
    # the run's own recorder finishes the open episode, unless it is killed as well
    assert kind.everything or killed.partials == 0
