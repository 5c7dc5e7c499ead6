from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from policy.episode_reader import read_episode
from policy.episode_recovery import recover_folder
from policy.episode_schema import DIGEST_FIELD
from policy.episode_writer import EpisodeWriter
from robot.clock import VirtualClock
from robot.errors import BadInputError
from robot.recording import Recording
from teleop.arbiter import Source
from teleop.replay import verify_run
from teleop.replay_compare import compare_bundle
from teleop.replay_episode import EpisodeReplay, EpisodeReport
from teleop.replay_show import describe
from teleop.replay_text import verified_lines
from teleop.run import Run
from teleop.run_options import RunOptions
from teleop.station import load_station
from tests.replay_run import STATION, LateClock, changed, edit_header, make_run

SCRIPT = Path(__file__).parents[1] / "launch" / "replay_episode.py"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay")
    make_run(folder)
    return folder / "run"


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "run"))


def files(run: Path) -> list[Path]:
    return sorted((run / "episodes").glob("*.h5"))


def test_the_miniature_run_has_what_a_replay_must_cope_with(recorded: Path) -> None:
    columns = [
        read_episode(path).arrays(["tick/source", "tick/residual_version", "tick/gate_open"])
        for path in files(recorded)
    ]
    sources = {int(source) for column in columns for source in column["tick/source"].tolist()}
    assert sources == set(Source)
    assert set(columns[0]["tick/residual_version"].tolist()) == {0, 1}
    assert set(columns[0]["tick/gate_open"].tolist()) == {0, 1}
    assert [read_episode(path).outcome.outcome.value for path in files(recorded)] == ["timeout", "success", "abort"]


def test_nothing_differs_in_what_the_loop_wrote(recorded: Path) -> None:
    report = verify_run(recorded, jobs=0)
    assert (report.episodes, report.mismatches, report.largest_difference) == (3, 0, {})
    assert report.ticks == sum(read_episode(path).length for path in files(recorded))


def test_run_that_was_late_replays_exactly_across_the_ticks_that_it_skipped(tmp_path: Path) -> None:
    # once while the policy drives, once while the person does, once in the next episode
    paths = make_run(tmp_path, LateClock(100.0, {14: 0.13, 24: 0.27, 55: 0.12}))
    outcomes = [read_episode(path).outcome for path in paths]
    assert sum(outcome.skipped_ticks for outcome in outcomes) == 9
    assert all(outcome.complete for outcome in outcomes)
    index = read_episode(paths[0]).array("tick/index").astype(int)
    assert sorted(set(np.diff(index).tolist())) == [1, 3, 6]
    report = verify_run(tmp_path / "run", jobs=0)
    assert report.mismatches == 0, report.first
    assert [one.gaps for one in report.details] == [(), (), ()]


@pytest.mark.parametrize("skipped", [0, 2])
def test_number_of_skipped_ticks_cannot_be_changed(tmp_path: Path, skipped: int) -> None:
    path = make_run(tmp_path, LateClock(100.0, {14: 0.08}))[0]
    with changed(path, reseal=False) as demo:
        labels = demo.attrs["labels"]
        assert '\\"skipped_ticks\\":1' in labels
        demo.attrs["labels"] = labels.replace('\\"skipped_ticks\\":1', f'\\"skipped_ticks\\":{skipped}')
    assert {"dropped_ticks", "skipped_ticks"} & set(EpisodeReplay().verify(path).by_field)


def test_processes_give_the_same_report_as_one_and_tell_their_progress(recorded: Path) -> None:
    seen: list[EpisodeReport] = []
    report = verify_run([recorded], jobs=2, progress=seen.append)
    assert report == verify_run(recorded, jobs=0)
    assert sorted(one.path for one in seen) == [one.path for one in report.details]


def test_every_episode_of_an_arm_that_plays_a_recording_verifies(tmp_path: Path) -> None:
    recording = Recording.open(Path(__file__).parent / "data" / "bridge_excerpt.h5")
    station = load_station(STATION.with_name("bridge_recorded.toml"), [("policy.provider", '"cpu"')])
    options = RunOptions(out=tmp_path / "run", operator="none", recorded=(0, 2))
    with Run(station, VirtualClock(), options, recording=recording) as played:
        for _ in options.recorded:
            played.episode()
        played.finish()
    report = verify_run(tmp_path / "run", jobs=0)
    assert (report.episodes, report.mismatches) == (2, 0)
    sources = [read_episode(path).array("tick/source") for path in files(tmp_path / "run")]
    assert all((source == Source.POLICY).any() for source in sources)


def test_a_single_file_finds_its_run(recorded: Path) -> None:
    assert verify_run(files(recorded)[1], jobs=0).episodes == 1


def test_a_changed_output_is_counted_where_it_is_and_not_in_every_later_tick(run: Path) -> None:
    path = files(run)[0]
    with changed(path, reseal=True) as demo:
        demo["tick/base"][14, 0] += np.float32(1e-7)
    report = EpisodeReplay().verify(path)
    assert report.by_field == {"tick/base": 1}
    assert (report.first[0].tick, report.first[0].field) == (14, "tick/base[0]")


def test_negative_zero_is_not_zero_and_nan_is_nan(run: Path) -> None:
    path = files(run)[0]
    with changed(path, reseal=True) as demo:
        row = int(np.flatnonzero(demo["tick/source"][:] == Source.RESET)[3])
        assert demo["tick/residual"][row, 4] == 0.0
        assert np.isnan(demo["tick/base"][row]).all()
        demo["tick/residual"][row, 4] = np.float32(-0.0)
    assert EpisodeReplay().verify(path).by_field == {"tick/residual": 1}


def rewritten(path: Path, drop: list[int]) -> Path:
    """The episode as a recorder leaves it that lost some rows."""
    episode = read_episode(path)
    rows = episode.rows()
    path.unlink()
    with EpisodeWriter(path.parent, episode.header) as writer:
        for place in range(len(rows)):
            if place not in drop:
                writer.append(rows[place, ...])
        writer.finish(episode.outcome.with_gaps(len(drop), "the recorder was full"))
    recover_folder(path.parent)
    return path


def test_after_missing_ticks_the_replay_begins_anew_and_says_so(run: Path) -> None:
    path = rewritten(files(run)[0], [7, 8, 20])
    report = verify_run(path, jobs=0)
    assert report.mismatches == 0
    assert report.details[0].gaps == (9, 21)
    assert any("missing before 9; begun anew" in line for line in verified_lines(report))


def test_a_recovered_episode_verifies_although_its_header_misses_later_weights(run: Path) -> None:
    episode = read_episode(files(run)[0])
    rows = episode.rows()
    episode.path.unlink()
    with EpisodeWriter(episode.path.parent, episode.header) as writer:
        for place in range(len(rows) - 4):
            writer.append(rows[place, ...])
        writer.flush()
    recover_folder(run)
    report = EpisodeReplay().verify(episode.path)
    assert (report.ticks, report.mismatches) == (len(rows) - 4, 0)


def test_an_episode_without_a_tick_verifies_and_can_be_told_and_compared(run: Path) -> None:
    episode = read_episode(files(run)[0])
    episode.path.unlink()
    with EpisodeWriter(episode.path.parent, episode.header) as writer:
        writer.flush()
    recover_folder(run)
    report = EpisodeReplay().verify(episode.path)
    assert (report.ticks, report.mismatches) == (0, 0)
    assert "incomplete" in describe(episode.path)[0][1]
    assert compare_bundle(run / "bundles" / (episode.header.bundle_sha256 or ""), [episode.path]).ticks == 0


def test_on_another_processor_differences_are_told_and_are_no_mismatches(run: Path) -> None:
    path = files(run)[0]
    edit_header(path, lambda header: header["provenance"].update(cpu="Abacus 1"))
    edit_header(path, lambda header: header["provenance"]["libraries"].update(numpy="0.9"))
    with changed(path, reseal=True) as demo:
        demo["tick/features"][14, 2] += np.float32(1e-3)
    report = verify_run(path, jobs=0)
    assert report.mismatches == 0
    assert report.largest_difference == {"tick/features": pytest.approx(1e-3, rel=1e-3)}
    text = "\n".join(verified_lines(report))
    assert "bits may differ here: recorded on Abacus 1" in text
    assert "largest difference in tick/features: 0.001" in text
    assert "another library: numpy 0.9 there" in text


def test_on_another_processor_an_edit_is_still_found(run: Path) -> None:
    path = files(run)[0]
    edit_header(path, lambda header: header["provenance"].update(cpu="Abacus 1"))
    with changed(path, reseal=True) as demo:
        demo["tick/source"][14] = Source.HUMAN
        demo["tick/frame_id"][14, 0] += 1
    assert {"tick/source", "tick/captured_s"} <= set(EpisodeReplay().verify(path).by_field)


def test_values_that_no_loop_could_go_on_with_are_mismatches_and_no_crash(run: Path) -> None:
    path = files(run)[0]
    with changed(path, reseal=True) as demo:
        demo["tick/verdict"][12] = 77
        demo["tick/chunk_tick"][13] = 500
        demo["tick/T_base_tcp"][14] = np.nan
    report = EpisodeReplay().verify(path)
    assert report.mismatches >= 3
    assert any(one.field == "tick" and "77" in one.recomputed for one in report.first)


def test_first_mismatches_stand_in_the_text_and_all_are_counted(run: Path) -> None:
    path = files(run)[0]
    with changed(path, reseal=False) as demo:
        demo["tick/features"][12:15] = 0.0
    report = verify_run(path, jobs=0)
    lines = list(verified_lines(report))
    assert lines[0].endswith(f"mismatches {report.mismatches}")
    assert any(line.startswith("all, by field: ") and f"{DIGEST_FIELD} 3" in line for line in lines)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda run: files(run)[0].write_bytes(b""), "the file is empty"),
        (lambda run: files(run)[0].write_bytes(files(run)[0].read_bytes()[:5000]), "the file is truncated"),
        (lambda run: (run / "run.json").unlink(), "lies in no run folder"),
        (lambda run: shutil.rmtree(run / "bundles"), "manifest.json"),
        (lambda run: shutil.rmtree(run / "weights"), "copy the whole run folder"),
        (lambda run: shutil.rmtree(run / "stations"), "copy the whole run folder"),
        (lambda run: [file.unlink() for file in files(run)], "holds no episode"),
    ],
)
def test_what_is_missing_or_damaged_is_one_line(run: Path, damage: Callable[[Path], object], line: str) -> None:
    damage(run)
    with pytest.raises(BadInputError, match=line) as caught:
        verify_run(run, 0)
    assert "\n" not in str(caught.value)


def test_a_header_without_a_state_is_one_line(run: Path) -> None:
    with h5py.File(files(run)[0], "r+") as file:
        attributes = file["data/demo_0"].attrs
        header = json.loads(attributes["header"])
        del header["filter_state"]["velocity"]
        attributes["header"] = json.dumps(header)
    with pytest.raises(BadInputError, match="no state to start from"):
        verify_run(run, 0)


def test_a_damaged_file_ends_the_processes_with_its_line(run: Path) -> None:
    files(run)[1].write_bytes(b"")
    with pytest.raises(BadInputError, match="the file is empty"):
        verify_run(run, 2)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The script's own `main` in this process."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    main: Callable[[], int] = runpy.run_path(str(SCRIPT))["main"]

    def call(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
        return main()

    return call


def test_the_script_exits_with_the_verdict_and_writes_it(run: Path, tmp_path: Path) -> None:
    path, document = files(run)[0], tmp_path / "verified.json"
    with changed(path, reseal=True) as demo:
        demo["tick/commanded"][14, 0] += 1.0
    command = [sys.executable, str(SCRIPT), "verify", str(path), "--jobs", "1", "--json", str(document)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "tick/commanded[0]" in done.stdout
    assert json.loads(document.read_text())["mismatches"] == 1


def test_the_script_says_what_is_wrong_with_its_options(script: Callable[..., int], recorded: Path) -> None:
    for words, line in (
        (("verify", recorded / "nowhere"), "no such file"),
        (("verify", recorded, "--jobs", 0), "--jobs 0: allowed 1 to 256"),
        (("verify", recorded, "--jbos", 2), "did you mean --jobs"),
        (("compare", recorded), "--bundle"),
        (("compare", recorded, "--bundle", recorded, "--threshold", 3), "--threshold 3.0: allowed 0 to 2"),
        (("show", recorded, "--png", recorded / "a.png"), "draws one episode, 3 are named"),
        (("rerun", recorded), "invalid choice"),
        ((), "required"),
    ):
        with pytest.raises(BadInputError, match=line):
            script(*words)


def test_the_script_shows_and_compares(
    script: Callable[..., int], recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png, document = tmp_path / "episode.png", tmp_path / "shown.json"
    assert script("show", files(recorded)[0], "--png", png, "--tick", 19, "--json", document) == 0
    assert png.stat().st_size > 10_000
    assert json.loads(document.read_text())["episodes"][0]["tick"]["source"] == "human"
    assert script("compare", "--bundle", recorded.parent / "bundle", recorded) == 0
    assert "within the residual's bound in every dimension: 100 %" in capsys.readouterr().out


def test_the_script_recovers_what_a_crash_left(
    script: Callable[..., int], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episode = read_episode(files(run)[2])
    rows = episode.rows()
    episode.path.unlink()
    with EpisodeWriter(episode.path.parent, episode.header) as writer:
        writer.append(rows[0, ...])
        writer.flush()
    junk = episode.path.with_name("junk.h5.partial")
    junk.write_bytes(b"junk")
    assert script("recover", run) == 1
    told = capsys.readouterr().out
    assert f"{episode.path}: 1 ticks, incomplete" in told
    assert "recovered 1, not recovered 1" in told
    junk.unlink()
    assert script("recover", run) == 0
