"""Ticks of a policy that is asked ahead of time: what is executed, held, dropped and latched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.observation import Verdict
from policy.bundle import Bundle, load_bundle
from policy.chunk_source import ChunkFault, ChunkReply, DelayedSource, MisshapenChunkError, ReplyKind
from robot.command import Hold, Reason
from teleop.arbiter import HoldReason, Source
from teleop.chunk_plan import Chunk, ChunkEvent, ChunkPlan
from teleop.human_input import AssistMode, HumanEvent
from teleop.tick import TickOutputs
from tests.filter_bench import PERIOD_S
from tests.tick_bench import Bench
from tests.tiny_bundle import make_tiny_bundle

H, EXECUTE, DELAY_TICKS = 12, 8, 3
SEAM_TICKS, SEAM_BOUND, DEADLINE_S = 3, 0.1, 0.5
AHEAD = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
MOTION = np.array([True, True, True, True, False])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("ahead") / "bundle"
    return load_bundle(make_tiny_bundle(folder, chunk_length=H, execute_steps=EXECUTE), "cpu")


class Drive(Bench):
    """A bench whose policy answers some ticks later."""

    def __init__(self, bundle: Bundle, *, delay_s: float = DELAY_TICKS * PERIOD_S, **rule: Any) -> None:
        self.bundle, self.delay_s = bundle, delay_s
        plan = ChunkPlan(
            period_s=PERIOD_S,
            deadline_s=DEADLINE_S,
            execute_steps=EXECUTE,
            seam_ticks=SEAM_TICKS,
            seam_bound=SEAM_BOUND,
            blended=MOTION,
        )
        self.make(bundle, ahead=plan, **rule)
        self.source = DelayedSource(
            lambda asked: bundle.act(asked.features, asked.proprio), lambda: self.delay_s, hung_after_s=1.0
        )
        self.received: dict[int, ChunkReply] = {}  # by tick of the request

    def go(self, **what: Any) -> TickOutputs:
        """One tick with what arrived for it; its request goes out."""
        now_s = 10.0 + PERIOD_S * self.index
        reply = self.source.poll(now_s)
        if reply is not None:
            self.received[reply.tick] = reply
        outputs = self.tick(reply=reply, **what)
        if outputs.request is not None:
            self.source.ask(outputs.request)
        return outputs

    def driven(self, ticks: int = 10) -> TickOutputs:
        """Arm and let the policy drive for some ticks."""
        outputs = self.go(events=HumanEvent.ARM)
        for _ in range(ticks):
            outputs = self.go()
        return outputs

    @property
    def plan(self) -> Chunk:
        assert self.state.chunk is not None
        return self.state.chunk


@pytest.fixture
def drive(bundle: Bundle) -> Drive:
    return Drive(bundle)


def test_the_arm_holds_until_the_first_chunk_is_there_and_then_executes_its_action_for_now(drive: Drive) -> None:
    outputs = drive.go(events=HumanEvent.ARM)
    assert ChunkEvent.ASKED in outputs.chunk_events
    for _ in range(DELAY_TICKS - 1):
        outputs = drive.go()
        assert outputs.decision.reason is HoldReason.NO_PROPOSAL
        assert outputs.features is not None  # the features do not wait
        assert outputs.request is None  # one request in flight
    outputs = drive.go()
    assert ChunkEvent.TAKEN in outputs.chunk_events
    assert outputs.decision.source is Source.POLICY
    assert outputs.chunk_delay_s == pytest.approx(DELAY_TICKS * PERIOD_S)
    received = drive.received[0].actions
    assert received is not None
    np.testing.assert_array_equal(outputs.base, received[DELAY_TICKS])  # the elapsed ones are dropped


def test_the_next_chunk_takes_over_in_time_with_a_seam_within_its_bound(drive: Drive) -> None:
    drive.driven(0)
    taken, since = 0, {}
    for _ in range(80):
        outputs = drive.go()
        tick = drive.index - 1
        if ChunkEvent.TAKEN in outputs.chunk_events:
            taken += 1
            since[drive.plan.requested] = tick
        if outputs.base is None:
            assert taken == 0  # never again after the first
            continue
        received = drive.received[drive.plan.requested].actions
        assert received is not None
        off = np.abs(outputs.base - received[tick - drive.plan.requested])
        assert off.max() <= SEAM_BOUND + 1e-6
        assert off[~MOTION].max() == 0.0
        if tick - since[drive.plan.requested] >= SEAM_TICKS or taken == 1:
            assert off.max() == 0.0
    assert taken >= 8


def test_a_chunk_that_is_used_up_holds_and_is_never_repeated(drive: Drive) -> None:
    drive.driven()
    drive.source.fault = (ChunkFault.HANG, 0.0)
    drive.source.forget()
    last = None
    for _ in range(60):
        outputs = drive.go()
        if ChunkEvent.USED_UP in outputs.chunk_events:
            last = drive.index - 1
        if last is not None:
            assert outputs.decision.reason is HoldReason.NO_PROPOSAL
            assert outputs.base is None
    assert last is not None
    assert isinstance(outputs.command, Hold)
    assert not outputs.command.latched
    assert drive.source.hung
    drive.source.fault = (ChunkFault.NONE, 0.0)
    for _ in range(round(DEADLINE_S / PERIOD_S) + DELAY_TICKS + 2):
        outputs = drive.go()
    assert outputs.decision.source is Source.POLICY  # and goes on by itself


def test_an_overdue_request_is_given_up_and_asked_again_and_its_late_answer_dropped(drive: Drive) -> None:
    drive.driven(DELAY_TICKS)
    drive.delay_s = DEADLINE_S + 2 * PERIOD_S
    seen = ChunkEvent.NONE
    asked: list[int] = []
    for _ in range(40):
        outputs = drive.go()
        seen |= outputs.chunk_events
        if outputs.request is not None:
            asked.append(outputs.request.tick)
            drive.delay_s = DELAY_TICKS * PERIOD_S if len(asked) > 1 else drive.delay_s
        if ChunkEvent.GIVEN_UP in outputs.chunk_events:
            assert ChunkEvent.ASKED in outputs.chunk_events  # at once
        assert drive.state.chunk is None or not asked or drive.plan.requested != asked[0]
    assert seen & (ChunkEvent.GIVEN_UP | ChunkEvent.LATE | ChunkEvent.TAKEN) == (
        ChunkEvent.GIVEN_UP | ChunkEvent.LATE | ChunkEvent.TAKEN
    )
    assert asked[1] - asked[0] == round(DEADLINE_S / PERIOD_S) + 1
    assert outputs.decision.source is Source.POLICY


@pytest.mark.parametrize("verdict", [Verdict.STALE, Verdict.MISSING])
def test_without_an_observation_chunk_and_request_are_dropped(drive: Drive, verdict: Verdict) -> None:
    drive.driven(0)
    outputs = drive.go(verdict=verdict)
    assert ChunkEvent.DROPPED in outputs.chunk_events
    assert outputs.request is None
    outputs = drive.go()
    assert ChunkEvent.ASKED in outputs.chunk_events
    anew = drive.index - 1
    late = 0
    for _ in range(DELAY_TICKS):
        outputs = drive.go()
        late += ChunkEvent.LATE in outputs.chunk_events
        assert drive.state.chunk is None or drive.plan.requested == anew
    assert late == 1
    assert drive.plan.requested == anew
    outputs = drive.go(verdict=verdict)
    assert drive.state.chunk is None
    assert outputs.decision.source is Source.HOLD
    assert drive.go().base is None


def test_homing_asks_for_nothing(drive: Drive) -> None:
    drive.driven()
    outputs = drive.go(reset=np.array([0.0, 0.0, 0.25, 0.0, 1.0], np.float32))
    assert outputs.request is None
    assert drive.state.chunk is None
    assert not drive.state.asking.waits


def test_release_hands_back_at_once_to_a_chunk_of_the_takeover(drive: Drive) -> None:
    drive.driven()
    asked = 0
    for _ in range(20):
        outputs = drive.go(engaged=True, twist=AHEAD)
        assert outputs.decision.source is Source.HUMAN
        assert outputs.base is not None  # the base runs in shadow
        asked += outputs.request is not None
    assert asked >= 20 // (DELAY_TICKS + 1)
    released = drive.index
    outputs = drive.go()
    assert outputs.decision.source is Source.POLICY
    assert released - drive.plan.requested <= 2 * DELAY_TICKS
    received = drive.received[drive.plan.requested].actions
    assert received is not None
    np.testing.assert_array_equal(drive.plan.actions, received)  # no seam: the arm did not follow the old plan


def test_a_nudged_policy_is_followed_and_keeps_its_seam(bundle: Bundle) -> None:
    drive = Drive(bundle, mode=AssistMode.NUDGE)
    drive.driven()
    seams = 0
    for _ in range(20):
        outputs = drive.go(engaged=True, twist=0.1 * AHEAD)
        if ChunkEvent.TAKEN in outputs.chunk_events:
            received = drive.received[drive.plan.requested].actions
            assert received is not None
            seams += not np.array_equal(drive.plan.actions, received)
    assert seams >= 3


def sick(drive: Drive, kind: str) -> None:
    if kind == "nan":
        drive.source.fault = (ChunkFault.NAN, 0.0)
        return

    def act(asked: object) -> np.ndarray:
        raise MisshapenChunkError("another shape")

    drive.source = DelayedSource(act, lambda: drive.delay_s, hung_after_s=1.0)


@pytest.mark.parametrize(("kind", "reason"), [("nan", Reason.NOT_FINITE), ("shape", Reason.WRONG_SHAPE)])
def test_three_chunks_in_a_row_that_are_none_latch_until_the_person_arms(
    drive: Drive, kind: str, reason: Reason
) -> None:
    drive.driven()
    sick(drive, kind)
    rejected = 0
    while rejected < 3:
        outputs = drive.go()
        rejected += ChunkEvent.REJECTED in outputs.chunk_events
        assert drive.state.filter.latched == (rejected == 3)
        assert drive.index < 100
    assert ChunkEvent.FAULT in outputs.chunk_events
    for _ in range(30):
        outputs = drive.go()
    assert drive.state.filter.latched
    assert drive.state.filter.reasons == Reason.FAULTED | reason
    assert isinstance(outputs.command, Hold)
    drive.source = Drive(drive.bundle).source
    for _ in range(30):
        outputs = drive.go()
    assert drive.state.filter.latched  # a policy that is well again does not clear it
    drive.go(events=HumanEvent.ARM)
    assert not drive.state.filter.latched
    assert drive.state.asking.rejected == 0
    for _ in range(DELAY_TICKS + 1):
        outputs = drive.go()
    assert outputs.decision.source is Source.POLICY


def test_a_good_chunk_in_between_begins_the_count_anew(drive: Drive) -> None:
    drive.driven()
    for _ in range(3):
        sick(drive, "nan")
        while ChunkEvent.REJECTED not in drive.go().chunk_events:
            assert drive.index < 200
        drive.source.fault = (ChunkFault.NONE, 0.0)  # the next request is on its way already
        rejected = 1
        while ChunkEvent.TAKEN not in (events := drive.go().chunk_events):
            rejected += ChunkEvent.REJECTED in events
            assert not drive.state.filter.latched
        assert rejected == 2
    assert drive.state.asking.rejected == 0


def test_a_sick_policy_does_not_take_the_arm_from_the_person(drive: Drive) -> None:
    drive.driven()
    sick(drive, "nan")
    for _ in range(40):
        outputs = drive.go(engaged=True, twist=AHEAD)
        assert outputs.decision.source is Source.HUMAN
    assert drive.state.asking.rejected > 3
    outputs = drive.go()
    assert outputs.decision.reason is HoldReason.NO_PROPOSAL
    for _ in range(10):
        drive.go()
    assert drive.state.filter.latched  # it is the policy's turn, and it has none


def test_a_policy_that_raises_holds_and_is_asked_again(drive: Drive) -> None:
    drive.driven()
    drive.source.fault = (ChunkFault.RAISE, 0.0)
    failed = 0
    for _ in range(60):
        outputs = drive.go()
        failed += ChunkEvent.FAILED in outputs.chunk_events
    assert failed > 5
    assert outputs.decision.reason is HoldReason.NO_PROPOSAL
    assert not drive.state.filter.latched
    drive.source.fault = (ChunkFault.NONE, 0.0)
    for _ in range(2 * DELAY_TICKS + 1):
        outputs = drive.go()
    assert outputs.decision.source is Source.POLICY


def test_a_source_may_answer_within_the_tick_that_follows(bundle: Bundle) -> None:
    drive = Drive(bundle, delay_s=0.0)
    drive.driven(0)
    outputs = drive.go()
    assert outputs.decision.source is Source.POLICY
    assert drive.plan.requested == 0


@settings(max_examples=25, deadline=None)
@given(
    delays=st.lists(st.floats(0.0, 0.7), min_size=1, max_size=12),
    person=st.lists(st.sampled_from(["policy"] * 6 + ["drives", "blind", "sick"]), min_size=20, max_size=60),
)
def test_whatever_happens_the_base_is_the_plan_for_this_tick_or_nothing(
    bundle: Bundle, delays: list[float], person: list[str]
) -> None:
    drive = Drive(bundle)
    drive.driven(0)
    for place, does in enumerate(person):
        drive.delay_s = delays[place % len(delays)]
        drive.source.fault = (ChunkFault.NAN if does == "sick" else ChunkFault.NONE, 0.0)
        outputs = drive.go(
            engaged=does == "drives",
            twist=AHEAD if does == "drives" else None,
            verdict=Verdict.STALE if does == "blind" else Verdict.FRESH,
        )
        tick = drive.index - 1
        if outputs.base is None:
            assert drive.state.chunk is None
            assert outputs.decision.source is not Source.POLICY
            continue
        plan = drive.plan
        np.testing.assert_array_equal(outputs.base, plan.actions[tick - plan.requested])
        reply = drive.received[plan.requested]
        assert reply.kind is ReplyKind.CHUNK
        assert reply.actions is not None
        assert np.abs(plan.actions - reply.actions).max() <= SEAM_BOUND + 1e-6
        assert reply.arrived_s - (10.0 + PERIOD_S * plan.requested) <= DEADLINE_S + 1e-9
