"""What one tick is on disk: the fields of a row, their types and where each lies in the HDF5 file.

A row is one element of a numpy structured array, so that it crosses to the recorder process as plain
bytes (nothing is pickled) and every field becomes one dataset. docs/episode_format.md says what each means.
"""

from __future__ import annotations

import zlib
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from robot.strict import Strict

SCHEMA_VERSION = 2
DIGEST_FIELD = "tick/row_digest"
DELAY_WINDOW = 16  # measured inference delays that a row keeps
STAGES = ("state", "observe", "encode", "act", "residual", "arbitrate", "filter", "send", "record")

Row = NDArray[np.void]
Fields = dict[str, tuple[str, tuple[int, ...]]]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Pixels = Annotated[int, Field(ge=1, le=16384)]
Size = Annotated[int, Field(ge=1, le=65536)]


class EpisodeSpec(Strict):
    """Sizes that fix the row.

    Attributes:
        cameras: (name, height, width) of each policy image.
        proprio: (key, size) of each proprioception key.
        action_size: A.
        chunk_length: H.
        feature_size: F.
        joint_count: N, 0 for an arm known by its TCP only.
        asynchronous: chunks are asked for ahead of time; a row then also holds requests and answers.
        reward_model: a reward model looks on; a row then also holds what it said.
        cloud_points: N of the fused view's point cloud, 0 without one; a row then also holds the newest.
        readings: (name, size) of what the arm measures besides.
        task_reward: the task gives a reward of its own for each step; a row then also holds it.
        wrench: the arm estimates the wrench at its TCP; a row then also holds it.
    """

    cameras: tuple[tuple[Name, Pixels, Pixels], ...]
    proprio: tuple[tuple[Name, Size], ...]
    action_size: Size
    chunk_length: Size
    feature_size: Size
    joint_count: Annotated[int, Field(ge=0, le=64)]
    asynchronous: bool = False
    reward_model: bool = False
    cloud_points: Annotated[int, Field(ge=0, le=65536)] = 0
    readings: tuple[tuple[Name, Size], ...] = ()
    task_reward: bool = False
    wrench: bool = False

    def fields(self) -> Fields:
        """Dataset path below /data/demo_0 -> (dtype, shape of one row)."""
        actions, joints, cameras = (self.action_size,), (self.joint_count,), (len(self.cameras),)
        fields: Fields = {f"obs/{name}_image": ("u1", (height, width, 3)) for name, height, width in self.cameras}
        fields |= {f"obs/{key}": ("f4", (size,)) for key, size in self.proprio}
        fields |= {
            "actions": ("f4", actions),  # decided, normalised
            "rewards": ("f4", ()),
            "dones": ("u1", ()),  # terminated or truncated, for robomimic-style readers
            "terminated": ("u1", ()),
            "truncated": ("u1", ()),
            # when
            "tick/index": ("i8", ()),
            "tick/start_s": ("f8", ()),
            "tick/end_s": ("f8", ()),
            "tick/stage_ms": ("f4", (len(STAGES),)),
            "tick/due_s": ("f8", ()),  # when the command is to be reached
            "tick/deadline_missed": ("u1", ()),
            "tick/overrun": ("u1", ()),  # three missed in a row: holds
            # frames
            "tick/captured_s": ("f8", cameras),
            "tick/arrived_s": ("f8", cameras),
            "tick/uncertainty_s": ("f8", cameras),  # of captured_s, one standard deviation
            "tick/frame_id": ("i8", cameras),
            "tick/skew_s": ("f8", ()),
            "tick/verdict": ("i1", ()),
            # arm at the tick's start
            "tick/state_s": ("f8", ()),
            "tick/q_rad": ("f8", joints),
            "tick/dq_rad_s": ("f8", joints),
            "tick/T_base_tcp": ("f8", (4, 4)),
            "tick/tcp_velocity": ("f8", (6,)),
            "tick/gripper_width_m": ("f8", ()),
            "tick/force_n": ("f8", ()),  # NaN where the arm cannot tell, infinite where it tells no number
            "tick/arm_fault": ("u1", ()),
            "tick/proprio_s": ("f8", ()),  # the moment whose proprioception it is
            # states that it was interpolated from, NaN where it is the tick's own: time, T_base_tcp row by row,
            # joint positions, joint velocities, TCP velocity, gripper width
            "tick/arm_around": ("f8", (2, 24 + 2 * self.joint_count)),
            # the person's device
            "tick/human_twist": ("f8", (6,)),
            "tick/human_gripper": ("f8", ()),  # NaN: keep
            "tick/engaged": ("u1", ()),
            "tick/events": ("i4", ()),
            "tick/polled_s": ("f8", ()),
            "tick/connected": ("u1", ()),
            # the voices
            "tick/features": ("f4", (self.feature_size,)),
            "tick/chunk": ("f4", (self.chunk_length, self.action_size)),
            "tick/chunk_tick": ("i8", ()),  # tick that requested the chunk in force, -1: none
            "tick/policy_failed": ("u1", ()),  # it raised: no features, no proposal
            "tick/base": ("f4", actions),  # NaN: no proposal
            "tick/noise": ("f4", actions),
            "tick/residual": ("f4", actions),  # with noise, as added
            "tick/gate": ("f4", (2,)),  # conservative value of base, of base + residual; NaN: not asked
            "tick/gate_open": ("u1", ()),
            "tick/gate_forced": ("u1", ()),  # scheduled pass of a closed gate
            "tick/residual_version": ("i8", ()),
            "tick/human": ("f4", actions),  # NaN: not engaged
            "tick/source": ("i1", ()),
            "tick/reset": ("f4", actions),  # homing action, NaN outside a reset
            "tick/arbiter": ("i4", ()),  # the arbiter's state after the tick
            "tick/hold_reason": ("i4", ()),
            # the safety filter
            "tick/commanded": ("f4", actions),  # the safe command mapped back to action space
            "tick/commanded_T": ("f8", (4, 4)),
            "tick/commanded_q": ("f8", joints),
            "tick/commanded_gripper_m": ("f8", ()),
            "tick/filter_velocity": ("f8", (6,)),
            "tick/filter_due_s": ("f8", ()),
            "tick/rejections": ("i4", ()),
            "tick/safety": ("i4", ()),
            "tick/held": ("u1", ()),
            "tick/latched": ("u1", ()),
        }
        fields |= {f"tick/reading_{name}": ("f8", (size,)) for name, size in self.readings}
        if self.wrench:
            fields["tick/wrench"] = ("f8", (6,))  # NaN where the arm cannot tell
        if self.task_reward:
            fields["tick/task_reward"] = ("f8", ())  # of the step from this tick to the next; NaN: no step was made
        if self.asynchronous:
            fields |= self._request_fields()
        if self.reward_model:
            fields |= {
                "tick/reward_answer": ("i1", ()),  # what it said, 0: not asked
                "tick/reward_probability": ("f4", ()),  # as the graph gave it; NaN: not asked, or it raised
                "tick/reward_streak": ("i4", ()),  # ticks in a row over the threshold
                "tick/reward_ms": ("f4", ()),  # what asking took
            }
        if self.cloud_points:
            fields |= {
                "obs/point_cloud": ("f4", (self.cloud_points, 6)),  # base frame [m], then colours 0 to 1
                "tick/cloud_count": ("i4", ()),  # cubes in which something was seen; -1: no cloud
                "tick/cloud_s": ("f8", (3,)),  # oldest and newest capture, when it was made
            }
        fields[DIGEST_FIELD] = ("u8", ())  # of all other bytes of the row
        return fields

    def _request_fields(self) -> Fields:
        return {
            "tick/reply": ("i1", ()),  # what arrived, 0: nothing
            "tick/reply_tick": ("i8", ()),  # tick of its request, -1: nothing
            "tick/reply_s": ("f8", ()),  # when it was there
            "tick/reply_chunk": ("f4", (self.chunk_length, self.action_size)),  # as received
            "tick/chunk_event": ("i4", ()),
            "tick/chunk_delay_s": ("f8", ()),  # measured, of the answer taken on this tick
            "tick/chunk_delays_s": ("f8", (DELAY_WINDOW,)),  # measured last, NaN in front
            "tick/chunk_rejected": ("i4", ()),  # in a row
            "tick/asked_tick": ("i8", ()),  # of the request in flight after the tick, -1: none
            "tick/asked_s": ("f8", ()),
        }

    def measured_fields(self) -> Fields:
        """What the commit adds, one row less: the arm's state at the start of the tick after each row."""
        return {
            "tick/measured_T": ("f8", (4, 4)),
            "tick/measured_q": ("f8", (self.joint_count,)),
            "tick/measured_gripper_m": ("f8", ()),
            "tick/measured": ("f4", (self.action_size,)),  # that move as an action
        }

    def row_dtype(self) -> np.dtype[np.void]:
        """Packed structured type of one row; field names are the dataset paths."""
        return np.dtype([(path, kind, shape) for path, (kind, shape) in self.fields().items()])

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [f"{name}_image" for name, _, _ in self.cameras] + [key for key, _ in self.proprio]
        if len(set(names)) != len(names):
            raise ValueError(f"an observation is named twice: {names}")
        return self


def row_bytes(row: Row) -> memoryview:
    """Return the bytes of one row, not a copy."""
    return row.reshape(1).view(np.uint8).data


def row_digest(row: Row) -> int:
    """Return a 64-bit checksum of all bytes of one row but its own digest.

    It finds accidents and edits, not forgers: CRC-32 and Adler-32 side by side, 25 us for a 44 KB row where
    blake2b takes 55.
    """
    data = row_bytes(row)
    start = row.dtype.fields[DIGEST_FIELD][1] if row.dtype.fields else len(data)
    head, tail = data[:start], data[start + 8 :]
    return zlib.crc32(tail, zlib.crc32(head)) << 32 | zlib.adler32(tail, zlib.adler32(head))


def seal(row: Row) -> None:
    """Write the digest into `row`, the last thing that happens to it before it is on disk."""
    row[DIGEST_FIELD] = row_digest(row)
