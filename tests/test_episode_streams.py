from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from policy.episode_commit import Committed, commit_episode
from policy.episode_header import EpisodeHeader, Outcome, StreamSpec
from policy.episode_reader import Episode, read_episode
from policy.episode_streams import INDEX, is_sound
from policy.episode_writer import EpisodeWriter
from policy.stream_codec import Codec
from robot.errors import BadInputError
from teleop.replay_checks import stream_findings
from tests.episodes import SUCCESS, header, make_rows
from tests.stream_frames import DEPTH, JPEG, LOSSLESS, encoded, picture, streamed_header

STREAMS = "data/demo_0/streams"
ALL = (JPEG, DEPTH, LOSSLESS)


def record(folder: Path, frames: int, *, ended: bool = True) -> Path:
    """A recording with so many frames in each stream and a flush after each."""
    with EpisodeWriter(folder, streamed_header(), flush_period_s=0.0) as writer:
        for number in range(frames):
            writer.append(make_rows(number + 1)[number])
            for spec in ALL:
                writer.append_frame(spec.name, encoded(spec, number))
        return writer.finish(SUCCESS) if ended else writer.path


@pytest.fixture
def episode(tmp_path: Path) -> Episode:
    return read_episode(commit_episode(record(tmp_path, 6)).path)


def test_frames_come_back_as_they_were_recorded(episode: Episode) -> None:
    for spec in ALL:
        stream = episode.stream(spec.name)
        assert len(stream) == 6
        assert stream.dropped == 0
        assert stream.frame_id.tolist() == list(range(100, 106))
        decoded = list(stream.frames())
        for number in range(6):
            frame = encoded(spec, number)
            assert stream.encoded(number) == frame.data
            stamp = stream.stamp(number)
            assert (stamp.captured_s, stamp.arrived_s) == (frame.captured_s, frame.arrived_s)
            assert (stamp.frame_id, stamp.uncertainty_s) == (frame.frame_id, frame.uncertainty_s)
            np.testing.assert_array_equal(decoded[number], stream.pixels(number))
            if spec.codec is not Codec.JPEG:
                assert decoded[number].tobytes() == picture(spec, number).tobytes()
        assert stream.encoded(-1) == stream.encoded(5)
        assert len(list(stream.frames(2, 4))) == 2
        with pytest.raises(IndexError):
            stream.pixels(6)
    assert list(stream_findings(episode)) == []


def test_frames_are_found_by_their_id(episode: Episode) -> None:
    stream = episode.stream("front")
    assert stream.index_of(103) == 3
    assert stream.index_of(99) is None


def test_each_tick_leads_to_the_frame_that_it_used(tmp_path: Path) -> None:
    rows = make_rows(3)
    for row, (frame_id, number) in zip(rows, ((101, 1), (101, 1), (104, 2)), strict=True):
        row["tick/frame_id"] = frame_id, 7
        row["tick/captured_s"] = encoded(JPEG, number).captured_s, 0.0
    with EpisodeWriter(tmp_path, streamed_header()) as writer:
        for row in rows:
            writer.append(row)
        for number in range(6):
            writer.append_frame("front", encoded(JPEG, number))
        partial = writer.finish(SUCCESS)
    episode = read_episode(commit_episode(partial).path)
    # of the third tick there is a frame of that id, but taken at another time
    assert episode.tick_frames(episode.stream("front")).tolist() == [1, 1, -1]
    assert episode.tick_frames(episode.stream("wrist")).tolist() == [-1, -1, -1]


def test_a_plain_hdf5_reader_finds_its_way(episode: Episode) -> None:
    with h5py.File(episode.path) as file:
        group = file[STREAMS]["front"]
        names = ("frame_id", "captured_s", "arrived_s", "uncertainty_s", "offset", "length", "digest")
        summed = b"".join(group[name][:].tobytes() for name in names) + (0).to_bytes(8, "little")
        assert dict(group.attrs) == {
            "camera": "front", "codec": "jpeg", "quality": 95, "height": 24, "width": 32, "dropped": 0,
            "index_digest": zlib.crc32(summed) << 32 | zlib.adler32(summed),
        }  # fmt: skip
        first, length = int(group["offset"][2]), int(group["length"][2])
        assert group["bytes"][first : first + length].tobytes() == encoded(JPEG, 2).data
        assert "quality" not in file[STREAMS]["wrist"].attrs


def test_an_episode_without_streams_has_none_and_one_from_before_there_were_any_opens(tmp_path: Path) -> None:
    text = header().to_json()
    assert '"streams":[],' in text or ',"streams":[]' in text
    old = EpisodeHeader.from_json(text.replace(',"streams":[]', ""), where="test")
    assert old == header()
    with EpisodeWriter(tmp_path, old) as writer:
        partial = writer.finish(SUCCESS)
    episode = read_episode(commit_episode(partial).path)
    with pytest.raises(BadInputError, match="has no stream 'front'; it has none"):
        episode.stream("front")


def test_a_stream_that_is_named_and_not_there_is_a_damaged_file(episode: Episode) -> None:
    with h5py.File(episode.path, "r+") as file:
        del file[STREAMS]["front_depth/length"]
    with pytest.raises(BadInputError, match="has no dataset streams/front_depth/length"):
        read_episode(episode.path)


@pytest.mark.parametrize("name", [spec.name for spec in ALL])
def test_a_changed_byte_is_found_and_never_decoded(episode: Episode, name: str) -> None:
    with h5py.File(episode.path, "r+") as file:
        place = int(file[STREAMS][name]["offset"][4]) + 11
        file[STREAMS][name]["bytes"][place] ^= 1
    stream = episode.stream(name)
    assert list(stream.unsound()) == [4]
    assert [finding.field for finding in stream_findings(episode)] == [f"streams/{name}[4]"]
    stream.pixels(3)
    with pytest.raises(BadInputError, match=f"frame 4 of stream '{name}' was changed"):
        stream.pixels(4)


@pytest.mark.parametrize(
    "column", ["frame_id", "captured_s", "arrived_s", "uncertainty_s", "offset", "length", "digest"]
)
def test_a_changed_value_of_the_index_is_found(episode: Episode, column: str) -> None:
    with h5py.File(episode.path, "r+") as file:
        file[STREAMS]["front"][column][2] += 1
    assert [finding.field for finding in stream_findings(episode)] == ["streams/front", "streams/front[2]"]
    with pytest.raises(BadInputError, match="index of stream 'front' was changed"):
        episode.stream("front")


def keep(group: h5py.Group, places: list[int]) -> None:
    """Leave these frames alone, in this order, with index and bytes that belong together."""
    columns = {name: group[name][:] for name in INDEX.names or ()}
    pool = group["bytes"][:].tobytes()
    spans = list(zip(columns["offset"].tolist(), columns["length"].tolist(), strict=True))
    pieces = [pool[spans[place][0] : sum(spans[place])] for place in places]
    values = {name: column[places] for name, column in columns.items()}
    values["offset"] = np.cumsum(values["length"]) - values["length"]
    for name, column in {**values, "bytes": np.frombuffer(b"".join(pieces), np.uint8)}.items():
        del group[name]
        group[name] = column


@pytest.mark.parametrize(
    "places", [[0, 1, 3, 4, 5], [0, 1, 2, 3, 4], [0, 1, 3, 2, 4, 5], [0, 1, 2, 2, 3, 4, 5]],
    ids=["one taken out", "the last taken off", "two swapped", "one doubled"],
)  # fmt: skip
def test_a_frame_that_was_taken_out_moved_or_doubled_is_found(episode: Episode, places: list[int]) -> None:
    with h5py.File(episode.path, "r+") as file:
        keep(file[STREAMS]["front"], places)
    assert [finding.field for finding in stream_findings(episode)] == ["streams/front"]
    with pytest.raises(BadInputError, match="index of stream 'front' was changed"):
        episode.stream("front")


@pytest.mark.parametrize("attribute", ["dropped", "index_digest"])
def test_a_changed_or_missing_count_or_digest_of_the_index_is_found(episode: Episode, attribute: str) -> None:
    with h5py.File(episode.path, "r+") as file:
        attrs = file[STREAMS]["wrist"].attrs
        attrs[attribute] = attrs[attribute] + np.uint64(1)
    assert [finding.field for finding in stream_findings(episode)] == ["streams/wrist"]
    with h5py.File(episode.path, "r+") as file:
        del file[STREAMS]["wrist"].attrs[attribute]
    assert [finding.field for finding in stream_findings(episode)] == ["streams/wrist"]
    with pytest.raises(BadInputError, match="index of stream 'wrist' was changed"):
        episode.stream("wrist")


@pytest.mark.parametrize(("attribute", "value"), [("codec", "lossless"), ("quality", 90), ("height", 25)])
def test_a_changed_attribute_is_found(episode: Episode, attribute: str, value: str | int) -> None:
    with h5py.File(episode.path, "r+") as file:
        file[STREAMS]["front"].attrs[attribute] = value
    assert [finding.field for finding in stream_findings(episode)] == ["streams/front"]
    with pytest.raises(BadInputError, match=f"stream 'front' says {attribute}"):
        episode.stream("front")


def recovered(partial: Path) -> tuple[Committed, Episode]:
    committed = commit_episode(partial)
    return committed, read_episode(committed.path)


def test_an_index_that_points_to_bytes_that_never_came_is_cut(tmp_path: Path) -> None:
    partial = record(tmp_path, 6, ended=False)
    with h5py.File(partial, "r+", libver="latest") as file:
        pool = file[STREAMS]["front"]["bytes"]
        pool.resize(len(pool) - 1, axis=0)
    committed, episode = recovered(partial)
    assert committed.outcome.outcome is Outcome.INCOMPLETE
    stream = episode.stream("front")
    assert stream.frame_id.tolist() == list(range(100, 105))
    assert stream.dropped == 1
    assert list(stream.unsound()) == []


def test_columns_of_different_length_are_cut_to_whole_frames(tmp_path: Path) -> None:
    partial = record(tmp_path, 6, ended=False)
    with h5py.File(partial, "r+", libver="latest") as file:
        file[STREAMS]["wrist"]["digest"].resize(4, axis=0)
        file[STREAMS]["wrist"]["captured_s"].resize(5, axis=0)
    _, episode = recovered(partial)
    assert len(episode.stream("wrist")) == 4
    assert len(episode.stream("front")) == 6


def test_a_frame_without_its_bytes_is_left_out_and_the_others_are_found(tmp_path: Path) -> None:
    partial = record(tmp_path, 6, ended=False)
    with h5py.File(partial, "r+", libver="latest") as file:
        group = file[STREAMS]["front_depth"]
        first, length = int(group["offset"][2]), int(group["length"][2])
        group["bytes"][first : first + length] = 0
    _, episode = recovered(partial)
    stream = episode.stream("front_depth")
    assert stream.frame_id.tolist() == [100, 101, 103, 104, 105]
    assert stream.dropped == 1
    for at, number in enumerate((0, 1, 3, 4, 5)):
        assert stream.pixels(at).tobytes() == picture(DEPTH, number).tobytes()


def test_dropped_frames_are_counted_in_the_file(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, streamed_header(), flush_period_s=0.0) as writer:
        writer.append_frame("front", encoded(JPEG, 0))
        writer.streams["front"].dropped += 3
        partial = writer.finish(SUCCESS)
    episode = read_episode(commit_episode(partial).path)
    assert [episode.stream(spec.name).dropped for spec in ALL] == [3, 0, 0]
    assert episode.outcome == SUCCESS


def test_a_disk_that_gets_full_costs_frames_and_no_row(tmp_path: Path) -> None:
    room = 10**9
    with EpisodeWriter(tmp_path, streamed_header(), flush_period_s=0.0, free=lambda folder: room) as writer:
        for number in range(9):
            room = 40_000_000 if 3 <= number < 6 else 10**9
            writer.append(make_rows(number + 1)[number])
            writer.append_frame("front", encoded(JPEG, number))
        assert "40 MB free on its disk" in writer.no_room
        partial = writer.finish(SUCCESS)
    episode = read_episode(commit_episode(partial).path)
    assert episode.length == 9
    assert episode.outcome == SUCCESS
    assert episode.stream("front").frame_id.tolist() == [100, 101, 102, 106, 107, 108]
    assert episode.stream("front").dropped == 3


def test_a_stream_has_a_quality_if_it_is_a_jpeg_and_a_name_of_its_own() -> None:
    with pytest.raises(ValueError, match="quality None for codec jpeg"):
        StreamSpec(camera="front", codec=Codec.JPEG, height=4, width=4)
    with pytest.raises(ValueError, match="quality 9 for codec depth"):
        StreamSpec(camera="front", codec=Codec.DEPTH, height=4, width=4, quality=9)
    other = StreamSpec(camera="front_depth", codec=Codec.LOSSLESS, height=4, width=4)
    values = streamed_header().model_dump() | {"streams": [DEPTH.model_dump(), other.model_dump()]}
    with pytest.raises(ValueError, match="a stream is named twice"):
        EpisodeHeader.model_validate(values)


_WRITER_THAT_IS_KILLED = """
import sys
from pathlib import Path
from policy.episode_writer import EpisodeWriter
from tests.episodes import make_rows
from tests.stream_frames import JPEG, LOSSLESS, encoded, streamed_header
row, frames = make_rows(1)[0], {spec.name: encoded(spec, 0) for spec in (JPEG, LOSSLESS)}
with EpisodeWriter(Path(sys.argv[1]), streamed_header(), flush_period_s=3600.0) as writer:
    for count in range(1_000_000):
        row["tick/index"] = count
        writer.append(row)
        for name, frame in frames.items():
            writer.append_frame(name, frame)
        if count % 7 == 6:
            writer.flush()
            print(count + 1, flush=True)
"""


@pytest.mark.parametrize("flushes", [1, 40, 300])
def test_every_flushed_frame_survives_a_kill(tmp_path: Path, flushes: int) -> None:
    command = [sys.executable, "-c", _WRITER_THAT_IS_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as writer:
        assert writer.stdout is not None
        for _ in range(flushes):
            flushed = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        flushed = max([flushed, *map(int, writer.stdout.read().split())])
    (partial,) = tmp_path.glob("*.partial")
    committed, episode = recovered(partial)
    assert committed.rows >= flushed
    for spec in (JPEG, LOSSLESS):
        stream = episode.stream(spec.name)
        assert len(stream) >= flushed
        assert list(stream.unsound()) == []
        assert stream.encoded(-1) == encoded(spec, 0).data
        assert stream.dropped <= 7


def test_a_frame_of_no_bytes_is_not_sound() -> None:
    assert not is_sound(np.zeros(1, INDEX)[0], b"")
