"""A person at a virtual pad, the operator's process with a real SDL, and the loop's end of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from robot.process_board import ProcessBoard
from teleop.device_config import GamepadConfig, KeyboardConfig
from teleop.human_input import HumanCommand, HumanEvent
from teleop.operator_link import OperatorLink
from teleop.station import OperatorConfig
from teleop.supervision import ChildPlan

SAFETY_NET_S = 20.0
SILENCE_S = 0.1
CONFIG = OperatorConfig(
    silence_s=SILENCE_S,
    gamepad=GamepadConfig(pad="Test Pad"),
    keyboard=KeyboardConfig(speed_share=1.0),
)


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

    def open_settled(self) -> None:
        """Start with a pad that is plugged in, and let it settle."""
        self.does("plug")
        self.start()
        self.link.__enter__()
        assert not any(command.engaged or command.events for command in self.for_at_least(0.4))

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
        return self.process.wait(SAFETY_NET_S)

    def poll(self) -> HumanCommand:
        return self.link.poll(time.monotonic())

    def until(self, said: Callable[[HumanCommand], bool]) -> HumanCommand:
        """Poll until the person says that, and return all edges up to then with it."""
        give_up_s = time.monotonic() + SAFETY_NET_S
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
        give_up_s = time.monotonic() + SAFETY_NET_S
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


def drives(command: HumanCommand) -> bool:
    return command.engaged and command.twist[0] == 1.0
