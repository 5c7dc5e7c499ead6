from pathlib import Path

import pytest

from policy.episode_header import EpisodeOutcome, LabelSource, Outcome
from robot.clock import VirtualClock
from robot.command import Reason
from teleop.arbiter import HoldReason, Source
from teleop.episode_result import EpisodeResult
from teleop.human_input import HumanCommand, HumanEvent
from teleop.loop_parts import Tick
from teleop.operator_status import OperatorStatus
from teleop.operator_view import OperatorView
from tests.filter_bench import PERIOD_S, arm_state
from tests.tick_bench import Bench


class Window:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[OperatorStatus, float]] = []

    def show(self, status: OperatorStatus, *, now_s: float) -> bool:
        self.shown.append((status, now_s))
        return True

    @property
    def last(self) -> OperatorStatus:
        return self.shown[-1][0]


class Viewed:
    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        self.window, self.clock = Window(), VirtualClock(10.0)
        self.results: list[EpisodeResult] = []
        self.view = OperatorView(self.window, self.clock, 20.0, self.results)

    def tick(self, **tick: object) -> OperatorStatus:
        outputs = self.bench.tick(**tick)  # type: ignore[arg-type]
        assert self.bench.inputs is not None
        self.clock.sleep_until(self.bench.inputs.now_s)
        self.view.tick(Tick(inputs=self.bench.inputs, outputs=outputs, after=self.bench.state))
        return self.window.last


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("view") / "bundle"


@pytest.fixture
def viewed(folder: Path) -> Viewed:
    return Viewed(folder)


def test_person_sees_who_drives_and_the_cameras_of_the_tick(viewed: Viewed) -> None:
    status = viewed.tick(events=HumanEvent.ARM)
    assert (status.source, status.armed) == (Source.POLICY, True)
    assert viewed.bench.inputs is not None
    assert status.images is viewed.bench.inputs.observation.images
    assert viewed.tick(engaged=True).source is Source.HUMAN
    assert viewed.window.shown[-1][1] == viewed.clock.now_s()
    assert status.wanted_rate_hz == 20.0


def test_reasons_of_a_hold_are_shown(viewed: Viewed) -> None:
    status = viewed.tick()
    assert not status.armed
    assert status.hold_reason == HoldReason.NOT_ARMED | HoldReason.FILTER_LATCHED
    viewed.tick(events=HumanEvent.ARM)
    assert viewed.tick(events=HumanEvent.HOLD).hold_reason is HoldReason.PERSON_HOLD


def test_robot_with_a_latched_fault_is_not_shown_as_armed(viewed: Viewed) -> None:
    viewed.tick(events=HumanEvent.ARM)
    status = viewed.tick(measured=arm_state(fault="reflex"))
    assert not status.armed
    assert Reason.ARM_FAULT in status.safety


def test_rate_is_measured_over_the_last_ticks(viewed: Viewed) -> None:
    assert viewed.tick(events=HumanEvent.ARM).rate_hz == 0.0
    for _ in range(30):
        status = viewed.tick()
    assert status.rate_hz == pytest.approx(1.0 / PERIOD_S)


def test_outcomes_so_far_are_counted_and_a_rerecorded_one_is_neither(viewed: Viewed) -> None:
    for outcome in (Outcome.SUCCESS, Outcome.TIMEOUT, Outcome.FAILURE, Outcome.SUCCESS, Outcome.RERECORD):
        viewed.results.append(EpisodeResult(outcome=EpisodeOutcome(outcome=outcome, label_source=LabelSource.TASK)))
    status = viewed.tick()
    assert (status.episode, status.successes, status.failures) == (5, 2, 2)


def test_waiting_robot_says_what_it_waits_for(viewed: Viewed) -> None:
    viewed.tick()
    assert viewed.bench.inputs is not None
    look = viewed.bench.inputs.observation
    viewed.view.waiting(look, HumanCommand())
    assert viewed.window.last.hold_reason is HoldReason.NOT_ARMED
    assert not viewed.window.last.armed
    viewed.view.waiting(look, HumanCommand(connected=False))
    assert viewed.window.last.hold_reason is HoldReason.DEVICE_UNPLUGGED
    assert not viewed.window.last.connected
