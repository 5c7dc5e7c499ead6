from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from teleop.deadman import SETTLE_S, Deadman

SILENCE_S = 0.3


def test_a_press_after_settling_drives_until_it_ends() -> None:
    deadman = Deadman(silence_s=SILENCE_S)
    assert not deadman.update(present=True, pressed=False, now_s=0.0)
    assert not deadman.update(present=True, pressed=False, now_s=SETTLE_S)
    assert deadman.update(present=True, pressed=True, now_s=SETTLE_S + 0.05)
    assert not deadman.update(present=True, pressed=False, now_s=SETTLE_S + 0.1)


def test_a_press_made_before_settling_never_drives() -> None:
    deadman = Deadman(silence_s=SILENCE_S)
    deadman.update(present=True, pressed=False, now_s=0.0)
    assert not any(deadman.update(present=True, pressed=True, now_s=0.1 * step) for step in range(1, 100))


def test_a_device_that_went_away_needs_a_new_press() -> None:
    deadman = Deadman(silence_s=SILENCE_S)
    deadman.update(present=True, pressed=False, now_s=0.0)
    deadman.update(present=True, pressed=False, now_s=SETTLE_S)
    assert deadman.update(present=True, pressed=True, now_s=0.5)
    assert not deadman.update(present=False, pressed=True, now_s=0.6)
    assert not any(deadman.update(present=True, pressed=True, now_s=0.7 + 0.1 * step) for step in range(50))


def test_after_a_silence_the_button_must_be_let_go_of_once_before_it_drives_again() -> None:
    deadman = Deadman(silence_s=SILENCE_S)
    deadman.update(present=True, pressed=False, now_s=0.0)
    deadman.update(present=True, pressed=False, now_s=SETTLE_S)
    assert deadman.update(present=True, pressed=True, now_s=0.5)
    assert deadman.update(present=True, pressed=True, now_s=0.5 + 0.9 * SILENCE_S)
    woke_s = 0.5 + 2.0 * SILENCE_S
    assert not any(deadman.update(present=True, pressed=True, now_s=woke_s + 0.1 * step) for step in range(50))
    assert not deadman.update(present=True, pressed=False, now_s=woke_s + 5.0)
    assert deadman.update(present=True, pressed=True, now_s=woke_s + 5.1)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.0, 0.4)), max_size=40))
def test_it_never_drives_unless_pressed_present_and_settled(steps: list[tuple[bool, bool, float]]) -> None:
    deadman = Deadman(silence_s=SILENCE_S)
    now_s, present_since_s, released_since_settled = 0.0, None, False
    for present, pressed, wait_s in steps:
        before_s, now_s = now_s, now_s + wait_s
        engaged = deadman.update(present=present, pressed=pressed, now_s=now_s)
        if not present or now_s - before_s > SILENCE_S:
            present_since_s, released_since_settled = None, False
        if present and present_since_s is None:
            present_since_s = now_s
        settled = present_since_s is not None and now_s - present_since_s >= SETTLE_S
        released_since_settled |= settled and not pressed
        assert engaged == (present and pressed and released_since_settled)
