"""The driver of an Intel RealSense: colour, and depth aligned to it, through librealsense (SDK 2.5x and newer)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np

from perception.config import RealSenseCameraConfig
from perception.frame_source import Place, RawFrame
from perception.realsense_options import set_options
from perception.realsense_sdk import load_realsense
from perception.realsense_stamps import RealSenseStamps
from robot.clock import Clock, WallClock
from robot.errors import HardwareError

_ANY_DEVICE = 0x1FF  # all product lines, software devices among them
_PATIENCE_S = 1.0  # for frames that are not as they should be


class RealSenseSource:
    """Opens the camera with a serial number and gives the newest frame that has arrived; older ones are lost.

    Depth and colour are paired by the SDK's syncer; a frame without its pair is lost. Depth is aligned to colour, 0
    where there is none. The id is the device's count of colour frames, so that lost ones show.

    Args:
        config: section of the station.
        depth: whether depth is wanted.
        clock: the host's.
        context: makes the SDK's context of its module.
    """

    def __init__(
        self,
        config: RealSenseCameraConfig,
        *,
        depth: bool,
        clock: Clock | None = None,
        context: Callable[[Any], Any] = lambda sdk: sdk.context(),
    ) -> None:
        self._config, self._depth, self._clock = config, depth, clock or WallClock()
        self._make_context = context
        self._streaming: list[Any] = []

    def __enter__(self) -> Self:
        self._rs = load_realsense()
        self._stamps = RealSenseStamps(self._config.stamps, round(_PATIENCE_S * self._config.rate_hz))
        self._unpaired = 0
        try:
            self._open()
        except RuntimeError as error:
            self._close()
            raise HardwareError(
                f"{self._name} cannot be opened ({_line(error)}); is another program using it?"
            ) from None
        except HardwareError:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def wait(self, timeout_s: float, place: Place | None = None) -> RawFrame | None:
        """Return the next frame, written into `place` if there is one; None when none came in time.

        Raises:
            HardwareError: it was unplugged, or what comes can never be used.
        """
        deadline_s = self._clock.now_s() + timeout_s
        while True:
            left_s = max(0.0, deadline_s - self._clock.now_s())
            try:
                came, frames = self._queue_wait(round(1e3 * left_s))
                if came:
                    frame = self._frame(frames, place)
                    if frame is not None:
                        return frame
            except RuntimeError as error:
                raise HardwareError(f"{self._name} failed ({_line(error)}); check its cable") from None
            if self._removed.is_set():
                raise HardwareError(f"{self._name} was unplugged; plug it in again")
            if not came or self._clock.now_s() >= deadline_s:
                return None

    @property
    def _name(self) -> str:
        return f"RealSense {self._config.serial}"

    def _open(self) -> None:
        rs, config = self._rs, self._config
        # kept: a software device is known to its context only while somebody holds it
        self._context = self._make_context(rs)
        device = self._find()
        self._removed = removed = threading.Event()

        def changed(event: Any) -> None:
            if event.was_removed(device):
                removed.set()

        self._context.set_devices_changed_callback(changed)
        wanted = [rs.stream.color, rs.stream.depth] if self._depth else [rs.stream.color]
        by_sensor: list[tuple[Any, list[Any]]] = []
        for sensor in device.query_sensors():
            profiles = [self._profile(sensor, stream) for stream in wanted]
            by_sensor.append((sensor, [profile for profile in profiles if profile is not None]))
        opened = [(sensor, profiles) for sensor, profiles in by_sensor if profiles]
        found = [profile.stream_type() for _, profiles in opened for profile in profiles]
        for stream in wanted:
            if stream not in found:
                raise HardwareError(self._no_profile(device, stream))
        # depth is the sensor that drives the synchronisation line, whether its pictures are wanted or not
        set_options(rs, config, [sensor for sensor, _ in by_sensor], self._name)
        if self._depth:
            queue = rs.syncer(1)
            self._queue_wait = queue.try_wait_for_frames
            self._align = rs.align(rs.stream.color)
        else:
            queue = rs.frame_queue(1)
            self._queue_wait = queue.try_wait_for_frame
        for sensor, profiles in opened:
            sensor.open(profiles)
            self._streaming.append(sensor)
            sensor.start(queue)

    def _close(self) -> None:
        streaming, self._streaming = self._streaming, []
        for sensor in streaming:
            for end in (sensor.stop, sensor.close):
                try:
                    end()
                except RuntimeError:
                    continue  # an unplugged one cannot be stopped; nothing of it goes on
        self._context = self._queue_wait = self._align = None

    def _find(self) -> Any:
        """The device with the serial number. Raises HardwareError where it is not connected."""
        rs = self._rs
        serials = []
        for device in self._context.query_devices(_ANY_DEVICE):
            serial = (
                device.get_info(rs.camera_info.serial_number) if device.supports(rs.camera_info.serial_number) else ""
            )
            if serial == self._config.serial:
                return device
            serials.append(serial)
        raise HardwareError(
            f"{self._name} is not connected (found {sorted(serials) or 'none'}); check cable, power and `serial`"
        )

    def _profile(self, sensor: Any, stream: Any) -> Any | None:
        """The sensor's mode for a stream at the station's rate; of depth that of the size nearest to colour's."""
        rs, config = self._rs, self._config
        wanted = rs.format.rgb8 if stream == rs.stream.color else rs.format.z16
        best, least = None, np.inf
        for profile in sensor.get_stream_profiles():
            if profile.stream_type() != stream or profile.format() != wanted or profile.fps() != config.rate_hz:
                continue
            video = profile.as_video_stream_profile()
            off = abs(video.width() - config.width) + abs(video.height() - config.height)
            if off < least and (off == 0 or stream != rs.stream.color):
                best, least = profile, off
        return best

    def _no_profile(self, device: Any, stream: Any) -> str:
        config = self._config
        modes = sorted(
            {
                f"{profile.as_video_stream_profile().width()}x{profile.as_video_stream_profile().height()}"
                f" at {profile.fps()} Hz"
                for sensor in device.query_sensors()
                for profile in sensor.get_stream_profiles()
                if profile.stream_type() == stream
            }
        )
        return (
            f"{self._name} has no {stream.name} of {config.width}x{config.height} at {config.rate_hz:g} Hz (allowed"
            f" {', '.join(modes) or 'none'}; less on USB 2); change width, height or rate_hz"
        )

    def _frame(self, frames: Any, place: Place | None) -> RawFrame | None:
        """What came in the units of ours; None for what must not be used."""
        colour, depth = frames, None
        if self._depth:
            if not (frames.get_color_frame() and frames.get_depth_frame()):
                self._unpaired += 1
                if self._unpaired > 2.0 * _PATIENCE_S * self._config.rate_hz:
                    raise HardwareError(f"{self._name} gives colour and depth that never belong together; open it anew")
                return None
            self._unpaired = 0
            colour = frames.get_color_frame()
        arrived_s = self._clock.now_s()
        device_s = None
        if self._config.stamps != "arrival":
            domain = colour.get_frame_timestamp_domain().name
            device_s = self._stamps.seconds(colour.get_timestamp(), domain, arrived_s)
            if device_s is None:
                return None
        number = colour.get_frame_number()
        if self._depth:
            depth = self._align.process(frames).get_depth_frame()
        rgb = np.asanyarray(colour.get_data())
        if place is not None and place.rgb.shape == rgb.shape:
            place.rgb[...] = rgb
            rgb = place.rgb
        else:
            rgb = rgb.copy()  # the SDK takes its memory back
        depth_m = None
        if depth is not None:
            raw = np.asanyarray(depth.get_data())
            there = place.depth_m if place is not None and place.depth_m is not None else None
            out = there if there is not None and there.shape == raw.shape else np.empty(raw.shape, np.float32)
            depth_m = np.multiply(raw, np.float32(depth.get_units()), out=out, dtype=np.float32)
        return RawFrame(frame_id=number, arrived_s=arrived_s, device_s=device_s, rgb=rgb, depth_m=depth_m)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
