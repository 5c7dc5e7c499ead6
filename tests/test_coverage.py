"""What a set of views lacks."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.board import BoardView
from calibration.coverage import Coverage, coverage
from calibration.rehearsal import handheld, seen_from
from robot.geometry import pose, rotvec_to_matrix
from tests.calibration_scenes import BOARD, MIDDLE, NARROW, facing

TILT = 0.4


def covered(turns: list[tuple[float, float, float]]) -> Coverage:
    poses = [facing(0.4, turn) for turn in turns]
    views = [seen_from(NARROW, T, np.random.default_rng(0), 0.0, BOARD) for T in poses]
    return coverage([view for view in views if view is not None], poses, MIDDLE)


def test_a_board_turned_about_y_has_one_side_further_away() -> None:
    # turned by +y (downwards in the picture), what is right of the middle comes nearer: z' = z - sin(a) x
    assert (covered([(0.0, TILT, 0.0)]).tilts_deg[0] < [-20.0, 1.0]).all()
    assert covered([(0.0, -TILT, 0.0)]).tilts_deg[0, 0] > 20.0


def test_a_board_turned_about_x_has_its_lower_side_further_away() -> None:
    assert covered([(TILT, 0.0, 0.0)]).tilts_deg[0, 1] > 20.0
    assert covered([(-TILT, 0.0, 0.0)]).tilts_deg[0, 1] < -20.0


def test_the_tilt_is_the_same_however_the_board_is_turned_in_the_picture() -> None:
    view = BoardView(ids=np.arange(6), pixels=np.full((6, 2), 100.0), size=(480, 640))
    for roll in (0.0, 1.5, 3.0, 4.5):
        R = rotvec_to_matrix(np.array([0.0, -TILT, 0.0])) @ rotvec_to_matrix(np.array([0.0, 0.0, roll]))
        T = pose(R, np.array([0.0, 0.0, 0.4]) - R @ MIDDLE)
        assert coverage([view], [T], MIDDLE).tilts_deg[0] == pytest.approx([np.degrees(TILT), 0.0], abs=1e-6)


def test_one_view_lacks_nearly_everything_and_says_so() -> None:
    advice = covered([(0.0, -TILT, 0.0)]).advice
    assert advice[0] == "take 14 more pictures (there are 1 usable ones)"
    assert "top left" in advice[1]
    assert any(line.startswith("tilt the board so that its left side is further away") for line in advice)
    assert advice[-1].startswith("hold it nearer and further away")


def test_many_views_lack_nothing() -> None:
    random = np.random.default_rng(1)
    poses, views = [], []
    while len(views) < 150:
        T = handheld(NARROW, BOARD, random, near_m=0.15)
        view = seen_from(NARROW, T, random, 0.3, BOARD)
        if view is not None:
            poses.append(T)
            views.append(view)
    found = coverage(views, poses, MIDDLE)
    assert found.advice == ()
    assert found.cells.sum() == sum(len(view.ids) for view in views)


def test_without_views_there_is_advice_and_no_failure() -> None:
    assert coverage([], [], MIDDLE).advice[0] == "take 15 more pictures (there are 0 usable ones)"
