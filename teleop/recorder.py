"""Where the loop leaves its rows, and the recorder that takes them in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import zmq

from policy.episode_commit import Committed
from policy.episode_header import EpisodeHeader, EpisodeOutcome
from policy.episode_schema import Row, row_bytes
from robot.errors import BadInputError
from robot.message_ring import MessageRing
from teleop.recorder_messages import Order, RecorderFailure, RecorderFault, Report, fault_body
from teleop.recorder_streams import EpisodeMark, EpisodeMarks, StreamSource, stream_arguments

_STALL_S = 60.0  # a lock-step run gives up on a recorder that takes nothing for so long
_CLOSE_S = 30.0
_POLL_MS = 20
_ORDERS_BYTES = 1_000_000  # room that rows leave to the orders of some hundred episodes


class Recorder(Protocol):
    """Takes the rows of one episode after another. Nothing here raises for a full or dead recorder."""

    def begin(self, header: EpisodeHeader) -> None:
        """Start an episode."""
        ...

    def put(self, row: Row) -> bool:
        """Take one row; False when it could not and the tick is lost to the record."""
        ...

    def end(self, outcome: EpisodeOutcome) -> None:
        """End the episode; it is marked as not complete when a row was lost."""
        ...

    def close(self) -> None:
        """Finish what is open and let go. Doing it again does no harm."""
        ...


class RecorderProcess:
    """Feeds `teleop.recorder_process`, started anew and never forked: orders and rows through shared memory.

    Rows are copied, so the caller may use its row again at once. At most `capacity_bytes` wait between the
    two; beyond that a lock-step run waits for the recorder, any other loses the row. One thread uses it.

    Full-size frames never pass through here: the recorder takes those of an episode from the cameras' rings itself.
    """

    def __init__(
        self,
        folder: Path,
        *,
        lock_step: bool,
        capacity_bytes: int = 64_000_000,
        streams: Sequence[StreamSource] = (),
    ) -> None:
        """Make no process yet.

        Args:
            folder: the run's episodes folder.
            lock_step: whether the loop waits for the recorder.
            capacity_bytes: holds at least one row [bytes].
            streams: cameras of which full-size frames are recorded; their rings stay the caller's. None in lock-step,
                where cameras have no rings.
        """
        if lock_step and streams:
            raise ValueError("a lock-step run has no rings to record full-size frames from")
        self._folder, self._lock_step, self._capacity = folder, lock_step, capacity_bytes
        self._cores = os.sched_getaffinity(0)  # before the loop keeps to one of them, which its children would inherit
        self._streams = tuple(streams)
        self._marks: EpisodeMarks | None = None
        self._private: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ring: MessageRing | None = None
        self._reports: zmq.Socket[bytes] | None = None
        self._ready = self._mourned = self._begun = False
        self._dropped = 0
        self._committed: dict[tuple[str, int], Committed] = {}
        self._failures: list[RecorderFailure] = []
        self._fresh: list[Committed] = []
        self._episodes: list[tuple[str, int]] = []  # run and episode of all that were begun

    def __enter__(self) -> Self:
        """Start the recorder; it is ready some 0.6 s later, rows put before that wait.

        Raises:
            BadInputError: the temporary folder's path is too long for a socket, or there is no memory for the rows.
        """
        self._context = zmq.Context()
        # its thread then waits for a free core and never takes the loop's in the middle of a tick
        self._context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_BATCH)
        try:
            self._start()
        except zmq.ZMQError as error:
            where = self._private
            self._tidy()
            raise BadInputError(f"{where}: no socket can be made here ({error}); set TMPDIR to a short path") from None
        except OSError as error:
            self._tidy()
            need = f"{self._capacity // 1_000_000} MB of memory, a temporary folder and a process"
            raise BadInputError(f"recorder: cannot be started ({error}); it needs {need}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """True while the recorder's process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Id of the recorder's process while there is one."""
        return self._process.pid if self._process is not None else None

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the recorder owns the folder; False when it does not get there in time."""
        self._wait(lambda: self._ready, timeout_s)
        return self._ready

    def begin(self, header: EpisodeHeader) -> None:
        """Start an episode; a recorder that died is started again first.

        The new one recovers what the dead one left and goes on with what is in the ring.
        """
        if self._process is None:
            return
        self._episodes.append((header.run_id, header.episode))
        if not self._lives():
            self._settle()
            try:
                self._start()
            except (OSError, zmq.ZMQError) as error:
                message = f"no recorder can be started ({error}); see to the temporary folder"
                self._failures.append(RecorderFailure(episode=header.episode, message=message, final=True))
        self._dropped = 0
        self._begun = self._put(Order.BEGIN, header.to_json().encode())
        if not self._begun and self.alive:
            message = f"episode {header.episode} is not recorded: the recorder takes nothing; see to its disk"
            self._failures.append(RecorderFailure(episode=header.episode, message=message, final=True))
        self._mark(begins=True)

    def put(self, row: Row) -> bool:
        """Hand over one row. Lock-step waits for room; otherwise it returns within a millisecond."""
        taken = self._begun and self._put(Order.ROW, row_bytes(row))
        self._dropped += not taken
        return taken

    def end(self, outcome: EpisodeOutcome) -> None:
        """End the episode. Its file comes through `committed` or `wait_committed`."""
        if not self._begun:
            return  # the recorder would take it for the end of the episode before
        self._mark(begins=False)
        self._begun = False
        if self._dropped:
            outcome = outcome.with_gaps(self._dropped, f"the recorder was full or dead for {self._dropped} ticks")
        self._put(Order.END, outcome.to_json().encode())

    def inject(self, fault: RecorderFault, amount: float) -> bool:
        """Have the recorder suffer a fault, or end it with an amount of 0; False when it takes no orders.

        Raises:
            ValueError: the amount is less than 0, not finite or an hour and more.
        """
        return self._put(Order.FAULT, fault_body(fault, amount))

    def committed(self) -> list[Committed]:
        """Return the episodes committed since the last call, recovered ones included. Never blocks."""
        self._drain()
        fresh, self._fresh = self._fresh, []
        return fresh

    def failures(self) -> list[RecorderFailure]:
        """Return what the recorder could not do so far, in words for the person; its death is told at once.

        Never blocks, so that it can be asked in the middle of an episode.
        """
        self._drain()
        self._lives()
        return list(self._failures)

    def wait_committed(self, run_id: str, episode: int, timeout_s: float) -> Committed | None:
        """Wait for one episode's file; None when it failed, the recorder died or the time is over."""

        def settled() -> bool:
            failed = any(failure.episode == episode and failure.final for failure in self._failures)
            return (run_id, episode) in self._committed or failed

        self._wait(settled, timeout_s)
        return self._committed.get((run_id, episode))

    def close(self) -> None:
        """Let the recorder finish and end; after 30 s it is ended, and recovery has the rest."""
        if self._process is None:
            return
        self._put(Order.CLOSE, b"")
        self._wait(lambda: False, _CLOSE_S)
        for stop in (self._process.terminate, self._process.kill):
            if self.alive:
                stop()
                self._wait(lambda: False, 5.0)
        self._process.wait()
        self._settle()
        self._process = None
        self._tidy()
        named = {failure.episode for failure in self._failures if failure.final}
        for run_id, episode in self._episodes:
            if (run_id, episode) not in self._committed and episode not in named:
                message = f"episode {episode} was not committed; try `replay_episode.py recover {self._folder}`"
                self._failures.append(RecorderFailure(episode=episode, message=message, final=True))
        self._episodes = []

    def _start(self) -> None:
        """Start a recorder with a socket of its own; a successor takes over the ring with what is still in it.

        What is there of the episode that the dead one had open comes before any BEGIN and is passed over.
        """
        if self._reports is not None:
            self._reports.close()
            self._reports = None
        self._remove_private()
        self._private = Path(tempfile.mkdtemp(prefix="handrail-"))  # mode 0700
        address = f"ipc://{self._private}/reports"
        self._reports = self._context.socket(zmq.PULL)
        self._reports.set_hwm(0)
        self._reports.bind(address)
        if self._ring is None:
            self._ring = MessageRing.new(self._capacity + _ORDERS_BYTES)
        files: tuple[int, ...] = self._ring.files
        command = [sys.executable, "-m", "teleop.recorder_process", str(self._folder), address, str(os.getpid())]
        command += map(str, files)
        command.append(",".join(map(str, sorted(self._cores))))
        if self._streams:
            if self._marks is None:
                self._marks = EpisodeMarks.new(len(self._streams))
            command.append(stream_arguments(self._streams, self._marks).model_dump_json())
            files = (*files, self._marks.file, *(source.ring.file for source in self._streams))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the run, which then ends the recorder in order
            pass_fds=files,
        )
        self._ready = self._mourned = False

    def _put(self, order: Order, body: bytes | memoryview) -> bool:
        """Give an order; False when the recorder is dead or the ring full, in lock-step for a minute."""
        ring = self._ring
        if ring is None or not self._lives():
            return False
        size = len(body) + (_ORDERS_BYTES if order is Order.ROW else 0)
        if not ring.has_room(size):
            ring.ring()
            if self._lock_step:
                self._wait(lambda: ring.has_room(size), _STALL_S)
            if not ring.has_room(size):
                return False
        ring.put(order.value, body)
        if order is not Order.ROW:
            ring.ring()
        return True

    def _mark(self, *, begins: bool) -> None:
        """Tell the threads that take frames that the episode begins or ends now."""
        if self._marks is not None and self._begun:
            counts = tuple(source.ring.count for source in self._streams)
            episode = self._episodes[-1][1]
            self._marks.set(EpisodeMark(episode=episode, begins=begins, at_s=time.monotonic(), counts=counts))

    def _lives(self) -> bool:
        """Return whether the recorder lives; a death is noted once."""
        if self._process is None:
            return False
        status = self._process.poll()
        if status is not None:
            self._mourn(status)
        return status is None

    def _mourn(self, status: int) -> None:
        if not self._mourned:
            self._mourned = True
            message = f"the recorder ended (status {status}); ticks are lost until the next episode starts another"
            self._failures.append(RecorderFailure(episode=None, message=message, final=False))

    def _drain(self) -> None:
        """Take in what the recorder said."""
        while self._reports is not None and int(self._reports.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            name, body = self._reports.recv_multipart()
            match Report(name):
                case Report.READY:
                    self._ready = True
                    # connected as it is, the socket needs its name no more, and a run killed from now on leaves none
                    self._remove_private()
                case Report.COMMITTED:
                    committed = Committed.from_json(body, where="recorder")
                    self._committed[committed.run_id, committed.episode] = committed
                    self._fresh.append(committed)
                case Report.FAILED:
                    self._failures.append(RecorderFailure.from_json(body, where="recorder"))

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Take in reports until `done`, the recorder's death, or `timeout_s` is over."""
        deadline_s = time.monotonic() + timeout_s
        self._drain()
        while not done() and time.monotonic() < deadline_s:
            if not self.alive:
                self._settle()
                return
            if self._reports is not None:
                self._reports.poll(_POLL_MS)
            self._drain()

    def _settle(self) -> None:
        """Take in the last words of a recorder that is gone."""
        while self._reports is not None and self._reports.poll(_POLL_MS):
            self._drain()

    def _let_go(self) -> None:
        """Close socket, ring and marks."""
        for part in (self._reports, self._ring, self._marks):
            if part is not None:
                part.close()
        self._reports = self._ring = self._marks = None

    def _tidy(self) -> None:
        self._let_go()
        self._context.term()
        self._remove_private()

    def _remove_private(self) -> None:
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None
