"""When updates are made and published, and that a crash changes neither numbers nor order."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy.episode_header import Outcome
from policy.learner_episode import EpisodeArrays
from policy.learner_process import main as process_main
from policy.learner_settings import FreeRunning, LearnerSettings, LockStep, load_settings
from policy.learner_store import EpisodeStore
from policy.learner_training import Training
from policy.residual import Dims
from policy.weights import Expected, unpack
from robot.errors import BadInputError, HandrailError
from tests.learner_episodes import ACTION, BUNDLE, FEATURES, PROPRIO, made_up
from tests.learner_stand_in import StandIn, make_stand_in


def settings(folder: Path, **changes: Any) -> LearnerSettings:
    values: dict[str, Any] = {
        "state_dir": folder,
        "run_id": "run-1",
        "bundle_sha256": BUNDLE,
        "feature_size": FEATURES,
        "proprio_size": PROPRIO,
        "action_size": ACTION,
        "schedule": LockStep(updates_per_episode=4),
        "batch_size": 8,
        "min_transitions": 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    return LearnerSettings(**(values | changes))


def training(folder: Path, **changes: Any) -> Training:
    chosen = settings(folder, **changes)
    return Training(chosen, make_stand_in(chosen))


def content(message: bytes) -> str:
    """SHA-256 over metadata and tensors; safetensors itself writes the metadata in a random order."""
    expected = Expected(
        dims=Dims(features=FEATURES, proprio=PROPRIO, action=ACTION), bundle_sha256=BUNDLE, max_scale=(1.0,) * ACTION
    )
    return unpack(message, expected).sha256


def drain(learner: Training) -> None:
    while learner.step():
        pass


def test_lock_step_gives_one_version_and_a_fixed_number_of_updates_per_episode(tmp_path: Path) -> None:
    learner = training(tmp_path)
    drain(learner)
    assert (learner.version, learner.updates) == (0, 0)
    for number in range(3):
        assert learner.accept(made_up(number)) == "stored"
        drain(learner)
        assert (learner.version, learner.updates) == (number + 1, 4 * (number + 1))


def test_lock_step_gives_a_version_even_for_an_episode_that_teaches_nothing(tmp_path: Path) -> None:
    learner = training(tmp_path)
    learner.accept(made_up(0, outcome=Outcome.RERECORD))
    drain(learner)
    assert (learner.version, learner.updates, learner.buffer_size) == (1, 0, 0)


def test_episode_sent_twice_is_learned_once_and_a_new_label_gives_no_version(tmp_path: Path) -> None:
    learner = training(tmp_path)
    learner.accept(made_up(0))
    drain(learner)
    assert learner.accept(made_up(0)) == "known"
    drain(learner)
    assert (learner.version, learner.buffer_size) == (1, 12)
    assert learner.accept(made_up(0, revision=1, outcome=Outcome.RERECORD)) == "stored"
    drain(learner)
    assert (learner.version, learner.buffer_size) == (1, 0)
    assert learner.accept(made_up(0)) == "known"


@pytest.mark.parametrize("steps", [0, 1, 3, 5, 7, 14])
@pytest.mark.parametrize("saved", [True, False])
def test_interrupted_learner_ends_bit_for_bit_like_one_that_was_not(tmp_path: Path, steps: int, saved: bool) -> None:
    def learn(folder: Path, stop_after: int | None) -> Training:
        learner = training(folder)
        for number in range(3):
            learner.accept(made_up(number))
        if stop_after is not None:
            for _ in range(stop_after):
                learner.step()
            if saved:
                learner.save()
            learner = training(folder)  # what was not saved is gone, as after a kill
        drain(learner)
        return learner

    whole, broken = learn(tmp_path / "whole", None), learn(tmp_path / "broken", steps)
    assert (broken.updates, broken.version) == (whole.updates, whole.version) == (12, 3)
    assert content(broken.message) == content(whole.message)


@pytest.mark.parametrize("harm", ["none", "missing", "damaged"])
def test_resumed_learner_ends_the_same_with_its_replay_folder_and_without(
    tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = training(tmp_path)
    for number in range(3):
        learner.accept(made_up(number))
    drain(learner)
    learner.save()
    whole = learner.message
    del learner
    if harm == "missing":
        shutil.rmtree(tmp_path / "replay")
    elif harm == "damaged":
        os.truncate(tmp_path / "replay" / "rows.float32", 8)
    loaded: list[int] = []
    load = EpisodeStore.load
    monkeypatch.setattr(EpisodeStore, "load", lambda store, number: loaded.append(number) or load(store, number))
    again = training(tmp_path)
    told = capsys.readouterr().err
    if harm == "none":
        assert loaded == []
        assert told == ""
    else:
        assert loaded == [0, 1, 2]
        assert told.count("\n") == 1
        assert told.startswith(f"{tmp_path / 'replay'}: ")
    again.accept(made_up(3))
    drain(again)
    straight = training(tmp_path / "straight")
    for number in range(4):
        straight.accept(made_up(number))
    drain(straight)
    assert content(again.message) == content(straight.message) != content(whole)


def test_lock_step_with_batches_drawn_ahead_and_without_gives_the_same_bits(tmp_path: Path) -> None:
    messages = []
    for prefetch in (True, False):
        learner = training(tmp_path / str(prefetch), prefetch=prefetch)
        for number in range(3):
            learner.accept(made_up(number))
            drain(learner)
        messages.append(content(learner.message))
    assert messages[0] == messages[1]


def test_seed_decides_the_weights(tmp_path: Path) -> None:
    messages = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        learner = training(tmp_path / folder, seed=seed)
        learner.accept(made_up(0))
        drain(learner)
        messages.append(content(learner.message))
    assert messages[0] == messages[1] != messages[2]


def test_silent_robot_means_no_endless_training(tmp_path: Path) -> None:
    free = FreeRunning(min_updates_per_tick=0.5, max_updates_per_tick=2.0, publish_every_updates=10)
    learner = training(tmp_path, schedule=free)
    learner.accept(made_up(0))
    drain(learner)
    assert learner.updates == 24  # two for each of twelve ticks
    assert not learner.step()
    assert learner.version == 3  # after 10, 20 and the last 24


def test_learner_that_is_behind_says_so_and_publishes_nothing(tmp_path: Path) -> None:
    free = FreeRunning(min_updates_per_tick=1.0, max_updates_per_tick=2.0, publish_every_updates=1)
    learner = training(tmp_path, schedule=free)
    learner.accept(made_up(0))
    learner.step()
    for _ in range(11):
        assert learner.step()
        assert learner.behind
        assert learner.version == 0
    learner.step()
    assert not learner.behind
    assert learner.version == 1


def test_free_versions_go_beyond_what_a_robot_has_already(tmp_path: Path) -> None:
    learner = training(tmp_path, schedule=FreeRunning(min_updates_per_tick=0.0, publish_every_updates=1))
    learner.accept(made_up(0))
    learner.step()
    learner.step(newer_than=41)
    assert learner.version == 42


def test_what_cannot_be_learned_from_is_refused_and_not_stored(tmp_path: Path) -> None:
    learner = training(tmp_path)
    for wrong, text in (
        (replace(made_up(0), open_loop=True), "open_loop"),
        (replace(made_up(0), bundle_sha256="2" * 64), r"under bundle 222222222222 \(allowed 000000000000"),
        (replace(made_up(0), bundle_sha256=None), r"under bundle none \(allowed 000000000000"),
        (replace(made_up(0), features=np.zeros((12, 9), np.float32)), r"sizes \(9, 3, 2\) \(allowed \(5, 3, 2\)\)"),
    ):
        with pytest.raises(BadInputError, match=text):
            learner.accept(wrong)
    assert list((tmp_path / "episodes").iterdir()) == []


def test_stored_episodes_are_not_learned_from_for_another_bundle_when_the_checkpoint_is_gone(tmp_path: Path) -> None:
    learner = training(tmp_path)
    learner.accept(made_up(0))
    learner.save()
    (tmp_path / "checkpoint.safetensors").unlink()
    other = training(tmp_path, bundle_sha256="2" * 64)
    with pytest.raises(BadInputError, match=r"under bundle 000000000000 \(allowed 222222222222.*in another state_dir"):
        drain(other)
    assert other.buffer_size == 0


def test_diverged_weights_are_neither_published_nor_saved(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    stand_in = StandIn(0)
    learner = Training(chosen, stand_in)
    learner.accept(made_up(0))
    drain(learner)
    learner.save()
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    stand_in.spoilt = True
    learner.accept(made_up(1))
    with pytest.raises(HandrailError, match=r"actor\.out\.bias is not finite after 8 updates"):
        drain(learner)
    with pytest.raises(HandrailError, match="not finite"):
        learner.save()
    assert learner.version == 1
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "text"), [({"discount": 0.5}, "made with discount 0.99 .now 0.5."), ({"seed": 3}, "made with seed 0")]
)
def test_going_on_with_other_settings_is_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    training(tmp_path).save()
    with pytest.raises(BadInputError, match=text):
        training(tmp_path, **changes)


def test_missing_and_damaged_stored_episodes_are_told(tmp_path: Path) -> None:
    learner = training(tmp_path)
    for number in range(2):
        learner.accept(made_up(number))
    drain(learner)
    learner.save()
    first, second = sorted((tmp_path / "episodes").iterdir())
    whole = second.read_bytes()
    second.write_bytes(whole[:-1])
    with pytest.raises(BadInputError, match="no sound stored episode"):
        training(tmp_path)
    second.unlink()
    with pytest.raises(BadInputError, match="learned from 2 stored episodes, 1 are there"):
        training(tmp_path)
    second.write_bytes(whole)
    first.unlink()
    with pytest.raises(BadInputError, match="expected stored episode 0"):
        training(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_a_stored_episode_that_cannot_be_read_now_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    learner = training(tmp_path)
    learner.accept(made_up(0))
    drain(learner)
    learner.save()
    shutil.rmtree(tmp_path / "replay")
    settings_file = tmp_path / "settings.json"
    settings_file.write_text(settings(tmp_path, niceness=0).model_dump_json())
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.suffix == ".msgpack":
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    monkeypatch.setattr("policy.learner_process.stop_when_asked", lambda parent_pid: lambda: False)
    assert process_main(["--settings", str(settings_file)], make_learner=make_stand_in) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"learner: [Errno {number}] {os.strerror(number)}: ")
    assert "damaged" not in told
    assert "no sound" not in told


def test_settings_file_errors_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "learner.json"
    with pytest.raises(BadInputError, match="cannot be read"):
        load_settings(path)
    good = settings(tmp_path)
    path.write_text(good.model_dump_json())
    assert load_settings(path) == good
    for wrong, text in (('"n_step":0', "n_step"), ('"n_steps":3', "n_steps")):
        path.write_text(good.model_dump_json().replace('"n_step":3', wrong))
        with pytest.raises(BadInputError, match=f"wrong at {text}: ") as caught:
            load_settings(path)
        assert "\n" not in str(caught.value)


def start_from(monkeypatch: pytest.MonkeyPatch, *episodes: EpisodeArrays) -> None:
    monkeypatch.setattr("policy.learner_start.latest_revisions", lambda folder: episodes)
    monkeypatch.setattr("policy.learner_start.of_episode", lambda episode, demonstration: episode)


def test_an_episode_that_could_not_be_read_back_is_refused_before_anything_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beyond = made_up(1)
    beyond.proprio[0, 0] = 2e6
    start_from(monkeypatch, made_up(0), beyond)
    with pytest.raises(BadInputError, match=r"episode 1: cannot be learned from .*proprio"):
        training(tmp_path, episodes=(tmp_path,))
    assert len(EpisodeStore(tmp_path / "episodes")) == 0
    start_from(monkeypatch, made_up(0))
    assert training(tmp_path, episodes=(tmp_path,)).episodes == 1


def test_an_episode_without_ticks_is_left_out_of_what_is_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_from(monkeypatch, made_up(0, ticks=0), made_up(1))
    assert training(tmp_path, episodes=(tmp_path,)).episodes == 1
    with pytest.raises(BadInputError, match="episode has no ticks"):
        training(tmp_path).accept(made_up(2, ticks=0))


def test_offline_updates_take_nothing_from_those_that_live_ticks_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_from(monkeypatch, made_up(0))
    schedule = FreeRunning(min_updates_per_tick=1.0, max_updates_per_tick=2.0)
    learner = training(tmp_path, schedule=schedule, episodes=(tmp_path,), offline_updates=100)
    assert not learner.behind
    drain(learner)
    assert learner.updates == 100
    learner.accept(made_up(1))
    learner.step()
    assert learner.behind
    learner.save()
    again = training(tmp_path, schedule=schedule)
    drain(again)
    assert again.updates == 100 + 2 * 12
    assert not again.behind


def test_a_number_is_never_used_twice_where_the_disk_failed_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> None:
        if path.is_dir():
            raise OSError(5, "Input/output error")

    store = EpisodeStore(tmp_path / "episodes")
    with monkeypatch.context() as patch:
        patch.setattr("robot.whole_file.sync", failing)
        with pytest.raises(OSError, match="Input/output"):
            store.add(made_up(0))
    store.add(made_up(1))
    again = EpisodeStore(tmp_path / "episodes")
    assert len(again) == 1
    assert again.load(0).key.episode == 1
