from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.config import PatternCameraConfig
from perception.frame_source import Place, RawFrame
from perception.pattern_source import PatternSource, camera_id, pattern, verify_pattern
from perception.policy_image import policy_image
from robot.clock import VirtualClock

CONFIG = PatternCameraConfig(kind="pattern", name="front", height=24, width=32, rate_hz=30.0)
PERIOD_S = 1.0 / 30.0


def take(count: int, *, seed: int = 0, pause_s: float = 0.0, **changes: object) -> list[RawFrame]:
    """The first pictures of a camera on a virtual clock, with a pause after each."""
    clock = VirtualClock(100.0)
    frames = []
    with PatternSource(CONFIG.model_copy(update=changes), seed=seed, clock=clock) as source:
        while len(frames) < count:
            frame = source.wait(1.0)
            assert frame is not None
            assert frame.arrived_s == clock.now_s()
            frames.append(frame)
            clock.sleep_until(clock.now_s() + pause_s)
    return frames


def captured_s(frame: RawFrame, **changes: object) -> float:
    """When the picture was taken, read from the device's stamp by who knows its clock."""
    source = PatternSource(CONFIG.model_copy(update=changes), seed=0)
    assert frame.device_s is not None
    return (frame.device_s - source.device_s(0.0)) / (source.device_s(1.0) - source.device_s(0.0))


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**40 - 1), st.tuples(st.integers(8, 40), st.integers(8, 40)))
def test_a_whole_picture_says_whose_it_is(camera: int, frame_id: int, size: tuple[int, int]) -> None:
    rgb = pattern(camera, frame_id, size)
    assert rgb.shape == (*size, 3)
    assert rgb.dtype == np.uint8
    assert verify_pattern(rgb) == (camera, frame_id)


@given(st.integers(0, 24 * 32 * 3 - 1), st.integers(0, 7))
def test_no_bit_can_change_without_notice(byte: int, bit: int) -> None:
    rgb = pattern(7, 11, (24, 32))
    rgb.reshape(-1)[byte] ^= np.uint8(1 << bit)
    assert verify_pattern(rgb) is None


@given(st.integers(1, 200), st.integers(1, 24 * 32 * 3 - 1))
def test_a_picture_of_two_frames_is_torn_wherever_it_is_cut(apart: int, cut: int) -> None:
    before, after = pattern(7, 11, (24, 32)), pattern(7, 11 + apart, (24, 32))
    torn = before.copy()
    torn.reshape(-1)[:cut] = after.reshape(-1)[:cut]
    whole = {before.tobytes(): 11, after.tobytes(): 11 + apart}.get(torn.tobytes())
    assert verify_pattern(torn) == (None if whole is None else (7, whole))


def test_rows_that_change_places_or_a_cut_picture_are_noticed() -> None:
    rgb = pattern(7, 11, (24, 32))
    swapped = rgb.copy()
    swapped[[5, 9]] = swapped[[9, 5]]
    assert (swapped != rgb).any()
    assert verify_pattern(swapped) is None
    assert verify_pattern(rgb[:12]) is None
    assert verify_pattern(rgb[:, :16]) is None
    assert verify_pattern(policy_image(rgb, (12, 16))) is None
    assert verify_pattern(policy_image(rgb, (24, 32))) == (7, 11)


@given(st.integers(0, 200), st.tuples(st.integers(8, 40), st.integers(8, 40)))
def test_a_picture_drawn_where_it_is_to_lie_is_the_same(frame_id: int, size: tuple[int, int]) -> None:
    out = np.full((*size, 3), 77, np.uint8)
    assert pattern(7, frame_id, size, out) is out
    np.testing.assert_array_equal(out, pattern(7, frame_id, size))


def test_a_source_that_is_given_a_place_draws_there_and_without_one_in_memory_of_its_own() -> None:
    place = Place(rgb=np.zeros((24, 32, 3), np.uint8))
    with PatternSource(CONFIG, seed=0, clock=VirtualClock(100.0)) as source:
        there, own = source.wait(1.0, place), source.wait(1.0)
        assert there is not None
        assert own is not None
        assert there.rgb is place.rgb
        assert verify_pattern(there.rgb) == (camera_id("front"), there.frame_id)
        assert not np.shares_memory(own.rgb, place.rgb)


def test_the_picture_moves() -> None:
    for earlier, later in itertools.pairwise(pattern(7, frame_id, (24, 32)) for frame_id in range(70)):
        assert (earlier != later).mean() > 0.5


def test_pictures_come_at_the_rate_with_the_latency_and_the_phase() -> None:
    frames = take(50, latency_s=0.02, phase_s=0.004)
    for k, frame in enumerate(frames):
        assert frame.frame_id == k
        assert verify_pattern(frame.rgb) == (camera_id("front"), k)
        taken_s = captured_s(frame)
        assert frame.arrived_s - taken_s == pytest.approx(0.02, abs=1e-9)
        assert (taken_s - 0.004) / PERIOD_S == pytest.approx(round((taken_s - 0.004) / PERIOD_S), abs=1e-6)
    assert np.diff([frame.arrived_s for frame in frames]) == pytest.approx(PERIOD_S)


def test_the_devices_clock_drifts_against_the_hosts() -> None:
    frames = take(100, drift_ppm=200.0)
    device_s = [frame.device_s for frame in frames if frame.device_s is not None]
    host_s = [frame.arrived_s for frame in frames]
    assert (device_s[-1] - device_s[0]) / (host_s[-1] - host_s[0]) - 1.0 == pytest.approx(200e-6, rel=1e-3)
    assert abs(device_s[0] - host_s[0]) > 1000.0


def test_jitter_delays_the_arrival_and_not_the_capture() -> None:
    frames = take(200, latency_s=0.01, jitter_s=0.02)
    delays_s = np.array([frame.arrived_s - captured_s(frame) for frame in frames])
    assert delays_s.min() >= 0.01 - 1e-9
    assert delays_s.max() <= 0.03 + 1e-9
    assert np.ptp(delays_s) > 0.015
    assert np.diff([captured_s(frame) for frame in frames]) == pytest.approx(PERIOD_S, abs=1e-6)


def test_dropped_pictures_leave_gaps_in_the_ids() -> None:
    ids = [frame.frame_id for frame in take(500, drop_rate=0.3)]
    assert 1.0 - len(ids) / (ids[-1] - ids[0] + 1) == pytest.approx(0.3, abs=0.08)


def test_pictures_for_which_nobody_waited_are_lost_and_the_ids_tell() -> None:
    frames = take(20, pause_s=0.25)
    assert set(np.diff([frame.frame_id for frame in frames])) <= {7, 8, 9}
    for frame in frames:
        assert frame.arrived_s - captured_s(frame) <= PERIOD_S + CONFIG.latency_s + 1e-9


def test_same_seed_gives_the_same_pictures_and_another_seed_others() -> None:
    def arrivals(seed: int) -> list[tuple[int, float]]:
        return [(frame.frame_id, frame.arrived_s) for frame in take(50, seed=seed, jitter_s=0.01, drop_rate=0.2)]

    assert arrivals(1) == arrivals(1)
    assert arrivals(1) != arrivals(2)


def test_waiting_ends_in_time_without_a_picture() -> None:
    clock = VirtualClock(100.0)
    with PatternSource(CONFIG.model_copy(update={"rate_hz": 1.0, "phase_s": 0.5}), seed=0, clock=clock) as source:
        waits = [source.wait(0.05) for _ in range(12)]
        assert clock.now_s() <= 100.6 + 1e-9
    assert sum(frame is not None for frame in waits) == 1
