from __future__ import annotations

import math
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.observation import Verdict
from robot.message_ring import MessageRing
from teleop.arbiter import Arbiter, ArbiterState, Source, Voices
from teleop.human_input import AssistMode, HumanCommand, HumanEvent, HumanInput
from teleop.operator_link import OperatorLink, operator_link
from teleop.operator_messages import COMMAND_BYTES, Said, merged, pack_command, unpack_command
from teleop.operator_process import OperatorProcessConfig
from teleop.operator_status import OperatorStatus
from teleop.station import OperatorConfig
from teleop.status_record import StatusReader, new_status_ring
from tests.contracts import HumanInputContract

SILENCE_S = 0.1
DRIVING = HumanCommand(twist=np.full(6, 0.5), gripper=-1.0, engaged=True, polled_s=100.0)


class Wire:
    """The loop's end with the other one in the test's hands."""

    def __init__(self, capacity: int = 64_000) -> None:
        self.ring = MessageRing.new(capacity)
        self.view = new_status_ring()
        self.link = OperatorLink(self.ring, self.view, silence_s=SILENCE_S)
        self.ring.put(Said.OPENED, b"guid")

    def says(self, *commands: HumanCommand) -> None:
        for command in commands:
            self.ring.put(Said.COMMAND, pack_command(command))


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    with wire.link:
        yield wire


class TestOperatorLinkContract(HumanInputContract):
    @pytest.fixture(autouse=True)
    def _seeded(self) -> None:
        self.rng = np.random.default_rng(7)

    def make(self) -> HumanInput:
        self.wire = Wire()
        return self.wire.link

    def stir(self, human: HumanInput, step: int) -> None:
        for part in range(int(self.rng.integers(0, 8))):
            kind = self.rng.integers(0, 10)
            time_s = 100.0 + 0.05 * (step - 1) + 0.006 * part
            if kind == 0:
                self.wire.ring.put(Said.COMMAND, self.rng.bytes(COMMAND_BYTES))
            elif kind == 1:
                self.wire.says(HumanCommand(connected=False, polled_s=time_s))
            elif kind < 5:
                self.wire.says(HumanCommand(events=HumanEvent(1 << int(self.rng.integers(0, 7))), polled_s=time_s))
            else:
                self.wire.says(replace(DRIVING, twist=self.rng.uniform(-1, 1, 6), polled_s=time_s))


def test_newest_command_counts_with_the_edges_of_all_since_the_last_poll(wire: Wire) -> None:
    wire.says(
        replace(DRIVING, events=HumanEvent.HOLD, polled_s=100.0),
        HumanCommand(events=HumanEvent.SUCCESS, polled_s=100.01),
        replace(DRIVING, twist=np.full(6, 0.25), gripper=1.0, polled_s=100.02),
    )
    command = wire.link.poll(100.03)
    assert command.events == HumanEvent.HOLD | HumanEvent.SUCCESS
    assert (command.engaged, command.gripper, command.polled_s) == (True, 1.0, 100.02)
    np.testing.assert_array_equal(command.twist, np.full(6, 0.25))


def test_drive_that_ended_since_the_last_poll_leaves_no_gripper_wish(wire: Wire) -> None:
    wire.says(DRIVING, HumanCommand(polled_s=100.01))
    command = wire.link.poll(100.02)
    assert (command.engaged, command.gripper) == (False, None)


def test_same_edge_in_two_commands_counts_at_both_polls(wire: Wire) -> None:
    for time_s in (100.0, 100.01):
        wire.says(HumanCommand(events=HumanEvent.HOLD, polled_s=time_s))
        assert wire.link.poll(100.02).events == HumanEvent.HOLD
    wire.says(HumanCommand(polled_s=100.02))
    assert wire.link.poll(100.03).events is HumanEvent.NONE


def test_stop_outdoes_an_arm_that_came_before_or_after_it(wire: Wire) -> None:
    for first, second in ((HumanEvent.STOP, HumanEvent.ARM), (HumanEvent.ARM, HumanEvent.STOP)):
        wire.says(HumanCommand(events=first), HumanCommand(events=second))
        assert wire.link.poll(1.0).events == HumanEvent.STOP


def test_without_a_new_command_the_last_one_counts_with_its_own_time(wire: Wire) -> None:
    wire.says(replace(DRIVING, events=HumanEvent.HOLD))
    wire.link.poll(100.0)
    command = wire.link.poll(100.0 + 0.99 * SILENCE_S)
    assert (command.engaged, command.events, command.polled_s) == (True, HumanEvent.NONE, 100.0)


def test_silence_ends_the_drive_until_the_device_speaks_again(wire: Wire) -> None:
    wire.says(DRIVING)
    assert wire.link.poll(100.0).engaged
    silent = wire.link.poll(100.0 + 1.01 * SILENCE_S)
    assert (silent.engaged, silent.gripper, silent.connected, silent.polled_s) == (False, None, True, 100.0)
    assert not silent.twist.any()
    wire.says(replace(DRIVING, polled_s=100.2))
    assert wire.link.poll(100.21).engaged


def test_command_that_was_long_on_its_way_does_not_drive_but_its_edges_count(wire: Wire) -> None:
    wire.says(replace(DRIVING, events=HumanEvent.STOP))
    command = wire.link.poll(100.0 + 2.0 * SILENCE_S)
    assert (command.engaged, command.events) == (False, HumanEvent.STOP)


def test_nothing_was_ever_said_is_not_connected(wire: Wire) -> None:
    command = wire.link.poll(100.0)
    assert (command.connected, command.engaged, command.events) == (False, False, HumanEvent.NONE)


def test_successor_that_opened_begins_without_the_drive_of_its_predecessor_but_keeps_its_edges(wire: Wire) -> None:
    wire.says(replace(DRIVING, events=HumanEvent.STOP))
    wire.ring.put(Said.OPENED, b"")
    command = wire.link.poll(100.01)
    assert (command.engaged, command.connected, command.events) == (False, False, HumanEvent.STOP)
    assert wire.link.malformed == 0


def test_successor_that_cannot_open_says_why_and_is_not_connected(wire: Wire) -> None:
    wire.says(DRIVING)
    wire.ring.put(Said.REFUSED, b"operator window: cannot open a display")
    assert not wire.link.poll(100.01).connected
    assert wire.link.problem == "operator window: cannot open a display"
    wire.ring.put(Said.OPENED, b"")
    wire.link.poll(100.02)
    assert wire.link.problem == ""


WRONG: dict[str, Callable[[], bytes]] = {
    "twist not finite": lambda: pack_command(replace(DRIVING, twist=np.full(6, math.nan))),
    "twist too large": lambda: pack_command(replace(DRIVING, twist=np.full(6, 1.01))),
    "gripper not finite": lambda: pack_command(replace(DRIVING, gripper=math.nan)),
    "gripper too large": lambda: pack_command(replace(DRIVING, gripper=-2.0)),
    "unknown edge": lambda: pack_command(DRIVING)[:64] + struct.pack("=4I", 1 << 7, 1, 1, 1),
    "flag that is neither": lambda: pack_command(DRIVING)[:64] + struct.pack("=4I", 0, 2, 1, 1),
    "moves but does not drive": lambda: pack_command(replace(DRIVING, engaged=False)),
    "drives while unplugged": lambda: pack_command(replace(DRIVING, connected=False)),
    "time not finite": lambda: pack_command(replace(DRIVING, polled_s=math.nan)),
    "time to come": lambda: pack_command(replace(DRIVING, polled_s=200.0)),
    "time before the last one": lambda: pack_command(replace(DRIVING, polled_s=99.0)),
    "too short": lambda: pack_command(DRIVING)[:-1],
    "empty": lambda: b"",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_no_device_can_have_said_stops_and_is_counted(wire: Wire, wrong: str) -> None:
    wire.says(DRIVING)
    assert wire.link.poll(100.0).engaged
    wire.ring.put(Said.COMMAND, WRONG[wrong]())
    command = wire.link.poll(100.02)
    assert (command.engaged, command.connected, command.gripper) == (False, False, None)
    assert command.events == HumanEvent.STOP
    assert not command.twist.any()
    assert wire.link.malformed == 1


def test_unknown_kind_of_message_stops(wire: Wire) -> None:
    wire.ring.put(9, b"hello")
    assert wire.link.poll(100.0).events == HumanEvent.STOP


def test_sound_command_behind_a_malformed_one_does_not_undo_the_stop(wire: Wire) -> None:
    wire.ring.put(Said.COMMAND, b"")
    wire.says(replace(DRIVING, events=HumanEvent.ARM))
    assert wire.link.poll(100.0).events == HumanEvent.STOP


def test_ring_that_is_no_ring_any_more_stops_and_never_raises(wire: Wire) -> None:
    wire.says(DRIVING)
    wire.link.poll(100.0)
    wire.ring._positions[0] = 2**60
    for _ in range(3):
        command = wire.link.poll(100.01)
        assert (command.engaged, command.events) == (False, HumanEvent.STOP)
    assert "start the run again" in wire.link.problem


@given(data=st.binary(min_size=COMMAND_BYTES, max_size=COMMAND_BYTES), now_s=st.floats(0.0, 1e9))
def test_whatever_the_bytes_a_command_is_bounded_or_refused(data: bytes, now_s: float) -> None:
    command = unpack_command(data, now_s=now_s)
    if command is not None:
        assert np.all(np.abs(command.twist) <= 1.0)
        assert command.gripper is None or -1.0 <= command.gripper <= 1.0
        assert 0.0 <= command.polled_s <= now_s
        assert command.engaged or not (command.twist.any() or command.gripper is not None)


@given(
    twist=st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6),
    gripper=st.none() | st.floats(-1.0, 1.0),
    events=st.integers(0, 127).map(HumanEvent),
    polled_s=st.floats(0.0, 1e6),
)
def test_command_arrives_as_it_was_said(
    twist: list[float], gripper: float | None, events: HumanEvent, polled_s: float
) -> None:
    said = HumanCommand(twist=np.array(twist), gripper=gripper, engaged=True, events=events, polled_s=polled_s)
    heard = unpack_command(pack_command(said), now_s=1e6)
    assert heard is not None
    np.testing.assert_array_equal(heard.twist, said.twist)
    assert replace(heard, twist=said.twist) == said


@given(events=st.lists(st.integers(0, 127).map(HumanEvent), min_size=1, max_size=6))
def test_no_edge_is_lost_but_to_a_stop(events: list[HumanEvent]) -> None:
    together = HumanEvent.NONE
    for event in events:
        together = merged(together, event)
    everything = HumanEvent(0)
    for event in events:
        everything |= event
    stops = HumanEvent.STOP | HumanEvent.QUIT
    assert together & stops == everything & stops
    assert (together | HumanEvent.HOLD) == (everything | HumanEvent.HOLD) or HumanEvent.STOP in together


@given(events=st.lists(st.integers(0, 127).map(HumanEvent), min_size=1, max_size=6), holding=st.booleans())
def test_holding_after_several_polls_as_one_is_what_it_is_after_each(events: list[HumanEvent], holding: bool) -> None:
    events = [event & ~HumanEvent.STOP for event in events]
    arbiter = Arbiter(mode=AssistMode.TAKEOVER, silence_s=SILENCE_S, motion=np.ones(5, bool))
    each, together = ArbiterState(armed=True, holding=holding), HumanEvent.NONE
    for event in events:
        each, _ = arbiter.step(each, voices(event))
        together = merged(together, event)
    at_once, _ = arbiter.step(ArbiterState(armed=True, holding=holding), voices(together))
    assert at_once.holding == each.holding


def voices(events: HumanEvent) -> Voices:
    zeros = np.zeros(5, np.float32)
    return Voices(
        base=zeros, residual=zeros, noise=zeros, human=HumanCommand(events=events, polled_s=1.0), human_action=zeros,
        reset=None, verdict=Verdict.FRESH, overrun=False, filter_latched=False, now_s=1.0,
    )  # fmt: skip


def test_child_is_described_as_the_supervisor_starts_it() -> None:
    config = OperatorConfig(silence_s=SILENCE_S)
    link, plan = operator_link("gamepad", config)
    told = dict(zip(plan.arguments[::2], plan.arguments[1::2], strict=False))
    told_config = OperatorProcessConfig.model_validate_json(told["--config"])
    assert (told_config.gamepad, told_config.silence_s) == (config.gamepad, SILENCE_S)
    assert (plan.module, plan.restart, len(set(plan.files))) == ("teleop.operator_process", True, 3)
    assert all(str(file) in plan.arguments for file in plan.files)
    link.__exit__(None, None, None)


def test_display_has_the_status_and_knows_the_device_from_the_start(wire: Wire) -> None:
    reader = StatusReader(wire.view)
    starting = reader.newest()
    assert starting is not None
    assert (starting.armed, starting.source, reader.device) == (False, Source.HOLD, "guid")
    status = OperatorStatus(
        source=Source.HUMAN, armed=True, rate_hz=20.0, wanted_rate_hz=20.0, tick=1, episode=0, successes=0, failures=0
    )
    assert wire.link.show(status, now_s=100.0)
    assert reader.newest() == status


def test_loop_loads_no_sdl() -> None:
    code = "import sys, teleop.operator_link, teleop.operator_view\nprint('pygame' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
