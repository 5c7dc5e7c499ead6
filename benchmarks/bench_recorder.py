#!/usr/bin/env python3
"""Full-size frames recorded beside a 50 Hz loop: frames kept and lost, disk use, what the loop feels; one JSON line.

One to three cameras of 640x480 at 30 fps, each a process that publishes prepared pictures into its ring, and a loop
that hands the recorder a row with two 84x84 images 50 times a second. Each way of recording is measured idle and beside
two busy processes; `nobody` has no recorder at all, `rows` one without streams. The pictures are mosaics of real robot
cameras' 64x64 pictures where `--pictures` has some, each pixel as it was taken; small pictures side by side have more
detail to a pixel than one large one, so the disk use is an upper bound. Depth is a slanted plane with objects in whole
millimetres, with noise of 1.5 per mille and holes.

    .venv/bin/python benchmarks/bench_recorder.py --seconds 10 --repetitions 3
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import h5py
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import cpu_name
from benchmarks.machine_load import loaded
from benchmarks.process_use import ProcessUse
from perception.frame import FrameStamp
from perception.frame_ring import FrameLayout, FrameRing
from policy.episode_header import EpisodeHeader, EpisodeOutcome, LabelSource, Outcome, StreamSpec
from policy.episode_reader import read_episode
from policy.episode_schema import EpisodeSpec
from policy.manifest import ActionSpec
from policy.provenance import collect_provenance
from policy.stream_codec import Codec
from robot.clock import WallClock
from robot.command import CommandKind
from teleop.recorder import RecorderProcess
from teleop.recorder_streams import StreamSource

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH, FPS, RATE_HZ, QUALITY = 480, 640, 30.0, 50.0, 95
_PICTURES = 12
_RUN = "bench-0000"
SPEC = EpisodeSpec(
    cameras=(("cam0", 84, 84), ("cam1", 84, 84)),
    proprio=(("tcp_position_m", 3), ("gripper_width_m", 1)),
    action_size=4,
    chunk_length=8,
    feature_size=128,
    joint_count=7,
)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of recording.

    Attributes:
        codec: of the colour, None without streams.
        recorder: whether there is one.
    """

    name: str
    cameras: int
    codec: Codec | None = None
    depth: bool = False
    recorder: bool = True

    def specs(self, camera: str) -> tuple[StreamSpec, ...]:
        """Return the streams of one camera."""
        codecs = [self.codec] if self.codec is not None else []
        return tuple(
            StreamSpec(
                camera=camera,
                codec=codec,
                height=HEIGHT,
                width=WIDTH,
                quality=QUALITY if codec is Codec.JPEG else None,
            )
            for codec in codecs + [Codec.DEPTH] * self.depth
        )

    def layout(self, camera: str) -> FrameLayout:
        """Return the layout of one camera's ring: a second of frames, as a station that records has it."""
        return FrameLayout(camera=camera, image=(84, 84), full=(HEIGHT, WIDTH), depth=self.depth, slots=32)


WAYS = (
    Way(name="nobody", cameras=3, recorder=False),
    Way(name="rows", cameras=3),
    Way(name="jpeg_1", cameras=1, codec=Codec.JPEG),
    Way(name="jpeg_2", cameras=2, codec=Codec.JPEG),
    Way(name="jpeg_3", cameras=3, codec=Codec.JPEG),
    Way(name="jpeg_depth_3", cameras=3, codec=Codec.JPEG, depth=True),
    Way(name="lossless_1", cameras=1, codec=Codec.LOSSLESS),
    Way(name="lossless_3", cameras=3, codec=Codec.LOSSLESS),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of an episode")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--pictures", type=Path, default=ROOT / "tests/data/bridge_excerpt.h5")
    parser.add_argument("--folder", type=Path, help="where to record; a temporary folder by default")
    parser.add_argument("--ways", nargs="+", default=[way.name for way in WAYS], choices=[way.name for way in WAYS])
    parser.add_argument("--publish", nargs=2, metavar=("FD", "LAYOUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        publish(int(options.publish[0]), FrameLayout.model_validate_json(options.publish[1]), options.pictures)
        return
    result: dict[str, object] = {
        "benchmark": "bench_recorder",
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "seconds": options.seconds,
        "repetitions": options.repetitions,
        "pictures": "real, mosaics of 64x64" if options.pictures.exists() else "made up",
    }
    for load in ("idle", "loaded"):
        with loaded(busy=2, learner=False) if load == "loaded" else nullcontext():
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.ways}
            for _ in range(options.repetitions):  # in turn, so that a slow minute meets all
                for way in WAYS:
                    if way.name in runs:
                        print(f"{load} {way.name}", file=sys.stderr, flush=True)
                        runs[way.name].append(measure(way, options.seconds, options.pictures, options.folder))
        result[load] = {name: together(parts) for name, parts in runs.items()}
    print(json.dumps(result))


def together(runs: Sequence[dict[str, float]]) -> dict[str, float | list[float]]:
    """Return medians, and every repetition's own worst figures."""
    figures: dict[str, float | list[float]] = {name: round(median(run[name] for run in runs), 3) for name in runs[0]}
    for name in ("late_p99_ms", "put_p99_ms", "dropped"):
        if name in runs[0]:
            figures[f"{name}_each"] = [round(run[name], 3) for run in runs]
    return figures


def measure(way: Way, seconds: float, pictures: Path, folder: Path | None) -> dict[str, float]:
    """Record one episode one way and return its figures."""
    with ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recorder-", dir=folder)))
        sources, cameras = [], {}
        for number in range(way.cameras):
            layout = way.layout(f"cam{number}")
            ring = FrameRing.new(layout)
            stack.callback(ring.close)
            cameras[layout.camera] = stack.enter_context(publisher(ring, layout, pictures))
            if way.specs(layout.camera):
                sources.append(StreamSource(ring=ring, specs=way.specs(layout.camera)))
        recorder = stack.enter_context(RecorderProcess(out, lock_step=False, streams=sources)) if way.recorder else None
        if recorder is not None and not recorder.wait_ready(30.0):
            raise RuntimeError(f"no recorder: {recorder.failures()}")
        figures = run_loop(recorder, seconds)
        if recorder is not None:
            figures |= recorded(recorder, sources, seconds)
        return figures


def run_loop(recorder: RecorderProcess | None, seconds: float) -> dict[str, float]:
    """Put a row 50 times a second and return how late the ticks were and how long a put took."""
    clock, rng = WallClock(), np.random.default_rng(0)
    row = np.frombuffer(rng.bytes(SPEC.row_dtype().itemsize), SPEC.row_dtype()).copy().reshape(())
    ticks = round(seconds * RATE_HZ)
    late_ms, put_ms = np.zeros(ticks), np.zeros(ticks)
    use = ProcessUse({"recorder": recorder.pid} if recorder is not None and recorder.pid else {})
    gc.collect()
    gc.disable()
    if recorder is not None:
        recorder.begin(header())
    start_s = clock.now_s() + 0.1
    for tick in range(ticks):
        due_s = start_s + tick / RATE_HZ
        clock.sleep_until(due_s)
        woken_s = clock.now_s()
        row["tick/index"] = tick
        if recorder is not None:
            recorder.put(row)
        late_ms[tick], put_ms[tick] = (woken_s - due_s) * 1e3, (clock.now_s() - woken_s) * 1e3
    gc.enable()
    figures = {f"late_p{share:g}_ms": float(np.percentile(late_ms, share)) for share in (50, 99, 99.9)}
    figures |= {f"put_p{share:g}_ms": float(np.percentile(put_ms, share)) for share in (50, 99, 99.9)}
    for value in use.since().values():
        figures |= {f"recorder_{name}": number for name, number in value.items()}
    return figures


def recorded(recorder: RecorderProcess, sources: Sequence[StreamSource], seconds: float) -> dict[str, float]:
    """End the episode and return what is in its file."""
    ended_s = time.monotonic()
    recorder.end(EpisodeOutcome(outcome=Outcome.SUCCESS, label_source=LabelSource.NONE))
    committed = recorder.wait_committed(_RUN, 0, 120.0)
    if committed is None or not committed.outcome.complete:
        raise RuntimeError(f"the episode is not whole: {recorder.failures()}")
    figures = {"commit_s": time.monotonic() - ended_s, "file_mb_per_minute": committed.path.stat().st_size / 1e6}
    figures["file_mb_per_minute"] *= 60.0 / seconds
    episode = read_episode(committed.path)
    streams = [episode.stream(spec.name) for source in sources for spec in source.specs]
    if streams:
        colour = [stream for stream in streams if stream.spec.codec is not Codec.DEPTH]
        depth = [stream for stream in streams if stream.spec.codec is Codec.DEPTH]
        figures["frames_per_s"] = sum(map(len, streams)) / seconds
        figures["dropped"] = float(sum(stream.dropped for stream in streams))
        figures["unsound"] = float(sum(len(list(stream.unsound())) for stream in streams))
        for name, some in (("colour", colour), ("depth", depth)):
            if some:
                sizes = [len(stream.encoded(at)) for stream in some for at in range(0, len(stream), 10)]
                figures[f"{name}_kb_per_frame"] = float(np.mean(sizes)) / 1e3
                figures[f"{name}_mb_per_minute_per_camera"] = float(np.mean(sizes)) * FPS * 60.0 / 1e6
    return figures


@contextmanager
def publisher(ring: FrameRing, layout: FrameLayout, pictures: Path) -> Iterator[int]:
    """Run a camera's process; yields its id once it publishes."""
    command = [sys.executable, __file__, "--pictures", str(pictures), "--publish", str(ring.file)]
    process = subprocess.Popen([*command, layout.model_dump_json()], pass_fds=[ring.file], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def publish(file: int, layout: FrameLayout, pictures: Path) -> None:
    """Be a camera: publish prepared pictures at its rate until the run is gone."""
    rng = np.random.default_rng(int(layout.camera[-1]))
    full = [picture(rng, pictures) for _ in range(_PICTURES)]
    depth = [sensor_depth(rng) for _ in range(_PICTURES)] if layout.depth else [None] * _PICTURES
    image = np.ascontiguousarray(full[0][:84, :84])
    ring, clock, parent = FrameRing(file, layout), WallClock(), os.getppid()
    start_s = clock.now_s() + rng.random() / FPS
    print("ready", flush=True)
    number = 0
    while os.getppid() == parent:
        due_s = start_s + number / FPS
        clock.sleep_until(due_s)
        stamp = FrameStamp(frame_id=number, captured_s=due_s, arrived_s=clock.now_s(), uncertainty_s=1e-4)
        ring.publish(stamp, image, full[number % _PICTURES], depth[number % _PICTURES])
        number += 1


def picture(rng: np.random.Generator, pictures: Path) -> NDArray[np.uint8]:
    """Return a mosaic of real pictures, or smooth colours with noise where there are none."""
    if not pictures.exists():
        v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
        smooth = np.stack([60 + 120 * u / WIDTH, 90 + 60 * v / HEIGHT, 200 - 120 * u / WIDTH], axis=-1)
        return np.clip(smooth + rng.normal(0.0, 3.0, smooth.shape), 0, 255).astype(np.uint8)
    with h5py.File(pictures) as file:
        names = [f"{episode}/{name}" for episode in file for name in file[episode] if name.startswith("image_")]
        tiles = [file[name][int(rng.integers(len(file[name])))] for name in rng.choice(names, 80)]
    rows = [np.concatenate(tiles[first : first + 10], axis=1) for first in range(0, 80, 10)]
    return np.ascontiguousarray(np.concatenate(rows)[:HEIGHT, :WIDTH])


def sensor_depth(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a table with boxes as a depth camera gives it [m]."""
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    metres = 0.7 / (0.8 + 0.6 * (v - 240) / 600)
    for left, top in rng.integers(0, 400, (4, 2)):
        metres[top : top + 80, left : left + 90] = 0.65 + 0.0003 * u[top : top + 80, left : left + 90]
    steps = np.rint(metres * (1.0 + rng.normal(0.0, 0.0015, metres.shape)) * 1000.0).astype(np.uint16)
    steps[np.kron(rng.random((HEIGHT // 16, WIDTH // 16)) < 0.05, np.ones((16, 16), bool))] = 0
    metres_again: NDArray[np.float32] = steps.astype(np.float32) * np.float32(0.001)
    return metres_again


def header() -> EpisodeHeader:
    """Return the header of an episode of the benchmark."""
    return EpisodeHeader(
        run_id=_RUN,
        episode=0,
        started_utc="20261101T101530.123456Z",
        rate_hz=RATE_HZ,
        spec=SPEC,
        env_args={},
        station_sha256="1" * 64,
        bundle_sha256=None,
        action=ActionSpec(
            kind=CommandKind.TCP_DELTA,
            frame="base",
            dims=("x", "y", "z", "gripper"),
            scale=(0.02, 0.02, 0.02, 1.0),
            offset=(0.0, 0.0, 0.0, 0.0),
            headroom=0.1,
            gripper="binary",
            gripper_open_m=0.08,
            gripper_closed_m=0.0,
        ),
        filter_state={},
        arbiter_state={},
        open_loop=False,
        provenance=collect_provenance(WallClock(), operator=None),
    )


if __name__ == "__main__":
    main()
