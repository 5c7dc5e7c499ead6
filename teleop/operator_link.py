"""The loop's end of the operator's process: what the person wants, what they are shown."""

from __future__ import annotations

import json
import math
import time
from types import TracebackType
from typing import Literal, Self

from robot.errors import BadInputError, HardwareError
from robot.message_ring import MessageRing
from robot.shared_ring import SharedRing
from teleop.arbiter import Source
from teleop.human_input import HumanCommand, HumanEvent
from teleop.operator_messages import Said, merged, same_but_later, unpack_command
from teleop.operator_status import OperatorStatus
from teleop.station import OperatorConfig
from teleop.status_record import StatusWriter, new_status_ring
from teleop.supervision import ChildPlan

_COMMANDS_BYTES = 64_000  # some 4 s of commands, so that a loop that stood still finds a fresh one behind them
_OPEN_S = 20.0
_LOOK_S = 0.05
_STARTING = OperatorStatus(
    source=Source.HOLD,
    armed=False,
    rate_hz=0.0,
    wanted_rate_hz=0.0,
    tick=0,
    episode=0,
    successes=0,
    failures=0,
    notice="the robot starts",
)


class OperatorLink:
    """A device and window in another process as `HumanInput`, and as the display of `teleop.operator_view`.

    Nothing here waits for that process but entering. Whatever happens to it, `poll` gives no motion that the person
    does not ask for now: silence and nonsense end the drive, nonsense stops the robot.
    """

    def __init__(self, commands: MessageRing, view: SharedRing, *, silence_s: float) -> None:
        """Take over both rings.

        Args:
            commands: what the person says.
            view: what they are shown, of `new_status_ring`.
            silence_s: a command that is older does not drive any more [s].
        """
        self._commands, self._view, self._silence_s = commands, view, silence_s
        self._statuses = StatusWriter(view)
        self._last = HumanCommand(connected=False)
        self._polled_s = 0.0  # of the last command, or of a later one that said the same
        self._same = b""  # the last command as it came, where the next may say the same
        self._edges = HumanEvent.NONE
        self._device = ""
        self._opened = False
        self.malformed = 0
        self.problem = ""

    def __enter__(self) -> Self:
        """Wait until window and device are open; the process was started before.

        Raises:
            BadInputError: they cannot be opened, in that process's words.
            HardwareError: it says nothing.
        """
        deadline_s = time.monotonic() + _OPEN_S
        while not self._opened:
            self._hear(time.monotonic())
            if self.problem:
                raise BadInputError(self.problem)
            if time.monotonic() > deadline_s:
                raise HardwareError(
                    f"operator window: its process said nothing for {_OPEN_S:g} s; see what it said above, or free the "
                    "machine of other work"
                )
            if not self._opened:
                self._commands.wait(_LOOK_S)
        self._statuses.show(_STARTING, now_s=-math.inf, device=self._device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commands.close()
        self._view.close()

    def poll(self, now_s: float) -> HumanCommand:
        """Return the newest command with the edges of all since the last poll. Never blocks, never raises.

        `polled_s` is when the device was last read by its own process, however long ago.
        """
        self._hear(now_s)
        last, events = self._last, self._edges
        self._edges = HumanEvent.NONE
        if not now_s - self._polled_s <= self._silence_s:
            return HumanCommand(events=events, polled_s=self._polled_s, connected=last.connected)
        return HumanCommand(
            twist=last.twist.copy(),
            gripper=last.gripper,
            engaged=last.engaged,
            events=events,
            polled_s=self._polled_s,
            connected=last.connected,
        )

    def show(self, status: OperatorStatus, *, now_s: float) -> bool:
        """Have a status shown, at most 30 a second; return whether this one is."""
        return self._statuses.show(status, now_s=now_s, device=self._device)

    def _hear(self, now_s: float) -> None:
        """Take in all that was said since."""
        try:
            while (message := self._commands.take()) is not None:
                self._heed(*message, now_s=now_s)
        except RuntimeError as error:
            self._distrust()
            self.problem = f"operator window: {error}; start the run again"

    def _heed(self, kind: int, data: bytes, *, now_s: float) -> None:
        if kind == Said.COMMAND:
            polled_s = same_but_later(data, self._same, now_s=now_s)
            if polled_s is not None and polled_s >= self._polled_s:
                self._polled_s = polled_s
                return
            command = unpack_command(data, now_s=now_s)
            if command is not None and command.polled_s >= self._polled_s:
                self._last, self._polled_s = command, command.polled_s
                self._same = b"" if command.events else data
                if command.events:
                    self._edges = merged(self._edges, command.events)
                return
        elif kind == Said.OPENED:
            self._let_go()
            self._device = data.decode(errors="replace") or self._device
            self._opened, self.problem = True, ""
            return
        elif kind == Said.REFUSED:
            self._let_go()
            self.problem = data.decode(errors="replace")
            return
        self._distrust()

    def _distrust(self) -> None:
        """Take what no device can have said for a stop: whatever the person meant, it is not known."""
        self.malformed += 1
        self._edges = merged(self._edges, HumanEvent.STOP)
        self._let_go()

    def _let_go(self) -> None:
        self._last, self._same = HumanCommand(connected=False), b""


def operator_link(kind: Literal["gamepad", "keyboard"], config: OperatorConfig) -> tuple[OperatorLink, ChildPlan]:
    """Return the loop's end, to be entered once its process was started, and how a supervisor starts that.

    Raises OSError where there is no memory for what they share.
    """
    # reading its module would load SDL, which the loop's process is to do without
    settings = {
        "kind": kind,
        "silence_s": config.silence_s,
        "gamepad": config.gamepad.model_dump(),
        "keyboard": config.keyboard.model_dump(),
    }
    commands, view = MessageRing.new(_COMMANDS_BYTES), new_status_ring()
    memory, bell = commands.files
    plan = ChildPlan(
        name=f"operator window ({kind})",
        module="teleop.operator_process",
        arguments=(
            "--config",
            json.dumps(settings),
            "--commands",
            str(memory),
            str(bell),
            "--view",
            str(view.file),
        ),
        files=(memory, bell, view.file),
        restart=True,
        silence_s=2.0,  # a display server may take a while to open a window
    )
    return OperatorLink(commands, view, silence_s=config.silence_s), plan
