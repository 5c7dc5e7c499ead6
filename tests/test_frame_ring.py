from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perception.config import ImageSize, PatternCameraConfig, SimulatedCameraConfig
from perception.frame import FrameStamp
from perception.frame_ring import FrameLayout, FrameRing
from robot.errors import HardwareError
from robot.shared_ring import SharedRing

RNG = np.random.default_rng(0)
SAME = FrameLayout(camera="front", image=(9, 8), full=(9, 8), slots=4)
CUT = FrameLayout(camera="front", image=(5, 4), full=(9, 8), slots=4)
DEEP = FrameLayout(camera="front", image=(5, 4), full=(9, 8), depth=True, slots=4)
PATTERN = PatternCameraConfig(kind="pattern", name="front", height=480, width=640, rate_hz=30.0)


def stamp(frame_id: int, *, captured_s: float = 10.0, arrived_s: float = 10.02, sigma_s: float = 1e-3) -> FrameStamp:
    return FrameStamp(frame_id=frame_id, captured_s=captured_s, arrived_s=arrived_s, uncertainty_s=sigma_s)


def picture(size: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return RNG.integers(0, 256, (*size, 3), np.uint8)


@contextmanager
def two_ends(layout: FrameLayout) -> Iterator[tuple[FrameRing, FrameRing]]:
    """Writer and reader, each with a mapping of its own."""
    with (
        closing(FrameRing.new(layout)) as writer,
        closing(FrameRing(os.dup(writer.file), layout)) as reader,
    ):
        yield writer, reader


@pytest.mark.parametrize("layout", [SAME, CUT, DEEP])
def test_frames_come_out_as_they_went_in(layout: FrameLayout) -> None:
    with two_ends(layout) as (writer, reader):
        kept = {}
        for frame_id in range(6):
            full, image = picture(layout.full), picture(layout.image)
            depth_m = RNG.random(layout.full, np.float32) if layout.depth else None
            before_s = time.monotonic()
            number = writer.publish(stamp(3 * frame_id), full if layout is SAME else image, full, depth_m)
            kept[number] = (before_s, full, image, depth_m)
        stamps = reader.stamps(10)
        assert [found.number for found in stamps] == [2, 3, 4, 5]
        assert [found.frame_id for found in stamps] == [6, 9, 12, 15]
        for found in stamps:
            before_s, full, image, depth_m = kept[found.number]
            assert (found.captured_s, found.arrived_s, found.uncertainty_s) == (10.0, 10.02, 1e-3)
            assert before_s <= found.published_s <= time.monotonic()
            image_out, rgb_out = np.empty((*layout.image, 3), np.uint8), np.empty((*layout.full, 3), np.uint8)
            depth_out = np.empty(layout.full, np.float32) if layout.depth else None
            assert reader.image(found.number, image_out)
            assert reader.full(found.number, rgb_out, depth_out)
            np.testing.assert_array_equal(image_out, full if layout is SAME else image)
            np.testing.assert_array_equal(rgb_out, full)
            if depth_m is not None:
                assert depth_out is not None
                np.testing.assert_array_equal(depth_out, depth_m)


def test_a_picture_of_the_policys_size_is_kept_once() -> None:
    image, full, depth = (64 * math.ceil(size / 64) for size in (3 * 20, 3 * 72, 4 * 72))
    assert SAME.record_bytes == 64 + full
    assert CUT.record_bytes == 64 + image + full
    assert DEEP.record_bytes == 64 + image + full + depth


def test_a_frame_that_was_written_over_or_never_written_is_refused() -> None:
    with two_ends(DEEP) as (writer, reader):
        image, rgb, depth_m = picture(DEEP.image), picture(DEEP.full), np.zeros(DEEP.full, np.float32)
        assert reader.stamps(3) == []
        for frame_id in range(5):
            writer.publish(stamp(frame_id), image, rgb, depth_m)
        for number in (-1, 0, 5):
            assert not reader.image(number, image)
            assert not reader.full(number, rgb)
            assert not reader.full(number, rgb, depth_m)
        assert reader.image(1, image)
        assert reader.full(1, rgb, depth_m)


def test_a_picture_that_lies_in_steps_in_memory_is_written_as_it_looks() -> None:
    with two_ends(SAME) as (writer, reader):
        wide = picture((9, 16))
        writer.publish(stamp(0), wide[:, ::2], wide[:, ::2])
        out = np.empty((9, 8, 3), np.uint8)
        assert reader.image(0, out)
        np.testing.assert_array_equal(out, wide[:, ::2])


@pytest.mark.parametrize("layout", [SAME, CUT, DEEP])
def test_a_frame_that_was_written_in_its_place_comes_out_as_one_that_was_handed_over(layout: FrameLayout) -> None:
    with two_ends(layout) as (writer, reader):
        for frame_id in range(6):
            full, image = picture(layout.full), picture(layout.image)
            depth_m = RNG.random(layout.full, np.float32) if layout.depth else None
            place = writer.loan()
            assert (place.depth_m is not None) == layout.depth
            for ours, lent in ((full, place.rgb), (depth_m, place.depth_m)):
                if ours is not None and lent is not None:
                    assert lent.flags.c_contiguous
                    assert lent.ctypes.data % 64 == 0, "as a decoder may want it"
                    lent[...] = ours
            number = writer.publish(stamp(frame_id), place.rgb if layout is SAME else image, place.rgb, place.depth_m)
            assert number == frame_id
            out, rgb_out = np.empty((*layout.image, 3), np.uint8), np.empty((*layout.full, 3), np.uint8)
            depth_out = np.empty(layout.full, np.float32) if layout.depth else None
            assert reader.image(number, out)
            assert reader.full(number, rgb_out, depth_out)
            np.testing.assert_array_equal(out, full if layout is SAME else image)
            np.testing.assert_array_equal(rgb_out, full)
            if depth_m is not None:
                np.testing.assert_array_equal(depth_out, depth_m)


def test_a_picture_in_its_place_is_not_copied() -> None:
    with closing(FrameRing.new(SAME)) as ring:
        place = ring.loan()
        number = ring.publish(stamp(0), place.rgb, place.rgb)
        published = np.frombuffer(ring._ring.view(number, SAME.record_bytes), np.uint8)
        assert np.shares_memory(published, place.rgb)
        assert not np.shares_memory(published, ring.loan().rgb)


@pytest.mark.parametrize("which", ["colour", "depth", "neither"])
def test_what_is_not_in_its_place_is_copied_there(which: str) -> None:
    with two_ends(DEEP) as (writer, reader):
        full, depth_m = picture(DEEP.full), RNG.random(DEEP.full, np.float32)
        place = writer.loan()
        assert place.depth_m is not None
        place.rgb[...], place.depth_m[...] = (full if which == "colour" else 1), (depth_m if which == "depth" else 1.0)
        writer.publish(
            stamp(0),
            picture(DEEP.image),
            place.rgb if which == "colour" else full,
            place.depth_m if which == "depth" else depth_m,
        )
        rgb_out, depth_out = np.empty_like(full), np.empty_like(depth_m)
        assert reader.full(0, rgb_out, depth_out)
        np.testing.assert_array_equal(rgb_out, full)
        np.testing.assert_array_equal(depth_out, depth_m)


def test_while_a_place_is_on_loan_the_oldest_frame_is_gone_and_no_other() -> None:
    with two_ends(SAME) as (writer, reader):
        for frame_id in range(6):
            writer.publish(stamp(frame_id), picture((9, 8)), picture((9, 8)))
        place = writer.loan()
        assert writer.loan() is place
        assert [found.frame_id for found in reader.stamps(10)] == [3, 4, 5]
        with pytest.raises(ValueError, match="image is"):
            writer.publish(stamp(6), picture((5, 4)), place.rgb)
        assert writer.loan() is place, "nothing came of it"
        place.rgb[...] = 7
        writer.publish(stamp(6), place.rgb, place.rgb)
        assert [found.frame_id for found in reader.stamps(10)] == [3, 4, 5, 6]


def test_an_array_of_an_earlier_loan_is_handed_over_like_any_other() -> None:
    with two_ends(SAME) as (writer, reader):
        old = writer.loan().rgb
        old[...] = shown = picture((9, 8))
        for frame_id in range(3):
            writer.publish(stamp(frame_id), old, old)
            writer.loan().rgb[...] = 0
        out = np.empty((9, 8, 3), np.uint8)
        for number in range(3):
            assert reader.image(number, out)
            np.testing.assert_array_equal(out, shown)


def test_only_records_later_than_those_known_are_looked_at() -> None:
    with two_ends(SAME) as (writer, reader):
        for frame_id in range(6):
            writer.publish(stamp(frame_id), picture((9, 8)), picture((9, 8)))
        assert [found.number for found in reader.newest_first(3)] == [5, 4]
        assert list(reader.newest_first(5)) == []
        assert [found.number for found in reader.newest_first(-1)] == [5, 4, 3, 2]


@pytest.mark.parametrize(
    ("layout", "image", "full", "depth_m", "message"),
    [
        (CUT, np.zeros((4, 5, 3), np.uint8), np.zeros((9, 8, 3), np.uint8), None, "image is"),
        (CUT, np.zeros((5, 4, 3), np.uint8), np.zeros((9, 8, 4), np.uint8), None, "full picture is"),
        (CUT, np.zeros((5, 4, 3), np.uint8), np.zeros((9, 8, 3), np.int8), None, "full picture is"),
        (DEEP, np.zeros((5, 4, 3), np.uint8), np.zeros((9, 8, 3), np.uint8), None, "a frame without depth"),
        (DEEP, np.zeros((5, 4, 3), np.uint8), np.zeros((9, 8, 3), np.uint8), np.zeros((9, 8)), "depth is"),
    ],
)
def test_a_frame_of_another_size_or_type_is_refused_and_nothing_written(
    layout: FrameLayout, image: np.ndarray, full: np.ndarray, depth_m: np.ndarray | None, message: str
) -> None:
    with two_ends(layout) as (writer, reader):
        with pytest.raises(ValueError, match=message):
            writer.publish(stamp(0), image, full, depth_m)
        assert reader.count == 0


def test_a_buffer_of_another_size_is_refused() -> None:
    with two_ends(CUT) as (writer, reader):
        writer.publish(stamp(0), picture(CUT.image), picture(CUT.full))
        with pytest.raises(ValueError, match="image is"):
            reader.image(0, np.empty((9, 8, 3), np.uint8))
        with pytest.raises(ValueError, match="full picture is"):
            reader.full(0, np.empty((5, 4, 3), np.uint8))
        with pytest.raises(ValueError, match="the layout has none"):
            reader.full(0, np.empty((9, 8, 3), np.uint8), np.empty((9, 8), np.float32))


STAMP = struct.Struct("=qdddd24x")
TIMES = st.one_of(st.sampled_from([0.0, 1e-3, 10.0, 10.02]), st.floats())


@given(st.integers(-2, 2) | st.integers(-(2**63), 2**63 - 1), st.tuples(TIMES, TIMES, TIMES, TIMES))
def test_a_stamp_that_cannot_be_is_not_taken(frame_id: int, times: tuple[float, float, float, float]) -> None:
    captured_s, arrived_s, uncertainty_s, _ = times
    possible = np.isfinite(times).all() and frame_id >= 0 and captured_s <= arrived_s and uncertainty_s >= 0.0
    with two_ends(SAME) as (writer, reader):
        writer.publish(stamp(4), picture((9, 8)), picture((9, 8)))
        writer._ring.write(STAMP.pack(frame_id, *times))
        found = reader.stamps(4)
        assert [one.frame_id for one in found] == ([4, frame_id] if possible else [4])


def test_memory_of_another_layout_is_refused_and_let_go() -> None:
    with closing(SharedRing.new(slots=4, record_bytes=CUT.record_bytes)) as ring:
        for layout in (SAME, CUT.model_copy(update={"slots": 8})):
            file = os.dup(ring.file)
            with pytest.raises(HardwareError, match=r"camera 'front': its ring has 4 records of .* bytes, the station"):
                FrameRing(file, layout)
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(file)


def test_a_recorded_camera_has_a_second_of_frames_kept_beside_the_one_that_is_being_written() -> None:
    assert FrameLayout.of(PATTERN).slots - 1 == 8
    assert FrameLayout.of(PATTERN.model_copy(update={"stream": "jpeg"})).slots - 1 > 30
    assert FrameLayout.of(PATTERN.model_copy(update={"stream": "lossless", "rate_hz": 90.0})).slots - 1 > 90


def test_a_ring_keeps_what_the_synchroniser_may_still_choose() -> None:
    fast = PATTERN.model_copy(update={"rate_hz": 60.0})
    assert FrameLayout.of(fast, usable_s=0.3).slots - 1 > 18
    assert FrameLayout.of(fast, usable_s=0.05).slots == FrameLayout.of(fast).slots


def test_the_layout_is_that_of_the_station() -> None:
    layout = FrameLayout.of(PATTERN.model_copy(update={"image": ImageSize(height=84, width=96)}))
    assert (layout.camera, layout.image, layout.full, layout.depth) == ("front", (84, 96), (480, 640), False)
    assert FrameLayout.of(PATTERN).image == (480, 640)
    front = SimulatedCameraConfig(
        kind="simulated", name="front", mount="base", eye_m=(0.45, 0.0, 0.9), target_m=(0.45, 0.0, 0.0),
        up=(1.0, 0.0, 0.0), height=24, width=32, vertical_fov_deg=50.0, rate_hz=20.0, depth_stream=True,
    )  # fmt: skip
    assert FrameLayout.of(front).depth
    assert FrameLayout.of(front).slots > 20


def test_an_image_larger_than_the_camera_or_depth_of_a_pattern_is_refused() -> None:
    data = PATTERN.model_dump()
    with pytest.raises(ValidationError, match="camera 'front': image is 481x640, more than the camera's 480x640"):
        PatternCameraConfig.model_validate(data | {"image": {"height": 481, "width": 640}})
    with pytest.raises(ValidationError, match="depth_stream"):
        PatternCameraConfig.model_validate(data | {"depth_stream": True})
