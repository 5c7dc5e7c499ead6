from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from perception.camera_process import CameraProcessConfig, make_source, serve
from perception.config import (
    LiveCamera,
    PatternCameraConfig,
    PlaybackCameraConfig,
    RealSenseCameraConfig,
    SimulatedCameraConfig,
    UvcCameraConfig,
)
from perception.faulty_source import CameraFault
from perception.frame_publisher import FramePublisher
from perception.frame_ring import FrameLayout, FrameRing, PublishedStamp
from perception.frame_source import Place, RawFrame
from perception.pattern_source import PatternSource, camera_id, pattern, verify_pattern
from perception.playback_source import PlaybackSource
from perception.realsense_source import RealSenseSource
from perception.shared_camera import SharedCamera
from perception.uvc_source import UvcSource
from robot.clock import VirtualClock
from robot.errors import HardwareError
from robot.process_board import ProcessBoard
from tests.contracts import newest
from tests.footage import picture, write_video

ROOT = Path(__file__).parents[1]
LONGEST_S = 60.0  # a safety net, not a claim
# fast and large enough that a kill at any time has a fair chance to hit a frame half written
FAST = PatternCameraConfig(kind="pattern", name="front", height=480, width=640, rate_hz=200.0, drift_ppm=50.0)
SMALL = PatternCameraConfig(kind="pattern", name="front", height=24, width=32, rate_hz=100.0, reconnect_s=0.3)


def until(value: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LONGEST_S
    while not value():
        assert time.monotonic() < deadline_s, "it never came"


def holders(memory: os.stat_result) -> set[str]:
    """Ids of the processes that have this memory open."""
    found = set()
    for process in Path("/proc").iterdir():
        with suppress(OSError):  # no process, or gone meanwhile
            for file in (process / "fd").iterdir():
                with suppress(FileNotFoundError):
                    if os.path.samestat(file.stat(), memory):
                        found.add(process.name)
    return found


class Station:
    """A board and the ring of one camera, on which its process can be started again and again."""

    def __init__(self, config: LiveCamera) -> None:
        self.config = config
        self.ring = FrameRing.new(FrameLayout.of(config))
        self.board = ProcessBoard.new(1)
        self.camera = SharedCamera(self.ring)

    @contextmanager
    def process(self) -> Iterator[subprocess.Popen[str]]:
        told = CameraProcessConfig(camera=self.config).model_dump_json()
        files = {"--ring": self.ring.file, "--board": self.board.file}
        words = [word for name, file in files.items() for word in (name, str(file))]
        command = [sys.executable, "-m", "perception.camera_process", "--config", told, *words]
        command += ["--place", "0", "--parent", str(os.getpid())]
        with subprocess.Popen(
            command, pass_fds=list(files.values()), cwd=ROOT, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def newest(self) -> PublishedStamp | None:
        return next(self.ring.newest_first(), None)

    def until_published(self, more: int = 1) -> None:
        count = self.ring.count
        until(lambda: self.ring.count >= count + more)

    def show(self, fault: CameraFault, amount: float = 0.0) -> None:
        self.board.places["fault_value"][0] = amount
        self.board.places["fault"][0] = fault

    def close(self) -> None:
        self.ring.close()
        self.board.close()


@pytest.fixture
def station() -> Iterator[Station]:
    with closing(Station(SMALL)) as station:
        yield station


def test_the_process_publishes_whole_pictures_at_the_rate_and_says_when_they_were_taken(station: Station) -> None:
    with station.process():
        station.until_published(60)
        frame = newest(station.camera, time.monotonic())
        assert frame is not None
        found = verify_pattern(frame.rgb)
        assert found is not None
        assert found[0] == camera_id("front")
        stamps = station.ring.stamps(8)
        for stamp in stamps:
            assert stamp.captured_s <= stamp.arrived_s <= stamp.published_s <= time.monotonic()
            assert 0.0 < stamp.uncertainty_s < 0.1
        spacing_s = np.diff([stamp.captured_s for stamp in stamps]) / np.diff([stamp.frame_id for stamp in stamps])
        assert np.median(spacing_s) == pytest.approx(1.0 / SMALL.rate_hz, rel=0.02)
        assert station.board.places["ready"][0] == 1


def test_sigterm_ends_the_process_in_order(station: Station) -> None:
    with station.process() as process:
        station.until_published()
        process.terminate()
        assert process.wait(LONGEST_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_killed_camera_is_started_anew_on_the_same_ring_and_goes_on_with_rising_ids() -> None:
    with closing(Station(FAST)) as station:
        memory = os.fstat(station.ring.file)
        assert str(os.getpid()) in holders(memory)
        last: PublishedStamp | None = None
        for _ in range(4):
            with station.process() as process:
                station.until_published(15)
                process.send_signal(signal.SIGKILL)
                process.wait()
            stamps = station.ring.stamps(8)
            assert len(stamps) >= 7  # the one half written is lost, no other
            for stamp in stamps:
                frame = station.camera.frame(stamp)
                assert frame is not None
                found = verify_pattern(frame.rgb)
                assert found is not None
                assert found[0] == camera_id("front")
            assert np.all(np.diff([stamp.frame_id for stamp in stamps]) > 0)
            assert np.all(np.diff([stamp.captured_s for stamp in stamps]) > 0.0)
            if last is not None:
                assert stamps[-1].frame_id > last.frame_id
                assert stamps[-1].captured_s > last.captured_s
            last = stamps[-1]
    assert holders(memory) == set(), "memory without a name is gone with the last process that has it"
    assert not [path for path in Path("/dev/shm").iterdir() if "handrail" in path.name]


def test_a_camera_that_stands_still_leaves_the_reader_unblocked_and_goes_on_later() -> None:
    with closing(Station(FAST)) as station, station.process() as process:
        station.until_published(5)
        for _ in range(10):
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            before = station.newest()
            assert before is not None
            for _ in range(50):
                frame = newest(station.camera, time.monotonic())
                assert frame is not None
                assert frame.frame_id == before.frame_id
                assert verify_pattern(frame.rgb) is not None
            process.send_signal(signal.SIGCONT)
            station.until_published()


def test_a_silent_device_is_opened_anew_while_the_process_goes_on_beating(station: Station) -> None:
    with station.process() as process:
        station.until_published()
        station.show(CameraFault.SILENT)
        assert process.stderr is not None
        assert "camera 'front': no usable frame for 0.3 s; opening it again" in process.stderr.readline()
        beat_s = float(station.board.places["beat_s"][0])
        until(lambda: station.board.places["beat_s"][0] > beat_s)
        station.show(CameraFault.NONE)
        station.until_published(5)
        assert process.poll() is None


def test_a_device_that_is_gone_is_looked_for_until_it_is_back(station: Station) -> None:
    with station.process() as process:
        station.until_published()
        station.show(CameraFault.GONE)
        assert process.stderr is not None
        assert "camera 'front': the device is gone" in process.stderr.readline()
        before = station.newest()
        station.show(CameraFault.NONE)
        station.until_published(5)
        after = station.newest()
        assert before is not None
        assert after is not None
        assert after.frame_id > before.frame_id
        assert process.poll() is None


@pytest.mark.parametrize(
    ("fault", "amount", "reason"),
    [
        (CameraFault.WRONG_SIZE, 0.0, "it is (12, 32, 3) uint8, the station says (24, 32, 3) uint8"),
        (CameraFault.OUT_OF_ORDER, 0.0, "its id goes back"),
        (CameraFault.JUMPING_CLOCK, 0.8, "its stamp is"),
    ],
)
def test_frames_of_a_faulty_device_are_refused_and_it_is_said(
    station: Station, fault: CameraFault, amount: float, reason: str
) -> None:
    with station.process() as process:
        station.until_published(20)
        station.show(fault, amount)
        assert process.stderr is not None
        assert reason in process.stderr.readline()
        station.show(CameraFault.NONE)
        station.until_published(20)
        stamps = station.ring.stamps(8)
        assert np.all(np.diff([stamp.frame_id for stamp in stamps]) > 0)
        assert np.all(np.diff([stamp.captured_s for stamp in stamps]) > 0.0)
        assert all(stamp.captured_s <= stamp.arrived_s for stamp in stamps)


def test_four_cameras_are_never_mixed_up() -> None:
    configs = [SMALL.model_copy(update={"name": name}) for name in ("front", "wrist", "left", "right")]
    with ExitStack() as stack:
        stations = [stack.enter_context(closing(Station(config))) for config in configs]
        for station in stations:
            stack.enter_context(station.process())
        for station in stations:
            station.until_published(10)
            frame = newest(station.camera, time.monotonic())
            assert frame is not None
            assert frame.camera == station.config.name
            found = verify_pattern(frame.rgb)
            assert found is not None
            assert found[0] == camera_id(station.config.name)


def test_a_ring_of_another_camera_is_refused(station: Station) -> None:
    station.config = SMALL.model_copy(update={"width": 48})
    with station.process() as process:
        assert process.wait(LONGEST_S) == 1
        assert process.stderr is not None
        assert "its ring has 9 records of" in process.stderr.read()


class ScriptedSource:
    """A device on a virtual clock: `script` says for each opening how many frames it gives before it fails.

    It fails with half a picture in the place that it was given.
    """

    def __init__(self, clock: VirtualClock, script: list[int]) -> None:
        self.clock, self.script = clock, script
        self.opened_s: list[float] = []
        self.left = 0

    def __enter__(self) -> Self:
        self.opened_s.append(self.clock.now_s())
        self.left = self.script.pop(0)
        if self.left < 0:
            raise HardwareError("it cannot be opened")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def wait(self, timeout_s: float, place: Place | None = None) -> RawFrame | None:
        assert place is not None
        if self.left == 0:
            place.rgb[:12] = 255
            raise HardwareError("the cable is out")
        self.left -= 1
        self.clock.sleep_until(self.clock.now_s() + timeout_s)
        rgb = pattern(1, 100 - self.left, (24, 32), place.rgb)
        return RawFrame(frame_id=100 - self.left, arrived_s=self.clock.now_s(), device_s=None, rgb=rgb)


class Watch:
    """Stops once the script is at its end, and notes the longest time without a beat."""

    def __init__(self, source: ScriptedSource) -> None:
        self.source, self.beats_s = source, [source.clock.now_s()]

    def beat(self) -> None:
        self.beats_s.append(self.source.clock.now_s())

    def ready(self) -> None:
        self.beat()

    @property
    def stopping(self) -> bool:
        return not self.source.script and self.source.left <= 0


def run(script: list[int]) -> tuple[ScriptedSource, Watch, list[str], list[int]]:
    """Serve it; the source, how it was watched, what was said, and the ids that the pictures in the ring bear."""
    clock, said = VirtualClock(100.0), list[str]()
    source = ScriptedSource(clock, script)
    watch = Watch(source)
    with closing(FrameRing.new(FrameLayout.of(SMALL))) as ring:
        publisher = FramePublisher(ring, SMALL, said.append)
        serve(source, publisher, watch, reconnect_s=1.0, clock=clock, say=said.append)
        shown = []
        for stamp in ring.stamps(ring.count):
            full = np.empty((24, 32, 3), np.uint8)
            assert ring.full(stamp.number, full)
            found = verify_pattern(full)
            assert found is not None
            shown.append(found[1])
        return source, watch, said, shown


def test_pauses_between_openings_grow_to_two_seconds_and_begin_anew_after_a_frame() -> None:
    source, watch, said, shown = run([-1, -1, -1, -1, -1, -1, -1, 1, -1, 1])
    pauses_s = np.diff(source.opened_s)
    assert pauses_s == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 0.15, 0.2])
    assert np.diff(watch.beats_s).max() <= 0.05 + 1e-9
    assert len(shown) == 2
    assert said[0] == "it cannot be opened; opening it again in 0.1 s"


def test_a_device_that_fails_in_the_middle_of_a_picture_leaves_the_ring_whole() -> None:
    _, _, said, shown = run([2, 1, 3, 2])
    assert said.count("the cable is out; opening it again in 0.1 s") == 3
    assert shown == [99, 100, 100, 98, 99, 100, 99, 100]


SIZE = {"height": 24, "width": 32, "rate_hz": 30.0}
PLAYBACK = PlaybackCameraConfig(kind="playback", name="front", file="front.avi", **SIZE)
REALSENSE = RealSenseCameraConfig(
    kind="realsense", name="front", serial="081500001234", exposure_us=8000.0, gain=64.0, **SIZE
)
UVC = UvcCameraConfig(kind="uvc", name="front", device="/dev/v4l/by-id/usb-none", auto_exposure=True, **SIZE)


@pytest.mark.parametrize(
    ("camera", "driver"),
    [(SMALL, PatternSource), (PLAYBACK, PlaybackSource), (REALSENSE, RealSenseSource), (UVC, UvcSource)],
)
def test_the_config_comes_through_its_json_and_says_which_driver(camera: LiveCamera, driver: type) -> None:
    config = CameraProcessConfig(camera=camera, seed=7)
    assert CameraProcessConfig.model_validate_json(config.model_dump_json()) == config
    assert json.loads(config.model_dump_json())["camera"]["kind"] == camera.kind
    assert isinstance(make_source(config, None), driver)


def test_a_camera_that_plays_a_video_goes_on_from_the_end_to_the_beginning(tmp_path: Path) -> None:
    write_video(tmp_path / "front.avi", [picture(k) for k in range(12)], fourcc="FFV1")
    config = PLAYBACK.model_copy(update={"file": str(tmp_path / "front.avi"), "reconnect_s": 60.0})
    with closing(Station(config)) as station, station.process():
        station.until_published(20)
        stamps = station.ring.stamps(8)
        full = np.empty((24, 32, 3), np.uint8)
        first = None  # number of the picture whose frame has id 0; some may be lost while the process starts
        for stamp in stamps:
            assert station.ring.full(stamp.number, full)
            number = int(full[0, 0, 2]) // 7
            np.testing.assert_array_equal(full, picture(number))
            first = (number - stamp.frame_id) % 12 if first is None else first
            assert (number - stamp.frame_id) % 12 == first
        spacing_s = np.diff([stamp.captured_s for stamp in stamps]) / np.diff([stamp.frame_id for stamp in stamps])
        assert np.median(spacing_s) == pytest.approx(1.0 / 30.0, rel=0.05)


@pytest.mark.parametrize(
    ("camera", "line"),
    [(REALSENSE, "RealSense 081500001234 is not connected"), (UVC, "/dev/v4l/by-id/usb-none cannot be opened")],
)
def test_a_device_that_is_not_there_is_said_and_looked_for_while_the_process_beats(
    camera: LiveCamera, line: str
) -> None:
    with closing(Station(camera)) as station, station.process() as process:
        assert process.stderr is not None
        assert f"camera 'front': {line}" in process.stderr.readline()
        beat_s = float(station.board.places["beat_s"][0])
        until(lambda: station.board.places["beat_s"][0] > beat_s)
        assert process.poll() is None


def test_a_simulated_camera_needs_a_world() -> None:
    front = SimulatedCameraConfig(
        kind="simulated", name="front", mount="base", eye_m=(0.45, 0.0, 0.9), target_m=(0.45, 0.0, 0.0),
        up=(1.0, 0.0, 0.0), height=24, width=32, vertical_fov_deg=50.0, rate_hz=20.0,
    )  # fmt: skip
    with pytest.raises(HardwareError, match="is simulated and was given no world"):
        make_source(CameraProcessConfig(camera=front), None)
