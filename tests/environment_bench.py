"""Gymnasium environments that others wrote, as stations in a few lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robot.environment.config import GymnasiumArmConfig
from teleop.station import LoadedStation, load_station
from tests.tiny_bundle import make_tiny_bundle

# MuJoCo's, from gymnasium itself: seven torques, a dense reward, never a success of its own
PUSHER: Mapping[str, Any] = {
    "kind": "gymnasium",
    "environment": "Pusher-v5",
    "options": {"max_episode_steps": 20},
    "action": {"kind": "actuation", "max_change": 0.5},
    "state": {"tcp_position_m": "observation[14:17]", "readings": {"everything": "observation"}},
}
# PyBullet's, from panda-gym: the hand's steps, a goal, a flag of success
PANDA: Mapping[str, Any] = {
    "kind": "gymnasium",
    "environment": "PandaPush-v3",
    "package": "panda_gym",
    "options": {"max_episode_steps": 30},
    "action": {"kind": "tcp_delta", "dims": ["x", "y", "z"], "scale": [0.05, 0.05, 0.05]},
    "state": {
        "tcp_position_m": "observation[0:3]",
        "tcp_velocity_m_s": "observation[3:6]",
        "readings": {"object_position_m": "observation[6:9]", "goal_position_m": "desired_goal"},
    },
    "success": {"info": "is_success"},
}
_SAFETY = """
[safety]
workspace_min_m = [-2.0, -2.0, -2.0]
workspace_max_m = [2.0, 2.0, 2.0]
max_speed_m_s = 1.0
max_rotation_speed_rad_s = 1.0
max_acceleration_m_s2 = 20.0
max_angular_acceleration_rad_s2 = 10.0
max_tracking_m = 0.12
max_tracking_rad = 0.5
max_tilt_rad = 0.35
joint_margin_rad = 0.0
max_joint_speed_share = 1.0
max_force_n = 500.0
gripper_min_m = 0.0
gripper_max_m = 0.08
"""
_STATION = """
name = "benchmark"
loop = {{ rate_hz = {rate_hz} }}
synchroniser = {{ max_skew_s = 0.05, max_age_s = 0.15, max_repeats = 2 }}
policy = {{ bundle = "bundle", provider = "cpu" }}
residual = {{ scale = {residual} }}
operator = {{ silence_s = 0.1 }}
episode = {{ timeout_s = 10.0 }}
"""


def arm_config(base: Mapping[str, Any], **changes: Any) -> GymnasiumArmConfig:
    """The arm's section with some of its keys replaced."""
    return GymnasiumArmConfig.model_validate({**base, **changes})


def panda_station(folder: Path, *overrides: tuple[str, str]) -> LoadedStation:
    """PandaPush-v3 with a tiny policy that moves the hand about."""
    proprio = {"tcp_position_m": 3, "object_position_m": 3, "goal_position_m": 3}
    make_tiny_bundle(folder / "bundle", cameras={}, proprio=proprio, dims=("x", "y", "z"), rate_hz=25.0)
    return _station(folder, PANDA, 25.0, 3, overrides)


def pusher_station(folder: Path, *overrides: tuple[str, str]) -> LoadedStation:
    """Pusher-v5 with a tiny policy of seven torques."""
    dims = tuple(f"actuator_{number}" for number in range(7))
    proprio = {"everything": 23}
    make_tiny_bundle(folder / "bundle", cameras={}, proprio=proprio, dims=dims, kind="actuation", rate_hz=20.0)
    return _station(folder, PUSHER, 20.0, 7, overrides)


def _station(
    folder: Path, arm: Mapping[str, Any], rate_hz: float, actions: int, overrides: tuple[tuple[str, str], ...]
) -> LoadedStation:
    path = folder / "station.toml"
    path.write_text(_STATION.format(rate_hz=rate_hz, residual=json.dumps([0.3] * actions)) + _SAFETY)
    return load_station(path, [*_toml("arm", arm), *overrides])


def _toml(key: str, value: Any) -> list[tuple[str, str]]:
    """A nested section as overrides."""
    if isinstance(value, Mapping):
        return [pair for name, part in value.items() for pair in _toml(f"{key}.{name}", part)]
    return [(key, json.dumps(value))]
