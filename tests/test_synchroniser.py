import dataclasses
import math
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from perception.config import SynchroniserConfig
from perception.frame import Frame
from perception.observation import Verdict
from perception.proprioception import KEYS, proprioception
from perception.synchroniser import Synchroniser
from tests.filter_bench import arm_state

CONFIG = SynchroniserConfig(max_skew_s=0.05, max_age_s=0.15, max_repeats=2)


class HandedCamera:
    """Gives the frame it was handed."""

    size = (8, 8)

    def __init__(self, name: str) -> None:
        self.name = name
        self.frame: Frame | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def hand(self, frame_id: int, captured_s: float) -> None:
        self.frame = Frame(
            camera=self.name, frame_id=frame_id, captured_s=captured_s, arrived_s=captured_s + 0.01,
            rgb=np.full((8, 8, 3), frame_id, np.uint8),
        )  # fmt: skip

    def latest(self, now_s: float) -> Frame | None:
        return self.frame


def config(**changes: float) -> SynchroniserConfig:
    return CONFIG.model_copy(update=changes)


@pytest.fixture
def cameras() -> list[HandedCamera]:
    return [HandedCamera("front"), HandedCamera("wrist")]


def hand(cameras: list[HandedCamera], frame_id: int, *captured_s: float) -> None:
    for camera, captured in zip(cameras, captured_s, strict=True):
        camera.hand(frame_id, captured)


def test_fresh_frames_make_one_observation(cameras: list[HandedCamera]) -> None:
    synchroniser = Synchroniser(cameras, CONFIG, ["gripper_width_m"])
    hand(cameras, 3, 9.98, 9.95)
    state = arm_state()
    look = synchroniser.observe(10.0, state)
    assert look.verdict is Verdict.FRESH
    assert look.captured_s == {"front": 9.98, "wrist": 9.95}
    assert look.arrived_s == pytest.approx({"front": 9.99, "wrist": 9.96})
    assert look.frame_ids == {"front": 3, "wrist": 3}
    assert look.skew_s == pytest.approx(0.03)
    assert look.state is state
    assert look.images["wrist"][0, 0, 0] == 3
    np.testing.assert_array_equal(look.proprio, np.array([0.04], np.float32))


def test_a_missing_camera_is_absent_and_never_zero(cameras: list[HandedCamera]) -> None:
    cameras[0].hand(1, 9.99)
    look = Synchroniser(cameras, CONFIG, []).observe(10.0, arm_state())
    assert look.verdict is Verdict.MISSING
    assert set(look.images) == {"front"}
    assert math.isnan(look.captured_s["wrist"])
    assert math.isnan(look.skew_s)
    assert look.frame_ids["wrist"] == -1
    assert look.proprio.shape == (0,)


def test_the_oldest_frame_decides_on_age(cameras: list[HandedCamera]) -> None:
    synchroniser = Synchroniser(cameras, config(max_skew_s=1.0), [])
    hand(cameras, 1, 9.99, 9.86)
    assert synchroniser.observe(10.0, arm_state()).verdict is Verdict.FRESH
    hand(cameras, 2, 9.99, 9.84)
    assert synchroniser.observe(10.0, arm_state()).verdict is Verdict.STALE


def test_frames_too_far_apart_are_skewed(cameras: list[HandedCamera]) -> None:
    synchroniser = Synchroniser(cameras, CONFIG, [])
    hand(cameras, 1, 9.99, 9.93)
    assert synchroniser.observe(10.0, arm_state()).verdict is Verdict.SKEWED


def test_one_camera_that_stalls_is_found_while_the_other_runs(cameras: list[HandedCamera]) -> None:
    synchroniser = Synchroniser(cameras, config(max_age_s=2.0, max_skew_s=1.0), [])
    verdicts = []
    for tick in range(6):
        cameras[0].hand(tick, 10.0 + 0.05 * tick)
        if tick in (0, 5):
            cameras[1].hand(tick, 10.0 + 0.05 * tick)
        verdicts.append(synchroniser.observe(10.0 + 0.05 * tick, arm_state()).verdict)
    fresh, repeated = Verdict.FRESH, Verdict.REPEATED
    assert verdicts == [fresh, fresh, fresh, repeated, repeated, fresh]


def test_proprioception_puts_the_keys_one_after_another_in_float32() -> None:
    state = dataclasses.replace(arm_state(), tcp_velocity=np.arange(6.0))
    values = proprioception(state, list(KEYS))
    parts = [
        state.T_base_tcp[:3, 3],
        Rotation.from_matrix(state.T_base_tcp[:3, :3]).as_quat(canonical=True),
        state.tcp_velocity,
        [state.gripper_width_m],
        state.q_rad,
        state.dq_rad_s,
    ]
    np.testing.assert_array_equal(values, np.concatenate(parts).astype(np.float32))
    assert values.dtype == np.float32
    assert proprioception(state, []).shape == (0,)
    for key, (size, make) in KEYS.items():
        assert make(state).shape == (size or 7,), key


def test_quaternion_does_not_flip_its_sign_as_the_hand_turns() -> None:
    down = np.diag([1.0, -1.0, -1.0])
    quats = []
    for yaw in np.linspace(-0.5, 0.5, 11):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec([0.0, 0.0, yaw]).as_matrix() @ down
        quats.append(proprioception(dataclasses.replace(arm_state(), T_base_tcp=T), ["tcp_quat_xyzw"]))
    steps = np.linalg.norm(np.diff(quats, axis=0), axis=1)
    assert steps.max() < 0.1
