from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from perception import opencv
from perception.config import UvcCameraConfig
from perception.frame_source import FrameSource, Place
from perception.uvc_source import UvcSource
from perception.v4l2_capture import open_v4l2
from robot.clock import VirtualClock
from robot.errors import HardwareError
from tests.footage import picture, write_video
from tests.source_contract import HEIGHT, PERIOD_S, RATE_HZ, WIDTH, Device, Fault, FrameSourceContract

CONFIG = UvcCameraConfig(
    kind="uvc", name="front", device="/dev/v4l/by-id/usb-none-video-index0", height=HEIGHT, width=WIDTH,
    rate_hz=RATE_HZ, auto_exposure=True,
)  # fmt: skip
BOOTED_S = 7000.0  # when the kernel's clock of the stamps began


class FileDevice:
    """A USB camera whose pictures are those of a video, decoded by the real `cv2.VideoCapture` when a test says so.

    The times and the end of the waiting are the test's; OpenCV's V4L2 reader itself is not in it.
    """

    def __init__(self, whole: Path, half: Path, clock: VirtualClock) -> None:
        self.whole, self.half, self.clock, self.plugged = whole, half, clock, True
        self.frames: queue.Queue[tuple[int, Fault | None] | None] = queue.Queue()
        self.opened: list[FileCapture] = []

    def open(self, config: UvcCameraConfig) -> FileCapture:
        if not self.plugged:
            raise HardwareError(f"{config.device} cannot be opened as a camera")
        self.frames.put(None)  # a reader that was left waiting ends
        self.frames = queue.Queue()
        self.opened.append(FileCapture(self))
        return self.opened[-1]

    def give(self, number: int, fault: Fault | None) -> None:
        if fault is not Fault.FROZEN and self.plugged:
            self.frames.put((number, fault))

    def picture(self, number: int) -> NDArray[np.uint8]:
        return picture(number)

    def unplug(self) -> None:
        self.plugged = False
        self.frames.put(None)

    def plug(self) -> None:
        self.plugged = True


class FileCapture:
    def __init__(self, device: FileDevice) -> None:
        self.device, self.frames = device, device.frames
        self.video = cv2.VideoCapture(str(device.whole), cv2.CAP_FFMPEG)
        self.next, self.stamp_s, self.half, self.released = 0, 0.0, False, False

    def grab(self) -> bool:
        try:
            order = self.frames.get(timeout=0.5)
        except queue.Empty:
            return False
        if order is None:
            return False
        number, fault = order
        while self.next <= number:
            assert self.video.grab()
            self.next += 1
        glitch_s = {Fault.FUTURE_STAMP: 0.8, Fault.CLOCK_BACK: -0.8}.get(fault, 0.0) if fault else 0.0
        self.stamp_s, self.half = BOOTED_S + number * PERIOD_S + glitch_s, fault is Fault.WRONG_SIZE
        return True

    def retrieve(self) -> tuple[bool, Any]:
        if self.half:
            return cv2.VideoCapture(str(self.device.half), cv2.CAP_FFMPEG).read()
        return self.video.retrieve()

    def get(self, key: int) -> float:
        assert key == cv2.CAP_PROP_POS_MSEC
        return 1e3 * self.stamp_s

    def release(self) -> None:
        self.video.release()
        self.released = True


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("videos")
    whole, half = folder / "whole.avi", folder / "half.avi"
    write_video(whole, [picture(number) for number in range(120)], fourcc="FFV1")
    write_video(half, [picture(number)[: HEIGHT // 2] for number in range(2)], fourcc="FFV1")
    return whole, half


class TestUvcSource(FrameSourceContract):
    counts_lost = False  # what the kernel lost is not in the count

    @pytest.fixture(autouse=True)
    def _videos(self, videos: tuple[Path, Path]) -> None:
        self.videos = videos

    def make(self, clock: VirtualClock) -> tuple[FrameSource, Device]:
        device = FileDevice(*self.videos, clock)
        return UvcSource(CONFIG, clock=clock, open_capture=device.open), device

    def config(self) -> UvcCameraConfig:
        return CONFIG


class TestUvcSourceByArrival(TestUvcSource):
    has_clock = False

    def config(self) -> UvcCameraConfig:
        return CONFIG.model_copy(update={"stamps": "arrival"})

    def make(self, clock: VirtualClock) -> tuple[FrameSource, Device]:
        device = FileDevice(*self.videos, clock)
        return UvcSource(self.config(), clock=clock, open_capture=device.open), device


def test_a_picture_is_written_where_it_is_to_lie(videos: tuple[Path, Path]) -> None:
    device = FileDevice(*videos, VirtualClock(100.0))
    place = Place(rgb=np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with UvcSource(CONFIG, clock=device.clock, open_capture=device.open) as source:
        device.give(5, None)
        frame = source.wait(5.0, place)
        assert frame is not None
        assert frame.rgb is place.rgb
        np.testing.assert_array_equal(place.rgb, picture(5))
        assert frame.device_s == pytest.approx(BOOTED_S + 5 * PERIOD_S)


def test_leaving_closes_the_device_even_while_it_is_waited_for(videos: tuple[Path, Path]) -> None:
    device = FileDevice(*videos, VirtualClock(100.0))
    with UvcSource(CONFIG, clock=device.clock, open_capture=device.open) as source:
        assert source.wait(0.0) is None
        device.frames.put(None)
    reader = source._reader._thread
    reader.join(20.0)
    assert [capture.released for capture in device.opened] == [True]


def test_a_driver_without_stamps_is_said_and_how_to_go_on(videos: tuple[Path, Path]) -> None:
    device = FileDevice(*videos, VirtualClock(100.0))
    with UvcSource(CONFIG, clock=device.clock, open_capture=device.open) as source:
        device.opened[0].get = lambda key: 0.0  # type: ignore[method-assign]
        device.give(1, None)
        with pytest.raises(HardwareError, match="its driver gives no stamps; say stamps = 'arrival'"):
            source.wait(5.0)


def test_what_goes_wrong_inside_the_thread_comes_out_of_it(videos: tuple[Path, Path]) -> None:
    device = FileDevice(*videos, VirtualClock(100.0))
    with UvcSource(CONFIG, clock=device.clock, open_capture=device.open) as source:
        device.give(500, None)  # past the end of the file: the device's own assertion fails
        with pytest.raises(HardwareError, match="reading failed"):
            source.wait(5.0)


def test_an_error_of_opencv_is_told_in_one_line(videos: tuple[Path, Path]) -> None:
    device = FileDevice(*videos, VirtualClock(100.0))
    with UvcSource(CONFIG, clock=device.clock, open_capture=device.open) as source:

        def fail() -> tuple[bool, Any]:
            raise cv2.error("Assertion failed in function 'read'\n")

        device.opened[0].retrieve = fail  # type: ignore[method-assign]
        device.give(1, None)
        with pytest.raises(HardwareError) as caught:
            source.wait(5.0)
    assert str(caught.value).endswith("reading failed (Assertion failed in function 'read')")


def test_a_device_that_is_not_there_is_one_line_with_what_to_look_at() -> None:
    with pytest.raises(HardwareError) as caught:
        open_v4l2(CONFIG)  # the real backend
    assert str(caught.value).startswith("/dev/v4l/by-id/usb-none-video-index0 cannot be opened as a camera; check")
    assert "\n" not in str(caught.value)


def test_a_file_is_no_device() -> None:
    with pytest.raises(HardwareError, match="cannot be opened as a camera"):
        open_v4l2(CONFIG.model_copy(update={"device": "/dev/null"}))


def test_a_missing_opencv_is_one_line_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(opencv.importlib, "import_module", missing)
    with pytest.raises(HardwareError, match=r"needs OpenCV.*pip install -e '\.\[calibration\]'"):
        opencv.load_opencv()
