"""Times the way of a 640x480x3 picture from a camera's process into the reader's own memory; prints one JSON line.

Ours (a ring in shared memory) against a multiprocessing queue, ZeroMQ over ipc and a plain shared-memory copy under a
lock with an event, for 1 to 4 cameras, each in a process of its own. Latency is from just before the publishing call,
at 30 pictures a second and camera, until the reader has the picture whole in memory of its own; the wake-up is the
same for all: the reader looks at one camera after another all the time. Throughput is what the reader gets of cameras
that publish as fast as they can; queue and ZeroMQ hold these up, ours and the locked buffer lose what is not read in
time. Every picture that arrives is verified, in both, by the checksum in its pixels.

    .venv/bin/python benchmarks/bench_frames.py --seconds 3 --repetitions 3
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import queue
import struct
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import shared_memory
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))

from environment import cli  # noqa: F401  one thread for BLAS

import numpy as np
import zmq
from numpy.typing import NDArray

from benchmarks.machine import cpu_name
from perception.frame import FrameStamp
from perception.frame_ring import FrameLayout, FrameRing
from perception.pattern_source import pattern, verify_pattern
from perception.shared_camera import SharedCamera

Picture = NDArray[np.uint8]
Publish = Callable[[int, Picture], None]

_SIZE = (480, 640)
_RATE_HZ = 30.0
_CAMERAS = (1, 2, 3, 4)
_PICTURES = 16  # made before the clock runs, where cameras publish as fast as they can
_QUEUED = 4
_WARM_UP_S = 0.5
_LOOK_S = 0.2  # between two looks whether all cameras live
_LOCK_S = 5.0  # nobody holds a lock so long and lives
_FORK = multiprocessing.get_context("fork")
_TARGETS = {"p50_ms": 0.3, "times_faster_than_queue": 3.0}
_STAMP = struct.Struct("=d")


class Transport(ABC):
    """One way for the pictures of some cameras. Made in the reader's process before the cameras' are forked."""

    def __init__(self, cameras: int) -> None:
        self.cameras = cameras

    @abstractmethod
    def publisher(self, camera: int) -> Publish:
        """In the camera's process: return what takes the time just before the call, adds it and publishes."""

    @abstractmethod
    def poll(self, camera: int) -> tuple[float, Picture] | None:
        """In the reader's: return when the next picture was published [s] and that picture; None when none is new."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything, after the cameras' processes have ended."""


class Ours(Transport):
    """`FrameRing` and `SharedCamera`, as the loop uses them."""

    def __init__(self, cameras: int) -> None:
        super().__init__(cameras)
        layouts = [FrameLayout(camera=f"camera_{k}", image=_SIZE, full=_SIZE) for k in range(cameras)]
        self._rings = [FrameRing.new(layout) for layout in layouts]
        self._readers = [SharedCamera(ring) for ring in self._rings]
        self._last_ids = [-1] * cameras

    def publisher(self, camera: int) -> Publish:
        """Publish into the ring; the time travels as that of capture."""
        ring = self._rings[camera]

        def publish(frame_id: int, rgb: Picture) -> None:
            now_s = time.monotonic()
            ring.publish(FrameStamp(frame_id=frame_id, captured_s=now_s, arrived_s=now_s), rgb, rgb)

        return publish

    def poll(self, camera: int) -> tuple[float, Picture] | None:
        """Copy the next picture that is still there out of the ring."""
        reader, now_s, last_id = self._readers[camera], time.monotonic(), self._last_ids[camera]
        stamps = reader.recent(now_s, 1)
        if not stamps or stamps[0].frame_id == last_id:
            return None
        if stamps[0].frame_id > last_id + 1:  # the oldest may be written over while it is copied
            stamps = reader.recent(now_s, FrameLayout.model_fields["slots"].default - 1)
        stamp = next((stamp for stamp in stamps if stamp.frame_id > last_id), None)
        if stamp is None:
            return None
        self._last_ids[camera] = stamp.frame_id
        frame = reader.frame(stamp)
        return None if frame is None else (frame.captured_s, frame.rgb)

    def close(self) -> None:
        """Close the rings."""
        for ring in self._rings:
            ring.close()


class Queue(Transport):
    """`multiprocessing.Queue` of arrays, which pickles them through a pipe."""

    def __init__(self, cameras: int) -> None:
        super().__init__(cameras)
        self._queues = [_FORK.Queue(_QUEUED) for _ in range(cameras)]

    def publisher(self, camera: int) -> Publish:
        """Put the array."""
        own = self._queues[camera]
        own.cancel_join_thread()
        return lambda frame_id, rgb: own.put((time.monotonic(), rgb))

    def poll(self, camera: int) -> tuple[float, Picture] | None:
        """Get an array."""
        try:
            sent: tuple[float, Picture] = self._queues[camera].get_nowait()
        except queue.Empty:
            return None
        return sent

    def close(self) -> None:
        """Close the queues."""
        for own in self._queues:
            own.close()


class Zmq(Transport):
    """ZeroMQ PUSH to PULL over ipc, without copies on our side."""

    def __init__(self, cameras: int) -> None:
        super().__init__(cameras)
        self._folder = tempfile.TemporaryDirectory()
        self._pulls: list[zmq.Socket[bytes]] = []

    def _address(self, camera: int) -> str:
        return f"ipc://{self._folder.name}/{camera}"

    def publisher(self, camera: int) -> Publish:
        """Send header and array."""
        push = zmq.Context().socket(zmq.PUSH)
        push.set_hwm(_QUEUED)
        push.linger = 0
        push.connect(self._address(camera))

        def publish(frame_id: int, rgb: Picture) -> None:
            # the array is handed over, so its memory must not change until it is sent: ours never does
            push.send_multipart([_STAMP.pack(time.monotonic()), rgb.data], copy=False)

        return publish

    def poll(self, camera: int) -> tuple[float, Picture] | None:
        """Receive; the message's memory is the reader's own, so it is not copied once more."""
        if not self._pulls:  # after the fork: sockets do not outlive one
            self._context = zmq.Context()
            for own in range(self.cameras):
                pull = self._context.socket(zmq.PULL)
                pull.set_hwm(_QUEUED)
                pull.bind(self._address(own))
                self._pulls.append(pull)
        try:
            head, body = self._pulls[camera].recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        return _STAMP.unpack(head.bytes)[0], np.frombuffer(body.buffer, np.uint8).reshape(*_SIZE, 3)

    def close(self) -> None:
        """Close the sockets."""
        self._context.destroy(linger=0)
        self._folder.cleanup()


class Locked(Transport):
    """One buffer of `multiprocessing.shared_memory` under a lock, with an event that says that it is new."""

    def __init__(self, cameras: int) -> None:
        super().__init__(cameras)
        size = 8 + int(np.prod((*_SIZE, 3)))
        self._memory = [shared_memory.SharedMemory(create=True, size=size) for _ in range(cameras)]
        self._locks = [_FORK.Lock() for _ in range(cameras)]
        self._events = [_FORK.Event() for _ in range(cameras)]

    def _arrays(self, camera: int) -> tuple[NDArray[np.float64], Picture]:
        memory = self._memory[camera].buf
        assert memory is not None
        picture = np.frombuffer(memory, np.uint8, count=3 * _SIZE[0] * _SIZE[1], offset=8)
        return np.frombuffer(memory, np.float64, 1), picture.reshape(*_SIZE, 3)

    def publisher(self, camera: int) -> Publish:
        """Copy in under the lock."""
        sent_s, shared = self._arrays(camera)
        lock, event = self._locks[camera], self._events[camera]

        def publish(frame_id: int, rgb: Picture) -> None:
            now_s = time.monotonic()
            with lock:
                sent_s[0] = now_s
                shared[:] = rgb
            event.set()

        return publish

    def poll(self, camera: int) -> tuple[float, Picture] | None:
        """Copy out under the lock."""
        if not self._events[camera].is_set():
            return None
        self._events[camera].clear()
        sent_s, shared = self._arrays(camera)
        if not self._locks[camera].acquire(timeout=_LOCK_S):
            raise RuntimeError(f"camera {camera} holds its lock for ever; it died with it")
        try:
            return float(sent_s[0]), shared.copy()
        finally:
            self._locks[camera].release()

    def close(self) -> None:
        """Remove the memory."""
        for memory in self._memory:
            memory.close()
            memory.unlink()


_TRANSPORTS: dict[str, type[Transport]] = {
    "ours": Ours, "multiprocessing_queue": Queue, "zeromq_ipc": Zmq, "locked_shared_memory": Locked,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the reader saw in one measurement.

    Attributes:
        latency_ms: of each picture.
        span_s: how long was measured.
        wrong: pictures that were torn or of another camera.
        camera_cpu_s: processor time of all the cameras' processes.
        reader_cpu_s: of this one, which looks all the time.
    """

    latency_ms: NDArray[np.float64]
    span_s: float
    wrong: int
    camera_cpu_s: float
    reader_cpu_s: float


def publish_all(transport: Transport, camera: int, rate_hz: float | None) -> None:
    """Be a camera until killed."""
    publish = transport.publisher(camera)
    pictures = [pattern(camera, frame_id, _SIZE) for frame_id in range(_PICTURES)]
    begun_s = time.monotonic() + (0.37 * camera / rate_hz if rate_hz else 0.0)
    for frame_id in itertools.count():
        if rate_hz:
            time.sleep(max(0.0, begun_s + frame_id / rate_hz - time.monotonic()))
            # as in a camera's process, which has just been given it or has unpacked it
            publish(frame_id, pattern(camera, frame_id, _SIZE))
        else:
            publish(frame_id, pictures[frame_id % _PICTURES])


def measure(kind: type[Transport], cameras: int, rate_hz: float | None, seconds: float) -> Measured:
    """Let so many cameras publish at `rate_hz`, or as fast as they can, and read them for some seconds.

    Raises:
        RuntimeError: a camera's process died.
    """
    transport = kind(cameras)
    processes = [
        _FORK.Process(target=publish_all, args=(transport, camera, rate_hz), daemon=True) for camera in range(cameras)
    ]
    for process in processes:
        process.start()
    latency_ms: list[float] = []
    wrong = 0
    try:
        begin_s = 0.0
        seen = set[int]()
        cpu_s, own_s = 0.0, 0.0
        look_s = time.monotonic()
        for camera in itertools.cycle(range(cameras)):
            got = transport.poll(camera)
            now_s = time.monotonic()
            if begin_s and now_s >= begin_s + seconds:
                break
            if now_s >= look_s:
                look_s = now_s + _LOOK_S
                dead = [place for place, process in enumerate(processes) if not process.is_alive()]
                if dead:
                    raise RuntimeError(f"camera {dead[0]} ended with status {processes[dead[0]].exitcode}")
            if got is None:
                if rate_hz is None:  # the cameras want the cores as well
                    os.sched_yield()
                continue
            sent_s, rgb = got
            found = verify_pattern(rgb)
            wrong += found is None or found[0] != camera
            seen.add(camera)
            if begin_s == 0.0 and len(seen) == cameras:  # they all run; the first pictures are not counted
                begin_s = now_s + _WARM_UP_S
                measured = False
            if begin_s and now_s >= begin_s:
                if not measured:
                    measured, cpu_s, own_s = True, _cpu_s(processes), time.process_time()
                latency_ms.append((now_s - sent_s) * 1e3)
        cpu_s, own_s = _cpu_s(processes) - cpu_s, time.process_time() - own_s
    finally:
        for process in processes:
            process.kill()
            process.join()
        transport.close()
    return Measured(
        latency_ms=np.array(latency_ms), span_s=seconds, wrong=wrong, camera_cpu_s=cpu_s, reader_cpu_s=own_s
    )


def latency(repetitions: list[Measured]) -> dict[str, Any]:
    """Sum up the measurements at a camera's rate: medians over the repetitions, the greatest of all."""
    return {
        "p50": _median(repetitions, lambda m: np.percentile(m.latency_ms, 50)),
        "p99": _median(repetitions, lambda m: np.percentile(m.latency_ms, 99)),
        "max": round(max(float(m.latency_ms.max()) for m in repetitions), 3),
        "frames": sum(len(m.latency_ms) for m in repetitions),
        "torn": sum(m.wrong for m in repetitions),
        "camera_cpu_ms_per_frame": _median(repetitions, lambda m: 1e3 * m.camera_cpu_s / len(m.latency_ms)),
    }


def throughput(repetitions: list[Measured]) -> dict[str, Any]:
    """Sum up the measurements with cameras that hold nothing back."""
    return {
        "frames_s": round(float(np.median([len(m.latency_ms) / m.span_s for m in repetitions])), 1),
        "torn": sum(m.wrong for m in repetitions),
        "cpu_ms_per_frame": _median(
            repetitions, lambda m: 1e3 * (m.camera_cpu_s + m.reader_cpu_s) / max(1, len(m.latency_ms))
        ),
    }


def main() -> int:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement; there are 32 a repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    load_before = os.getloadavg()[0]
    at_rate: dict[tuple[str, int], list[Measured]] = {}
    at_most: dict[tuple[str, int], list[Measured]] = {}
    for _, cameras, (name, kind) in itertools.product(range(args.repetitions), _CAMERAS, _TRANSPORTS.items()):
        for results, rate_hz in ((at_rate, _RATE_HZ), (at_most, None)):
            results.setdefault((name, cameras), []).append(measure(kind, cameras, rate_hz, args.seconds))
    latency_ms = {name: {n: latency(at_rate[name, n]) for n in _CAMERAS} for name in _TRANSPORTS}
    most = {name: {n: throughput(at_most[name, n]) for n in _CAMERAS} for name in _TRANSPORTS}
    faster = {
        n: round(latency_ms["multiprocessing_queue"][n]["p50"] / latency_ms["ours"][n]["p50"], 1) for n in _CAMERAS
    }
    torn = sum(m.wrong for results in (at_rate, at_most) for n in _CAMERAS for m in results["ours", n])
    result = {
        "benchmark": "frames",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "threads": {"blas": os.environ["OMP_NUM_THREADS"]},
        "picture": [*_SIZE, 3],
        "rate_hz": _RATE_HZ,
        "wake_up": "the reader looks at one camera after another all the time, for every transport",
        "seconds": args.seconds,
        "repetitions": args.repetitions,
        "latency_ms": latency_ms,
        "throughput": most,
        "times_faster_than_queue": faster,
        "torn": torn,
        "targets": {**_TARGETS, "torn": 0},
        "reached": {
            "p50_ms": all(latency_ms["ours"][n]["p50"] <= _TARGETS["p50_ms"] for n in _CAMERAS),
            "times_faster_than_queue": all(ratio >= _TARGETS["times_faster_than_queue"] for ratio in faster.values()),
            "torn": torn == 0,
        },
    }
    print(json.dumps(result))
    return 0


def _median(repetitions: list[Measured], value: Callable[[Measured], Any]) -> float:
    return round(float(np.median([value(measured) for measured in repetitions])), 4)


def _cpu_s(processes: Sequence[BaseProcess]) -> float:
    """Processor time that processes have used so far [s]."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
