from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from policy.episode_header import LabelSource, Outcome
from policy.episode_label import label_episode
from policy.reward_frames import NONE, SUCCESS, UNUSED, LabelledEpisode, label_episodes, split_episodes
from policy.reward_marks import Mark, read_marks
from robot.errors import BadInputError
from tests.replay_run import changed
from tests.reward_episodes import RESET_TICKS, TICKS, make_episode

ASKED = TICKS - RESET_TICKS


def labelled(folder: Path, marks: dict[str, list[Mark]] | None = None, margin_s: float = 0.0) -> list[LabelledEpisode]:
    found, _ = label_episodes([folder], positive_s=0.3, margin_s=margin_s, marks=marks or {})
    return found


def test_the_last_frames_of_a_success_show_it_and_nothing_else_does(tmp_path: Path) -> None:
    make_episode(tmp_path, 0, Outcome.SUCCESS)
    make_episode(tmp_path, 1, Outcome.FAILURE)
    make_episode(tmp_path, 2, Outcome.TIMEOUT)
    success, failure, timeout = labelled(tmp_path)
    assert success.label.tolist() == [NONE] * (ASKED - 6) + [SUCCESS] * 6
    assert failure.label.tolist() == timeout.label.tolist() == [NONE] * ASKED
    assert (success.success, failure.success, timeout.success) == (True, False, False)


def test_frames_in_the_margin_are_not_used(tmp_path: Path) -> None:
    make_episode(tmp_path, 0, Outcome.SUCCESS)
    (success,) = labelled(tmp_path, margin_s=0.2)
    assert success.label.tolist() == [NONE] * (ASKED - 10) + [UNUSED] * 4 + [SUCCESS] * 6


def test_only_frames_that_the_robot_would_ask_about_count(tmp_path: Path) -> None:
    path = make_episode(tmp_path, 0, Outcome.FAILURE)
    with changed(path, reseal=True) as demo:
        demo["tick/verdict"][10] = 1
        demo["tick/overrun"][12] = 1
    (episode,) = labelled(tmp_path)
    assert episode.rows.tolist() == [row for row in range(RESET_TICKS, TICKS) if row not in (10, 12)]


def test_a_person_s_late_label_counts(tmp_path: Path) -> None:
    label_episode(make_episode(tmp_path, 0, Outcome.SUCCESS), Outcome.FAILURE, LabelSource.PERSON)
    label_episode(make_episode(tmp_path, 1, Outcome.TIMEOUT), Outcome.SUCCESS, LabelSource.PERSON)
    taken_back, late = labelled(tmp_path)
    assert (taken_back.label == NONE).all()
    assert (late.label == SUCCESS).sum() == 6


def test_what_nobody_knows_or_the_model_alone_said_is_left_out_and_counted(tmp_path: Path) -> None:
    model = {"source": LabelSource.REWARD_MODEL, "reward_sha256": "5" * 64}
    make_episode(tmp_path, 0, Outcome.SUCCESS, **model)  # type: ignore[arg-type]
    make_episode(tmp_path, 1, Outcome.TIMEOUT, source=LabelSource.NONE, reward_sha256="5" * 64)
    make_episode(tmp_path, 2, Outcome.ABORT)
    make_episode(tmp_path, 3, Outcome.SUCCESS, complete=False)
    agreed = make_episode(tmp_path, 4, Outcome.SUCCESS, **model)  # type: ignore[arg-type]
    label_episode(agreed, Outcome.SUCCESS, LabelSource.PERSON)
    found, left_out = label_episodes([tmp_path], positive_s=0.3, margin_s=0.0, marks={})
    assert [episode.episode.path for episode in found] == [agreed]
    assert left_out == {"judged by a reward model alone": 2, "abort": 1, "incomplete": 1}


def test_marks_are_stronger_than_the_episode_and_bring_in_one_that_nobody_labelled(tmp_path: Path) -> None:
    success = make_episode(tmp_path, 0, Outcome.SUCCESS)
    aborted = make_episode(tmp_path, 1, Outcome.ABORT)
    marks = {success.name: [Mark(TICKS - 1, TICKS - 1, UNUSED)], aborted.name: [Mark(5, 6, SUCCESS), Mark(8, 8, NONE)]}
    one, other = labelled(tmp_path, marks)
    assert one.label[-2:].tolist() == [SUCCESS, UNUSED]
    assert other.success is None
    assert other.rows[other.label == SUCCESS].tolist() == [5, 6]
    assert other.rows[other.label == NONE].tolist() == [8]


def test_a_mark_of_an_episode_that_is_not_there_is_refused(tmp_path: Path) -> None:
    make_episode(tmp_path, 0, Outcome.SUCCESS)
    with pytest.raises(BadInputError, match=r"--frames: marks gone\.h5, which is in none of the folders"):
        labelled(tmp_path, {"gone.h5": [Mark(0, 1, NONE)]})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("episode,first,label\n", "its first line must be episode,first,last,label"),
        ("episode,first,last,label\na.h5,1,x,success\n", ":2: first and last must be ticks, got '1' and 'x'"),
        ("episode,first,last,label\na.h5,1,2,none\na.h5,4,3,success\n", ":3: ticks 4 to 3"),
        ("episode,first,last,label\na.h5,1,2,good\n", "label is 'good' (allowed success, none, unused)"),
        ("episode,first,last,label\na.h5,1\n", ":2: first and last must be ticks, got '1' and None"),
    ],
)
def test_a_wrong_line_of_marks_is_refused_by_its_number(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "marks.csv"
    path.write_text(text)
    with pytest.raises(BadInputError) as refused:
        read_marks(path)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_marks_name_episodes_by_their_file(tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_text("episode,first,last,label\nruns/today/episodes/a.h5,3,5,success\na.h5,7,7,unused\n")
    assert read_marks(path) == {"a.h5": [Mark(3, 5, SUCCESS), Mark(7, 7, UNUSED)]}


def test_no_layout_is_in_two_splits_and_each_split_has_both_outcomes(tmp_path: Path) -> None:
    for episode in range(40):
        outcome = Outcome.SUCCESS if episode % 2 else Outcome.FAILURE
        make_episode(tmp_path, episode, outcome, layout=episode % 20)
    splits = split_episodes(labelled(tmp_path), seed=3)
    groups = [{episode.group for episode in part} for part in splits]
    assert [len(group) for group in groups] == [12, 4, 4]
    assert sum(len(part) for part in splits) == 40
    assert len(groups[0] | groups[1] | groups[2]) == 20
    for part in splits:
        assert {episode.success for episode in part} == {True, False}


def test_the_seed_decides_the_splits(tmp_path: Path) -> None:
    for episode in range(24):
        make_episode(tmp_path, episode, Outcome.SUCCESS if episode % 2 else Outcome.FAILURE)
    episodes = labelled(tmp_path)
    names = [[episode.group for episode in split_episodes(episodes, seed).held_out] for seed in (1, 1, 2)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(("successes", "failures"), [(9, 10), (10, 9), (0, 11)])
def test_too_few_of_either_outcome_are_refused(tmp_path: Path, successes: int, failures: int) -> None:
    for episode in range(successes + failures):
        make_episode(tmp_path, episode, Outcome.SUCCESS if episode < successes else Outcome.FAILURE)
    with pytest.raises(BadInputError, match=f"{successes} successes and {failures} failures, 10 of each are needed"):
        split_episodes(labelled(tmp_path), seed=0)


@pytest.mark.parametrize(("label", "shows"), [(SUCCESS, "no success"), (NONE, "success"), (UNUSED, "success")])
def test_a_split_without_a_frame_of_either_kind_is_refused(tmp_path: Path, label: int, shows: str) -> None:
    """All was marked otherwise than the episodes say."""
    paths = [
        make_episode(tmp_path, episode, Outcome.SUCCESS if episode < 10 else Outcome.FAILURE) for episode in range(20)
    ]
    episodes = labelled(tmp_path, {path.name: [Mark(0, TICKS - 1, label)] for path in paths})
    told = f"no frame that shows {shows} among the 12 episodes for training"
    with pytest.raises(BadInputError, match=told) as refused:
        split_episodes(episodes, seed=0)
    assert "\n" not in str(refused.value)


def test_episodes_of_another_station_are_refused(tmp_path: Path) -> None:
    make_episode(tmp_path, 0, Outcome.SUCCESS)
    other = make_episode(tmp_path, 1, Outcome.SUCCESS)
    with h5py.File(other, "r+") as file:
        attributes = file["data/demo_0"].attrs
        attributes["header"] = attributes["header"].replace('"rate_hz":20.0', '"rate_hz":10.0')
    with pytest.raises(BadInputError, match="cameras, proprioception or rate differ"):
        labelled(tmp_path)


def test_inputs_are_those_of_the_rows(tmp_path: Path) -> None:
    path = make_episode(tmp_path, 0, Outcome.SUCCESS)
    (episode,) = labelled(tmp_path)
    images, values = episode.inputs(["wrist"], ["gripper_width_m", "tcp_position_m"], np.array([0, 5]))
    rows = episode.episode.rows()[[RESET_TICKS, RESET_TICKS + 5]]
    assert path.is_file()
    assert (images["wrist"] == rows["obs/wrist_image"]).all()
    assert values.shape == (2, 4)
    assert (values[:, 0] == rows["obs/gripper_width_m"][:, 0]).all()
