from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from policy.run_folder import RunFolder
from robot.clock import Clock
from robot.simulation.layout import Split
from teleop import demo
from teleop.demo import FULL, QUICK
from teleop.evaluation import Evaluation
from teleop.station import LoadedStation, load_station
from teleop.tick_times import TickTimes
from teleop.training import TrainingResult
from tests.episodes import header
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


class Faked:
    """A demo whose training and measurements are made up: which weights win on how many of ten layouts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, out: Path, wins: dict[bytes | None, int]) -> None:
        self.measured: list[tuple[bytes | None, Split]] = []
        self._out, self._wins = out, wins
        monkeypatch.setattr(demo, "train_online", self._train)
        monkeypatch.setattr(demo, "evaluate", self._evaluate)
        monkeypatch.setattr(demo, "verify_run", lambda *args, **more: SimpleNamespace(ticks=0, mismatches=0))
        monkeypatch.setattr(demo, "_report", lambda *args: None)

    def _train(self, loaded: LoadedStation, clock: Clock, *, out: Path, **more: object) -> TrainingResult:
        run = RunFolder.create(out, header().provenance)
        for version in (1, 2, 3, 4):
            run.store_weights(version, b"v%d" % version)
        return TrainingResult(
            run=run, weights=b"v4", version=4, results=[], times=TickTimes(), wall_s=0.0, learner={}, accepted=4,
            refused=0, committed=0, incomplete=0,
        )  # fmt: skip

    def _evaluate(self, loaded: LoadedStation, *, weights: bytes | None, split: Split, **more: object) -> Evaluation:
        self.measured.append((weights, split))
        outcomes = {layout: "success" if layout < self._wins[weights] else "failure" for layout in range(10)}
        return Evaluation(outcomes=outcomes, ticks=0)

    def run(self) -> dict[str, Any]:
        return demo.run_demo(
            load_station(STATION), out=self._out, plan=QUICK, seed=0, operator="simulated", real_time=False, command=""
        )


def test_weights_that_beat_the_base_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    faked = Faked(monkeypatch, tmp_path / "run", {None: 5, b"v4": 9})
    summary = faked.run()
    assert summary["rolled_back"] is None
    assert summary["against_base"]["difference"] == pytest.approx(0.4)
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == b"v4"
    assert faked.measured == [(None, Split.HELD_OUT), (b"v4", Split.HELD_OUT)]


def test_a_run_whose_last_weights_are_worse_than_the_base_goes_back_to_good_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    faked = Faked(monkeypatch, tmp_path / "run", {None: 5, b"v4": 2, b"v3": 3, b"v1": 7})
    summary = faked.run()
    assert summary["rolled_back"]["to"] == 1
    assert "weights 4 are worse than the base" in summary["rolled_back"]["why"]
    assert summary["trained"]["successes"] == 7
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == b"v1"
    # chosen on other layouts than those that are reported
    splits = [split for _, split in faked.measured]
    assert splits == [Split.HELD_OUT] * 2 + [Split.SELECTION] * 3 + [Split.HELD_OUT]
    assert faked.measured[-1] == (b"v1", Split.HELD_OUT)


def test_a_run_without_any_good_weights_ends_with_the_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    faked = Faked(monkeypatch, tmp_path / "run", {None: 5, b"v4": 2, b"v3": 3, b"v1": 1})
    summary = faked.run()
    assert summary["rolled_back"]["to"] == 0
    assert summary["trained"] == summary["base"]
    assert not (tmp_path / "run" / "weights.safetensors").exists()
