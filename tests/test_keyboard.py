from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from teleop.human_input import HumanCommand, HumanEvent, HumanInput
from teleop.keyboard import Keyboard, KeyboardConfig
from teleop.sdl import pygame
from teleop.window import OperatorWindow
from tests.contracts import HumanInputContract

KEYS = {
    pygame.K_RETURN: HumanEvent.SUCCESS,
    pygame.K_BACKSPACE: HumanEvent.FAILURE,
    pygame.K_x: HumanEvent.RERECORD,
    pygame.K_h: HumanEvent.HOLD,
    pygame.K_F1: HumanEvent.ARM,
    pygame.K_ESCAPE: HumanEvent.STOP,
}


def post(kind: int, **fields: int) -> None:
    pygame.event.post(pygame.event.Event(kind, fields))


def press(*keys: int, mod: int = 0) -> None:
    for key in keys:
        post(pygame.KEYDOWN, key=key, mod=mod)


def release(*keys: int) -> None:
    for key in keys:
        post(pygame.KEYUP, key=key, mod=0)


@pytest.fixture(autouse=True)
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


class Ticks:
    """Polls a window at 20 Hz of a fake clock; the dummy display never gives it the focus by itself."""

    def __init__(self, window: OperatorWindow) -> None:
        self._window = window
        self.now_s = 50.0

    def poll(self) -> HumanCommand:
        self.now_s += 0.05
        return self._window.poll(self.now_s)

    def focus(self) -> None:
        post(pygame.WINDOWFOCUSGAINED)
        for _ in range(10):
            self.poll()


@pytest.fixture
def ticks() -> Iterator[Ticks]:
    with OperatorWindow(Keyboard(KeyboardConfig(speed_share=1.0))) as window:
        ticks = Ticks(window)
        ticks.focus()
        yield ticks


class TestKeyboardContract(HumanInputContract):
    @pytest.fixture(autouse=True)
    def _seeded(self) -> None:
        self.rng = np.random.default_rng(7)

    def make(self) -> HumanInput:
        return OperatorWindow(Keyboard())

    def stir(self, human: HumanInput, step: int) -> None:
        if step % 40 == 0:
            post(pygame.WINDOWFOCUSGAINED)
        if step % 40 == 37:
            post(pygame.WINDOWFOCUSLOST)
        for key in (*KEYS, pygame.K_SPACE, *(ord(letter) for letter in "wasdrfqeop")):
            (press if self.rng.random() < 0.5 else release)(key)


@pytest.mark.parametrize(
    ("key", "twist"),
    [
        ("w", (1, 0, 0, 0, 0, 0)),
        ("s", (-1, 0, 0, 0, 0, 0)),
        ("a", (0, 1, 0, 0, 0, 0)),
        ("d", (0, -1, 0, 0, 0, 0)),
        ("r", (0, 0, 1, 0, 0, 0)),
        ("f", (0, 0, -1, 0, 0, 0)),
        ("q", (0, 0, 0, 0, 0, 1)),
        ("e", (0, 0, 0, 0, 0, -1)),
    ],
)
def test_keys_drive_the_base_frame(ticks: Ticks, key: str, twist: tuple[int, ...]) -> None:
    press(pygame.K_SPACE, ord(key))
    command = ticks.poll()
    assert command.engaged
    np.testing.assert_array_equal(command.twist, twist)
    release(ord(key))
    assert not ticks.poll().twist.any()


def test_opposite_keys_cancel_and_diagonals_are_not_faster(ticks: Ticks) -> None:
    press(pygame.K_SPACE, pygame.K_w, pygame.K_a, pygame.K_r, pygame.K_f)
    command = ticks.poll()
    np.testing.assert_allclose(command.twist, (np.sqrt(0.5), np.sqrt(0.5), 0, 0, 0, 0))


def test_keys_are_careful_by_default() -> None:
    with OperatorWindow(Keyboard()) as window:
        ticks = Ticks(window)
        ticks.focus()
        press(pygame.K_SPACE, pygame.K_w)
        np.testing.assert_array_equal(ticks.poll().twist, (0.5, 0, 0, 0, 0, 0))


def test_two_presses_of_hold_between_two_polls_cancel_and_three_count_once(ticks: Ticks) -> None:
    for presses, event in ((2, HumanEvent.NONE), (3, HumanEvent.HOLD)):
        for _ in range(presses):
            press(pygame.K_h)
            release(pygame.K_h)
        assert ticks.poll().events == event


def test_nothing_moves_without_space(ticks: Ticks) -> None:
    press(pygame.K_w, pygame.K_o)
    command = ticks.poll()
    assert (command.engaged, command.gripper, command.connected) == (False, None, True)
    assert not command.twist.any()


@pytest.mark.parametrize(("key", "event"), KEYS.items())
def test_a_held_key_counts_once(ticks: Ticks, key: int, event: HumanEvent) -> None:
    press(key)
    assert ticks.poll().events == event
    press(key)  # what a system's key repeat sends
    assert ticks.poll().events is HumanEvent.NONE
    release(key)
    press(key)
    assert ticks.poll().events == event


@pytest.mark.parametrize(("key", "event"), KEYS.items())
def test_a_tap_between_two_polls_counts_once(ticks: Ticks, key: int, event: HumanEvent) -> None:
    press(key)
    release(key)
    assert ticks.poll().events == event
    assert ticks.poll().events is HumanEvent.NONE


def test_stop_outdoes_arm_of_the_same_poll(ticks: Ticks) -> None:
    press(pygame.K_ESCAPE, pygame.K_F1)
    assert ticks.poll().events == HumanEvent.STOP


def test_shortcuts_of_the_desktop_are_no_verbs_but_stop_always_is(ticks: Ticks) -> None:
    press(pygame.K_x, pygame.K_F1, mod=pygame.KMOD_LCTRL)
    assert ticks.poll().events is HumanEvent.NONE
    press(pygame.K_ESCAPE, mod=pygame.KMOD_LALT)
    assert ticks.poll().events == HumanEvent.STOP


def test_gripper_keys_latch_until_the_other_one(ticks: Ticks) -> None:
    press(pygame.K_SPACE)
    assert ticks.poll().gripper is None
    press(pygame.K_o)
    release(pygame.K_o)
    assert [ticks.poll().gripper for _ in range(3)] == [-1.0] * 3
    press(pygame.K_p)
    assert ticks.poll().gripper == 1.0


def test_losing_the_focus_releases_everything_and_counts_as_unplugged(ticks: Ticks) -> None:
    press(pygame.K_SPACE, pygame.K_w, pygame.K_o)
    assert ticks.poll().engaged
    post(pygame.WINDOWFOCUSLOST)
    command = ticks.poll()
    assert (command.engaged, command.gripper, command.connected) == (False, None, False)
    assert not command.twist.any()


def test_keys_held_while_the_focus_comes_back_do_not_drive(ticks: Ticks) -> None:
    press(pygame.K_SPACE)
    assert ticks.poll().engaged
    post(pygame.WINDOWFOCUSLOST)
    post(pygame.WINDOWFOCUSGAINED)
    press(pygame.K_SPACE, pygame.K_F1)  # X11 reports held keys as pressed then
    commands = [ticks.poll() for _ in range(20)]
    assert all(command.connected for command in commands)
    assert not any(command.engaged or command.events for command in commands)
    release(pygame.K_SPACE)
    ticks.poll()
    press(pygame.K_SPACE)
    assert ticks.poll().engaged


def test_without_the_focus_the_keyboard_is_not_connected_from_the_start() -> None:
    with OperatorWindow(Keyboard()) as window:
        command = Ticks(window).poll()
        assert (command.connected, command.engaged) == (False, False)


def test_a_key_held_before_the_focus_went_does_not_move_after_it_is_back(ticks: Ticks) -> None:
    press(pygame.K_SPACE, pygame.K_w)
    assert ticks.poll().twist.any()
    post(pygame.WINDOWFOCUSLOST)
    ticks.poll()
    ticks.focus()
    press(pygame.K_SPACE)
    command = ticks.poll()
    assert command.engaged
    assert not command.twist.any()
