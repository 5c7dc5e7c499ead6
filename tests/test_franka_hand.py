"""The hand beside the arm."""

from __future__ import annotations

import pytest

from robot.errors import HardwareError
from robot.franka_hand import FrankaHand
from tests.franka_link import FakeHand


def test_nothing_is_sent_before_somebody_wants_another_width() -> None:
    link = FakeHand()
    hand = FrankaHand(link)
    assert not hand.work_once()
    hand.want(link.width + 0.001)  # less than what is worth a motion
    assert not hand.work_once()
    assert link.done == []


def test_opening_moves_and_closing_grasps_what_is_in_between() -> None:
    link = FakeHand()
    hand = FrankaHand(link)
    for width_m in (0.08, 0.0, 0.05):
        hand.want(width_m)
        assert hand.work_once()
        assert not hand.work_once()
        assert hand.wanted_m == width_m
    assert link.done == [("move", 0.08), ("grasp", 0.0), ("move", 0.05)]


def test_closing_on_a_block_is_not_tried_again_and_again() -> None:
    link = FakeHand()
    hand = FrankaHand(link)
    hand.want(0.0)
    assert hand.work_once()
    link.width = 0.03  # it stopped at the block
    assert not hand.work_once()
    hand.want(0.08)
    assert hand.work_once()
    assert link.done[-1] == ("move", 0.08)


def test_of_wishes_that_came_during_a_motion_only_the_last_one_counts() -> None:
    link = FakeHand()
    hand = FrankaHand(link)
    for width_m in (0.08, 0.0, 0.07, 0.02):
        hand.want(width_m)
    assert hand.work_once()
    assert not hand.work_once()
    assert link.done == [("grasp", 0.02)]


def test_a_failure_stays_until_it_is_cleared_and_then_the_hand_stays_where_it_is_until_the_next_wish() -> None:
    link = FakeHand()
    hand = FrankaHand(link)
    link.fails = "franka 10.0.0.2: hand does not move (not homed)"
    hand.want(0.08)
    with pytest.raises(HardwareError, match="not homed"):
        hand.work_once()
    hand.fault = link.fails
    link.fails = None
    hand.want(0.0)
    assert not hand.work_once()
    hand.clear()
    assert hand.wanted_m == 0.04  # nobody has looked at it since: an older wish is none any more
    assert not hand.work_once()
    hand.want(0.08)
    assert hand.work_once()
    assert link.done == [("move", 0.08), ("move", 0.08)]
