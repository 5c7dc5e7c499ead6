"""Two whole training runs of one seed in miniature, learner included: what one gives, and that both give the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.numpy

from policy.episode_header import LabelSource, Outcome
from policy.episode_reader import Episode, latest_revisions
from policy.weights import Expected, unpack
from robot.clock import VirtualClock
from robot.simulation.layout import Split
from robot.simulation.place_layout import draw_place_layout
from teleop.arbiter import Source
from teleop.learned_weights import LearnedWeights
from teleop.replay import verify_run
from teleop.run import Run
from teleop.run_options import RunOptions
from teleop.station import LoadedStation
from teleop.training import TrainingResult, train_online
from tests.tick_bench import DIMS
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import tiny_station

pytestmark = pytest.mark.xdist_group("miniature")  # one worker, or each would make the runs anew

EPISODES, SEED, UPDATES = 5, 3, 20


@dataclass(frozen=True)
class Made:
    result: TrainingResult
    folder: Path
    said: list[tuple[int, str]]

    @property
    def episodes(self) -> list[Episode]:
        return latest_revisions(self.folder / "episodes")


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> LoadedStation:
    # a base that hardly moves: the operator takes over from a robot that does nothing
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("miniature") / "bundle", headroom=0.999)
    return tiny_station(
        bundle,
        ("episode.timeout_s", "4.5"),
        ("residual.gate", "true"),
        ("exploration.start", "0.02"),
        ("exploration.end", "0.01"),
        ("learner.updates_per_episode", str(UPDATES)),
        ("learner.batch_size", "32"),
        ("learner.min_transitions", "256"),
        ("learner.algorithm", "{hidden = [16, 16], normaliser_batches = 10, actor_after = 10, actor_average = 0.5}"),
    )


def train(station: LoadedStation, folder: Path) -> Made:
    said: list[tuple[int, str]] = []
    result = train_online(
        station, VirtualClock(), out=folder, episodes=EPISODES, seed=SEED, operator="simulated",
        progress=lambda number, result, news: said.append((number, news)),
    )  # fmt: skip
    return Made(result, folder, said)


@pytest.fixture(scope="module")
def first(station: LoadedStation, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return train(station, tmp_path_factory.mktemp("first") / "run")


@pytest.fixture(scope="module")
def second(station: LoadedStation, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return train(station, tmp_path_factory.mktemp("second") / "run")


def test_every_episode_is_committed_whole_and_labelled(first: Made) -> None:
    episodes = first.episodes
    assert [episode.header.episode for episode in episodes] == list(range(EPISODES))
    assert first.result.incomplete == 0
    assert first.result.env_steps == sum(episode.length for episode in episodes)
    assert len(first.result.times) == first.result.env_steps
    assert [number for number, _ in first.said] == list(range(EPISODES))
    for episode, result in zip(episodes, first.result.results, strict=True):
        assert result.outcome is not None
        assert episode.outcome.outcome is result.outcome.outcome
        assert episode.outcome.complete
        assert episode.outcome.label_source in (LabelSource.OPERATOR_SIMULATED, LabelSource.TASK, LabelSource.NONE)
        assert episode.length == result.ticks + result.reset_ticks
        header = episode.header
        assert header.run_id == first.result.run.run_id
        assert header.rate_hz == 20.0
        assert header.seed == SEED
        assert not header.open_loop
        assert header.residual_scale == pytest.approx((0.4, 0.4, 0.5, 0.0, 0.0))
        layout = draw_place_layout(Split.TRAINING, SEED, header.episode)
        assert header.layout["block_xy_m"] == pytest.approx(layout.block_xy_m)
        assert first.result.run.station(header.station_sha256)
        assert header.bundle_sha256 is not None
        assert first.result.run.bundle(header.bundle_sha256).is_dir()


def test_person_intervened_and_the_log_says_where(first: Made) -> None:
    assert sum(result.interventions for result in first.result.results) >= 1
    for episode, result in zip(first.episodes, first.result.results, strict=True):
        columns = episode.arrays(["tick/source", "tick/human", "tick/base", "tick/engaged", "tick/reset"])
        human = columns["tick/source"] == Source.HUMAN
        assert human.sum() == result.human_ticks
        assert np.isfinite(columns["tick/human"][human]).all()
        assert np.isfinite(columns["tick/base"][human]).all()  # the base ran on in shadow
        assert np.isnan(columns["tick/human"][columns["tick/engaged"] == 0]).all()
        resets = np.isfinite(columns["tick/reset"]).any(axis=1)
        assert resets.sum() == result.reset_ticks


def test_rewards_and_ends_are_on_the_last_row_alone(first: Made) -> None:
    for episode in first.episodes:
        columns = episode.arrays(["rewards", "dones", "terminated", "truncated"])
        for column in columns.values():
            assert not column[:-1].any()
        success = episode.outcome.outcome is Outcome.SUCCESS
        assert columns["rewards"][-1] == float(success)
        assert columns["dones"][-1] == 1
        assert columns["terminated"][-1] != columns["truncated"][-1]


def test_learner_learned_and_its_weights_drove_one_episode_later(first: Made) -> None:
    result = first.result
    assert (result.accepted, result.refused) == (EPISODES, 0)
    assert result.learner["phase"] == "stopped"
    assert result.learner["episodes"] == EPISODES
    assert result.learner["updates"] in (UPDATES * count for count in range(1, EPISODES))
    assert [list(episode.header.weights) for episode in first.episodes] == [[max(0, k - 1)] for k in range(EPISODES)]
    versions = [set(episode.array("tick/residual_version").tolist()) for episode in first.episodes]
    assert versions == [{max(0, k - 1)} for k in range(EPISODES)]
    last = first.episodes[-1]
    assert last.header.bundle_sha256 is not None
    expected = Expected(dims=DIMS, bundle_sha256=last.header.bundle_sha256, max_scale=(0.4, 0.4, 0.5, 0.0, 0.0))
    weights = unpack(result.weights, expected)
    assert weights.version == EPISODES
    assert weights.head.heads == 2
    assert any(tensor.any() for name, tensor in weights.tensors.items() if name == "actor.out.weight")


def test_every_tick_replays_without_a_mismatch(first: Made) -> None:
    report = verify_run(first.folder)
    assert report.mismatches == 0, report.first
    assert (report.episodes, report.ticks) == (EPISODES, first.result.env_steps)


def datasets(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every dataset of a file: type, shape and bytes (so that NaN equals NaN)."""
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (str(item.dtype), item.shape, np.asarray(item[()]).tobytes())

    with h5py.File(path) as file:
        file["data"].visititems(visit)
    return found


def test_same_seed_gives_the_same_datasets_byte_for_byte_with_the_learner_running(first: Made, second: Made) -> None:
    for one, other in zip(first.episodes, second.episodes, strict=True):
        columns, again = datasets(one.path), datasets(other.path)
        assert len(columns) > 40
        assert columns.keys() == again.keys()
        assert [name for name in columns if columns[name] != again[name]] == []


def test_same_seed_gives_the_same_weights(first: Made, second: Made) -> None:
    files = [sorted((made.folder / "weights").glob("[0-9]*-*")) for made in (first, second)]
    assert len(files[0]) == len(files[1]) == EPISODES + 1
    for one, other in zip(*files, strict=True):
        tensors, again = (safetensors.numpy.load(path.read_bytes()) for path in (one, other))
        assert tensors.keys() == again.keys()
        for name, tensor in tensors.items():
            assert tensor.tobytes() == again[name].tobytes(), name


@pytest.fixture
def another_seed(station: LoadedStation, tmp_path: Path) -> Iterator[Path]:
    with Run(station, VirtualClock(), RunOptions(out=tmp_path / "run", operator="simulated", seed=SEED + 1)) as run:
        assert not isinstance(run.weights, LearnedWeights)
        run.episode()
        yield run.committed[0].path


def test_another_seed_gives_something_else(first: Made, another_seed: Path) -> None:
    one, other = datasets(first.episodes[0].path), datasets(another_seed)
    assert one["demo_0/obs/front_image"] != other["demo_0/obs/front_image"]
    assert list(one) == list(other)
