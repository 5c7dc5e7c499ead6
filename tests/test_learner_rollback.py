"""A person goes back to earlier weights: robots get them as a new version, and the learner learns on from there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policy.learner_history import LearnerHistory
from policy.learner_settings import FreeRunning
from policy.learner_training import Training
from policy.residual import Dims, Float
from policy.weights import Expected, unpack
from robot.errors import BadInputError
from tests.learner_episodes import ACTION, FEATURES, PROPRIO, made_up
from tests.test_learner_training import drain, training

FREE = FreeRunning(min_updates_per_tick=0.0, max_updates_per_tick=1.0, publish_every_updates=4)


def free(folder: Path, **changes: object) -> Training:
    return training(folder, schedule=FREE, **changes)


def tensors(message: bytes) -> dict[str, Float]:
    dims = Dims(features=FEATURES, proprio=PROPRIO, action=ACTION)
    expected = Expected(dims=dims, bundle_sha256="0" * 64, max_scale=(1.0,) * ACTION)
    return dict(unpack(message, expected).tensors)


def same(first: bytes, second: bytes) -> bool:
    one, other = tensors(first), tensors(second)
    return all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """The state of a learner that gave out nine versions, three for each of its episodes, and kept its state thrice."""
    learner = free(tmp_path)
    for number in range(3):
        learner.accept(made_up(number))
        drain(learner)
        learner.save()
    assert learner.version == 9
    return tmp_path


def test_earlier_weights_come_back_as_a_new_version(learned: Path) -> None:
    learner = free(learned)
    learner.roll_back(2)
    assert learner.version == 10
    kept = LearnerHistory(learned)
    assert same(learner.message, kept.weights(2))
    assert not same(learner.message, kept.weights(9))
    assert (learned / "weights.safetensors").read_bytes() == learner.message


def test_learning_goes_on_from_the_state_that_led_there_with_all_episodes(learned: Path) -> None:
    learner = free(learned)
    learner.roll_back(5)  # the state of 3 is the newest kept before
    assert (learner.updates, learner.episodes, learner.buffer_size) == (12, 3, 36)
    learner.step()  # the first one gives out nothing yet
    assert learner.version == 10
    drain(learner)
    assert learner.updates == 36
    assert learner.version > 10
    again = free(learned)
    assert again.version == learner.version


def test_a_rollback_survives_a_kill_right_after_it(learned: Path) -> None:
    free(learned).roll_back(2)
    again = free(learned)
    assert (again.version, again.updates) == (10, 0)
    assert same(again.message, LearnerHistory(learned).weights(2))


def test_going_back_to_the_rolled_back_version_is_possible_as_well(learned: Path) -> None:
    learner = free(learned)
    learner.roll_back(2)
    drain(learner)
    learner.save()
    learner.roll_back(10)
    assert same(learner.message, LearnerHistory(learned).weights(2))
    assert learner.updates == 0


def test_a_robot_that_has_newer_weights_of_another_learner_gets_them_all_the_same(learned: Path) -> None:
    learner = free(learned)
    learner.roll_back(2)
    learner.step(newer_than=50)
    assert learner.version == 51
    assert same(learner.message, LearnerHistory(learned).weights(2))


def test_kept_weights_that_were_changed_are_refused(learned: Path) -> None:
    kept = learned / "history" / "weights-00000002.safetensors"
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data)
    with pytest.raises(BadInputError, match="kept weights are damaged"):
        free(learned).roll_back(2)


def test_versions_that_are_not_kept_and_lock_step_are_refused(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"has no weights 40 \(there are: 1 to 9\)"):
        free(learned).roll_back(40)
    with pytest.raises(BadInputError, match="roll back without --lock-step"):
        training(tmp_path / "lock-step").roll_back(1)


def test_no_version_is_given_out_twice_after_a_kill(tmp_path: Path) -> None:
    learner = free(tmp_path)
    learner.accept(made_up(0))
    learner.step()
    learner.save()
    drain(learner)
    given_out = learner.version
    assert given_out == 3
    again = free(tmp_path)  # from the checkpoint before the first version
    assert again.version == given_out
    assert same(again.message, learner.message)  # a robot that comes now gets what the others have
    drain(again)
    assert again.version == given_out + 3


def test_large_networks_are_kept_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy.learner_history.MAX_BYTES", 6000)
    history, checkpoint = LearnerHistory(tmp_path), tmp_path / "checkpoint"
    for version in range(20):
        checkpoint.unlink(missing_ok=True)
        checkpoint.write_bytes(b"x" * 3000)
        history.keep_state(version, checkpoint)
        history.keep_weights(version, b"x" * 1000)
    assert history.versions == list(range(14, 20))
    assert (len(history.states), history.states[0], history.states[-1]) == (4, 0, 19)


def test_a_handful_of_states_is_kept_and_the_first_one_always(tmp_path: Path) -> None:
    history = LearnerHistory(tmp_path, kept_weights=10, kept_states=5)
    checkpoint = tmp_path / "checkpoint"
    for version in range(40):
        checkpoint.unlink(missing_ok=True)
        checkpoint.write_text(str(version))
        history.keep_state(version, checkpoint)
        history.keep_weights(version, str(version).encode())
    assert history.versions == list(range(30, 40))
    states = history.states
    assert (len(states), states[0], states[-1]) == (5, 0, 39)
    assert max(np.diff(states)) <= 25  # spread over all, not the last ones only
    for version in (0, 38, 39):
        kept = history.state_before(version)
        assert int(kept.read_text()) == max(state for state in states if state <= version)


def test_a_state_that_was_saved_a_while_after_the_weights_is_not_gone_back_to(tmp_path: Path) -> None:
    learner = free(tmp_path)
    learner.accept(made_up(0))
    while learner.version < 1:
        learner.step()
    learner.step()
    learner.save()
    assert (learner.version, learner.updates) == (1, 5)
    drain(learner)
    learner.roll_back(1)
    assert learner.updates == 0


@pytest.mark.parametrize("written", [False, True])
def test_a_kill_within_a_rollback_leaves_all_of_it_or_nothing(
    learned: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    learner = free(learned)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_write_weights" if written else "save", killed)
        with pytest.raises(KeyboardInterrupt):
            learner.roll_back(2)
    again = free(learned)
    if not written:
        assert (again.version, again.updates) == (9, 36)
        return
    assert (again.version, again.updates) == (10, 0)
    assert same(again.message, LearnerHistory(learned).weights(2))
    assert LearnerHistory(learned).weights(10) == (learned / "weights.safetensors").read_bytes() == again.message
    again.step(newer_than=50)  # it still insists on them
    assert again.version == 51
    assert same(again.message, LearnerHistory(learned).weights(2))


def test_files_that_a_person_laid_into_the_history_are_not_counted(learned: Path) -> None:
    for name in ("weights-best.safetensors", "state-00000003-copy.safetensors"):
        (learned / "history" / name).write_bytes(b"")
    kept = LearnerHistory(learned)
    assert kept.versions == list(range(1, 10))
    assert kept.states == [0, 3, 6, 9]
