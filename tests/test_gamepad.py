from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from pydantic import ValidationError

from robot.errors import BadInputError
from teleop.gamepad import Gamepad, GamepadConfig
from teleop.human_input import HumanCommand, HumanEvent, HumanInput
from teleop.window import OperatorWindow
from tests.contracts import HumanInputContract
from tests.virtual_pad import VirtualPad

BUTTONS = {
    "y": HumanEvent.SUCCESS,
    "a": HumanEvent.FAILURE,
    "x": HumanEvent.RERECORD,
    "b": HumanEvent.HOLD,
    "start": HumanEvent.ARM,
    "back": HumanEvent.STOP,
}
# a developer's own pad may be plugged in as well
OURS = GamepadConfig(pad="Test Pad")


@pytest.fixture(autouse=True)
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


class Ticks:
    """Polls a window at 20 Hz of a fake clock."""

    def __init__(self, window: OperatorWindow) -> None:
        self.window = window
        self.now_s = 50.0

    def poll(self) -> HumanCommand:
        self.now_s += 0.05
        return self.window.poll(self.now_s)

    def settle(self) -> HumanCommand:
        for _ in range(9):
            self.poll()
        return self.poll()


@pytest.fixture
def pad() -> Iterator[VirtualPad]:
    with VirtualPad("Test Pad A") as pad:
        yield pad


@pytest.fixture
def ticks(pad: VirtualPad) -> Iterator[Ticks]:
    with OperatorWindow(Gamepad(OURS)) as window:
        ticks = Ticks(window)
        ticks.settle()
        yield ticks


class TestGamepadContract(HumanInputContract):
    @pytest.fixture(autouse=True)
    def _plugged(self, pad: VirtualPad) -> None:
        self.pad = pad
        self.rng = np.random.default_rng(7)

    def make(self) -> HumanInput:
        return OperatorWindow(Gamepad(OURS))

    def stir(self, human: HumanInput, step: int) -> None:
        if step % 40 == 37:
            self.pad.unplug()
            return
        if step % 40 == 39:
            self.pad.plug()
        if step % 40 < 37:
            self.pad.move(
                leftx=self.rng.uniform(-1, 1), lefty=self.rng.uniform(-1, 1), rightx=self.rng.uniform(-1, 1), righty=1.0
            )
            self.pad.move(lefttrigger=self.rng.uniform(0, 1), righttrigger=self.rng.uniform(0, 1))
            for button in (*BUTTONS, "rightshoulder"):
                (self.pad.press if self.rng.random() < 0.5 else self.pad.release)(button)


@pytest.mark.parametrize(
    ("axes", "twist"),
    [
        ({"lefty": -1.0}, (1, 0, 0, 0, 0, 0)),
        ({"lefty": 1.0}, (-1, 0, 0, 0, 0, 0)),
        ({"leftx": -1.0}, (0, 1, 0, 0, 0, 0)),
        ({"leftx": 1.0}, (0, -1, 0, 0, 0, 0)),
        ({"righty": -1.0}, (0, 0, 1, 0, 0, 0)),
        ({"righty": 1.0}, (0, 0, -1, 0, 0, 0)),
        ({"rightx": -1.0}, (0, 0, 0, 0, 0, 1)),
        ({"rightx": 1.0}, (0, 0, 0, 0, 0, -1)),
    ],
)
def test_sticks_drive_the_base_frame(
    pad: VirtualPad, ticks: Ticks, axes: dict[str, float], twist: tuple[int, ...]
) -> None:
    pad.press("rightshoulder")
    pad.move(**axes)
    command = ticks.poll()
    assert command.engaged
    np.testing.assert_allclose(command.twist, twist, atol=1e-12)


def test_nothing_moves_while_the_drive_button_is_up(pad: VirtualPad, ticks: Ticks) -> None:
    pad.move(leftx=1.0, lefty=-1.0, rightx=1.0, righty=1.0, lefttrigger=1.0)
    command = ticks.poll()
    assert (command.engaged, command.gripper, command.connected) == (False, None, True)
    assert not command.twist.any()


def test_drive_ends_at_the_first_poll_after_release(pad: VirtualPad, ticks: Ticks) -> None:
    pad.press("rightshoulder")
    pad.move(lefty=-1.0)
    assert ticks.poll().engaged
    pad.release("rightshoulder")
    command = ticks.poll()
    assert not command.engaged
    assert not command.twist.any()


@pytest.mark.parametrize(("button", "event"), BUTTONS.items())
def test_a_held_button_counts_once(pad: VirtualPad, ticks: Ticks, button: str, event: HumanEvent) -> None:
    pad.press(button)
    assert [ticks.poll().events for _ in range(3)] == [event, HumanEvent.NONE, HumanEvent.NONE]
    pad.release(button)
    assert ticks.poll().events is HumanEvent.NONE
    pad.press(button)
    assert ticks.poll().events == event


@pytest.mark.parametrize(("button", "event"), BUTTONS.items())
def test_a_tap_between_two_polls_counts_once(pad: VirtualPad, ticks: Ticks, button: str, event: HumanEvent) -> None:
    pad.tap(button)
    assert ticks.poll().events == event
    assert ticks.poll().events is HumanEvent.NONE


def test_stop_outdoes_arm_of_the_same_poll(pad: VirtualPad, ticks: Ticks) -> None:
    pad.tap("back")
    pad.tap("start")
    assert ticks.poll().events == HumanEvent.STOP


def test_polled_s_is_the_time_of_the_poll(ticks: Ticks) -> None:
    command = ticks.poll()
    assert command.polled_s == ticks.now_s


def test_a_tap_of_the_drive_button_between_polls_does_not_drive(pad: VirtualPad, ticks: Ticks) -> None:
    pad.move(lefty=-1.0)
    pad.tap("rightshoulder")
    assert not ticks.poll().engaged


def test_gripper_wish_stays_until_the_other_trigger(pad: VirtualPad, ticks: Ticks) -> None:
    pad.press("rightshoulder")
    assert ticks.poll().gripper is None
    pad.move(lefttrigger=1.0)
    assert ticks.poll().gripper == -1.0
    pad.move(lefttrigger=0.0)
    assert [ticks.poll().gripper for _ in range(3)] == [-1.0] * 3
    pad.move(righttrigger=1.0)
    assert ticks.poll().gripper == 1.0
    pad.move(righttrigger=0.0)
    assert ticks.poll().gripper == 1.0


def test_a_short_pull_of_a_trigger_counts(pad: VirtualPad, ticks: Ticks) -> None:
    pad.press("rightshoulder")
    ticks.poll()
    pad.move(righttrigger=1.0)
    pad.report()
    pad.move(righttrigger=0.0)
    pad.report()
    assert ticks.poll().gripper == 1.0


def test_a_half_pulled_trigger_does_not_count(pad: VirtualPad, ticks: Ticks) -> None:
    pad.press("rightshoulder")
    pad.move(lefttrigger=0.5)
    assert ticks.poll().gripper is None


def test_gripper_wish_ends_with_the_drive(pad: VirtualPad, ticks: Ticks) -> None:
    pad.press("rightshoulder")
    pad.move(righttrigger=1.0)
    assert ticks.poll().gripper == 1.0
    pad.move(righttrigger=0.0)
    pad.release("rightshoulder")
    assert ticks.poll().gripper is None
    pad.press("rightshoulder")
    assert ticks.poll().gripper is None


def test_view_yaw_turns_forward_to_where_the_person_looks(pad: VirtualPad) -> None:
    with OperatorWindow(Gamepad(GamepadConfig(pad="Test Pad", view_yaw_rad=math.pi / 2, speed_share=0.5))) as window:
        ticks = Ticks(window)
        ticks.settle()
        pad.press("rightshoulder")
        pad.move(lefty=-1.0, righty=-1.0)
        np.testing.assert_allclose(ticks.poll().twist, (0, 0.5, 0.5, 0, 0, 0), atol=1e-12)


def test_a_drive_button_held_at_the_start_does_not_drive(pad: VirtualPad) -> None:
    pad.press("rightshoulder")
    pad.move(lefty=-1.0)
    with OperatorWindow(Gamepad(OURS)) as window:
        ticks = Ticks(window)
        assert not any(ticks.poll().engaged for _ in range(20))
        pad.release("rightshoulder")
        ticks.poll()
        pad.press("rightshoulder")
        assert ticks.poll().engaged


def test_unplugging_while_driving_lets_go_at_once(pad: VirtualPad, ticks: Ticks) -> None:
    pad.press("rightshoulder")
    pad.move(lefty=-1.0, righttrigger=1.0)
    assert ticks.poll().engaged
    pad.unplug()
    command = ticks.poll()
    assert (command.engaged, command.connected, command.gripper) == (False, False, None)
    assert not command.twist.any()
    assert not ticks.settle().connected


def test_a_pad_that_comes_back_drives_only_after_a_new_press(pad: VirtualPad, ticks: Ticks) -> None:
    pad.press("rightshoulder")
    assert ticks.poll().engaged
    pad.unplug()
    ticks.poll()
    pad.plug()
    pad.press("rightshoulder")
    pad.move(lefty=-1.0)
    for _ in range(20):
        command = ticks.poll()
        assert command.connected
        assert not command.engaged
    pad.release("rightshoulder")
    assert not ticks.poll().engaged
    pad.press("rightshoulder")
    assert ticks.poll().engaged


def test_unplugged_and_back_between_two_polls_still_needs_a_new_press(pad: VirtualPad, ticks: Ticks) -> None:
    pad.press("rightshoulder")
    assert ticks.poll().engaged
    pad.unplug()
    pad.plug()
    pad.press("rightshoulder")
    assert not any(ticks.poll().engaged for _ in range(20))


@pytest.mark.parametrize(("button", "event"), BUTTONS.items())
def test_buttons_held_while_the_pad_comes_back_only_stop(
    pad: VirtualPad, ticks: Ticks, button: str, event: HumanEvent
) -> None:
    pad.unplug()
    ticks.poll()
    pad.plug()
    assert ticks.poll().connected
    pad.press(button)
    expected = event & HumanEvent.STOP
    assert [ticks.poll().events for _ in range(20)] == [expected] + [HumanEvent.NONE] * 19


def test_another_pad_neither_drives_nor_takes_over(pad: VirtualPad, ticks: Ticks) -> None:
    with VirtualPad("Test Pad B", product_id=2) as other:
        ticks.settle()
        other.press("rightshoulder", "y")
        other.move(lefty=-1.0)
        command = ticks.poll()
        assert (command.engaged, command.events) == (False, HumanEvent.NONE)
        pad.unplug()
        assert not ticks.settle().connected
        pad.plug()
        ticks.settle()
        pad.press("rightshoulder")
        pad.move(leftx=-1.0)
        command = ticks.poll()
        assert command.connected
        np.testing.assert_allclose(command.twist, (0, 1, 0, 0, 0, 0), atol=1e-12)
        other.unplug()
        assert ticks.poll().engaged


def test_the_first_pad_that_fits_supervises(pad: VirtualPad) -> None:
    with VirtualPad("Test Pad B", product_id=2) as second, OperatorWindow(Gamepad(OURS)) as window:
        ticks = Ticks(window)
        ticks.settle()
        second.tap("y")
        pad.tap("a")
        assert ticks.poll().events == HumanEvent.FAILURE


@pytest.mark.parametrize("choice", ["pad b", "guid"])
def test_a_pad_is_chosen_by_name_or_guid(pad: VirtualPad, choice: str) -> None:
    with VirtualPad("Test Pad B", product_id=2) as second:
        wanted = second.guid if choice == "guid" else choice
        with OperatorWindow(Gamepad(GamepadConfig(pad=wanted))) as window:
            ticks = Ticks(window)
            ticks.settle()
            pad.tap("y")
            second.tap("a")
            assert ticks.poll().events == HumanEvent.FAILURE


def test_no_fitting_pad_is_one_line_that_names_what_is_there(pad: VirtualPad) -> None:
    with pytest.raises(BadInputError) as refusal, OperatorWindow(Gamepad(GamepadConfig(pad="Nobody's"))):
        pass
    text = str(refusal.value)
    assert text.startswith('gamepad: none to supervise with (wanted one whose name or GUID fits "Nobody\'s"')
    assert "'Test Pad A'" in text
    assert "plug one in" in text
    assert "\n" not in text


def test_a_pad_without_a_drive_button_is_refused() -> None:
    with (
        VirtualPad("Test Pad Small", buttons=9),
        pytest.raises(BadInputError, match="'Test Pad Small': has no rightshoulder, which supervising needs"),
        OperatorWindow(Gamepad(OURS)),
    ):
        pass


@pytest.mark.parametrize(
    "wrong", [{"dead_zone": 0.6}, {"exponent": 0.5}, {"speed_share": 0.0}, {"view_yaw_rad": 4.0}, {"deadzone": 0.1}]
)
def test_config_refuses_what_it_does_not_know(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        GamepadConfig.model_validate(wrong)
