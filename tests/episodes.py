"""Headers and rows for tests of recordings."""

from __future__ import annotations

import numpy as np
from pydantic import JsonValue

from policy.episode_header import EpisodeHeader, EpisodeOutcome, LabelSource, Outcome
from policy.episode_schema import EpisodeSpec, Row, seal
from policy.manifest import ActionSpec
from policy.provenance import Provenance
from robot.command import CommandKind

SPEC = EpisodeSpec(
    cameras=(("front", 9, 11), ("wrist", 8, 8)),
    proprio=(("tcp_position_m", 3), ("gripper_width_m", 1)),
    action_size=4,
    chunk_length=6,
    feature_size=5,
    joint_count=7,
)
SUCCESS = EpisodeOutcome(outcome=Outcome.SUCCESS, label_source=LabelSource.PERSON)
AWKWARD: dict[str, JsonValue] = {
    "a": 0.1 + 0.2,
    "tiny": 5e-324,
    "minus_zero": -0.0,
    "big": 1.7976931348623157e308,
    "list": [1.0, 2, None],
}


def header(episode: int = 0, spec: EpisodeSpec = SPEC, *, open_loop: bool = False) -> EpisodeHeader:
    return EpisodeHeader(
        run_id="demo-0a1b",
        episode=episode,
        started_utc="20261101T101530.123456Z",
        rate_hz=20.0,
        spec=spec,
        env_args={"env_name": "insertion", "type": 2, "env_kwargs": {}},
        station_sha256="1" * 64,
        bundle_sha256="2" * 64,
        calibrations={"front": "3" * 64},
        weights={7: "4" * 64},
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
        residual_scale=(0.3, 0.3, 0.3, 0.0),
        filter_state=AWKWARD,
        arbiter_state={"ticks": 3},
        inference_provider="CPUExecutionProvider",
        seed=11,
        layout={"block_m": [0.1, 0.2]},
        open_loop=open_loop,
        provenance=Provenance(
            commit=None,
            modified=None,
            libraries={"numpy": np.__version__},
            boot_id=None,
            cpu="test",
            monotonic_s=12.5,
            utc="20261101T101530.123456Z",
            operator="ada",
        ),
    )


def make_rows(count: int, spec: EpisodeSpec = SPEC, *, seed: int = 0) -> list[Row]:
    """Sealed rows of random bytes in every field, with sound poses and consecutive indices."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        dtype = spec.row_dtype()
        row = np.frombuffer(rng.bytes(dtype.itemsize), dtype).copy().reshape(())
        row["tick/index"] = index
        row["tick/T_base_tcp"] = np.eye(4)
        row["tick/T_base_tcp"][:3, 3] = rng.uniform(-0.01, 0.01, 3)
        row["tick/q_rad"] = rng.normal(size=spec.joint_count)
        row["tick/gripper_width_m"] = rng.uniform(0.0, 0.08)
        seal(row)
        rows.append(row)
    return rows
