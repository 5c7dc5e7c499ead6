"""The operator's process freezes, dies or fails: the drive ends, and only a new press begins another."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from robot.errors import BadInputError
from teleop.human_input import HumanEvent
from teleop.operator_link import operator_link
from teleop.operator_process import OperatorFault
from teleop.supervisor import Supervisor
from tests.operator_bench import CONFIG, SILENCE_S, Operator, drives


@pytest.fixture(autouse=True)
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def unopened() -> Iterator[Operator]:
    operator = Operator(*operator_link("gamepad", CONFIG))
    yield operator
    operator.close()


@pytest.fixture
def operator(unopened: Operator) -> Operator:
    unopened.open_settled()
    return unopened


def test_frozen_process_is_silence_and_drives_only_after_a_new_press(operator: Operator) -> None:
    operator.does("press rightshoulder", "move lefty -1")
    operator.until(drives)
    operator.signal(signal.SIGSTOP)
    frozen = operator.until(lambda command: not command.engaged)
    assert frozen.connected
    assert not frozen.twist.any()
    assert time.monotonic() - frozen.polled_s > SILENCE_S
    operator.signal(signal.SIGCONT)
    operator.until(lambda command: command.polled_s > frozen.polled_s)
    assert not any(command.engaged for command in operator.for_at_least(0.6))
    operator.does("release rightshoulder", "tap y")
    operator.until(lambda command: HumanEvent.SUCCESS in command.events)
    operator.does("press rightshoulder")
    operator.until(drives)


def test_killed_process_has_a_successor_that_drives_only_after_a_new_press(operator: Operator) -> None:
    operator.does("press rightshoulder", "move lefty -1")
    operator.until(drives)
    operator.signal(signal.SIGKILL)
    operator.ended()
    assert not operator.until(lambda command: not command.engaged).twist.any()
    operator.does("plug", "press rightshoulder", "move lefty -1")
    operator.start()
    assert not any(command.engaged for command in operator.for_at_least(0.6))
    operator.does("release rightshoulder", "tap y")
    operator.until(lambda command: HumanEvent.SUCCESS in command.events)
    operator.does("press rightshoulder")
    operator.until(drives)
    assert operator.link.malformed == 0


def test_successor_waits_for_a_pad_that_is_unplugged_just_then(operator: Operator) -> None:
    operator.signal(signal.SIGKILL)
    operator.ended()
    operator.start()
    died_s = time.monotonic()
    operator.until(lambda command: not command.connected and command.polled_s > died_s)
    assert operator.link.problem == ""
    operator.does("plug")
    list(operator.for_at_least(0.4))
    operator.does("tap start")
    assert operator.until(lambda command: bool(command.events)).events == HumanEvent.ARM


def test_successor_takes_no_pad_of_another_model(operator: Operator) -> None:
    operator.signal(signal.SIGKILL)
    operator.ended()
    operator.does("plug other")
    operator.start()
    died_s = time.monotonic()
    operator.until(lambda command: not command.connected and command.polled_s > died_s + 0.3)
    operator.does("plug")
    operator.until(lambda command: command.connected and command.polled_s > died_s)


def test_process_ends_in_order_when_told_to(operator: Operator) -> None:
    operator.signal(signal.SIGTERM)
    assert operator.ended() == 0


def test_process_shows_that_it_lives(operator: Operator) -> None:
    assert operator.board.places["ready"][0] == 1
    first_s = float(operator.board.places["beat_s"][0])
    list(operator.for_at_least(0.05))
    assert operator.board.places["beat_s"][0] > first_s


def test_injected_unplugging_looks_like_a_real_one(operator: Operator) -> None:
    operator.does("press rightshoulder", "move lefty -1")
    operator.until(drives)
    operator.fault(OperatorFault.UNPLUGGED)
    assert not operator.until(lambda command: not command.connected).engaged
    operator.fault(0)
    assert not any(command.engaged for command in operator.for_at_least(0.5))


def test_injected_silence_ends_the_drive_while_the_process_lives(operator: Operator) -> None:
    operator.does("press rightshoulder", "move lefty -1")
    operator.until(drives)
    operator.fault(OperatorFault.SILENT)
    said_s = operator.until(lambda command: not command.engaged).polled_s
    assert operator.board.places["beat_s"][0] > said_s
    operator.fault(0)
    operator.until(drives)


def test_injected_nonsense_stops_the_robot(operator: Operator) -> None:
    operator.fault(OperatorFault.GARBLED)
    command = operator.until(lambda command: bool(command.events))
    assert (command.events, command.engaged) == (HumanEvent.STOP, False)
    assert operator.link.malformed > 0


def test_supervisor_does_not_try_again_what_was_refused_and_the_reason_is_at_hand(unopened: Operator) -> None:
    with (
        pytest.raises(BadInputError, match="could not be opened"),
        Supervisor([unopened.supervised(silence_s=2.0)]) as supervisor,
    ):
        supervisor.wait_ready()
    unopened.poll()
    assert unopened.link.problem.startswith("gamepad: none to supervise with ")


def test_supervisor_kills_a_frozen_window_and_the_person_drives_with_its_successor(unopened: Operator) -> None:
    unopened.does("plug")
    supervised = unopened.supervised(silence_s=0.5)
    with Supervisor([supervised]) as supervisor, unopened.link:
        supervisor.wait_ready()
        list(unopened.for_at_least(0.4))
        unopened.does("press rightshoulder", "move lefty -1")
        unopened.until(drives)
        os.kill(int(supervisor.board.places["pid"][supervisor.place(supervised.name)]), signal.SIGSTOP)
        unopened.until(lambda command: not command.engaged)
        unopened.does("plug")
        list(unopened.for_at_least(0.4))
        unopened.does("press rightshoulder", "move lefty -1")
        unopened.until(drives)
        assert supervisor.news() == [f"{supervised.name} was silent and was started again"]
