from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from policy.episode_commit import commit_episode
from policy.episode_header import LabelSource, Outcome
from policy.episode_label import label_episode
from policy.episode_reader import latest_revisions, read_episode
from policy.episode_writer import EpisodeWriter
from robot.errors import BadInputError
from tests.episodes import SUCCESS, header, make_rows


def episode(folder: Path, index: int = 0, *, open_loop: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    with EpisodeWriter(folder, header(index, open_loop=open_loop)) as writer:
        for row in make_rows(12, seed=index):
            writer.append(row)
        return commit_episode(writer.finish(SUCCESS)).path


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(BadInputError) as error:
        read_episode(path, **options)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def edit(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return apply


def drop(name: str) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        del file[name]

    return edit(change)


def shorten(file: h5py.File) -> None:
    values = file["data/demo_0/rewards"][:-1]
    del file["data/demo_0/rewards"]
    file["data/demo_0/rewards"] = values


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:-700]), "truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "copy it again"),
        (lambda path: path.write_bytes(path.read_bytes()[:4]), "HDF5 cannot open it"),
        (lambda path: path.write_text("time,q0\n0.0,0.1\n"), "not an HDF5 file (it begins with b'time"),
        (edit(lambda file: file.attrs.create("schema_version", 3)), "schema version 3, this Handrail reads 2"),
        (edit(lambda file: file.attrs.create("format", "other")), "no Handrail episode"),
        (drop("data"), "has no group data/demo_0"),
        (drop("data/demo_0/tick/gate"), "has no dataset tick/gate"),
        (drop("data/demo_0/tick/measured"), "has no dataset tick/measured"),
        (edit(shorten), "rewards is float32 (11,), must be float32 (12,)"),
        (edit(lambda file: file["data/demo_0"].attrs.pop("header")), "has no header"),
        (edit(lambda file: file["data/demo_0"].attrs.create("labels", "[]")), "no readable label"),
        (edit(lambda file: file["data/demo_0"].attrs.create("header", "{}")), "EpisodeHeader is wrong at run_id"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    path = episode(tmp_path)
    damage(path)
    assert says in refusal(path)


def test_a_folder_is_no_episode(tmp_path: Path) -> None:
    assert "a folder, not an episode file" in refusal(tmp_path)


def test_a_recording_in_progress_says_how_to_recover_it(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, header()) as writer:
        assert "replay_episode.py recover" in refusal(writer.path)


def test_open_loop_episodes_are_no_executed_data(tmp_path: Path) -> None:
    path = episode(tmp_path, open_loop=True)
    assert "recorded open loop" in refusal(path, as_executed=True)
    assert read_episode(path).header.open_loop
    assert read_episode(episode(tmp_path, 1), as_executed=True).length == 12


def test_an_unknown_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="has no dataset 'tick/torque'"):
        read_episode(episode(tmp_path)).array("tick/torque")


def test_each_episode_counts_once_in_its_newest_revision(tmp_path: Path) -> None:
    first, second = episode(tmp_path, 0), episode(tmp_path, 1)
    shutil.copy(first, tmp_path / "an-older-copy.h5")
    label_episode(first, Outcome.FAILURE, LabelSource.PERSON)
    found = latest_revisions(tmp_path)
    assert [item.path for item in found] == [first, second]
    assert [item.identity for item in found] == [("demo-0a1b", 0, 1), ("demo-0a1b", 1, 0)]
    assert found[0].outcome.outcome is Outcome.FAILURE


def test_a_folder_with_a_broken_file_names_it(tmp_path: Path) -> None:
    episode(tmp_path)
    (tmp_path / "broken.h5").touch()
    with pytest.raises(BadInputError, match=r"broken\.h5: the file is empty"):
        latest_revisions(tmp_path)
    with pytest.raises(BadInputError, match="no such folder"):
        latest_revisions(tmp_path / "none")
