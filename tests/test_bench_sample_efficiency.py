"""The benchmark's recipes get the demonstrations that they are said to get."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_sample_efficiency, plot_sample_efficiency
from benchmarks.bench_sample_efficiency import METHODS, Method, Shown, demonstrations, station_for
from policy.episode_reader import Episode, latest_revisions
from policy.learner_episode import HUMAN
from robot.clock import VirtualClock
from teleop.station import LoadedStation
from teleop.training import TrainingResult, train_online
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import STATION, tiny_station

WITH_BASE = Method(says="a recipe that starts from demonstrations", operator="none", shown=True)
COUNT = 2


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> LoadedStation:
    return tiny_station(
        make_tiny_bundle(tmp_path_factory.mktemp("shown") / "bundle"),
        ("episode.timeout_s", "6.0"),
        ("learner.method", "resfit"),
        ("learner.algorithm", "{hidden = [8, 8], critics = 2}"),
        ("learner.updates_per_episode", "2"),
        ("learner.batch_size", "16"),
        ("learner.min_transitions", "8"),
    )


@pytest.fixture(scope="module")
def shown(station: LoadedStation, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return demonstrations(station, WITH_BASE, tmp_path_factory.mktemp("cells"), COUNT)


@pytest.fixture(scope="module")
def trained(station: LoadedStation, shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train_online(
        station, VirtualClock(), out=tmp_path_factory.mktemp("trained") / "run", episodes=1, seed=0, operator="none",
        progress=lambda number, result, news: None, demonstrations=[shown.folder],
    )  # fmt: skip


def acted(episode: Episode) -> np.ndarray:
    columns = episode.arrays(["tick/source", "tick/reset"])
    return columns["tick/source"][~np.isfinite(columns["tick/reset"]).any(axis=1)]


def test_the_expert_shows_the_task_with_the_base_in_shadow(shown: Shown) -> None:
    episodes = latest_revisions(shown.folder)
    assert len(episodes) == shown.count == shown.succeeded == COUNT
    assert shown.ticks == sum(episode.length for episode in episodes)
    for episode in episodes:
        assert (acted(episode) == HUMAN).all()
        base = episode.arrays(["tick/base", "tick/reset"])
        assert np.isfinite(base["tick/base"][~np.isfinite(base["tick/reset"]).any(axis=1)]).all()


def test_what_was_shown_is_not_recorded_again_and_more_is_added(station: LoadedStation, shown: Shown) -> None:
    where = shown.folder.parent.parent
    before = {path.name: path.stat().st_mtime_ns for path in shown.folder.iterdir()}
    assert demonstrations(station, WITH_BASE, where, COUNT) == shown
    assert {path.name: path.stat().st_mtime_ns for path in shown.folder.iterdir()} == before


def test_what_was_shown_on_a_base_that_holds_still_is_of_the_bundle_that_the_next_cell_has(tmp_path: Path) -> None:
    options = argparse.Namespace(out=tmp_path, set=[])
    blank = station_for(STATION, METHODS["hilserl"], options).bundle_path
    before = [(path.name, path.stat().st_mtime_ns) for path in sorted(blank.iterdir())]
    assert station_for(STATION, METHODS["hilserl"], options).bundle_path == blank
    assert [(path.name, path.stat().st_mtime_ns) for path in sorted(blank.iterdir())] == before


def test_the_learner_starts_from_them_and_learns_after_its_first_episode(trained: TrainingResult, shown: Shown) -> None:
    assert trained.learner["episodes"] == COUNT + 1
    assert trained.learner["guided"] > 0.8 * shown.ticks / 2
    assert trained.learner["updates"] == 2
    assert trained.version == 1


def test_what_handrail_is_compared_with_starts_from_demonstrations_and_handrail_does_not() -> None:
    assert {name for name, method in METHODS.items() if method.shown} >= {"resfit", "resfit_fast", "hilserl"}
    assert not METHODS["handrail"].shown
    assert not METHODS["handrail"].drives_through


def test_a_station_that_is_none_is_refused_in_a_line(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(bench_sample_efficiency.__file__)), "--out", str(tmp_path)]
    done = subprocess.run([*command, "--stations", "sim_insert"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("cannot be read (No such file or directory); name a station file")


@pytest.mark.parametrize(("name", "products"), [("wide", "float32"), ("wide_rounded", "bfloat16")])
def test_wide_layers_differ_in_their_products_alone(name: str, products: str) -> None:
    learner = station_for(STATION, METHODS[name], argparse.Namespace(set=[])).station.learner
    assert learner is not None
    assert learner.algorithm == {"hidden": [256, 256], "products": products}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("# no JSON", "is not the JSON line"),
        ("[1]", "is not the JSON line"),
        (json.dumps({"benchmark": "tick"}), "is not the JSON line"),
        (None, "No such file"),
    ],
)
def test_a_plot_of_something_else_is_refused_in_a_line(
    content: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, out = tmp_path / "results.json", tmp_path / "pictures"
    if content is not None:
        results.write_text(content)
    monkeypatch.setattr(sys, "argv", ["plot_sample_efficiency.py", str(results), "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        plot_sample_efficiency.main()
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert str(results) in last
    assert says in last
    assert not out.exists()
