from __future__ import annotations

from teleop.gripper_wish import CLOSE, OPEN, GripperWish


def test_nothing_is_wished_before_a_press() -> None:
    assert GripperWish().update(engaged=True, held=None) is None


def test_a_wish_stays_until_the_opposite_one() -> None:
    wish = GripperWish()
    wish.ask(CLOSE)
    assert [wish.update(engaged=True, held=None) for _ in range(3)] == [CLOSE] * 3
    wish.ask(OPEN)
    assert [wish.update(engaged=True, held=None) for _ in range(3)] == [OPEN] * 3


def test_a_wish_is_forgotten_at_the_handback() -> None:
    wish = GripperWish()
    wish.ask(OPEN)
    assert wish.update(engaged=True, held=None) == OPEN
    assert wish.update(engaged=False, held=None) is None
    assert wish.update(engaged=True, held=None) is None


def test_a_press_while_the_policy_drives_is_dropped_unless_still_held_at_the_takeover() -> None:
    wish = GripperWish()
    wish.ask(CLOSE)
    assert wish.update(engaged=False, held=CLOSE) is None
    assert wish.update(engaged=True, held=CLOSE) == CLOSE
    wish.update(engaged=False, held=None)
    wish.ask(OPEN)
    assert wish.update(engaged=False, held=None) is None
    assert wish.update(engaged=True, held=None) is None
