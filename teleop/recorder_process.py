"""The recorder: a process that writes what the loop sends, and outlives it long enough to finish.

Started by `teleop.recorder.RecorderProcess` as
`python -m teleop.recorder_process FOLDER REPORTS PARENT MEMORY BELL [STREAMS]`, where STREAMS is the JSON of
`teleop.recorder_streams.StreamArguments`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import zmq

from policy.episode_commit import commit_episode
from policy.episode_file import NoSpaceError
from policy.episode_header import EpisodeHeader, EpisodeOutcome, Record
from policy.episode_recovery import finish_left, recording_lock
from policy.episode_writer import EpisodeWriter
from robot.errors import BadInputError
from robot.message_ring import MessageRing
from teleop.faulty_disk import FaultyDisk
from teleop.frame_collector import Backlog, FullFrames
from teleop.recorder_messages import FAULT_BODY, Order, RecorderFailure, RecorderFault, Report
from teleop.recorder_streams import read_arguments

_POLL_S = 0.05  # a flush is due every 250 ms
_BATCH = 64  # orders between two looks at the clock and the parent
_NICE = 5  # the loop goes first where cores are short
_BEHIND_BYTES = 8_000_000  # when so much of the loop's waits, rows go before full-size frames
_SETTLE_S = 2.0  # the last frames of an episode are encoded and out of the cameras' rings by then
_LOOK_S = 0.005


class EpisodeRecorder:
    """Writes one episode after another and says what became of each.

    A full disk or a wrong row costs one episode. A write that fails nevertheless leaves HDF5 unusable; that
    error goes through, and the process ends at once. The loop starts another for its next episode.
    """

    def __init__(
        self,
        folder: Path,
        reports: zmq.Socket[bytes],
        free: Callable[[Path], int] | None = None,
        frames: FullFrames | None = None,
        behind: Callable[[], bool] = lambda: False,
    ) -> None:
        """Args: `behind` says whether so many rows wait that full-size `frames` have to."""
        self._folder, self._reports = folder, reports
        self._disk = FaultyDisk() if free is None else FaultyDisk(free)
        self._frames, self._behind = frames, behind
        self._header: EpisodeHeader | None = None
        self._writer: EpisodeWriter | None = None
        self._failure = self._told = ""

    def recover(self) -> None:
        """Finish what an earlier recorder left."""
        recovery = finish_left(self._folder)
        for committed in recovery.episodes:
            self._report(Report.COMMITTED, committed)
        for problem in recovery.problems:
            self._report(Report.FAILED, RecorderFailure(episode=None, message=problem, final=True))

    def begin(self, header: EpisodeHeader) -> None:
        """Open the file of an episode; one that is still open had no end and is finished as incomplete."""
        self.stop("the next episode began before this one had ended")
        if self._frames is not None:
            header = header.model_copy(update={"streams": self._frames.specs})
        self._header, self._failure = header, ""
        self._dtype = header.spec.row_dtype()
        with self._failing():
            self._writer = EpisodeWriter(self._folder, header, free=self._disk)

    def put(self, body: bytes) -> None:
        """Write one row; after a failure the rest of the episode is let go."""
        if self._writer is None or self._failure:
            return
        with self._failing():
            if len(body) != self._dtype.itemsize:
                raise BadInputError(f"a row has {len(body)} bytes, the header's spec says {self._dtype.itemsize}")
            self._writer.append(np.frombuffer(body, self._dtype).reshape(()))

    def poll(self) -> None:
        """Take the full-size frames that are ready, unless rows wait, and flush when due."""
        if not self._behind():
            self._collect()
        if self._writer is not None and not self._failure:
            with self._failing():
                self._writer.poll()

    def suffer(self, fault: RecorderFault, amount: float) -> None:
        """Begin or end an injected fault."""
        self._disk.suffer(fault, amount)

    def end(self, outcome: EpisodeOutcome) -> None:
        """Close the file with its outcome and commit it."""
        if self._writer is not None and not self._failure:
            with self._failing():
                self._settle(_SETTLE_S)
                self._writer.finish(outcome)
        self.stop("")

    def stop(self, reason: str) -> None:
        """Commit the episode if one is open; without an outcome it is incomplete, for `reason`."""
        header, writer = self._header, self._writer
        if header is None:
            return
        if writer is not None and not writer.closed:
            with self._failing():
                self._settle(0.0)
                writer.flush()
            writer.abandon()
        self._header = self._writer = None
        problem = self._failure
        if writer is not None:
            try:
                committed = commit_episode(writer.path, reason=self._failure or reason)
                self._report(Report.COMMITTED, committed)
                self._tell_dropped(header, writer)
                return
            except (BadInputError, NoSpaceError) as error:
                problem = f"{error}; then `replay_episode.py recover {writer.path}`"
        self._report(Report.FAILED, RecorderFailure(episode=header.episode, message=problem, final=True))

    def _collect(self) -> bool:
        """Hand some frames that are ready to the writer; after a failure nobody wants them. False when none were."""
        frames, header, writer = self._frames, self._header, self._writer
        if frames is None or header is None:
            return False
        taken, lost = frames.take(header.episode), frames.lost(header.episode)
        if writer is None or writer.closed or self._failure:
            return False
        for stream, count in lost.items():
            writer.streams[stream].dropped += count
        with self._failing():
            for stream, frame in taken:
                writer.append_frame(stream, frame)
        if frames.problem != self._told:
            self._told = frames.problem
            self._report(Report.FAILED, RecorderFailure(episode=header.episode, message=self._told, final=False))
        return bool(taken)

    def _settle(self, wait_s: float) -> None:
        """Take the last frames of an episode, but never while rows of the next one pile up."""
        until_s = time.monotonic() + wait_s
        while self._frames is not None and self._header is not None and not self._behind():
            settled = self._frames.settled(self._header.episode)
            if not self._collect():
                if settled or time.monotonic() > until_s:
                    break
                time.sleep(_LOOK_S)
        self._give_up()

    def _give_up(self) -> None:
        """Count every frame of the episode that is not taken any more, those that are still being encoded included."""
        frames, header, writer = self._frames, self._header, self._writer
        if frames is None or header is None or writer is None:
            return
        for stream, count in frames.give_up(header.episode).items():
            writer.streams[stream].dropped += count

    def _tell_dropped(self, header: EpisodeHeader, writer: EpisodeWriter) -> None:
        """Tell the person which streams have gaps; the episode is whole without them."""
        gaps = {name: stream for name, stream in writer.streams.items() if stream.dropped}
        if gaps:
            shares = ", ".join(f"{one.dropped} of {one.dropped + one.frames} of {name}" for name, one in gaps.items())
            why = writer.no_room or "the disk or the processor was too slow; see docs/recording.md"
            message = (
                f"episode {header.episode}: full-size frames are missing, {shares} ({why}); its ticks are not concerned"
            )
            self._report(Report.FAILED, RecorderFailure(episode=header.episode, message=message, final=False))

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (BadInputError, NoSpaceError) as error:
            if self._failure:
                return
            episode = self._header.episode if self._header else None
            self._failure = f"episode {episode} is not recorded to its end: {error}"
            self._report(Report.FAILED, RecorderFailure(episode=episode, message=self._failure, final=False))

    def _report(self, report: Report, body: Record) -> None:
        self._reports.send_multipart([report.value, body.to_json().encode()])


def serve(recorder: EpisodeRecorder, ring: MessageRing, parent: int) -> None:
    """Do what the loop says until it says CLOSE, is gone, or SIGTERM came."""
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    end: int | None = None  # where to stop, once there is a reason to
    while end is None or ring.read < end:
        if end is None:
            ring.wait(0.0 if ring.read < ring.written else _POLL_S)
            if terminated.is_set() or os.getppid() != parent:
                end = ring.written
        for _ in range(_BATCH):
            message = ring.take()
            if message is None:
                break
            order, body = message
            match Order(order):
                case Order.ROW:
                    recorder.put(body)
                case Order.BEGIN:
                    recorder.begin(EpisodeHeader.from_json(body, where="recorder"))
                case Order.FAULT:
                    fault, amount = FAULT_BODY.unpack(body)
                    recorder.suffer(RecorderFault(fault), amount)
                case Order.END:
                    recorder.end(EpisodeOutcome.from_json(body, where="recorder"))
                case Order.CLOSE:
                    recorder.stop("the run closed before the episode ended")
                    return
        recorder.poll()
    recorder.stop("the recorder was terminated" if terminated.is_set() else "the run died")


def main(folder: Path, address: str, parent: int, memory: int, bell: int, streams: str | None) -> int:
    """Record into `folder` for the process `parent`; return the exit status."""
    os.nice(_NICE)
    context = zmq.Context()
    reports = context.socket(zmq.PUSH)
    reports.set_hwm(0)
    reports.linger = 1000
    reports.connect(address)
    try:
        with ExitStack() as stack:
            ring = stack.enter_context(closing(MessageRing(memory, bell)))
            stack.enter_context(recording_lock(folder))
            frames = stack.enter_context(FullFrames(read_arguments(streams), backlog=Backlog())) if streams else None
            recorder = EpisodeRecorder(
                folder, reports, frames=frames, behind=lambda: ring.written - ring.read > _BEHIND_BYTES
            )
            recorder.recover()
            reports.send_multipart([Report.READY.value, b""])
            serve(recorder, ring, parent)
    except BadInputError as error:
        failure = RecorderFailure(episode=None, message=str(error), final=True)
        reports.send_multipart([Report.FAILED.value, failure.to_json().encode()])
        return 2
    finally:
        reports.close()
        context.term()
        if os.getppid() != parent:
            _remove_socket(Path(address.removeprefix("ipc://")))
    return 0


def _remove_socket(path: Path) -> None:
    """Remove what a run that died before it was ready left of its socket: its name and its folder."""
    path.unlink(missing_ok=True)
    with suppress(OSError):  # gone already, or something else is in it
        path.parent.rmdir()


if __name__ == "__main__":
    try:
        parent, memory, bell = map(int, sys.argv[3:6])
        os.sched_setaffinity(0, map(int, sys.argv[6].split(",")))
        status = main(Path(sys.argv[1]), sys.argv[2], parent, memory, bell, sys.argv[7] if len(sys.argv) > 7 else None)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"recorder: {error}; what was flushed can be recovered", file=sys.stderr, flush=True)
        status = 3
    # not by sys.exit: HDF5 tries failed writes again on its way out and ends in a segmentation fault
    os._exit(status)
