"""Times the way of a 640x480x3 picture from a camera's process into the reader's own memory; prints one JSON line.

Ours (a ring in shared memory) against a multiprocessing queue, ZeroMQ over ipc and a plain shared-memory copy under a
lock with an event, for 1 to 4 cameras, each in a process of its own. Latency is from the moment the driver has the
picture complete where it writes it, at 30 pictures a second and camera, until the reader has it whole in memory of its
own. Where the driver writes is a record of the ring that it was lent ("ours": one copy in all) or memory of its own
("ours_handed_over", and every rival, which has no such place to lend); what the driver itself needs to draw or unpack
the picture there is counted in neither. The wake-up is the same for all: the reader looks at one camera after another
all the time. Throughput is what the reader gets of cameras that publish as fast as they can, ours in place with the
driver's writing of each picture counted; queue and ZeroMQ hold the cameras up, ours and the locked buffer lose what is
not read in time. Every picture that arrives is verified, in both, by the checksum in its pixels.

    .venv/bin/python benchmarks/bench_frames.py --seconds 3 --repetitions 3
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))

from environment import cli  # noqa: F401  one thread for BLAS

import numpy as np
from numpy.typing import NDArray

from benchmarks.frame_rivals import Locked, Queue, Zmq
from benchmarks.frame_transport import SIZE, Ours, OursHandedOver, Transport
from benchmarks.machine import cpu_name
from perception.pattern_source import pattern, verify_pattern

_RATE_HZ = 30.0
_CAMERAS = (1, 2, 3, 4)
_PICTURES = 16  # made before the clock runs, where cameras publish as fast as they can
_WARM_UP_S = 0.5
_LOOK_S = 0.2  # between two looks whether all cameras live
_FORK = multiprocessing.get_context("fork")
_TARGETS = {"p50_ms": 0.3, "times_faster_than_queue": 3.0}


_TRANSPORTS: dict[str, type[Transport]] = {
    "ours": Ours, "ours_handed_over": OursHandedOver, "multiprocessing_queue": Queue, "zeromq_ipc": Zmq,
    "locked_shared_memory": Locked,
}  # fmt: skip


_OURS = [name for name, kind in _TRANSPORTS.items() if issubclass(kind, Ours)]


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
    pictures = [pattern(camera, frame_id, SIZE) for frame_id in range(_PICTURES)]
    begun_s = time.monotonic() + (0.37 * camera / rate_hz if rate_hz else 0.0)
    for frame_id in itertools.count():
        if rate_hz:
            time.sleep(max(0.0, begun_s + frame_id / rate_hz - time.monotonic()))
            # as in a camera's process, which has just been given it or has unpacked it
            publish(frame_id, pattern(camera, frame_id, SIZE, transport.place(camera)))
        else:
            rgb, place = pictures[frame_id % _PICTURES], transport.place(camera)
            if place is not None:
                place[...] = rgb
            publish(frame_id, rgb if place is None else place)


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
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement; there are 40 a repetition")
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
    queue_ms = latency_ms["multiprocessing_queue"]
    faster = {name: {n: round(queue_ms[n]["p50"] / latency_ms[name][n]["p50"], 1) for n in _CAMERAS} for name in _OURS}
    torn = sum(m.wrong for results in (at_rate, at_most) for key in results if key[0] in _OURS for m in results[key])
    result = {
        "benchmark": "frames",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "threads": {"blas": os.environ["OMP_NUM_THREADS"]},
        "picture": [*SIZE, 3],
        "rate_hz": _RATE_HZ,
        "latency": "from the picture complete where its driver writes it to the reader's own copy",
        "ours": "the driver writes into the ring; ours_handed_over: into its own memory, as with every rival",
        "wake_up": "the reader looks at one camera after another all the time, for every transport",
        "seconds": args.seconds,
        "repetitions": args.repetitions,
        "latency_ms": latency_ms,
        "throughput": most,
        "times_faster_than_queue": faster,
        "torn": torn,
        "targets": {**_TARGETS, "torn": 0},
        "reached": {
            name: {
                "p50_ms": all(latency_ms[name][n]["p50"] <= _TARGETS["p50_ms"] for n in _CAMERAS),
                "times_faster_than_queue": all(
                    ratio >= _TARGETS["times_faster_than_queue"] for ratio in faster[name].values()
                ),
            }
            for name in _OURS
        }
        | {"torn": torn == 0},
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
