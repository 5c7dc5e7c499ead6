"""A RealSense in software: the SDK's own `software_device`, in a context of the SDK's."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.realsense_sdk import load_realsense
from robot.clock import VirtualClock
from tests.source_contract import HEIGHT, PERIOD_S, RATE_HZ, WIDTH, Fault

rs: Any = load_realsense()
SERIAL = "081500001234"
SWITCHED_ON = 3000  # frames before the first that a test sees; its counters and its clock began with the first one
DEPTH_UNIT_M = 0.001
BASELINE_M = 0.0
RANGES = {  # least, most, step, default
    "exposure": (1.0, 10000.0, 1.0, 156.0),
    "gain": (0.0, 128.0, 1.0, 64.0),
    "white_balance": (2800.0, 6500.0, 10.0, 4600.0),
    "enable_auto_exposure": (0.0, 1.0, 1.0, 1.0),
    "enable_auto_white_balance": (0.0, 1.0, 1.0, 1.0),
    "global_time_enabled": (0.0, 1.0, 1.0, 1.0),
}
STEREO_RANGES = {
    "exposure": (1.0, 165000.0, 1.0, 8500.0),
    "gain": (16.0, 248.0, 1.0, 16.0),
    "enable_auto_exposure": (0.0, 1.0, 1.0, 1.0),
    "global_time_enabled": (0.0, 1.0, 1.0, 1.0),
    "inter_cam_sync_mode": (0.0, 259.0, 1.0, 0.0),
}


def picture(number: int) -> NDArray[np.uint8]:
    """What picture `number` shows: a ramp in each colour, another one in each frame."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    rgb = np.stack([200 + rows, 100 + columns, 7 * number % 100 + 0 * rows], axis=-1)
    return rgb.astype(np.uint8)


def depth_mm(number: int) -> NDArray[np.uint16]:
    return np.full((HEIGHT, WIDTH), 500 + number % 100, np.uint16)


class SoftwareRealSense:
    """What a test does at the device's end.

    Attributes:
        domain: of the stamps.
        clock_s: what the device's clock is ahead of its frame count.
        sends_depth: False: depth frames get lost.
        colour, stereo: its sensors, None where it is unplugged.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.domain, self.sends_depth = clock, rs.timestamp_domain.hardware_clock, True
        self.plugged = True
        self.colour: Any = None
        self.stereo: Any = None
        self.alive: list[Any] = []  # a context knows a software device only while somebody holds it

    def context(self, sdk: Any) -> Any:
        context = sdk.context()
        self.alive.clear()
        known = threading.Event()

        def keep(event: Any) -> None:
            devices = event.get_new_devices()
            self.alive.append([devices, *(devices[k] for k in range(devices.size()))])
            known.set()

        if self.plugged:
            device = self._device()
            context.set_devices_changed_callback(keep)
            device.add_to(context)
            self.alive.append(device)
            assert known.wait(20.0)
        return context

    def _device(self) -> Any:
        device = rs.software_device()
        device.register_info(rs.camera_info.serial_number, SERIAL)
        device.register_info(rs.camera_info.name, "D435 in software")
        self.stereo, self.colour = device.add_sensor("Stereo Module"), device.add_sensor("RGB Camera")
        self._depth_profile = self.stereo.add_video_stream(_stream(rs.stream.depth, 0, rs.format.z16, 2))
        self._colour_profile = self.colour.add_video_stream(_stream(rs.stream.color, 1, rs.format.rgb8, 3))
        half = _stream(rs.stream.color, 2, rs.format.rgb8, 3, HEIGHT // 2)
        self._half_profile = self.colour.add_video_stream(half)
        self.stereo.add_read_only_option(rs.option.depth_units, DEPTH_UNIT_M)
        for sensor, ranges in ((self.colour, RANGES), (self.stereo, STEREO_RANGES)):
            for name, (least, most, step, default) in ranges.items():
                allowed = rs.option_range()
                allowed.min, allowed.max, allowed.step, allowed.default = least, most, step, default
                sensor.add_option(getattr(rs.option, name), allowed, True)
        same = rs.extrinsics()
        same.rotation, same.translation = np.eye(3).ravel().tolist(), [BASELINE_M, 0.0, 0.0]
        self._depth_profile.register_extrinsics_to(self._colour_profile, same)
        self._colour_profile.register_extrinsics_to(self._depth_profile, same)
        self._depth_profile.register_extrinsics_to(self._half_profile, same)
        device.create_matcher(rs.matchers.dlr_c)
        return device

    def give(self, number: int, fault: Fault | None) -> None:
        if fault is Fault.FROZEN or not self.plugged:
            return
        glitch_s = {Fault.FUTURE_STAMP: 0.8, Fault.CLOCK_BACK: -0.8}.get(fault, 0.0) if fault else 0.0
        stamp_ms = 1e3 * ((SWITCHED_ON + number) * PERIOD_S + glitch_s)
        if self.sends_depth:
            self._send(self.stereo, self._depth_profile, depth_mm(number), number, stamp_ms)
        if fault is Fault.WRONG_SIZE:
            self._send(self.colour, self._half_profile, picture(number)[: HEIGHT // 2], number, stamp_ms)
        else:
            self._send(self.colour, self._colour_profile, picture(number), number, stamp_ms)

    def _send(self, sensor: Any, profile: Any, pixels: NDArray[Any], number: int, stamp_ms: float) -> None:
        frame = rs.software_video_frame()
        frame.pixels = np.ascontiguousarray(pixels)
        frame.bpp = pixels.itemsize * (pixels.shape[2] if pixels.ndim == 3 else 1)
        frame.stride = WIDTH * frame.bpp
        frame.timestamp, frame.domain, frame.frame_number = stamp_ms, self.domain, SWITCHED_ON + number
        frame.profile = profile.as_video_stream_profile()
        frame.depth_units = DEPTH_UNIT_M
        sensor.on_video_frame(frame)

    def picture(self, number: int) -> NDArray[np.uint8]:
        return picture(number)

    def unplug(self) -> None:
        self.plugged = False

    def plug(self) -> None:
        self.plugged = True


def _stream(kind: Any, uid: int, pixels: Any, bytes_per_pixel: int, height: int = HEIGHT) -> Any:
    stream = rs.video_stream()
    stream.type, stream.index, stream.uid, stream.fmt, stream.bpp = kind, 0, uid, pixels, bytes_per_pixel
    stream.width, stream.height, stream.fps = WIDTH, height, round(RATE_HZ)
    lens = rs.intrinsics()
    lens.width, lens.height, lens.fx, lens.fy = WIDTH, height, 30.0, 30.0
    lens.ppx, lens.ppy = (WIDTH - 1) / 2.0, (HEIGHT - 1) / 2.0
    lens.model, lens.coeffs = rs.distortion.none, [0.0] * 5
    stream.intrinsics = lens
    return stream
