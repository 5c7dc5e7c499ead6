"""What one tick is on disk: the fields of a row, their types and where each lies in the HDF5 file.

A row is one element of a numpy structured array, so that it crosses to the recorder process as plain
bytes (nothing is pickled) and every field becomes one dataset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SCHEMA_VERSION = 1
STAGES = ("observe", "encode", "act", "residual", "arbitrate", "filter", "send", "record")


@dataclass(frozen=True, kw_only=True)
class EpisodeSpec:
    """Sizes that fix the row.

    Attributes:
        cameras: (name, height, width) of each policy image.
        proprio: (key, size) of each proprioception key.
        action_size: A.
        chunk_length: H.
        feature_size: F.
        joint_count: N, 0 for an arm known by its TCP only.
    """

    cameras: tuple[tuple[str, int, int], ...]
    proprio: tuple[tuple[str, int], ...]
    action_size: int
    chunk_length: int
    feature_size: int
    joint_count: int

    def fields(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dataset path below /data/demo_0 -> (dtype, shape of one row)."""
        actions, joints, cameras = (self.action_size,), (self.joint_count,), (len(self.cameras),)
        fields: dict[str, tuple[str, tuple[int, ...]]] = {
            f"obs/{name}_image": ("u1", (height, width, 3)) for name, height, width in self.cameras
        }
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
            "tick/deadline_missed": ("u1", ()),
            # frames
            "tick/captured_s": ("f8", cameras),
            "tick/arrived_s": ("f8", cameras),
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
            "tick/force_n": ("f8", ()),  # NaN where the arm cannot tell
            "tick/arm_fault": ("u1", ()),
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
            "tick/base": ("f4", actions),  # NaN: no proposal
            "tick/noise": ("f4", actions),
            "tick/residual": ("f4", actions),  # with noise, as added
            "tick/gate": ("f4", (2,)),  # conservative value of base, of base + residual
            "tick/gate_open": ("u1", ()),
            "tick/gate_forced": ("u1", ()),  # scheduled pass of a closed gate
            "tick/residual_version": ("i8", ()),
            "tick/human": ("f4", actions),  # NaN: not engaged
            "tick/source": ("i1", ()),
            "tick/resetting": ("u1", ()),
            "tick/hold_reason": ("i4", ()),
            # the safety filter
            "tick/commanded": ("f4", actions),  # the safe command mapped back to action space
            "tick/commanded_T": ("f8", (4, 4)),
            "tick/commanded_q": ("f8", joints),
            "tick/commanded_gripper_m": ("f8", ()),
            "tick/safety": ("i4", ()),
            "tick/held": ("u1", ()),
            "tick/latched": ("u1", ()),
            "tick/row_digest": ("u8", ()),  # of all other bytes of the row
        }
        return fields

    def row_dtype(self) -> np.dtype[np.void]:
        """Packed structured type of one row; field names are the dataset paths."""
        return np.dtype([(path, kind, shape) for path, (kind, shape) in self.fields().items()])
