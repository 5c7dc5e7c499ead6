"""Where the loop leaves its rows, and the recorder that takes them in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import zmq

from policy.episode_commit import Committed
from policy.episode_header import EpisodeHeader, EpisodeOutcome
from policy.episode_schema import Row, row_bytes
from robot.errors import BadInputError
from teleop.recorder_messages import Kind, RecorderFailure

_STALL_S = 60.0  # a lock-step run gives up on a recorder that takes nothing for so long
_CLOSE_S = 30.0
_POLL_MS = 20
_CREDITS = 16  # for a full capacity; taking one in costs a tick 20 us


class Recorder(Protocol):
    """Takes the rows of one episode after another. Nothing here raises for a full or dead recorder."""

    def begin(self, header: EpisodeHeader) -> None:
        """Start an episode."""
        ...

    def put(self, row: Row) -> bool:
        """Take one sealed row; False when it could not and the tick is lost to the record."""
        ...

    def end(self, outcome: EpisodeOutcome) -> None:
        """End the episode; it is marked as not complete when a row was lost."""
        ...

    def close(self) -> None:
        """Finish what is open and let go. Doing it again does no harm."""
        ...


class RecorderProcess:
    """Feeds `teleop.recorder_process`, started anew and never forked, over a socket in a private folder.

    Rows are copied, so the caller may use its row again at once. At most `capacity_bytes` wait between the
    two; beyond that a lock-step run waits for the recorder, any other loses the row. One thread uses it.
    """

    def __init__(self, folder: Path, *, lock_step: bool, capacity_bytes: int = 64_000_000) -> None:
        """Args: `folder` is the run's episodes folder; `capacity_bytes` holds at least one row [bytes]."""
        self._folder, self._lock_step, self._capacity = folder, lock_step, capacity_bytes
        self._private: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._rows: zmq.Socket[bytes] | None = None
        self._reports: zmq.Socket[bytes] | None = None
        self._ready = self._mourned = False
        self._in_flight = self._dropped = 0
        self._committed: dict[tuple[str, int], Committed] = {}
        self._failures: list[RecorderFailure] = []
        self._fresh: list[Committed] = []

    def __enter__(self) -> Self:
        """Start the recorder; it is ready some 0.6 s later, rows put before that wait.

        Raises:
            BadInputError: the temporary folder's path is too long for a socket.
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
        """Start an episode; a recorder that died is started again first, and recovers what the dead one left."""
        if self._process is None:
            return
        if not self.alive:
            self._settle()
            try:
                self._start()
            except (OSError, zmq.ZMQError) as error:
                message = f"no recorder can be started ({error}); see to the temporary folder"
                self._failures.append(RecorderFailure(episode=header.episode, message=message, final=True))
        self._dropped = 0
        self._send(Kind.BEGIN.value, header.to_json().encode())

    def put(self, row: Row) -> bool:
        """Hand over one sealed row. Lock-step waits for room; otherwise it returns within a millisecond."""
        self._drain()
        taken = self._room(row.nbytes) and self._send(row_bytes(row))
        if taken:
            self._in_flight += row.nbytes
        else:
            self._dropped += 1
        return taken

    def end(self, outcome: EpisodeOutcome) -> None:
        """End the episode. Its file comes through `committed` or `wait_committed`."""
        if self._dropped:
            outcome = outcome.with_gaps(self._dropped, f"the recorder was full or dead for {self._dropped} ticks")
        self._send(Kind.END.value, outcome.to_json().encode())

    def committed(self) -> list[Committed]:
        """Return the episodes committed since the last call, recovered ones included. Never blocks."""
        self._drain()
        fresh, self._fresh = self._fresh, []
        return fresh

    def failures(self) -> list[RecorderFailure]:
        """Return what the recorder could not do so far, in words for the person. Never blocks."""
        self._drain()
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
        self._send(Kind.CLOSE.value, b"")
        self._wait(lambda: False, _CLOSE_S)
        for stop in (self._process.terminate, self._process.kill):
            if self.alive:
                stop()
                self._wait(lambda: False, 5.0)
        self._process.wait()
        self._settle()
        self._process = None
        self._tidy()

    def _start(self) -> None:
        """Start a recorder on sockets of its own, so that nothing meant for a dead one reaches it."""
        self._ready, self._mourned, self._in_flight = False, False, 0
        self._close_sockets()
        self._remove_private()
        self._private = Path(tempfile.mkdtemp(prefix="handrail-"))  # mode 0700
        rows, reports = (f"ipc://{self._private}/{name}" for name in ("rows", "reports"))
        # no limit in messages: the bound is `_in_flight`, in bytes
        self._rows, self._reports = self._context.socket(zmq.PUSH), self._context.socket(zmq.PULL)
        for socket in (self._rows, self._reports):
            socket.set_hwm(0)
            socket.linger = 0
        self._rows.connect(rows)  # so that rows can wait here until the recorder has bound it
        self._reports.bind(reports)
        command = [sys.executable, "-m", "teleop.recorder_process", str(self._folder), rows, reports, str(os.getpid())]
        command += [str(self._capacity // _CREDITS)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the run, which then ends the recorder in order
        )
        self._rows.send_multipart([Kind.HELLO.value, b""])

    def _room(self, size: int) -> bool:
        def free() -> bool:
            return self._in_flight + size <= self._capacity or self._in_flight == 0

        if not free() and self._lock_step:
            self._wait(free, _STALL_S)
        return free()

    def _send(self, *parts: bytes | memoryview) -> bool:
        if self._rows is None or self._process is None:
            return False
        if not self.alive:
            self._mourn(self._process.returncode)
            return False
        *first, last = parts
        for part in first:
            self._rows.send(part, zmq.SNDMORE | zmq.NOBLOCK)
        self._rows.send(last, zmq.NOBLOCK)
        return True

    def _mourn(self, status: int) -> None:
        if not self._mourned:
            self._mourned = True
            message = f"the recorder ended (status {status}); ticks are lost until the next episode starts another"
            self._failures.append(RecorderFailure(episode=None, message=message, final=False))

    def _drain(self) -> None:
        """Take in what the recorder said."""
        # EVENTS costs 1 us, an empty recv with its exception 10 us
        while self._reports is not None and int(self._reports.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            name, body = self._reports.recv_multipart()
            match Kind(name):
                case Kind.CREDIT:
                    self._in_flight -= int(body)
                case Kind.READY:
                    self._ready = True
                    # It answers what came over the other socket: connected as they are, neither needs its name any
                    # more, and a run that is killed from now on leaves none behind.
                    self._remove_private()
                case Kind.COMMITTED:
                    committed = Committed.from_json(body, where="recorder")
                    self._committed[committed.run_id, committed.episode] = committed
                    self._fresh.append(committed)
                case Kind.FAILED:
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

    def _close_sockets(self) -> None:
        for socket in (self._rows, self._reports):
            if socket is not None:
                socket.close()
        self._rows = self._reports = None

    def _tidy(self) -> None:
        self._close_sockets()
        self._context.term()
        self._remove_private()

    def _remove_private(self) -> None:
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None
