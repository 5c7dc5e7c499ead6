from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.board import BoardView
from calibration.stillness import STILL_M, STILL_RAD, STILL_S, STILL_SHARE, ArmStillness, BoardStillness
from robot.geometry import pose, rotvec_to_matrix
from tests.calibration_scenes import NARROW, handheld_views
from tests.rehearsed_rig import state

VIEW = handheld_views(NARROW, 1, 0)[0]


def shifted(pixels: float) -> BoardView:
    return BoardView(ids=VIEW.ids, pixels=VIEW.pixels + np.array([pixels, 0.0]), size=VIEW.size)


def test_a_board_stands_still_for_as_long_as_its_corners_stay_within_a_few_pixels() -> None:
    board = BoardStillness()
    limit_px = STILL_SHARE * 640
    assert board.for_s == 0.0
    for number in range(12):
        board.add(0.1 * number, shifted(30.0 * (number < 5) + 0.9 * limit_px * (number % 2)))
    assert board.for_s == pytest.approx(0.6)
    board.add(1.2, shifted(2.5 * limit_px))
    assert board.for_s == 0.0


def test_a_board_that_drifts_is_held_against_where_it_is_now_and_not_picture_by_picture() -> None:
    board = BoardStillness()
    for number in range(30):
        board.add(0.1 * number, shifted(0.4 * STILL_SHARE * 640 * number))
    assert board.for_s == pytest.approx(0.2)


def test_a_board_that_was_not_seen_begins_anew() -> None:
    board = BoardStillness()
    for number in range(10):
        board.add(0.1 * number, None if number == 7 else VIEW)
    assert board.for_s == pytest.approx(0.1)


def test_a_rare_picture_reaches_as_far_back_as_is_asked_for() -> None:
    board = BoardStillness()
    for number in range(4):
        board.add(0.4 * number, VIEW)
    assert board.for_s >= STILL_S


@pytest.mark.parametrize(
    "moved",
    [
        pose(np.eye(3), np.array([1.2 * STILL_M, 0.0, 0.0])),
        pose(rotvec_to_matrix(np.array([0.0, 1.2 * STILL_RAD, 0.0])), np.zeros(3)),
    ],
)
def test_a_hand_rests_since_it_last_moved_or_turned(moved: np.ndarray) -> None:
    arm = ArmStillness()
    assert arm.since_s == math.inf
    arm.add([state(0.02 * number, moved if number < 20 else np.eye(4)) for number in range(50)])
    assert arm.since_s == pytest.approx(0.4)
    arm.add([state(1.0, moved)])
    assert arm.since_s == 1.0
