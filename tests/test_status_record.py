from __future__ import annotations

import json
import struct
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from robot.command import Reason
from robot.shared_ring import SharedRing
from teleop.arbiter import HoldReason, Source
from teleop.operator_status import OperatorStatus
from teleop.status_record import MAX_RATE_HZ, StatusReader, StatusWriter, new_status_ring

Picture = NDArray[np.uint8]
STATUS = OperatorStatus(
    source=Source.HUMAN,
    armed=True,
    connected=False,
    hold_reason=HoldReason.STALE_FRAMES | HoldReason.OVERRUN,
    safety=Reason.WORKSPACE | Reason.TILT,
    rate_hz=19.5,
    wanted_rate_hz=20.0,
    tick=3,
    episode=1,
    successes=2,
    failures=4,
    notice="residual 12 in force: Größe",
)


class Both:
    """Both ends of one ring, and a clock that always allows another status."""

    def __init__(self) -> None:
        self.ring: SharedRing = new_status_ring()
        self.writer, self.reader = StatusWriter(self.ring), StatusReader(self.ring)
        self._now_s = 10.0

    def write(self, status: OperatorStatus, device: str = "") -> None:
        self._now_s += 1.0
        assert self.writer.show(status, now_s=self._now_s, device=device)

    def shown(self, status: OperatorStatus) -> OperatorStatus:
        self.write(status)
        newest = self.reader.newest()
        assert newest is not None
        return newest


@pytest.fixture
def both() -> Both:
    return Both()


def picture(height: int, width: int, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_status_arrives_with_all_its_parts(both: Both) -> None:
    shown = both.shown(STATUS)
    assert shown == STATUS
    assert [type(getattr(shown, field.name)) for field in fields(STATUS)] == [
        type(getattr(STATUS, field.name)) for field in fields(STATUS)
    ]


def test_nothing_new_is_nothing(both: Both) -> None:
    assert both.reader.newest() is None
    both.shown(STATUS)
    assert both.reader.newest() is None


def test_small_pictures_arrive_whole_and_in_order(both: Both) -> None:
    images = {"front": picture(84, 84, 1), "wrist": picture(96, 128, 2)[:, ::-1], "top": picture(84, 84, 3)}
    shown = both.shown(replace(STATUS, images=images)).images
    assert list(shown) == list(images)
    for name, image in images.items():
        np.testing.assert_array_equal(shown[name], image)


def test_large_pictures_take_turns_and_all_are_shown(both: Both) -> None:
    images = {f"camera_{index}": picture(480, 640, index) for index in range(3)}
    for turn in range(1, 4):
        assert len(both.shown(replace(STATUS, images=images)).images) == turn
    shown = both.shown(replace(STATUS, images=images)).images
    assert list(shown) == list(images)
    for name, image in images.items():
        np.testing.assert_array_equal(shown[name], image[::5, ::5])


def test_reader_that_was_late_still_has_every_camera(both: Both) -> None:
    images = {f"camera_{index}": picture(480, 640, index) for index in range(3)}
    for tick in range(3):
        both.write(replace(STATUS, tick=tick, images=images))
    newest = both.reader.newest()
    assert newest is not None
    assert (newest.tick, list(newest.images)) == (2, list(images))


def test_pictures_go_with_the_cameras(both: Both) -> None:
    both.shown(replace(STATUS, images={"front": picture(84, 84)}))
    assert both.shown(STATUS).images == {}


@pytest.mark.parametrize(
    ("height", "width", "step"),
    [(1, 1, 1), (256, 256, 1), (240, 320, 2), (720, 1280, 14), (3000, 40, 2), (1, 90_000, 1)],
)
def test_picture_of_any_size_is_shown_and_keeps_its_aspect(both: Both, height: int, width: int, step: int) -> None:
    image = picture(height, width)
    shown = both.shown(replace(STATUS, images={"front": image})).images["front"]
    np.testing.assert_array_equal(shown, image[::step, :66_666:step])


def test_writer_writes_no_faster_than_its_rate(both: Both) -> None:
    shown = [both.writer.show(STATUS, now_s=10.0 + step * 0.001) for step in range(1000)]
    assert shown[0]
    assert MAX_RATE_HZ - 2 <= sum(shown) <= MAX_RATE_HZ


@given(text=st.text(max_size=5000))
def test_no_text_is_too_long_for_a_record(text: str) -> None:
    both = Both()
    images = {f"{text}{index}": picture(2, 2) for index in range(8)}
    both.write(replace(STATUS, notice=text, images=images), device=text)
    newest = both.reader.newest()
    assert newest is not None
    assert newest.notice == text[:200]


def test_device_is_known_to_who_reads_later(both: Both) -> None:
    both.write(STATUS, device="0300abcd")
    late = StatusReader(both.ring)
    late.newest()
    assert late.device == "0300abcd"


SOUND = {"notice": "", "device": "", "pictures": []}
HEAD = struct.Struct("=5Q2d4qQ")


def record(text: bytes, *, source: int = 0, size: int | None = None) -> bytes:
    return HEAD.pack(source, 1, 1, 0, 0, 20.0, 20.0, 0, 0, 0, 0, len(text) if size is None else size) + text


def test_records_of_these_tests_are_like_those_of_the_writer(both: Both) -> None:
    both.ring.write(record(json.dumps(SOUND).encode()))
    newest = both.reader.newest()
    assert newest is not None
    assert (newest.source, newest.armed, newest.rate_hz) == (Source.POLICY, True, 20.0)


@pytest.mark.parametrize(
    "wrong",
    [
        record(b""),
        record(b"[]"),
        record(b"{"),
        record(b"\xff"),
        record(b"{}"),
        record(json.dumps(SOUND).encode(), source=77),
        record(json.dumps(SOUND).encode(), size=2**63),
        record(json.dumps(SOUND | {"pictures": [["front", 100_000, 100_000, 1]]}).encode()),
        record(json.dumps(SOUND | {"pictures": [["front", -1, 84, 1]]}).encode()),
        record(json.dumps(SOUND | {"pictures": [["front", "84", 84, 1]]}).encode()),
        record(json.dumps(SOUND | {"pictures": [["front", 8, 8, 0]]}).encode()),
        record(json.dumps(SOUND | {"pictures": 3}).encode()),
    ],
)
def test_record_of_somebody_else_is_not_shown(both: Both, wrong: bytes) -> None:
    both.ring.write(wrong)
    assert both.reader.newest() is None
    assert both.shown(STATUS) == STATUS
