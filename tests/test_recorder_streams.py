"""The recorder in its own process beside cameras' rings, with a disk that is full, slow or well, and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from perception.frame_ring import FrameLayout
from policy.episode_file import DEMO, open_episode
from policy.episode_header import Outcome
from policy.episode_reader import latest_revisions, read_episode
from teleop.recorder import RecorderProcess
from teleop.recorder_messages import RecorderFault
from teleop.replay_checks import stream_findings
from teleop.replay_show import stream_lines
from tests.episodes import SPEC, SUCCESS, header, make_rows
from tests.stream_frames import sensor_depth
from tests.stream_rings import SLOTS, TestCamera, camera, lossless

RUN = "demo-0a1b"
WAIT_S = 30.0
ROW_BYTES = SPEC.row_dtype().itemsize


def until(done: Callable[[], object]) -> None:
    """The suite's time limit ends what never comes true."""
    while not done():
        os.sched_yield()


def process_id(recorder: RecorderProcess) -> int:
    assert recorder.pid is not None
    return recorder.pid


def frames_on_disk(folder: Path, stream: str) -> int:
    """How many frames of an open recording a kill cannot reach any more."""
    for partial in folder.glob("*.partial"):
        with open_episode(partial, partial=True) as file:
            return len(file[DEMO][f"streams/{stream}/digest"])
    return 0


def publish_slowly(front: TestCamera, folder: Path, count: int, stream: str = "front") -> None:
    """Publish frames no faster than they are flushed."""
    for _ in range(count):
        there = frames_on_disk(folder, stream)
        front.publish(time.monotonic(), 4)
        until(lambda there=there: frames_on_disk(folder, stream) >= there + 4)


def test_full_size_frames_of_an_episode_are_in_its_file(tmp_path: Path) -> None:
    with (
        camera() as front,
        camera(specs=(lossless("wrist"),)) as wrist,
        RecorderProcess(tmp_path, lock_step=False, streams=(front.source, wrist.source)) as recorder,
    ):
        assert recorder.wait_ready(WAIT_S)
        for index in range(2):
            recorder.begin(header(index))
            for row in make_rows(4, seed=index):
                assert recorder.put(row)
            for one in (front, wrist):
                one.publish(time.monotonic(), 5)
            until(lambda: time.monotonic() > 0.05 + wrist.newest_s)
            recorder.end(SUCCESS)
            committed = recorder.wait_committed(RUN, index, WAIT_S)
            assert committed is not None
            assert committed.outcome == SUCCESS
            episode = read_episode(committed.path)
            assert episode.rows().tobytes() == b"".join(row.tobytes() for row in make_rows(4, seed=index))
            assert [spec.name for spec in episode.header.streams] == ["front", "front_depth", "wrist"]
            expected = list(range(1000 + 5 * index, 1005 + 5 * index))
            for spec in episode.header.streams:
                stream = episode.stream(spec.name)
                # those shortly before an episode are there as well
                assert stream.frame_id.tolist()[-5:] == expected
                assert stream.dropped == 0
            depth = episode.stream("front_depth").pixels(-1)
            assert depth.tobytes() == sensor_depth(*depth.shape, seed=4 + 5 * index).tobytes()
            assert list(stream_findings(episode)) == []
            assert stream_lines(episode)[0].startswith("stream front: ")
        assert recorder.failures() == []


def test_frames_that_a_stopped_recorder_missed_are_told_and_leave_the_episode_whole(tmp_path: Path) -> None:
    with camera() as front, RecorderProcess(tmp_path, lock_step=False, streams=[front.source]) as recorder:
        assert recorder.wait_ready(WAIT_S)
        recorder.begin(header(0))
        pid = process_id(recorder)
        os.kill(pid, signal.SIGSTOP)
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")  # it is not at once
        front.publish(time.monotonic() - 0.3, SLOTS + 7)
        assert all(recorder.put(row) for row in make_rows(3))
        recorder.end(SUCCESS)
        os.kill(process_id(recorder), signal.SIGCONT)
        committed = recorder.wait_committed(RUN, 0, WAIT_S)
        assert committed is not None
        until(recorder.failures)
        (failure,) = recorder.failures()
    assert committed.outcome == SUCCESS
    stream = read_episode(committed.path).stream("front")
    assert stream.dropped == 7
    assert len(stream) == SLOTS
    share = f"7 of {SLOTS + 7} of"
    assert f"full-size frames are missing, {share} front, {share} front_depth" in failure.message
    assert not failure.final


def test_a_recorder_killed_in_an_episode_leaves_every_flushed_frame_and_its_successor_goes_on(tmp_path: Path) -> None:
    with camera() as front, RecorderProcess(tmp_path, lock_step=False, streams=[front.source]) as recorder:
        recorder.begin(header(0))
        assert recorder.wait_ready(WAIT_S)
        assert all(recorder.put(row) for row in make_rows(3))
        until(lambda: list(tmp_path.glob("*.partial")))
        publish_slowly(front, tmp_path, 3)
        flushed = frames_on_disk(tmp_path, "front_depth")
        os.kill(process_id(recorder), signal.SIGKILL)
        # nobody puts a row, and all the same it is told before the episode ends
        until(recorder.failures)
        assert "the recorder ended (status -9)" in recorder.failures()[0].message
        recorder.end(SUCCESS)
        recorder.begin(header(1))
        assert recorder.wait_ready(WAIT_S)
        until(lambda: list(tmp_path.glob("*000001.h5.partial")))
        publish_slowly(front, tmp_path, 2)
        recorder.end(SUCCESS)
        newest = 1000 + front.ring.count - 1
        assert recorder.wait_committed(RUN, 1, WAIT_S) is not None
    first, second = latest_revisions(tmp_path)
    assert first.outcome.outcome is Outcome.INCOMPLETE
    assert second.outcome == SUCCESS
    for name in ("front", "front_depth"):
        assert len(first.stream(name)) >= flushed
        assert second.stream(name).frame_id[-1] == newest
        for episode in (first, second):
            assert list(episode.stream(name).unsound()) == []


def test_a_slow_disk_costs_ticks_and_never_holds_up_the_loop(tmp_path: Path) -> None:
    with (
        camera() as front,
        RecorderProcess(tmp_path, lock_step=False, capacity_bytes=4 * ROW_BYTES, streams=[front.source]) as recorder,
    ):
        assert recorder.wait_ready(WAIT_S)
        assert recorder.inject(RecorderFault.SLOW_DISK, 0.5)
        recorder.begin(header(0))
        rows = make_rows(8)
        taken = []
        begun_s = time.monotonic()
        while all(taken) or time.monotonic() < begun_s + 1.0:
            taken.append(recorder.put(rows[len(taken) % 8]))
            front.publish(time.monotonic())
        assert True in taken
        recorder.end(SUCCESS)
        assert recorder.inject(RecorderFault.SLOW_DISK, 0.0)
        committed = recorder.wait_committed(RUN, 0, WAIT_S)
        assert committed is not None
        assert not committed.outcome.complete
        assert committed.outcome.dropped_ticks == taken.count(False)
        # and when the disk is well again, so is the recording
        recorder.begin(header(1))
        assert recorder.put(rows[0])
        recorder.end(SUCCESS)
        well = recorder.wait_committed(RUN, 1, WAIT_S)
        assert well is not None
        assert well.outcome.complete


def test_a_disk_said_to_be_full_costs_the_episode_and_is_told(tmp_path: Path) -> None:
    with camera() as front, RecorderProcess(tmp_path, lock_step=False, streams=[front.source]) as recorder:
        assert recorder.wait_ready(WAIT_S)
        recorder.begin(header(0))
        assert recorder.put(make_rows(1)[0])
        front.publish(time.monotonic(), 4)
        until(lambda: frames_on_disk(tmp_path, "front"))
        assert recorder.inject(RecorderFault.DISK_FULL, 1.0)
        assert recorder.put(make_rows(2)[1])
        until(recorder.failures)
        assert "0 MB free on its disk" in recorder.failures()[0].message
        assert recorder.put(make_rows(3)[2])
        recorder.end(SUCCESS)
        committed = recorder.wait_committed(RUN, 0, WAIT_S)
        assert committed is not None
        assert committed.rows == 1
        assert committed.outcome.outcome is Outcome.INCOMPLETE
        assert recorder.inject(RecorderFault.DISK_FULL, 0.0)
        recorder.begin(header(1))
        assert recorder.put(make_rows(1)[0])
        recorder.end(SUCCESS)
        well = recorder.wait_committed(RUN, 1, WAIT_S)
        assert well is not None
        assert well.outcome == SUCCESS


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[tuple[Path, Callable[[RecorderProcess, bool], None]]]:
    """A disk of its own where mounting is allowed, and a way to fill it; elsewhere one that is said to be full."""
    disk, filler = folder / "disk", folder / "disk" / "filler"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(disk)]
    mounted = subprocess.run(mounting, capture_output=True, check=False).returncode == 0

    def fill(recorder: RecorderProcess, full: bool) -> None:
        if not mounted:
            assert recorder.inject(RecorderFault.DISK_FULL, float(full))
        elif full:
            with filler.open("wb") as file:
                room = os.statvfs(disk)
                os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - 4_000_000)
        else:
            filler.unlink()

    try:
        yield disk, fill
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_costs_one_episode_and_what_was_flushed_is_kept(tmp_path: Path) -> None:
    noise = FrameLayout(camera="front", image=(8, 8), full=(240, 320), slots=64)
    specs = (lossless().model_copy(update={"height": 240, "width": 320}),)
    with (
        small_disk(tmp_path, 200) as (disk, fill),
        camera(noise, specs) as front,
        RecorderProcess(disk, lock_step=False, streams=[front.source]) as recorder,
    ):
        assert recorder.wait_ready(WAIT_S)
        recorder.begin(header(0))
        assert recorder.put(make_rows(1)[0])
        front.publish(time.monotonic(), 4)
        until(lambda: frames_on_disk(disk, "front") >= 4)
        fill(recorder, True)
        front.publish(time.monotonic(), 4)
        assert recorder.put(make_rows(2)[1])
        until(recorder.failures)
        assert "MB free on its disk" in recorder.failures()[0].message
        fill(recorder, False)
        recorder.end(SUCCESS)
        committed = recorder.wait_committed(RUN, 0, WAIT_S)
        assert committed is not None
        episode = read_episode(committed.path)
        assert episode.outcome.outcome is Outcome.INCOMPLETE
        assert episode.length == 2  # the last row waited for room and found some
        assert len(episode.stream("front")) >= 4
        assert list(stream_findings(episode)) == []
        recorder.begin(header(1))
        assert recorder.put(make_rows(1)[0])
        recorder.end(SUCCESS)
        well = recorder.wait_committed(RUN, 1, WAIT_S)
        assert well is not None
        assert well.outcome == SUCCESS


def test_lock_step_has_no_rings_to_record_from(tmp_path: Path) -> None:
    with camera() as front, pytest.raises(ValueError, match="lock-step"):
        RecorderProcess(tmp_path, lock_step=True, streams=[front.source])


def test_pictures_of_the_test_camera_differ() -> None:
    """Or a stream of one picture again and again would pass for the camera's."""
    with camera() as front:
        front.publish(0.0, 2)
        first, second = (np.empty((24, 32, 3), np.uint8) for _ in range(2))
        assert front.ring.full(0, first)
        assert front.ring.full(1, second)
        assert not np.array_equal(first, second)
