from __future__ import annotations

from collections.abc import Callable

import pytest

from robot.clock import VirtualClock
from robot.errors import BadInputError
from teleop.gamepad import Gamepad, GamepadConfig
from teleop.preflight_verbs import watch_verbs
from tests.virtual_pad import VirtualPad

OURS = GamepadConfig(pad="Verbs Pad")


@pytest.fixture(autouse=True)
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


class PlayedClock(VirtualClock):
    """Moves the pad as time goes by: a person who tries one verb each half second, after the pad has settled."""

    def __init__(self, deeds: list[Callable[[], None]]) -> None:
        super().__init__()
        self._deeds = deeds

    def sleep_until(self, deadline_s: float) -> None:
        super().sleep_until(deadline_s)
        due = int((self.now_s() - 1.0) / 0.5) + 1
        while self._deeds and due > self._done:
            self._done += 1
            self._deeds.pop(0)()

    _done = 0


def test_each_verb_of_a_pad_is_shown_as_it_is_given() -> None:
    with VirtualPad("Verbs Pad") as pad:
        deeds: list[Callable[[], None]] = [lambda button=button: pad.tap(button) for button in ("y", "a", "x", "b")]  # type: ignore[misc]
        deeds += [
            lambda: pad.move(leftx=1.0),  # without the drive button that moves nothing
            lambda: pad.press("rightshoulder"),
            lambda: pad.move(leftx=0.0, righty=-1.0),
            lambda: pad.move(lefttrigger=1.0),
            lambda: pad.move(lefttrigger=0.0, righttrigger=1.0),
            lambda: pad.release("rightshoulder"),
            lambda: pad.tap("start"),
            lambda: pad.tap("back"),
        ]
        seen = list(watch_verbs(Gamepad(OURS), limit_s=60.0, clock=PlayedClock(deeds)))
    assert [verb for verb, _ in seen] == [
        "success", "failure", "rerecord", "hold", "drive", "move", "up, down, turn", "close gripper", "open gripper",
        "arm", "stop",
    ]  # fmt: skip
    assert seen[-1][1] == ()
    assert seen[0][1] == tuple(verb for verb in Gamepad.verbs if verb != "success")


def test_a_verb_that_never_comes_stays_on_the_list() -> None:
    with VirtualPad("Verbs Pad") as pad:
        seen = list(watch_verbs(Gamepad(OURS), limit_s=3.0, clock=PlayedClock([lambda: pad.tap("y")])))
    assert [verb for verb, _ in seen] == ["success"]
    assert "stop" in seen[-1][1]


def test_no_pad_is_one_line() -> None:
    with pytest.raises(BadInputError, match="gamepad: none to supervise with"):
        list(watch_verbs(Gamepad(OURS), limit_s=1.0, clock=VirtualClock()))
