"""The operator's process as it runs, with a real SDL and a virtual pad within it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from robot.errors import BadInputError
from robot.message_ring import MessageRing
from robot.process_board import ProcessBoard
from teleop.arbiter import Source
from teleop.device_config import GamepadConfig, KeyboardConfig
from teleop.human_input import HumanCommand, HumanEvent
from teleop.operator_link import OperatorLink, operator_link
from teleop.operator_messages import COMMAND_BYTES, unpack_command
from teleop.operator_process import CommandSender, OperatorFault
from teleop.operator_status import OperatorStatus
from teleop.sdl import pygame
from teleop.station import OperatorConfig
from teleop.supervision import ChildPlan
from teleop.supervisor import Supervisor

_SAFETY_NET_S = 20.0
SILENCE_S = 0.1
CONFIG = OperatorConfig(
    silence_s=SILENCE_S,
    gamepad=GamepadConfig(pad="Test Pad"),
    keyboard=KeyboardConfig(speed_share=1.0),
)
STATUS = OperatorStatus(
    source=Source.POLICY, armed=True, rate_hz=20.0, wanted_rate_hz=20.0, tick=3, episode=1, successes=1, failures=0
)


@pytest.fixture(autouse=True)
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


class Operator:
    """A person at a pad: the process, the script's pipe and the loop's end."""

    def __init__(self, link: OperatorLink, plan: ChildPlan) -> None:
        self.link, self.plan = link, plan
        self.board = ProcessBoard.new(1)
        self._script, self._pen = os.pipe()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.operator_stand_in", str(self._script), *self.plan.arguments]
        command += ["--board", str(self.board.file), "--place", "0", "--parent", str(os.getpid())]
        files = (self._script, self.board.file, *self.plan.files)
        self.process = subprocess.Popen(command, pass_fds=files, stdin=subprocess.DEVNULL)

    def supervised(self, *, silence_s: float) -> ChildPlan:
        """The stand-in as a supervisor starts it."""
        arguments = (str(self._script), *self.plan.arguments)
        files = (self._script, *self.plan.files)
        changes = {"module": "tests.operator_stand_in", "arguments": arguments, "files": files, "silence_s": silence_s}
        return self.plan.model_copy(update=changes)

    def does(self, *lines: str) -> None:
        os.write(self._pen, "".join(line + "\n" for line in lines).encode())

    def fault(self, fault: int) -> None:
        self.board.places["fault"][0] = fault

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        assert self.process is not None
        return self.process.wait(_SAFETY_NET_S)

    def poll(self) -> HumanCommand:
        return self.link.poll(time.monotonic())

    def until(self, said: Callable[[HumanCommand], bool]) -> HumanCommand:
        """Poll until the person says that, and return all edges up to then with it."""
        give_up_s = time.monotonic() + _SAFETY_NET_S
        events = HumanEvent.NONE
        while True:
            command = self.poll()
            events |= command.events
            if said(command):
                return HumanCommand(**{**vars(command), "events": events})
            assert time.monotonic() < give_up_s, f"still {command}"
            time.sleep(0.001)

    def for_at_least(self, span_s: float) -> Iterator[HumanCommand]:
        """What is said while the process lives through so much of its own time."""
        called_s = time.monotonic()
        begin_s = self.until(lambda command: command.connected and command.polled_s > called_s).polled_s
        give_up_s = time.monotonic() + _SAFETY_NET_S
        while (command := self.poll()).polled_s < begin_s + span_s:
            yield command
            assert time.monotonic() < give_up_s
            time.sleep(0.001)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.link.__exit__(None, None, None)
        self.board.close()
        os.close(self._script)
        os.close(self._pen)


@pytest.fixture
def unopened(request: pytest.FixtureRequest) -> Iterator[Operator]:
    operator = Operator(*operator_link(getattr(request, "param", "gamepad"), CONFIG))
    yield operator
    operator.close()


@pytest.fixture
def operator(unopened: Operator) -> Operator:
    """A pad that is plugged in and has settled."""
    unopened.does("plug")
    unopened.start()
    unopened.link.__enter__()
    assert not any(command.engaged or command.events for command in unopened.for_at_least(0.4))
    return unopened


def drives(command: HumanCommand) -> bool:
    return command.engaged and command.twist[0] == 1.0


def test_person_drives_through_the_process_and_lets_go(operator: Operator) -> None:
    operator.does("press rightshoulder", "move lefty -1")
    command = operator.until(drives)
    assert time.monotonic() - _SAFETY_NET_S < command.polled_s <= time.monotonic()
    operator.does("release rightshoulder")
    assert not operator.until(lambda command: not command.engaged).twist.any()


def test_taps_between_two_polls_of_the_loop_count_once(operator: Operator) -> None:
    operator.does("tap start", "tap y", "press rightshoulder")
    heard = MessageRing(*map(os.dup, operator.plan.files[:2]))  # the loop does not poll yet
    before = heard.written
    give_up_s = time.monotonic() + _SAFETY_NET_S
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


def test_pad_that_is_not_there_at_the_start_is_refused_in_one_line(unopened: Operator) -> None:
    unopened.start()
    with pytest.raises(BadInputError) as refusal:
        unopened.link.__enter__()
    text = str(refusal.value)
    assert text.startswith("gamepad: none to supervise with (wanted one whose name or GUID fits 'Test Pad', found ")
    assert "plug one in" in text
    assert "\n" not in text
    assert unopened.ended() == 2


def test_supervisor_does_not_try_again_what_was_refused_and_the_reason_is_at_hand(unopened: Operator) -> None:
    with (
        pytest.raises(BadInputError, match="could not be opened"),
        Supervisor([unopened.supervised(silence_s=2.0)]) as supervisor,
    ):
        supervisor.wait_ready()
    unopened.poll()
    assert unopened.link.problem.startswith("gamepad: none to supervise with ")


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
    give_up_s = time.monotonic() + _SAFETY_NET_S
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
