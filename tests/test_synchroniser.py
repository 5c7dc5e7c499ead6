import dataclasses
import itertools
import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from perception.config import SynchroniserConfig
from perception.frame import Frame, FrameStamp
from perception.observation import Observation, Verdict
from perception.proprioception import KEYS, proprioception
from perception.synchroniser import Synchroniser
from robot.arm_state import ArmState
from tests.filter_bench import arm_state

CONFIG = SynchroniserConfig(max_skew_s=0.05, max_age_s=0.15, max_repeats=2)
LATENCY_S = 0.01


class HandedCamera:
    """Has the frames that it was handed; `gone` are those that were overwritten before they could be copied."""

    size = (8, 8)

    def __init__(self, name: str) -> None:
        self.name = name
        self.stamps: list[FrameStamp] = []
        self.gone: set[int] = set()
        self.copied: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def hand(self, frame_id: int, captured_s: float, uncertainty_s: float = 0.0) -> None:
        self.stamps.append(stamp(frame_id, captured_s, uncertainty_s))

    def recent(self, now_s: float, count: int) -> Sequence[FrameStamp]:
        return self.stamps[-count:]

    def frame(self, stamp: FrameStamp) -> Frame | None:
        self.copied.append(stamp.frame_id)
        if stamp.frame_id in self.gone:
            return None
        rgb = np.full((8, 8, 3), stamp.frame_id % 256, np.uint8)
        return Frame(camera=self.name, rgb=rgb, **dataclasses.asdict(stamp))


def stamp(frame_id: int, captured_s: float, uncertainty_s: float = 0.0) -> FrameStamp:
    return FrameStamp(
        frame_id=frame_id, captured_s=captured_s, arrived_s=captured_s + LATENCY_S, uncertainty_s=uncertainty_s
    )


def config(**changes: Any) -> SynchroniserConfig:
    return SynchroniserConfig(**CONFIG.model_dump() | changes)


@pytest.fixture
def cameras() -> list[HandedCamera]:
    return [HandedCamera("front"), HandedCamera("wrist")]


def hand(cameras: list[HandedCamera], frame_id: int, *captured_s: float) -> None:
    for camera, captured in zip(cameras, captured_s, strict=True):
        camera.hand(frame_id, captured)


def ids(look: Observation) -> tuple[int, ...]:
    return tuple(look.frame_ids.values())


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
    assert look.ages_s(10.0) == pytest.approx({"front": 0.02, "wrist": 0.05})
    assert look.state is state
    assert look.proprio_s == state.measured_s
    assert look.around is None
    assert look.images["wrist"][0, 0, 0] == 3
    np.testing.assert_array_equal(look.proprio, np.array([0.04], np.float32))


def test_a_missing_camera_is_absent_and_never_zero(cameras: list[HandedCamera]) -> None:
    cameras[0].hand(1, 9.98, 0.002)
    look = Synchroniser(cameras, CONFIG, []).observe(10.0, arm_state())
    assert look.verdict is Verdict.MISSING
    assert set(look.images) == {"front"}
    assert math.isnan(look.captured_s["wrist"])
    assert look.uncertainty_s["front"] == 0.002
    assert math.isnan(look.uncertainty_s["wrist"])
    assert math.isnan(look.ages_s(10.0)["wrist"])
    assert math.isnan(look.skew_s)
    assert look.frame_ids["wrist"] == -1
    assert look.proprio.shape == (0,)


def test_the_oldest_frame_decides_on_age(cameras: list[HandedCamera]) -> None:
    synchroniser = Synchroniser(cameras, config(max_skew_s=1.0), [])
    hand(cameras, 1, 9.99, 9.86)
    assert synchroniser.observe(10.0, arm_state()).verdict is Verdict.FRESH
    hand(cameras, 2, 10.09, 9.94)
    assert synchroniser.observe(10.1, arm_state()).verdict is Verdict.STALE


def test_frames_too_far_apart_are_skewed(cameras: list[HandedCamera]) -> None:
    synchroniser = Synchroniser(cameras, CONFIG, [])
    hand(cameras, 1, 9.99, 9.93)
    assert synchroniser.observe(10.0, arm_state()).verdict is Verdict.SKEWED


@pytest.mark.parametrize("policy", ["latest_common", "nearest"])
def test_one_camera_that_stalls_is_found_while_the_other_runs(cameras: list[HandedCamera], policy: str) -> None:
    synchroniser = Synchroniser(cameras, config(max_age_s=2.0, max_skew_s=1.0, policy=policy), [])
    verdicts = []
    for tick in range(6):
        cameras[0].hand(tick, 10.0 + 0.05 * tick)
        if tick in (0, 5):
            cameras[1].hand(tick, 10.0 + 0.05 * tick)
        verdicts.append(synchroniser.observe(10.0 + 0.05 * tick, arm_state()).verdict)
    fresh, repeated = Verdict.FRESH, Verdict.REPEATED
    assert verdicts == [fresh, fresh, fresh, repeated, repeated, fresh]


def test_the_set_with_least_skew_is_taken_though_one_camera_is_ahead(cameras: list[HandedCamera]) -> None:
    for frame_id, front_s, wrist_s in ((1, 9.90, 9.902), (2, 9.933, 9.935)):
        hand(cameras, frame_id, front_s, wrist_s)
    cameras[0].hand(3, 9.966)
    assert ids(Synchroniser(cameras, CONFIG, []).observe(10.0, arm_state())) == (2, 2)


def test_less_skew_is_worth_an_older_set_as_far_as_the_weight_of_age_goes(cameras: list[HandedCamera]) -> None:
    hand(cameras, 1, 9.90, 9.90)
    hand(cameras, 2, 9.933, 9.945)  # 12 ms more skew, 33 ms less age
    for weight, chosen in ((0.0, (1, 1)), (0.35, (1, 1)), (0.37, (2, 2)), (100.0, (2, 2))):
        synchroniser = Synchroniser(cameras, config(age_weight=weight), [])
        assert ids(synchroniser.observe(10.0, arm_state())) == chosen
    assert ids(Synchroniser(cameras, CONFIG, []).observe(10.0, arm_state())) == (1, 1)


def test_age_that_less_skew_costs_is_bounded(cameras: list[HandedCamera]) -> None:
    hand(cameras, 1, 9.90, 9.90)
    hand(cameras, 2, 9.933, 9.945)
    look = Synchroniser(cameras, config(max_extra_age_s=0.04), []).observe(10.0, arm_state())
    assert ids(look) == (1, 1)
    look = Synchroniser(cameras, config(max_extra_age_s=0.03), []).observe(10.0, arm_state())
    assert ids(look) == (2, 2)


def test_a_set_that_the_loop_would_hold_for_is_never_preferred(cameras: list[HandedCamera]) -> None:
    hand(cameras, 1, 9.90, 9.90)
    hand(cameras, 2, 9.933, 9.945)
    for limits, chosen in ((config(), (1, 1)), (config(max_age_s=0.09), (2, 2))):
        look = Synchroniser(cameras, limits, []).observe(10.0, arm_state())
        assert (ids(look), look.verdict) == (chosen, Verdict.FRESH)
    synchroniser = Synchroniser(cameras, config(max_repeats=1), [])
    chosen_ids = [ids(synchroniser.observe(10.0 + 0.001 * tick, arm_state())) for tick in range(4)]
    assert chosen_ids == [(1, 1), (1, 1), (2, 2), (2, 2)]


@settings(deadline=None)
@given(st.data())
def test_what_may_be_acted_on_is_the_best_of_all_combinations_that_may(data: st.DataObject) -> None:
    limits = config(max_skew_s=0.03, max_age_s=0.1, max_repeats=1, age_weight=0.2)
    rows = [
        [stamp(place, 10.0 + 5e-4 * sum(steps[: place + 1])) for place in range(len(steps))]
        for steps in data.draw(st.lists(st.lists(st.integers(1, 120), min_size=1, max_size=5), min_size=2, max_size=3))
    ]
    cameras = [HandedCamera(f"camera_{place}") for place in range(len(rows))]
    synchroniser = Synchroniser(cameras, limits, [])
    used: list[FrameStamp | None] = [None] * len(rows)
    shown = [0] * len(rows)  # how many looks in a row, for each camera
    for tick in range(4):
        now_s = 10.0 + 0.04 * (tick + 1)
        for camera, row in zip(cameras, rows, strict=True):
            camera.stamps = [frame for frame in row if frame.captured_s <= now_s]
        allowed = [
            [
                frame
                for frame in camera.stamps
                if (last is None or frame.frame_id >= last.frame_id) and not (frame == last and count > 1)
            ]
            for camera, last, count in zip(cameras, used, shown, strict=True)
        ]
        costs = []
        for chosen in itertools.product(*allowed):
            times_s = [frame.captured_s for frame in chosen]
            skew_s, age_s = max(times_s) - min(times_s), now_s - min(times_s)
            if skew_s <= limits.max_skew_s and age_s <= limits.max_age_s:
                costs.append(skew_s + limits.age_weight * age_s)
        look = synchroniser.observe(now_s, arm_state())
        assert (look.verdict is Verdict.FRESH) == bool(costs)
        if costs:
            age_s = now_s - min(look.captured_s.values())
            assert look.skew_s + limits.age_weight * age_s == pytest.approx(min(costs), abs=1e-9)
        for place, (camera, frame_id) in enumerate(zip(cameras, ids(look), strict=True)):
            if frame_id >= 0:
                frame = camera.stamps[frame_id]
                shown[place] = shown[place] + 1 if frame == used[place] else 1
                used[place] = frame


def test_frames_of_the_future_are_never_used(cameras: list[HandedCamera]) -> None:
    hand(cameras, 1, 9.95, 9.95)
    hand(cameras, 2, 10.02, 10.02)
    look = Synchroniser(cameras, CONFIG, []).observe(10.0, arm_state())
    assert ids(look) == (1, 1)
    cameras[0].stamps = [stamp(3, 10.5), stamp(4, math.nan)]
    assert Synchroniser(cameras, CONFIG, []).observe(10.0, arm_state()).verdict is Verdict.MISSING


def test_only_the_chosen_frames_are_copied_and_each_only_once(cameras: list[HandedCamera]) -> None:
    synchroniser = Synchroniser(cameras, CONFIG, [])
    for frame_id in range(1, 5):
        hand(cameras, frame_id, 9.8 + 0.033 * frame_id, 9.8 + 0.033 * frame_id)
    looks = [synchroniser.observe(10.0, arm_state()) for _ in range(2)]
    assert [camera.copied for camera in cameras] == [[4], [4]]
    assert looks[0].images["front"] is looks[1].images["front"]


def test_what_was_copied_in_the_rehearsal_is_not_copied_again(cameras: list[HandedCamera]) -> None:
    synchroniser = Synchroniser(cameras, config(max_repeats=0), [])
    hand(cameras, 1, 9.95, 9.95)
    for _ in range(3):
        synchroniser.rehearse(9.99)
    cameras[1].hand(2, 9.98)
    cameras[0].hand(2, 9.98)
    assert synchroniser.observe(9.97, arm_state()).verdict is Verdict.FRESH
    assert [camera.copied for camera in cameras] == [[1], [1]]
    assert ids(synchroniser.observe(10.0, arm_state())) == (2, 2)


def test_a_frame_that_was_overwritten_gives_way_to_the_best_of_the_others(cameras: list[HandedCamera]) -> None:
    for frame_id in (1, 2, 3):
        hand(cameras, frame_id, 9.86 + 0.033 * frame_id, 9.861 + 0.033 * frame_id)
    cameras[1].gone = {3}
    look = Synchroniser(cameras, CONFIG, []).observe(10.0, arm_state())
    assert (ids(look), look.verdict) == ((2, 2), Verdict.FRESH)
    assert look.images["front"][0, 0, 0] == 2
    cameras[1].gone = {1, 2, 3}
    look = Synchroniser(cameras, CONFIG, []).observe(10.0, arm_state())
    assert (look.frame_ids["wrist"], look.verdict) == (-1, Verdict.MISSING)


def test_the_frame_in_use_stays_usable_when_the_camera_has_overwritten_it(cameras: list[HandedCamera]) -> None:
    synchroniser = Synchroniser(cameras, CONFIG, [])
    hand(cameras, 1, 9.95, 9.95)
    synchroniser.observe(10.0, arm_state())
    cameras[0].gone = {1}
    look = synchroniser.observe(10.02, arm_state())
    assert (ids(look), look.verdict) == ((1, 1), Verdict.FRESH)


def state_at(measured_s: float, x_m: float) -> ArmState:
    T = np.eye(4)
    T[0, 3] = x_m
    return dataclasses.replace(arm_state(), measured_s=measured_s, T_base_tcp=T)


def test_proprioception_is_of_the_tick_unless_the_station_says_otherwise(cameras: list[HandedCamera]) -> None:
    keys = ["tcp_position_m"]
    hand(cameras, 1, 9.96, 9.98)
    for proprio_time, x_m, proprio_s in (("tick", 1.0, 10.0), ("frames", 0.7, 9.97)):
        synchroniser = Synchroniser(cameras, config(proprio_time=proprio_time), keys)
        synchroniser.observe(9.9, state_at(9.9, 0.0))
        now = state_at(10.0, 1.0)
        look = synchroniser.observe(10.0, now)
        assert look.state is now
        assert look.proprio_s == pytest.approx(proprio_s)
        assert look.proprio[0] == pytest.approx(x_m, abs=1e-6)


def test_an_arm_state_older_than_the_frames_is_not_extrapolated(cameras: list[HandedCamera]) -> None:
    synchroniser = Synchroniser(cameras, config(proprio_time="frames"), ["tcp_position_m"])
    synchroniser.observe(9.9, state_at(9.85, 0.0))
    hand(cameras, 1, 9.96, 9.98)
    look = synchroniser.observe(10.0, state_at(9.9, 0.5))
    assert (look.proprio_s, look.proprio[0], look.around) == (9.9, 0.5, None)


def test_states_measured_between_two_looks_are_interpolated_where_the_arm_has_them(
    cameras: list[HandedCamera],
) -> None:
    past = [[state_at(9.9, 0.0)], [state_at(9.96, 0.0), state_at(9.98, 8.0)]]
    synchroniser = Synchroniser(cameras, config(proprio_time="frames"), ["tcp_position_m"], lambda: past.pop(0))
    synchroniser.observe(9.9, state_at(9.9, 0.0))
    hand(cameras, 1, 9.96, 9.98)
    look = synchroniser.observe(10.0, state_at(10.0, 1.0))
    assert look.proprio[0] == pytest.approx(4.0, abs=1e-6)
    assert look.around is not None
    assert (look.around.before.measured_s, look.around.after.measured_s) == (9.96, 9.98)


@pytest.mark.parametrize("policy", ["latest_common", "nearest"])
def test_frames_never_go_back_whatever_is_dropped(cameras: list[HandedCamera], policy: str) -> None:
    rng = np.random.default_rng(3)
    synchroniser = Synchroniser(cameras, config(policy=policy, max_skew_s=0.2, max_age_s=0.5), [])
    last, fresh = (-1, -1), 0
    for step in range(600):
        now_s = 10.0 + step / 60.0
        for place, camera in enumerate(cameras):
            if step % 2 == place and rng.random() > 0.3:
                camera.hand(step, now_s - rng.uniform(0.0, 0.005))
        look = synchroniser.observe(now_s, arm_state())
        if look.verdict is not Verdict.MISSING:
            assert all(now >= before for now, before in zip(ids(look), last, strict=True))
            last = ids(look)
        fresh += look.verdict is Verdict.FRESH
    assert fresh > 300


@pytest.mark.parametrize("policy", ["latest_common", "nearest"])
def test_cameras_of_one_rate_without_jitter_give_their_newest_frames(cameras: list[HandedCamera], policy: str) -> None:
    synchroniser = Synchroniser(cameras, config(policy=policy), [])
    for tick in range(50):
        hand(cameras, tick, 10.0 + tick * 0.05, 10.0 + tick * 0.05)
        assert ids(synchroniser.observe(10.01 + tick * 0.05, arm_state())) == (tick, tick)


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
