"""Whatever one changes in a log or in what it rests on, the replay finds it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from policy.episode_header import LabelSource, Outcome
from policy.episode_label import label_episode
from policy.episode_reader import read_episode
from policy.episode_schema import DIGEST_FIELD, EpisodeSpec
from robot.errors import BadInputError
from teleop.arbiter import Source
from teleop.human_input import HumanEvent
from teleop.replay_episode import EpisodeReplay, EpisodeReport
from tests.replay_run import changed, edit_header, make_run, weights_message

Columns = Callable[[str], NDArray[np.generic]]

SPEC = EpisodeSpec(
    cameras=(("front", 32, 40), ("wrist", 32, 40)),
    proprio=(("tcp_position_m", 3), ("gripper_width_m", 1)),
    action_size=5,
    chunk_length=4,
    feature_size=6,
    joint_count=7,
)
FIELDS = tuple(SPEC.fields()) + tuple(SPEC.measured_fields())


def policy_drives(column: Columns) -> NDArray[np.bool_]:
    return column("tick/source") == Source.POLICY


def person_drives(column: Columns) -> NDArray[np.bool_]:
    return column("tick/source") == Source.HUMAN


def resetting(column: Columns) -> NDArray[np.bool_]:
    return column("tick/source") == Source.RESET


def gate_closed(column: Columns) -> NDArray[np.bool_]:
    return policy_drives(column) & (column("tick/gate_open") == 0)


def any_tick(column: Columns) -> NDArray[np.bool_]:
    return np.ones(len(column("tick/index")), bool)


def shown_once(column: Columns) -> NDArray[np.bool_]:
    ids = np.pad(column("tick/frame_id")[:, 0].astype(np.int64), 1, constant_values=-2)
    return (ids[1:-1] != ids[:-2]) & (ids[1:-1] != ids[2:])


# Where a changed value reaches something that is recomputed or derived, whatever the digest says.
MATTERS: dict[str, Callable[[Columns], NDArray[np.bool_]]] = {
    "obs/front_image": policy_drives,
    "obs/wrist_image": policy_drives,
    "tick/human_twist": person_drives,
    "tick/human_gripper": person_drives,
    "tick/noise": lambda column: policy_drives(column) & (column("tick/gate_open") == 1),
    "tick/gate_forced": gate_closed,
    "tick/residual_version": policy_drives,
    "tick/reset": resetting,
    "tick/uncertainty_s": shown_once,  # elsewhere it would differ from that of the same frame in the next row
}
# A small change would be as good a story as the logged one, so these get a change that is not.
PLANTED: dict[str, float] = {
    "tick/state_s": 1.0,
    "tick/polled_s": -1.0,
    "tick/arrived_s": 1.0,
    "tick/force_n": 1000.0,
    "tick/events": int(HumanEvent.HOLD),
}
# Pure records: no stage reads them and nothing else in the log says the same, so the digest alone protects them.
DIGEST_ONLY: dict[str, float] = {
    "tick/dq_rad_s": 0.125,  # this policy's proprioception does not ask for velocities, nor does the filter
    "tick/tcp_velocity": 0.125,
    "tick/uncertainty_s": 0.125,
}
# Values that are records as long as they stay plausible: (change, why nothing can tell).
PLAUSIBLE: dict[str, tuple[float, str]] = {
    "tick/arrived_s": (-1e-3, "still between capture and the tick"),
    "tick/polled_s": (-1e-3, "still within the device's allowed silence"),
    "tick/force_n": (1.0, "below the limit"),
    "tick/events": (int(HumanEvent.SUCCESS), "labels end an episode; on any other tick they say nothing"),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], EpisodeReplay]:
    files = make_run(tmp_path_factory.mktemp("planted"))
    replay = EpisodeReplay()
    for file in files:
        assert replay.verify(file).mismatches == 0
    return files, replay


@pytest.fixture
def copy(recorded: tuple[list[Path], EpisodeReplay]) -> Iterator[Path]:
    """Episode 0, in which the person drives, the weights change and a gate closes, under another name."""
    path = recorded[0][0].with_name("planted.h5")
    shutil.copyfile(recorded[0][0], path)
    yield path
    path.unlink()


def plant(path: Path, field: str, *, reseal: bool, change: float | None = None) -> int:
    """Change one element of `field` on a row where it matters; return its tick."""
    episode = read_episode(path)
    rows = np.flatnonzero(MATTERS.get(field, any_tick)(episode.array))
    row = int(rows[len(rows) // 2])
    if change is None:
        change = PLANTED.get(field, 0.125)
    with changed(path, reseal=reseal) as demo:
        dataset = demo[field]
        value = np.array(dataset[row])
        flat = value.reshape(-1)
        if value.dtype == np.uint8:
            flat[0] ^= 0x80 if value.ndim == 3 else 1
        elif value.dtype.kind in "iu":
            flat[0] ^= int(change) or 1
        else:
            flat[0] = change if np.isnan(flat[0]) else flat[0] + change
        dataset[row] = value
    return int(episode.array("tick/index")[row])


def fields_of(report: EpisodeReport) -> set[str]:
    return set(report.by_field)


@pytest.mark.parametrize("field", FIELDS)
def test_one_changed_value_is_found(recorded: tuple[list[Path], EpisodeReplay], copy: Path, field: str) -> None:
    tick = plant(copy, field, reseal=False)
    report = recorded[1].verify(copy)
    assert report.mismatches >= 1
    if field in SPEC.fields():
        assert DIGEST_FIELD in fields_of(report)
    assert tick in [mismatch.tick for mismatch in report.first]


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in {DIGEST_FIELD, *DIGEST_ONLY}])
def test_one_changed_value_is_found_by_recomputation_alone(
    recorded: tuple[list[Path], EpisodeReplay], copy: Path, field: str
) -> None:
    plant(copy, field, reseal=True)
    report = recorded[1].verify(copy)
    assert DIGEST_FIELD not in fields_of(report)
    assert report.mismatches >= 1


@pytest.mark.parametrize(
    ("field", "change"),
    [*DIGEST_ONLY.items(), *((field, change) for field, (change, _) in PLAUSIBLE.items())],
)
def test_a_pure_record_is_protected_by_the_digest_alone(
    recorded: tuple[list[Path], EpisodeReplay], copy: Path, field: str, change: float
) -> None:
    plant(copy, field, reseal=True, change=change)
    assert recorded[1].verify(copy).mismatches == 0


def test_every_field_has_its_place_in_these_tests(recorded: tuple[list[Path], EpisodeReplay]) -> None:
    spec = read_episode(recorded[0][0]).header.spec
    assert spec == SPEC
    assert {*MATTERS, *PLANTED, *DIGEST_ONLY, *PLAUSIBLE} <= set(FIELDS)


@pytest.fixture
def run(recorded: tuple[list[Path], EpisodeReplay], tmp_path: Path) -> Path:
    """A copy of the whole run."""
    source = recorded[0][0].parents[1]
    return Path(shutil.copytree(source, tmp_path / "run", ignore=shutil.ignore_patterns("planted.h5")))


def test_an_untouched_file_has_nothing_to_find(run: Path) -> None:
    for path in sorted((run / "episodes").glob("*.h5")):
        assert EpisodeReplay().verify(path).mismatches == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 6),
        ("layout", {"block_xy_m": [0.5, 0.0]}),
        ("episode", 7),
        ("started_utc", "20261101T101539.000000Z"),
        ("calibrations", {"front": "3" * 64}),
        ("open_loop", True),
        ("env_args", {"env_name": "another"}),
    ],
)
def test_whatever_is_changed_in_the_header_does_not_match_its_hash(run: Path, key: str, value: object) -> None:
    path = first_episode(run)
    edit_header(path, lambda header: header.update({key: value}), reseal=False)
    assert "header_sha256" in EpisodeReplay().verify(path).by_field


def test_another_operator_in_the_provenance_is_found(run: Path) -> None:
    path = first_episode(run)
    edit_header(path, lambda header: header["provenance"].update(operator="bob"), reseal=False)
    assert EpisodeReplay().verify(path).by_field == {"header_sha256": 1}


def test_another_station_or_bundle_of_the_same_effect_is_found(run: Path) -> None:
    (station,) = (run / "stations").iterdir()
    data = station.read_bytes().replace(b'"name": "sim_place"', b'"name": "sim_other"')
    sha256 = hashlib.sha256(data).hexdigest()
    (run / "stations" / sha256).write_bytes(data)
    path = first_episode(run)
    edit_header(path, lambda header: header.update(station_sha256=sha256), reseal=False)
    assert EpisodeReplay().verify(path).by_field == {"header_sha256": 1, "station_sha256": 1}
    edit_header(path, lambda header: header.update(bundle_sha256="a" * 64))
    with pytest.raises(BadInputError):
        EpisodeReplay().verify(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("header_sha256", "0" * 64), ("labels_sha256", "0" * 64), ("run_id", "other-1"), ("episode", 9),
        ("station_sha256", "0" * 64), ("bundle_sha256", "0" * 64), ("open_loop", True), ("revision", 1),
        ("outcome", "success"), ("label_source", "task"), ("success", True), ("complete", False),
        ("dropped_ticks", 1), ("skipped_ticks", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("gone", [False, True])
def test_an_attribute_that_contradicts_header_or_labels_is_found(
    run: Path, name: str, value: str | int, gone: bool
) -> None:
    path = first_episode(run)
    with h5py.File(path, "r+") as file:
        attributes = file["data/demo_0"].attrs
        assert attributes[name] != value
        if gone:
            del attributes[name]
        else:
            attributes[name] = value
    assert EpisodeReplay().verify(path).by_field == {name: 1}


@pytest.mark.parametrize(("name", "value"), [("total", 3), ("env_args", "{}")])
def test_an_attribute_of_the_data_group_that_contradicts_the_header_is_found(
    run: Path, name: str, value: str | int
) -> None:
    path = first_episode(run)
    with h5py.File(path, "r+") as file:
        file["data"].attrs[name] = value
    assert EpisodeReplay().verify(path).by_field == {name: 1}


def test_a_corrected_label_is_a_new_revision_and_no_edit_of_one_goes_unseen(run: Path) -> None:
    path = first_episode(run)
    label_episode(path, Outcome.FAILURE, LabelSource.PERSON)
    assert EpisodeReplay().verify(path).mismatches == 0
    with h5py.File(path, "r+") as file:
        attributes = file["data/demo_0"].attrs
        attributes["labels"] = attributes["labels"].replace("person", "task")
        attributes["label_source"] = "task"
    assert EpisodeReplay().verify(path).by_field == {"labels_sha256": 1}


def first_episode(run: Path) -> Path:
    return min((run / "episodes").glob("*.h5"))


def test_weights_whose_files_were_exchanged_are_refused(run: Path) -> None:
    zero, one = sorted((run / "weights").iterdir())[:2]
    data = zero.read_bytes()
    zero.write_bytes(one.read_bytes())
    one.write_bytes(data)
    with pytest.raises(BadInputError, match="do not match its name"):
        EpisodeReplay().verify(first_episode(run))


def test_weights_under_another_version_are_refused(run: Path) -> None:
    episode = read_episode(first_episode(run))
    one = episode.labels[0].weights[1]
    edit_header(episode.path, lambda header: header.update(weights={"0": one}))
    with pytest.raises(BadInputError, match="holds version 1; the weights were swapped"):
        EpisodeReplay().verify(episode.path)


def test_other_weights_of_the_same_version_are_found_by_recomputation(run: Path) -> None:
    episode = read_episode(first_episode(run))
    message = weights_message(0, episode.header.bundle_sha256 or "", seed=99)
    sha256 = hashlib.sha256(message).hexdigest()
    (run / "weights" / f"00000000-{sha256}").write_bytes(message)
    edit_header(episode.path, lambda header: header.update(weights={"0": sha256}))
    report = EpisodeReplay().verify(episode.path)
    assert "tick/residual" in report.by_field


def test_a_limit_changed_in_the_stored_station_is_refused(run: Path) -> None:
    (station,) = (run / "stations").iterdir()
    station.write_bytes(station.read_bytes().replace(b'"max_speed_m_s": 0.5', b'"max_speed_m_s": 0.1'))
    with pytest.raises(BadInputError, match="do not match its name"):
        EpisodeReplay().verify(first_episode(run))


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        (b'"max_speed_m_s": 0.5', b'"max_speed_m_s": 0.1', "tick/commanded_T"),
        (b'"max_acceleration_m_s2": 6.0', b'"max_acceleration_m_s2": 5.9', "tick/commanded_T"),
        (b'"max_repeats": 0', b'"max_repeats": 3', "tick/verdict"),
        (b'"gate": true', b'"gate": false', "tick/gate_open"),
        (b'"mode": "takeover"', b'"mode": "nudge"', "actions"),
        (b'"perturb": false', b'"perturb": true', "actions"),
    ],
)
def test_another_station_is_found_by_recomputation(run: Path, old: bytes, new: bytes, field: str) -> None:
    (station,) = (run / "stations").iterdir()
    data = station.read_bytes()
    assert old in data
    data = data.replace(old, new)
    sha256 = hashlib.sha256(data).hexdigest()
    (run / "stations" / sha256).write_bytes(data)
    path = first_episode(run)
    edit_header(path, lambda header: header.update(station_sha256=sha256))
    assert field in EpisodeReplay().verify(path).by_field


@pytest.mark.parametrize("name", ["encode.onnx", "act.onnx", "manifest.json"])
def test_a_changed_byte_of_the_bundle_is_refused(run: Path, name: str) -> None:
    (file,) = (run / "bundles").glob(f"*/{name}")
    data = bytearray(file.read_bytes())
    place = data.index(b"0.02") if name == "manifest.json" else len(data) // 2
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(BadInputError):
        EpisodeReplay().verify(first_episode(run))


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("filter_state", lambda state: state["T_base_tcp"][0].__setitem__(3, state["T_base_tcp"][0][3] + 1e-9)),
        ("filter_state", lambda state: state["velocity"].__setitem__(2, -0.4)),
        ("filter_state", lambda state: state.update(latched=True, reasons=1 << 13)),
        ("arbiter_state", lambda state: state.update(packed=state["packed"] ^ 4)),
        ("action", lambda action: action["scale"].__setitem__(0, 0.021)),
        ("spec", lambda spec: spec["cameras"].reverse()),
    ],
)
def test_a_changed_header_is_found(run: Path, key: str, change: Callable[[Any], None]) -> None:
    # the second episode starts armed and in motion, so that what it starts with matters
    path = sorted((run / "episodes").glob("*.h5"))[1]

    edit_header(path, lambda header: change(header[key]))
    assert EpisodeReplay().verify(path).mismatches >= 1


@pytest.mark.parametrize(("key", "value"), [("rate_hz", 21.0), ("run_id", "other-1"), ("residual_scale", [0.1] * 5)])
def test_a_header_that_contradicts_its_run_is_found(run: Path, key: str, value: object) -> None:
    path = first_episode(run)
    edit_header(path, lambda header: header.update({key: value}))
    assert f"header.{key}" in EpisodeReplay().verify(path).by_field


def test_another_outcome_is_found_by_the_rewards(run: Path) -> None:
    path = first_episode(run)
    with h5py.File(path, "r+") as file:
        attributes = file["data/demo_0"].attrs
        attributes["labels"] = attributes["labels"].replace("timeout", "success")
    assert {"rewards", "terminated", "truncated"} <= set(EpisodeReplay().verify(path).by_field)


def test_rows_cut_out_are_found(run: Path) -> None:
    path = first_episode(run)
    with h5py.File(path, "r+") as file:
        demo = file["data/demo_0"]
        rows = int(demo.attrs["num_samples"])
        for name in FIELDS:
            data = demo[name][:]
            del demo[name]
            demo[name] = np.delete(data, 10, axis=0)
        demo.attrs["num_samples"] = rows - 1
    report = EpisodeReplay().verify(path)
    assert "dropped_ticks" in report.by_field
    assert report.gaps == (11,)
