"""What a RealSense is set to before it streams, read back to see that it took it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perception.config import RealSenseCameraConfig
from robot.errors import HardwareError

_SYNC_MODES = {"off": 0, "master": 1, "slave": 2, "full_slave": 3}
# The colour sensor of its own takes exposure in steps of 100 us, as USB video devices do; the stereo module in us.
_COLOUR_EXPOSURE_US, _STEREO_EXPOSURE_US = 100.0, 1.0


def set_options(rs: Any, config: RealSenseCameraConfig, sensors: Sequence[Any], name: str) -> None:
    """Pin exposure, gain and white balance, choose the clock, and set the synchronisation between cameras.

    Args:
        rs: the SDK's module.
        config: section of the station.
        sensors: of the device, not yet streaming.
        name: of the device, for messages.

    Raises:
        HardwareError: it has no such setting, or does not take the value.
    """
    stereo = next((sensor for sensor in sensors if _gives(sensor, rs.stream.depth)), None)
    colour = next(sensor for sensor in sensors if _gives(sensor, rs.stream.color))
    own = colour is not stereo
    options = rs.option
    for sensor in sensors:
        if sensor.supports(options.global_time_enabled):
            _set(sensor, options.global_time_enabled, float(config.stamps == "global"), f"{name}: global time")
    unit_us = _COLOUR_EXPOSURE_US if own else _STEREO_EXPOSURE_US
    _expose(options, colour, config.exposure_us, config.gain, unit_us, name)
    if own and stereo is not None and (config.depth_exposure_us is not None or config.depth_gain is not None):
        _expose(options, stereo, config.depth_exposure_us, config.depth_gain, _STEREO_EXPOSURE_US, f"{name} depth")
    if colour.supports(options.enable_auto_white_balance):
        automatic = config.white_balance_k is None
        _set(colour, options.enable_auto_white_balance, float(automatic), f"{name}: automatic white balance")
    if config.white_balance_k is not None:
        _set(colour, options.white_balance, config.white_balance_k, f"{name}: white_balance_k")
    mode = _SYNC_MODES[config.hardware_sync]
    if stereo is not None and stereo.supports(options.inter_cam_sync_mode):
        _set(stereo, options.inter_cam_sync_mode, float(mode), f"{name}: hardware_sync")
    elif mode:
        raise HardwareError(f"{name} has no synchronisation between cameras; say hardware_sync = 'off'")


def _gives(sensor: Any, stream: Any) -> bool:
    return any(profile.stream_type() == stream for profile in sensor.get_stream_profiles())


def _expose(
    options: Any, sensor: Any, exposure_us: float | None, gain: float | None, unit_us: float, name: str
) -> None:
    """Set exposure and gain, or leave both to the device."""
    pinned = exposure_us is not None or gain is not None
    if sensor.supports(options.enable_auto_exposure):
        _set(sensor, options.enable_auto_exposure, float(not pinned), f"{name}: auto_exposure")
    if exposure_us is not None:
        _set(sensor, options.exposure, exposure_us / unit_us, f"{name}: exposure_us", unit_us)
    if gain is not None:
        _set(sensor, options.gain, gain, f"{name}: gain")


def _set(sensor: Any, option: Any, value: float, what: str, unit: float = 1.0) -> None:
    """Set an option and read it back; `unit` is what 1 of the device's is in the station's."""
    if not sensor.supports(option):
        raise HardwareError(f"{what} is {value * unit:g}, and the device has no such setting; leave it out")
    allowed = sensor.get_option_range(option)
    steps = (value - allowed.min) / allowed.step if allowed.step > 0.0 else 0.0
    if not allowed.min <= value <= allowed.max or abs(steps - round(steps)) > 1e-3:
        raise HardwareError(
            f"{what} is {value * unit:g} (allowed {allowed.min * unit:g} to {allowed.max * unit:g} in steps of"
            f" {allowed.step * unit:g}); correct it"
        )
    sensor.set_option(option, value)
    got = sensor.get_option(option)
    if abs(got - value) > max(0.5 * allowed.step, 1e-3):
        raise HardwareError(f"{what} is {value * unit:g}, the device took {got * unit:g}; choose that, or another")
