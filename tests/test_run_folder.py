from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from policy.manifest import content_hash
from policy.run_folder import RunFolder
from robot.errors import BadInputError
from tests.episodes import header

PROVENANCE = header().provenance


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_run_keeps_what_it_is_given_under_its_hash(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "demo", PROVENANCE)
    station = run.store_station(b"[loop]\n")
    weights = run.store_weights(7, b"tensors")
    again = RunFolder.open(tmp_path / "demo")
    assert again.info == run.info
    assert again.run_id.startswith("demo-")
    assert again.station(station) == b"[loop]\n"
    assert again.weights(weights) == b"tensors"
    assert again.weights_sha256(7) == weights
    assert run.store_station(b"[loop]\n") == station


def test_a_changed_or_missing_file_is_found_when_it_is_read(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "demo", PROVENANCE)
    station = run.store_station(b"max_speed = 1")
    (run.path / "stations" / station).write_bytes(b"max_speed = 9")
    with pytest.raises(BadInputError, match="its bytes do not match its name"):
        run.station(station)
    with pytest.raises(BadInputError, match="has no file 0000"):
        run.weights("0" * 64)
    with pytest.raises(BadInputError, match="0 files of version 3, must be one"):
        run.weights_sha256(3)


def test_a_bundle_is_kept_whole_under_its_content_hash(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "demo", PROVENANCE)
    source = next(path for path in (Path(__file__).parents[1] / "policy" / "bundles").iterdir() if path.is_dir())
    files = {path.name: path.read_bytes() for path in source.iterdir() if path.suffix in (".json", ".onnx")}
    sha256 = json.loads(files["manifest.json"])["content_sha256"]
    run.store_bundle(sha256, files)
    run.store_bundle(sha256, files)
    kept = run.bundle(sha256)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == files
    other = json.loads(files["manifest.json"]) | {"version": 99}
    other["content_sha256"] = content_hash(other)
    (kept / "manifest.json").write_text(json.dumps(other))
    with pytest.raises(BadInputError, match="the files were changed"):
        run.bundle(sha256)


def test_a_resumed_run_goes_on_with_its_episode_index(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "demo", PROVENANCE)
    assert run.next_episode() == 0
    (run.episodes / header(3).file_name).touch()
    (run.episodes / (header(11).file_name + ".partial")).touch()
    (run.episodes / "notes-000099.txt").touch()
    again = RunFolder.create(tmp_path / "demo", PROVENANCE, resume=True)
    assert again.run_id == run.run_id
    assert again.next_episode() == 12


def foreign(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").touch()


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda path: RunFolder.create(path, PROVENANCE), "holds a run already"),
        (foreign, "holds other files and no run"),
        (lambda path: path.touch(), "cannot hold a run"),
    ],
)
def test_a_place_that_is_taken_is_refused_in_one_line(
    tmp_path: Path, prepare: Callable[[Path], object], says: str
) -> None:
    prepare(tmp_path / "demo")
    with pytest.raises(BadInputError, match=says) as error:
        RunFolder.create(tmp_path / "demo", PROVENANCE)
    assert "\n" not in str(error.value)


def test_a_disk_without_space_is_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 3_000_000))
    with pytest.raises(BadInputError, match="3 MB free on its disk, a run needs 256 MB"):
        RunFolder.create(tmp_path / "demo", PROVENANCE)


def test_a_folder_without_rights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # root may write anywhere, so the kernel's answer is given here
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(BadInputError, match=r"cannot hold a run \(Permission denied\)"):
        RunFolder.create(tmp_path / "demo", PROVENANCE)


def test_a_name_that_would_spoil_file_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="'my run' is no name for a run"):
        RunFolder.create(tmp_path / "my run", PROVENANCE)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no run here"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"run\.json: RunInfo is wrong at run_id"):
        RunFolder.open(tmp_path)


def test_a_run_knows_which_weights_drove_last_also_where_they_are_not_the_newest(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "demo", PROVENANCE)
    older, newer = run.store_weights(1, b"older"), run.store_weights(2, b"newer")
    assert run.weights_in_force() is None
    for sha256, message in ((newer, b"newer"), (older, b"older")):
        run.note_in_force(sha256)
        assert RunFolder.open(run.path).weights_in_force() == message
    assert (run.newest_weights(), run.weights_versions()) == (b"newer", [1, 2])
    note = run.path / "weights" / "in_force"
    note.write_text("")  # as a power cut may leave it
    assert run.weights_in_force() is None
    note.write_text("../run.json")
    with pytest.raises(BadInputError, match=r"in_force: got '\.\./run\.json' \(allowed a SHA-256\); remove it"):
        run.weights_in_force()
