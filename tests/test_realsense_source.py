from __future__ import annotations

import ctypes
import itertools
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perception.config import RealSenseCameraConfig
from perception.frame_source import FrameSource, Place, RawFrame
from perception.realsense_sdk import load_realsense
from perception.realsense_source import RealSenseSource
from perception.realsense_stamps import WRAP_S, RealSenseStamps
from robot.clock import VirtualClock
from robot.errors import HardwareError
from tests.realsense_device import SERIAL, SWITCHED_ON, SoftwareRealSense, depth_mm, picture, rs
from tests.source_contract import HEIGHT, PERIOD_S, RATE_HZ, WIDTH, Device, FrameSourceContract

CONFIG = RealSenseCameraConfig(
    kind="realsense", name="front", serial=SERIAL, height=HEIGHT, width=WIDTH, rate_hz=RATE_HZ, exposure_us=12000.0,
    gain=32.0,
)  # fmt: skip


class TestColour(FrameSourceContract):
    def make(self, clock: VirtualClock) -> tuple[FrameSource, Device]:
        device = SoftwareRealSense(clock)
        return RealSenseSource(CONFIG, depth=False, clock=clock, context=device.context), device

    def config(self) -> RealSenseCameraConfig:
        return CONFIG


class TestColourAndDepth(FrameSourceContract):
    def make(self, clock: VirtualClock) -> tuple[FrameSource, Device]:
        device = SoftwareRealSense(clock)
        return RealSenseSource(self.config(), depth=True, clock=clock, context=device.context), device

    def config(self) -> RealSenseCameraConfig:
        return CONFIG.model_copy(update={"depth_stream": True})


class Opened:
    """An entered source, its device, and a clock that goes on with each frame."""

    def __init__(self, stack: ExitStack, *, depth: bool = True, **changes: object) -> None:
        self.clock = VirtualClock(100.0)
        self.device = SoftwareRealSense(self.clock)
        config = RealSenseCameraConfig.model_validate(CONFIG.model_dump() | changes)
        self.source = RealSenseSource(config, depth=depth, clock=self.clock, context=self.device.context)
        stack.enter_context(self.source)
        self.number = 0

    def next(self, place: Place | None = None) -> RawFrame | None:
        self.number += 1
        self.clock.sleep_until(100.0 + self.number * PERIOD_S)
        self.device.give(self.number, None)
        return self.source.wait(0.05, place)


@pytest.fixture
def stack() -> Any:
    with ExitStack() as stack:
        yield stack


def test_colour_and_depth_of_one_moment_come_together_in_metres_where_they_are_to_lie(stack: ExitStack) -> None:
    camera = Opened(stack)
    place = Place(rgb=np.zeros((HEIGHT, WIDTH, 3), np.uint8), depth_m=np.zeros((HEIGHT, WIDTH), np.float32))
    frames = 0
    for _ in range(30):
        frame = camera.next(place)
        if frame is not None:
            frames += 1
            number = frame.frame_id - SWITCHED_ON
            assert frame.rgb is place.rgb
            assert frame.depth_m is place.depth_m
            np.testing.assert_array_equal(frame.rgb, picture(number))
            measured = frame.depth_m[frame.depth_m > 0.0]
            # the SDK's alignment leaves out a row or column here and there
            assert measured.size > 0.85 * frame.depth_m.size
            np.testing.assert_allclose(measured, 1e-3 * depth_mm(number)[0, 0], rtol=1e-6)
            assert frame.device_s == pytest.approx(frame.frame_id * PERIOD_S, abs=1e-6)
    assert frames >= 29


def test_frames_whose_depth_is_lost_are_not_given_and_after_a_while_that_is_an_error(stack: ExitStack) -> None:
    camera = Opened(stack)
    camera.device.sends_depth = False
    assert [camera.next() for _ in range(40)] == [None] * 40
    with pytest.raises(HardwareError, match="colour and depth that never belong together"):
        [camera.next() for _ in range(40)]


def test_an_older_frame_gives_way_to_a_newer_one(stack: ExitStack) -> None:
    camera = Opened(stack, depth=False)
    for number in (1, 2, 3):
        camera.device.give(number, None)
    frame = camera.source.wait(0.05)
    assert frame is not None
    assert frame.frame_id == SWITCHED_ON + 3
    assert camera.source.wait(0.0) is None


def test_what_is_pinned_reaches_the_sensors_in_their_own_units(stack: ExitStack) -> None:
    device = Opened(
        stack, white_balance_k=5000.0, depth_exposure_us=7000.0, depth_gain=20.0, hardware_sync="slave"
    ).device
    options = rs.option
    colour = {
        options.enable_auto_exposure: 0.0, options.exposure: 120.0, options.gain: 32.0,
        options.enable_auto_white_balance: 0.0, options.white_balance: 5000.0, options.global_time_enabled: 0.0,
    }  # fmt: skip
    stereo = {
        options.enable_auto_exposure: 0.0, options.exposure: 7000.0, options.gain: 20.0,
        options.inter_cam_sync_mode: 2.0, options.global_time_enabled: 0.0,
    }  # fmt: skip
    assert {option: device.colour.get_option(option) for option in colour} == colour
    assert {option: device.stereo.get_option(option) for option in stereo} == stereo


def test_exposure_may_be_left_to_the_device(stack: ExitStack) -> None:
    device = Opened(stack, exposure_us=None, gain=None, auto_exposure=True, stamps="global").device
    for option in (rs.option.enable_auto_exposure, rs.option.global_time_enabled):
        assert device.colour.get_option(option) == device.stereo.get_option(option) == 1.0
    assert device.stereo.get_option(rs.option.inter_cam_sync_mode) == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exposure_us": 5.0}, "exposure_us is 5 (allowed 100 to 1e+06 in steps of 100); correct it"),
        ({"exposure_us": 1250.0}, "exposure_us is 1250 (allowed 100 to 1e+06 in steps of 100); correct it"),
        ({"gain": 300.0}, "gain is 300 (allowed 0 to 128 in steps of 1); correct it"),
        ({"width": 40}, "has no color of 40x24 at 30 Hz (allowed 32x12 at 30 Hz, 32x24 at 30 Hz; less on USB 2)"),
        ({"rate_hz": 60.0}, "has no color of 32x24 at 60 Hz"),
        ({"serial": "99990000"}, f"RealSense 99990000 is not connected (found ['{SERIAL}'])"),
    ],
)
def test_what_the_device_cannot_do_is_refused_with_what_it_can(
    stack: ExitStack, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(HardwareError) as caught:
        Opened(stack, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stamps_of_the_hosts_clock_are_refused_in_the_end_with_the_cure(stack: ExitStack) -> None:
    camera = Opened(stack, depth=False)
    camera.device.domain = rs.timestamp_domain.system_time
    assert [camera.next() for _ in range(30)] == [None] * 30
    with pytest.raises(HardwareError, match=r"clock 'system_time', the station says stamps = 'hardware'; the kernel"):
        camera.next()


def test_global_time_is_awaited_and_frames_before_it_are_not_used(stack: ExitStack) -> None:
    camera = Opened(stack, depth=False, stamps="global")
    assert [camera.next() for _ in range(5)] == [None] * 5
    camera.device.domain = rs.timestamp_domain.global_time
    assert camera.next() is not None


def test_without_stamps_the_arrival_counts(stack: ExitStack) -> None:
    camera = Opened(stack, depth=False, stamps="arrival")
    camera.device.domain = rs.timestamp_domain.system_time
    frame = camera.next()
    assert frame is not None
    assert frame.device_s is None
    assert frame.arrived_s == pytest.approx(camera.clock.now_s(), abs=0.06)


def test_the_devices_clock_goes_on_when_its_32_bits_are_full() -> None:
    stamps = RealSenseStamps("hardware", 30)
    first_s = WRAP_S - 1.0
    seen = []
    for k in range(60):
        shown_ms = 1e3 * ((first_s + k * PERIOD_S) % WRAP_S)
        seen.append(stamps.seconds(shown_ms, "hardware_clock", 100.0 + k * PERIOD_S))
    assert seen == pytest.approx([first_s + k * PERIOD_S for k in range(60)])
    # two rounds without a frame, as during a long pause
    late_s = stamps.seconds(5e3, "hardware_clock", 100.0 + 60 * PERIOD_S + 2 * WRAP_S + 4.0)
    assert late_s == pytest.approx(3 * WRAP_S + 5.0)


def test_a_glitch_is_not_taken_for_a_full_counter() -> None:
    stamps = RealSenseStamps("hardware", 30)
    shown_s = [10.0, 10.03, 9.0, 10.1, 11.5, 10.17]
    seen = [stamps.seconds(1e3 * s, "hardware_clock", 100.0 + k * PERIOD_S) for k, s in enumerate(shown_s)]
    assert seen == pytest.approx(shown_s)


def test_a_removed_device_is_said_at_the_next_wait(stack: ExitStack) -> None:
    clock, device = VirtualClock(100.0), SoftwareRealSense(VirtualClock(100.0))
    told: list[Any] = []

    class Listened:
        """The SDK's context; software devices are never removed by it, so that the test calls back."""

        def __init__(self, context: Any) -> None:
            self.context = context

        def query_devices(self, mask: int) -> Any:
            return self.context.query_devices(mask)

        def set_devices_changed_callback(self, call: Any) -> None:
            told.append(call)

    source = RealSenseSource(CONFIG, depth=False, clock=clock, context=lambda sdk: Listened(device.context(sdk)))
    with source:
        told[0](SimpleNamespace(was_removed=lambda other: False))
        assert source.wait(0.0) is None
        told[0](SimpleNamespace(was_removed=lambda other: other.get_info(rs.camera_info.serial_number) == SERIAL))
        with pytest.raises(HardwareError, match="was unplugged"):
            source.wait(0.0)


def test_libusb_comes_from_its_package_where_the_system_has_none() -> None:
    asked: list[str] = []

    def load(name: str) -> Any:
        asked.append(name)
        if asked == ["pyrealsense2"]:
            raise ImportError("libusb-1.0.so.0: cannot open shared object file: No such file or directory")
        return __import__(name)

    assert load_realsense(load) is rs
    assert asked == ["pyrealsense2", "libusb_package", "pyrealsense2"]
    path = Path(str(__import__("libusb_package").get_library_path()))
    assert str(path) in Path("/proc/self/maps").read_text()
    assert hasattr(ctypes.CDLL(str(path)), "libusb_init")


@pytest.mark.parametrize(
    ("missing", "what"), [("pyrealsense2", "needs pyrealsense2"), ("libusb_package", "needs libusb")]
)
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(missing: str, what: str) -> None:
    def load(name: str) -> Any:
        if name == missing:
            raise ImportError(f"No module named {name!r}")
        raise ImportError("libusb-1.0.so.0: cannot open shared object file")

    with pytest.raises(HardwareError) as caught:
        load_realsense(load)
    assert str(caught.value).startswith(what)
    assert "pip install -e '.[realsense]'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("auto", "exposure_us", "gain"), list(itertools.product([False, True], [None, 100.0], [None, 1.0]))
)
def test_exposure_is_either_pinned_or_said_to_be_automatic(
    auto: bool, exposure_us: float | None, gain: float | None
) -> None:
    values = CONFIG.model_dump() | {"auto_exposure": auto, "exposure_us": exposure_us, "gain": gain}
    decided = (auto and exposure_us is gain is None) or (not auto and None not in (exposure_us, gain))
    if decided:
        RealSenseCameraConfig.model_validate(values)
        return
    with pytest.raises(ValueError, match=r"exposure is not pinned|beside auto_exposure"):
        RealSenseCameraConfig.model_validate(values)
