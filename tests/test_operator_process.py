"""What a person does at pad, keyboard and window, through the real process with a real SDL and a virtual pad in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from robot.errors import BadInputError
from robot.message_ring import MessageRing
from teleop.arbiter import Source
from teleop.human_input import HumanCommand, HumanEvent
from teleop.operator_link import operator_link
from teleop.operator_messages import COMMAND_BYTES, unpack_command
from teleop.operator_process import CommandSender
from teleop.operator_status import OperatorStatus
from teleop.sdl import pygame
from tests.operator_bench import CONFIG, SAFETY_NET_S, Operator, drives

STATUS = OperatorStatus(
    source=Source.POLICY, armed=True, rate_hz=20.0, wanted_rate_hz=20.0, tick=3, episode=1, successes=1, failures=0
)


@pytest.fixture(autouse=True)
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def unopened(request: pytest.FixtureRequest) -> Iterator[Operator]:
    operator = Operator(*operator_link(getattr(request, "param", "gamepad"), CONFIG))
    yield operator
    operator.close()


@pytest.fixture
def operator(unopened: Operator) -> Operator:
    unopened.open_settled()
    return unopened


def test_person_drives_through_the_process_and_lets_go(operator: Operator) -> None:
    operator.does("press rightshoulder", "move lefty -1")
    command = operator.until(drives)
    assert time.monotonic() - SAFETY_NET_S < command.polled_s <= time.monotonic()
    operator.does("release rightshoulder")
    assert not operator.until(lambda command: not command.engaged).twist.any()


def test_taps_between_two_polls_of_the_loop_count_once(operator: Operator) -> None:
    operator.does("tap start", "tap y", "press rightshoulder")
    heard = MessageRing(*map(os.dup, operator.plan.files[:2]))  # the loop does not poll yet
    before = heard.written
    give_up_s = time.monotonic() + SAFETY_NET_S
    while heard.written < before + 20 * COMMAND_BYTES and time.monotonic() < give_up_s:
        time.sleep(0.001)
    heard.close()
    command = operator.poll()
    assert (command.events, command.engaged) == (HumanEvent.ARM | HumanEvent.SUCCESS, True)
    operator.does("tap a")
    assert operator.until(lambda command: bool(command.events)).events == HumanEvent.FAILURE


def test_short_pull_of_a_trigger_between_two_polls_closes_the_gripper(operator: Operator) -> None:
    operator.does("press rightshoulder")
    assert operator.until(lambda command: command.engaged).gripper is None
    operator.does("pull lefttrigger", "tap b")
    assert operator.until(lambda command: HumanEvent.HOLD in command.events).gripper == -1.0


def test_unplugged_while_driving_lets_go_and_the_same_pad_comes_back(operator: Operator) -> None:
    operator.does("press rightshoulder", "move lefty -1")
    operator.until(drives)
    operator.does("unplug")
    assert not operator.until(lambda command: not command.connected).engaged
    operator.does("plug", "press rightshoulder")
    assert not any(command.engaged for command in operator.for_at_least(0.5))
    operator.does("release rightshoulder", "tap y")
    operator.until(lambda command: HumanEvent.SUCCESS in command.events)
    operator.does("press rightshoulder")
    operator.until(lambda command: command.engaged)


def test_edges_reach_the_loop_though_it_did_not_poll_for_longer_than_the_ring_holds() -> None:
    ring = MessageRing.new(3 * (COMMAND_BYTES + 16))
    sender, got = CommandSender(ring), []
    edges = [HumanEvent.NONE, HumanEvent.ARM, HumanEvent.NONE, HumanEvent.HOLD, HumanEvent.SUCCESS, HumanEvent.NONE]
    sent = [sender.send(HumanCommand(events=edge, polled_s=float(time_s))) for time_s, edge in enumerate(edges)]
    assert sent == [True, True, True, False, False, False]

    def drain() -> None:
        while (message := ring.take()) is not None:
            command = unpack_command(message[1], now_s=10.0)
            assert command is not None
            got.append((command.polled_s, command.events))

    drain()
    assert sender.send(HumanCommand(polled_s=6.0))
    assert sender.send(HumanCommand(polled_s=7.0))
    drain()
    assert got[1:] == [
        (1.0, HumanEvent.ARM),
        (2.0, HumanEvent.NONE),
        (6.0, HumanEvent.HOLD | HumanEvent.SUCCESS),
        (7.0, HumanEvent.NONE),
    ]
    ring.close()


def test_stop_that_had_to_wait_for_room_outdoes_an_arm_that_waited_with_it() -> None:
    ring = MessageRing.new(COMMAND_BYTES + 16)
    sender = CommandSender(ring)
    for event in (HumanEvent.NONE, HumanEvent.STOP, HumanEvent.ARM, HumanEvent.QUIT):
        sender.send(HumanCommand(events=event))
    ring.take()
    sender.send(HumanCommand())
    message = ring.take()
    assert message is not None
    command = unpack_command(message[1], now_s=1.0)
    assert command is not None
    assert command.events == HumanEvent.STOP | HumanEvent.QUIT
    ring.close()


def test_closing_the_window_ends_the_run_once(operator: Operator) -> None:
    operator.does("close")
    assert operator.until(lambda command: bool(command.events)).events == HumanEvent.QUIT
    operator.does("tap y")
    assert operator.until(lambda command: bool(command.events)).events == HumanEvent.SUCCESS


def test_pad_that_is_not_there_at_the_start_is_refused_in_one_line(unopened: Operator) -> None:
    unopened.start()
    with pytest.raises(BadInputError) as refusal:
        unopened.link.__enter__()
    text = str(refusal.value)
    assert text.startswith("gamepad: none to supervise with (wanted one whose name or GUID fits 'Test Pad', found ")
    assert "plug one in" in text
    assert "\n" not in text
    assert unopened.ended() == 2


def test_machine_without_a_display_is_told_what_to_do(unopened: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.delenv("DISPLAY", raising=False)
    unopened.start()
    with pytest.raises(BadInputError, match=r"^operator window: cannot open a display \(x11 not available; "):
        unopened.link.__enter__()
    assert unopened.ended() == 2


@pytest.mark.parametrize("unopened", ["keyboard"], indirect=True)
def test_keyboard_drives_while_its_window_has_the_focus(unopened: Operator) -> None:
    unopened.start()
    unopened.link.__enter__()
    assert not unopened.until(lambda command: command.polled_s > 0.0).connected
    unopened.does("focus gained")
    assert not any(command.engaged for command in unopened.for_at_least(0.4))
    unopened.does("key space down", "key w down", "key o down")
    assert unopened.until(lambda command: drives(command) and command.gripper is not None).gripper == -1.0
    unopened.does("key escape down")
    assert unopened.until(lambda command: bool(command.events)).events == HumanEvent.STOP
    unopened.does("focus lost")
    assert not unopened.until(lambda command: not command.connected).engaged


def pictured(operator: Operator, path: Path, done: Callable[[NDArray[np.uint8]], bool]) -> None:
    """Have the window's picture taken until it is as it should be."""
    give_up_s = time.monotonic() + SAFETY_NET_S
    while True:
        path.unlink(missing_ok=True)
        operator.does(f"picture {path}")
        while not path.exists():
            assert time.monotonic() < give_up_s
            time.sleep(0.001)
        if done(pygame.surfarray.array3d(pygame.image.load(path))):
            return
        assert time.monotonic() < give_up_s, "it never showed that"


def test_window_shows_what_the_loop_shows_and_says_when_that_is_old(operator: Operator, tmp_path: Path) -> None:
    images = {
        f"camera_{index}": np.full((480, 640, 3), colour, np.uint8)
        for index, colour in enumerate([(250, 0, 0), (0, 0, 250), (0, 250, 0)])
    }
    path = tmp_path / "window.png"

    def has_all(pixels: NDArray[np.uint8]) -> bool:
        now_s = time.monotonic()
        operator.link.show(OperatorStatus(**{**vars(STATUS), "images": images}), now_s=now_s)
        colours = [(250, 0, 0), (0, 0, 250), (0, 250, 0)]
        return all((pixels == colour).all(axis=2).sum() > 10_000 for colour in colours)

    pictured(operator, path, has_all)
    shown = pygame.surfarray.array3d(pygame.image.load(path))
    reason = np.s_[30:500, 526:562]  # nothing stands there while all is well
    assert (shown[reason] == shown[30, 526]).all()
    pictured(operator, path, lambda pixels: bool((pixels[reason] != shown[reason]).any()))
