"""A small bundle whose policy runs elsewhere, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policy.remote_bundle import RemoteDescription, write_remote_bundle
from tests.tiny_bundle import CAMERAS, DIMS, tiny_manifest

CHUNK, EXECUTE = 8, 6


def description(**changes: Any) -> RemoteDescription:
    """What is known of a remote policy with the tiny bundle's sizes; its gripper is 0 open and 1 closed."""
    tiny = tiny_manifest(chunk_length=CHUNK, execute_steps=EXECUTE)
    fields = {name: tiny[name] for name in ("rate_hz", "cameras", "proprio", "action", "chunk_length", "execute_steps")}
    remote = {
        "images": {name: f"observation/{name}" for name in CAMERAS},
        "state": {"observation/tcp": ["tcp_position_m"], "observation/gripper": ["gripper_width_m"]},
        "state_scale": {"gripper_width_m": -12.5},
        "state_offset": {"gripper_width_m": 1.0},
        "scale": [*([0.5] * (len(DIMS) - 1)), -2.0],
        "offset": [*([0.0] * (len(DIMS) - 1)), 1.0],
    }
    return RemoteDescription.model_validate(
        {"name": "remote", **fields, "feature_size": 8, "remote": remote | changes.pop("remote", {}), **changes}
    )


def make_remote_bundle(folder: Path, **changes: Any) -> Path:
    """Write it to `folder` and return it."""
    return write_remote_bundle(folder, description(**changes))
