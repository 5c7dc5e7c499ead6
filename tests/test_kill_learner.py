"""A learner and its robots that are killed, as benchmarks/kill_learner.py does many times."""

import tempfile
from pathlib import Path

from benchmarks.kill_learner import KINDS, kill_often


def test_nothing_is_lost_or_doubled_whoever_is_killed() -> None:
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:  # sockets need a short path
        result = kill_often(Path(folder), times=1, robots=2, seed=1, within_s=2.0, checkpoint_every_s=1.0)
    assert result["problems"] == {}, result
    assert result["kills"] == dict.fromkeys(KINDS, 1)
    assert result["committed"] > 0
    assert result["in_buffer"] == result["committed"]
    assert result["updates"] > 0
    assert result["version"] > 0
    assert result["malformed"] == 0
