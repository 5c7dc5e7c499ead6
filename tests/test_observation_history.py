"""What the robot's residual sees of the last ticks, that the log says the same, and that the learner sees it so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perception.observation import Verdict
from policy.bundle import load_bundle
from policy.episode_reader import read_episode
from policy.episode_recovery import recover_folder
from policy.episode_writer import EpisodeWriter
from policy.learner_episode import HUMAN, POLICY, EpisodeKey, of_episode
from policy.observation_history import (
    PRESENT,
    HistoryChoice,
    HistoryTicks,
    Window,
    history_of,
    next_window,
    previous_ticks,
    windows,
)
from policy.replay_buffer import BatchRows, ReplayBuffer
from policy.residual import ResidualHead
from policy.run_folder import RunFolder
from policy.transitions import transitions
from policy.weights import Expected, RefusalReason, WeightsRefused, unpack, window_dims
from robot.errors import BadInputError
from teleop.human_input import HumanEvent
from teleop.replay import verify_run
from teleop.replay_episode import EpisodeReplay
from teleop.replay_parts import RunParts
from teleop.station import ResidualConfig, load_station
from tests.replay_run import STATION, LateClock, changed, make_run, weights_message
from tests.tick_bench import SCALE, Bench
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_weights import DIMS, tiny_tensors

HISTORY = HistoryTicks(features_ticks=2, proprio_ticks=4)
GOLDEN = "9326d99b28166b1532a9de262464d86249b4010d99cc21aebe77bf26f665a530"
CHOSEN = (("residual.history.features_ticks", "2"), ("residual.history.proprio_ticks", "4"))


def sees(*ticks: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The window of a quantity that is (n, n) at tick n."""
    return np.repeat(np.array(ticks, np.float32), 2)


def walk(history: HistoryTicks, ticks: Sequence[int]) -> Window:
    """The window after these ticks, on all of which somebody acted."""
    window: Window | None = None
    for tick in ticks:
        window = next_window(history, window, tick, sees(tick), sees(tick))
    assert window is not None
    return window


def test_a_window_holds_the_last_ticks_the_oldest_first() -> None:
    window = walk(HISTORY, range(9))
    np.testing.assert_array_equal(window.features, sees(7, 8))
    np.testing.assert_array_equal(window.proprio, sees(5, 6, 7, 8))


@pytest.mark.parametrize(("ticks", "seen"), [([0], [0, 0, 0, 0]), ([0, 1], [0, 0, 0, 1]), ([3, 4, 6, 7], [6, 6, 6, 7])])
def test_what_is_missing_is_the_first_tick_again(ticks: list[int], seen: list[int]) -> None:
    np.testing.assert_array_equal(walk(HISTORY, ticks).proprio, sees(*seen))


def test_a_step_changes_no_window_that_it_was_given() -> None:
    before = walk(HISTORY, range(5))
    kept = before.features.copy(), before.proprio.copy()
    once, again = (next_window(HISTORY, before, 5, sees(5), sees(5)) for _ in range(2))
    np.testing.assert_array_equal(once.proprio, again.proprio)
    np.testing.assert_array_equal(before.features, kept[0])
    np.testing.assert_array_equal(before.proprio, kept[1])


def test_windows_of_a_log_are_those_of_the_ticks() -> None:
    acting = np.array([0, 1, 1, 1, 1, 0, 1, 1], bool)
    index = np.array([0, 1, 2, 3, 5, 6, 7, 8])
    values = np.stack([sees(int(number)) for number in index])
    found = windows(values, 4, np.arange(len(index)), previous_ticks(acting, index))
    window: Window | None = None
    for row, number in enumerate(index.tolist()):
        window = next_window(HISTORY, window, number, values[row], values[row])
        np.testing.assert_array_equal(found[row], window.proprio)
        window = window if acting[row] else None


class TestInTheTick:
    def bench(self, folder: Path, history: HistoryTicks = HISTORY) -> Bench:
        bench = Bench(folder)
        bench.make(bench.bundle, history=history)
        dims = window_dims(bench.bundle.manifest, history)
        bench.head = ResidualHead(dims, tiny_tensors(dims, seed=1) | {"scale": SCALE})
        bench.armed()
        return bench

    def proprio_ticks(self, bench: Bench) -> int:
        """How many ticks the window of the last tick reaches back."""
        assert bench.state.window is not None
        return len({row.tobytes() for row in bench.state.window.proprio.reshape(4, -1)})

    def moving(self, bench: Bench, ticks: int) -> None:
        for _ in range(ticks):
            bench.tick(engaged=True, twist=np.array([0.5, 0.2, 0.1, 0.0, 0.0, 0.0]))

    def test_the_window_fills_up_while_somebody_drives(self, tmp_path: Path) -> None:
        bench = self.bench(tmp_path)
        self.moving(bench, 1)
        begun = self.proprio_ticks(bench)
        self.moving(bench, 2)
        assert self.proprio_ticks(bench) == begun + 2
        self.moving(bench, 6)
        assert self.proprio_ticks(bench) == 4

    @pytest.mark.parametrize(
        "pause",
        [
            {"verdict": Verdict.STALE},
            {"verdict": Verdict.MISSING},
            {"events": HumanEvent.HOLD},
            {"overrun": True},
            {"reset": np.zeros(5, np.float32)},
        ],
        ids=["stale", "no picture", "hold", "late", "reset"],
    )
    def test_it_begins_anew_after_a_tick_on_which_nobody_acted(self, tmp_path: Path, pause: dict[str, object]) -> None:
        bench = self.bench(tmp_path)
        self.moving(bench, 6)
        bench.tick(**pause)  # type: ignore[arg-type]
        assert bench.state.window is None
        self.moving(bench, 1)
        if "events" not in pause:
            assert self.proprio_ticks(bench) == 1

    def test_the_present_alone_leaves_the_state_as_it_was(self, tmp_path: Path) -> None:
        bench = self.bench(tmp_path, PRESENT)
        self.moving(bench, 3)
        assert bench.state.window is None

    def test_the_residual_follows_the_older_ticks(self, tmp_path: Path) -> None:
        bench = self.bench(tmp_path)
        self.moving(bench, 6)
        assert bench.inputs is not None
        window = bench.state.window
        assert window is not None
        here = replace(bench.inputs, index=bench.index)
        changed = window.proprio.copy()
        changed[4:8] += 0.5
        other = replace(window, proprio=changed)
        residuals = [
            bench.pipeline.step(replace(bench.state, window=seen), here, bench.head)[1] for seen in (window, other)
        ]
        assert not np.array_equal(residuals[0].gate, residuals[1].gate)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with resets, holds, takeovers, new weights, dropped frames and skipped ticks."""
    folder = tmp_path_factory.mktemp("history")
    fewer_drops = ("camera.wrist.drop_rate", "0.03")
    make_run(folder, LateClock(100.0, {14: 0.13, 24: 0.27, 55: 0.12}), *CHOSEN, fewer_drops)
    return folder / "run"


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "run"))


def files(run: Path) -> list[Path]:
    return sorted((run / "episodes").glob("*.h5"))


def stretches(run: Path, *, before: int, after: int) -> Iterator[tuple[Path, int]]:
    """Yield file and row of ticks with so many beside them on which somebody drove without a break."""
    for path in files(run):
        columns = read_episode(path).arrays(["tick/source", "tick/held", "tick/verdict", "tick/index"])
        drives = np.isin(columns["tick/source"], (POLICY, HUMAN)) & (columns["tick/held"] == 0)
        drives &= columns["tick/verdict"] == int(Verdict.FRESH)
        index = columns["tick/index"].astype(int)
        for row in range(before, len(index) - after):
            begin, end = row - before, row + after
            if drives[begin : end + 1].all() and index[end] - index[begin] == end - begin:
                yield path, row


def test_nothing_differs_when_a_run_with_windows_is_replayed(recorded: Path) -> None:
    report = verify_run(recorded, jobs=0)
    assert (report.episodes, report.mismatches, report.largest_difference) == (3, 0, {})


def test_what_the_learner_draws_gives_the_logged_residual_bit_for_bit(recorded: Path) -> None:
    parts = RunParts(RunFolder.open(recorded))
    buffer = ReplayBuffer(feature_size=6, proprio_size=4, action_size=5, history=HISTORY)
    compared = deep = 0
    for path in files(recorded):
        episode = read_episode(path)
        arrays = of_episode(episode)
        logged = episode.arrays(["tick/residual", "tick/gate", "tick/noise", "tick/residual_version", "tick/gate_open"])
        data = transitions(arrays, n_step=3, discount=0.9)
        first = len(buffer.rows)
        buffer.add(EpisodeKey(*episode.identity), data)
        known = [np.isfinite(values).all(axis=1) for values in (arrays.features, arrays.base)]
        acting = np.flatnonzero(np.isin(arrays.source, (POLICY, HUMAN)) & known[0] & known[1])
        assert len(acting) == len(data.features)
        heads = parts.heads(episode, set(logged["tick/residual_version"].astype(int).tolist()))
        into = BatchRows(buffer.layout, data.size)
        into.take(buffer.rows, (first + data.frame).astype(np.int32))
        for place, tick in enumerate(acting[data.frame].tolist()):
            seen = into.batch.features[place], into.batch.proprio[place]
            version = int(logged["tick/residual_version"][tick])
            residual, values = heads[version].corrected(*seen, into.batch.base[place], logged["tick/noise"][tick])
            np.testing.assert_array_equal(values.min(axis=0), logged["tick/gate"][tick])
            if logged["tick/gate_open"][tick]:
                np.testing.assert_array_equal(residual, logged["tick/residual"][tick])
            compared += 1
            deep += len({part.tobytes() for part in seen[1].reshape(4, 4)}) == 4
    assert compared > 25
    assert deep > 8


@pytest.mark.parametrize("history", [PRESENT, HISTORY], ids=["the present alone", "four ticks"])
def test_a_change_in_an_older_tick_of_a_window_is_found(tmp_path: Path, recorded: Path, history: HistoryTicks) -> None:
    run = tmp_path / "run"
    if history == PRESENT:
        make_run(tmp_path)
    else:
        shutil.copytree(recorded, run)
    path, row = next(stretches(run, before=0, after=4))
    with changed(path, reseal=True) as demo:
        demo["obs/gripper_width_m"][row] += 0.01
    found = EpisodeReplay().verify(path)
    # the gate's two values are computed on every one of these ticks
    assert found.by_field["tick/gate"] == history.proprio_ticks


def test_after_missing_ticks_windows_are_trusted_only_once_they_are_known(run: Path) -> None:
    path, lost = next(stretches(run, before=1, after=4))
    episode = read_episode(path)
    rows = episode.rows()
    path.unlink()
    with EpisodeWriter(path.parent, episode.header) as writer:
        for place in range(len(rows)):
            if place != lost:
                writer.append(rows[place, ...])
        writer.finish(episode.outcome.with_gaps(1, "the recorder was full"))
    recover_folder(path.parent)
    report = EpisodeReplay().verify(path)
    assert report.mismatches == 0, report.first
    assert report.gaps
    for later, field in ((3, "tick/features"), (4, "tick/residual")):
        with changed(path, reseal=True) as demo:
            demo[field][lost + later - 1, 0] += 0.25
        assert field in EpisodeReplay().verify(path).by_field


def test_a_station_without_windows_writes_the_same_bytes_as_before() -> None:
    station = load_station(STATION)
    assert b'"history"' not in station.text.split(b'"residual"')[1]
    chosen = load_station(STATION, CHOSEN)
    assert chosen.station.residual is not None
    assert chosen.station.residual.history == HistoryChoice(features_ticks=2, proprio_ticks=4)
    assert chosen.text != station.text


def test_weights_of_version_0_are_those_of_a_robot_that_knew_no_windows() -> None:
    # taken from the release before there were windows; version 0 is zeros and ones, so no machine rounds it
    expected = Expected(dims=DIMS, bundle_sha256="b" * 64, max_scale=(0.3,) * 5)
    assert unpack(expected.initial_weights("run-1"), expected).sha256 == GOLDEN


def test_a_run_that_asks_for_the_present_alone_is_the_run_that_asks_for_nothing(tmp_path: Path) -> None:
    asked = (("residual.history.features_ticks", "1"), ("residual.history.proprio_ticks", "1"))
    runs = [make_run(tmp_path / name, None, *more) for name, more in (("nothing", ()), ("asked", asked))]
    for one, other in zip(*runs, strict=True):
        assert read_episode(one).rows().tobytes() == read_episode(other).rows().tobytes()


def test_the_station_takes_the_place_of_the_bundle_field_by_field(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "bundle", history={"features_ticks": 3, "proprio_ticks": 2})
    loaded = load_station(STATION, [("policy.bundle", f"'{folder}'"), ("residual.history.proprio_ticks", "5")])
    manifest = load_bundle(folder, "cpu").manifest
    assert history_of(manifest, None) == HistoryTicks(features_ticks=3, proprio_ticks=2)
    assert history_of(manifest, ResidualConfig(scale=(0.1,) * 5)) == HistoryTicks(features_ticks=3, proprio_ticks=2)
    expected = Expected.of(manifest, loaded.station.residual)
    assert expected.history == HistoryTicks(features_ticks=3, proprio_ticks=5)
    assert (expected.dims.features, expected.dims.proprio, expected.dims.action) == (18, 20, 5)


def test_windows_beyond_what_is_allowed_are_refused_in_one_line() -> None:
    with pytest.raises(BadInputError, match=r"residual\.history\.proprio_ticks: .*less than or equal to 16.* got 17"):
        load_station(STATION, [("residual.history.proprio_ticks", "17")])


def test_weights_of_another_window_are_refused_with_the_cure(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    manifest = load_bundle(bundle, "cpu").manifest
    residual = ResidualConfig(scale=(0.4, 0.4, 0.5, 0.0, 0.0), history=HistoryChoice(proprio_ticks=4))
    here = Expected.of(manifest, residual)
    message = weights_message(3, manifest.content_sha256, seed=1, dims=DIMS)
    with pytest.raises(WeightsRefused) as refusal:
        unpack(message, here)
    assert refusal.value.reason is RefusalReason.SHAPE
    assert "they see another window; set residual.history (proprio_ticks 1)" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    own = weights_message(3, manifest.content_sha256, seed=1, dims=here.dims)
    assert unpack(own, here).head.dims == here.dims
