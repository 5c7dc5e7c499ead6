"""A training that ends and is gone on with: one run, one learner, nothing counted or learned twice."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policy.episode_reader import latest_revisions
from policy.run_folder import RunFolder
from robot.clock import VirtualClock
from robot.errors import BadInputError
from teleop.replay import verify_run
from teleop.station import LoadedStation
from teleop.training import TrainingResult, train_online
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_station import tiny_station

pytestmark = pytest.mark.xdist_group("resumed")  # one worker, or each would train anew

FIRST, MORE, UPDATES = 3, 3, 5


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> LoadedStation:
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("resumed") / "bundle", headroom=0.999)
    return tiny_station(
        bundle,
        ("episode.timeout_s", "2.0"),
        ("learner.updates_per_episode", str(UPDATES)),
        ("learner.batch_size", "16"),
        ("learner.min_transitions", "8"),
        ("learner.algorithm", "{hidden = [16, 16], normaliser_batches = 2, actor_after = 2, actor_average = 0.5}"),
    )


def train(station: LoadedStation, folder: Path, episodes: int, *, resume: bool) -> TrainingResult:
    return train_online(
        station, VirtualClock(), out=folder, episodes=episodes, seed=3, operator="simulated",
        progress=lambda number, result, news: None, resume=resume,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ended(station: LoadedStation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ended") / "run"
    result = train(station, folder, FIRST, resume=False)
    assert (result.learner["episodes"], result.learner["version"], result.accepted) == (FIRST, FIRST, FIRST)
    return folder


def nothing_happened(run: Path) -> None:
    """The run ended in order."""


def robot_was_killed_before_it_took_the_last_weights(run: Path) -> None:
    for version in (2, 3):
        (newest,) = (run / "weights").glob(f"{version:08d}-*")
        newest.unlink()
    folder = RunFolder.open(run)
    folder.note_in_force(folder.weights_sha256(1))


def learner_lost_its_last_episode_and_its_checkpoint(run: Path) -> None:
    (run / "learner" / "checkpoint.safetensors").unlink()
    max((run / "learner" / "episodes").iterdir()).unlink()


def learner_lost_everything(run: Path) -> None:
    shutil.rmtree(run / "learner")


@pytest.mark.parametrize(
    "loss",
    [
        nothing_happened,
        robot_was_killed_before_it_took_the_last_weights,
        learner_lost_its_last_episode_and_its_checkpoint,
        learner_lost_everything,
    ],
)
def test_resumed_training_goes_on_with_episodes_learner_and_weights(
    station: LoadedStation, ended: Path, tmp_path: Path, loss: Callable[[Path], None]
) -> None:
    run = Path(shutil.copytree(ended, tmp_path / "run"))
    loss(run)
    result = train(station, run, MORE, resume=True)
    episodes = latest_revisions(run / "episodes")
    assert [episode.header.episode for episode in episodes] == list(range(FIRST + MORE))
    assert {episode.header.run_id for episode in episodes} == {result.run.run_id}
    assert len({str(episode.header.layout) for episode in episodes}) == FIRST + MORE
    # each episode reached the learner once, in its order
    stored = sorted(path.name for path in (run / "learner" / "episodes").glob("*.msgpack"))
    numbers = [name.split("-")[-2] for name in stored]
    assert numbers == [f"{number:06d}" for number in range(FIRST + MORE)]
    assert result.learner["episodes"] == result.learner["version"] == FIRST + MORE
    assert result.learner["updates"] == UPDATES * (FIRST + MORE)
    # the first goes on with the weights of all before, then the lag of one again
    versions = [set(episode.array("tick/residual_version").tolist()) for episode in episodes]
    assert versions == [{0}, {0}, {1}, {FIRST}, {FIRST}, {FIRST + 1}]
    assert [set(episode.header.weights) for episode in episodes] == versions
    assert result.refused == 0
    assert verify_run(run, jobs=0).mismatches == 0


def test_a_run_is_gone_on_with_only_when_asked(station: LoadedStation, ended: Path) -> None:
    with pytest.raises(BadInputError, match="holds a run already"):
        train(station, ended, 1, resume=False)
