"""A run that is killed with its children or without them, as benchmarks/kill_run.py does many times."""

import json
import tempfile
from pathlib import Path

import pytest

from benchmarks.kill_run import KINDS, Kind, kill_once
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import STATION

TICKS = 80  # beyond the first episode of 20 ticks and its reset
FLUSHED_TICKS = 600  # some seconds, so that most of it is on the disk when the recorder is killed as well


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("killed") / "bundle")
    values = {"policy.bundle": json.dumps(str(bundle)), "episode.timeout_s": "1.0", "learner.updates_per_episode": "1"}
    values |= {f"camera.{name}.{edge}": size for name in ("front", "wrist") for edge, size in SIZE.items()}
    return [str(STATION), *(word for key, value in values.items() for word in (f"--{key}", value))]


SIZE = {"height": "32", "width": "40"}


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[1], KINDS[3]], ids=lambda kind: kind.name)
def test_killed_run_loses_less_than_half_a_second_and_leaves_nothing_behind(kind: Kind, words: list[str]) -> None:
    ticks = FLUSHED_TICKS if kind.everything else TICKS
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:  # sockets need a short path
        killed = kill_once(kind, 0.0, Path(folder), words, seed=1, ticks=ticks)
    assert killed.problems == [], killed
    assert killed.ticks >= ticks
    assert killed.children == 1 + kind.learner
    # of what is killed with its recorder before the first flush there is nothing yet; `problems` bounds it by time
    assert killed.committed >= (1 if kind.everything else killed.episodes) >= 1
    assert killed.rows + killed.lost_ticks == killed.ticks
    assert killed.resumed
    # the run's own recorder finishes the open episode, unless it is killed as well
    assert kind.everything or killed.partials == 0
