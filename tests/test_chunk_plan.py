"""When chunks are asked for and how one takes over from the other, on ticks and delays that are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from policy.chunk_source import ChunkReply, ReplyKind
from policy.episode_schema import DELAY_WINDOW
from teleop.chunk_plan import NOTHING_ASKED, Asking, Chunk, ChunkEvent, ChunkPlan

PERIOD_S, H, A = 0.05, 16, 3
BLENDED = np.array([True, True, False])


def plan(*, deadline_s: float = 2.0, execute: int = 8, seam_ticks: int = 4, seam_bound: float = 0.25) -> ChunkPlan:
    return ChunkPlan(
        period_s=PERIOD_S,
        deadline_s=deadline_s,
        execute_steps=execute,
        seam_ticks=seam_ticks,
        seam_bound=seam_bound,
        blended=BLENDED,
    )


def chunk(requested: int, value: float = 0.0) -> Chunk:
    """Actions that say for which tick they are meant, beside a level that tells chunks apart."""
    actions = np.zeros((H, A), np.float32)
    actions[:, 0], actions[:, 1], actions[:, 2] = value, -value, np.arange(requested, requested + H)
    return Chunk(actions=actions, requested=requested)


def reply(tick: int, arrived_s: float, actions: NDArray[np.float32] | None = None) -> ChunkReply:
    given = chunk(tick).actions if actions is None else actions
    return ChunkReply(tick=tick, arrived_s=arrived_s, kind=ReplyKind.CHUNK, actions=given)


def test_an_action_is_for_its_own_tick_and_a_plan_has_none_beyond_its_end() -> None:
    made = chunk(10)
    for tick in range(10, 10 + H):
        action = made.at(tick)
        assert action is not None
        assert action[2] == tick
    assert made.at(9) is None
    assert made.at(10 + H) is None


def test_the_seam_leads_from_the_old_plan_to_the_new_one() -> None:
    spliced = plan(seam_bound=2.0).spliced(chunk(0, 0.5), chunk(6, -0.5), 8)
    shares = [0.8, 0.6, 0.4, 0.2]
    np.testing.assert_allclose(
        spliced.actions[2:6, 0], [share * 0.5 - (1 - share) * 0.5 for share in shares], atol=1e-6
    )
    np.testing.assert_array_equal(spliced.actions[6:], chunk(6, -0.5).actions[6:])
    np.testing.assert_array_equal(spliced.actions[:2], chunk(6, -0.5).actions[:2])
    np.testing.assert_array_equal(spliced.actions[:, 2], chunk(6).actions[:, 2])  # the gripper switches
    assert not spliced.actions.flags.writeable


def test_a_seam_of_no_ticks_switches_at_once() -> None:
    new = chunk(6, -0.5)
    np.testing.assert_array_equal(plan(seam_ticks=0).spliced(chunk(0, 0.5), new, 8).actions, new.actions)


@pytest.mark.parametrize("old", [None, chunk(0, 0.5)])
def test_without_a_continuation_there_is_no_seam(old: Chunk | None) -> None:
    new = chunk(14, -0.5)
    np.testing.assert_array_equal(plan().spliced(old, new, H).actions, new.actions)


@given(st.integers(0, 10), st.integers(1, 15), st.integers(0, 20), st.floats(0.0, 1.0), st.integers(0, 2**32 - 1))
def test_no_seam_deviates_from_the_new_plan_by_more_than_its_bound_nor_lasts_longer(
    waited: int, age: int, seam_ticks: int, bound: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    old = Chunk(actions=rng.uniform(-1, 1, (H, A)).astype(np.float32), requested=0)
    new = Chunk(actions=rng.uniform(-1, 1, (H, A)).astype(np.float32), requested=age)
    spliced = plan(seam_ticks=seam_ticks, seam_bound=bound).spliced(old, new, age + waited)
    off = np.abs(spliced.actions.astype(np.float64) - new.actions)
    assert off.max() <= bound + 1e-6
    assert not off[:, ~BLENDED].any()
    assert not off[:waited].any()
    assert not off[waited + seam_ticks :].any()
    # never further than the two plans are apart at most
    assert off.max() <= np.abs(old.actions[age:].astype(np.float64) - new.actions[: H - age]).max() + 1e-6


def test_the_first_request_goes_out_at_once_and_the_next_in_time() -> None:
    rule = plan()
    assert rule.due(None, NOTHING_ASKED, 0)
    assert rule.due(chunk(5), NOTHING_ASKED, 5)  # nothing measured yet
    known = Asking(delays_s=(0.1,) * 4)
    assert rule.lead_ticks(known.delays_s) == 3
    assert next(tick for tick in range(5, 20) if rule.due(chunk(5), known, tick)) == 5 + 8 - 3


@given(
    st.lists(st.floats(0.08, 0.12), min_size=2, max_size=60),
    st.floats(0.2, 1e6),
    st.data(),
)
def test_one_spike_of_any_length_moves_the_request_by_at_most_a_tick_and_is_forgotten(
    usual_s: list[float], spike_s: float, data: st.DataObject
) -> None:
    rule = plan(deadline_s=1e9)
    place = data.draw(st.integers(0, len(usual_s)))
    window = tuple(([*usual_s[:place], spike_s, *usual_s[place:]])[-DELAY_WINDOW:])
    without = tuple(usual_s[-DELAY_WINDOW:])
    # 80 to 120 ms are two or three ticks; the greatest of them is all that a spike can bring forward
    assert abs(rule.lead_ticks(window) - rule.lead_ticks(without)) <= 1
    assert rule.lead_ticks(window) <= math.ceil(max(usual_s) / PERIOD_S - 1e-6) + 1
    later = (*window, *([0.1] * DELAY_WINDOW))[-DELAY_WINDOW:]
    assert rule.lead_ticks(later) == rule.lead_ticks((0.1,) * DELAY_WINDOW)


def test_a_policy_that_became_slower_is_asked_earlier_within_a_few_answers() -> None:
    rule, delays_s = plan(), (0.1,) * DELAY_WINDOW
    leads = []
    for _ in range(DELAY_WINDOW):
        delays_s = (*delays_s, 0.3)[-DELAY_WINDOW:]
        leads.append(rule.lead_ticks(delays_s))
    assert leads[-1] == 7
    assert leads == sorted(leads)
    assert leads[5] == 7  # more than the quarter of the window above the quantile


def test_answers_that_belong_to_no_request_in_flight_are_dropped() -> None:
    rule, asking = plan(), Asking(tick=5, asked_s=10.0)
    for late in (reply(4, 10.1), reply(6, 10.1), reply(5, 9.9), reply(5, math.nan), reply(5, 12.5)):
        after, new, events, delay_s = rule.answered(asking, late, 10.2, (H, A))
        assert (after, new, events) == (asking, None, ChunkEvent.LATE)
        assert math.isnan(delay_s)
    _, new, events, _ = rule.answered(NOTHING_ASKED, reply(5, 10.1), 10.2, (H, A))
    assert (new, events) == (None, ChunkEvent.LATE)


def test_a_taken_answer_is_measured_from_its_request() -> None:
    after, new, events, delay_s = plan().answered(Asking(tick=5, asked_s=10.0), reply(5, 10.12), 10.15, (H, A))
    assert events is ChunkEvent.TAKEN
    assert new is not None
    assert new.requested == 5
    assert delay_s == pytest.approx(0.12)
    assert after.delays_s == (delay_s,)
    assert not after.waits


def test_a_request_is_given_up_after_its_deadline_and_not_before() -> None:
    rule, asking = plan(deadline_s=0.5), Asking(tick=5, asked_s=10.0)
    assert rule.answered(asking, None, 10.5, (H, A))[0] == asking
    after, _, events, _ = rule.answered(asking, None, 10.51, (H, A))
    assert events is ChunkEvent.GIVEN_UP
    assert not after.waits
    assert after.delays_s == ()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, "shape", "nothing"])
def test_what_is_no_chunk_is_rejected_and_counted_until_a_good_one_comes(wrong: object) -> None:
    rule, asking = plan(), NOTHING_ASKED
    bad = reply(0, 0.1)
    actions = chunk(0).actions.copy()
    match wrong:
        case "shape":
            bad = reply(0, 0.1, actions[:-1])
        case "nothing":
            bad = ChunkReply(tick=0, arrived_s=0.1, kind=ReplyKind.MISSHAPEN)
        case float():
            actions[-1, -1] = wrong
            bad = reply(0, 0.1, actions)
    for count in (1, 2, 3, 4):
        asked = Asking(tick=0, asked_s=0.0, rejected=asking.rejected)
        asking, new, events, _ = rule.answered(asked, bad, 0.1, (H, A))
        assert (new, events, asking.rejected) == (None, ChunkEvent.REJECTED, count)
    asked = Asking(tick=0, asked_s=0.0, rejected=asking.rejected)
    assert rule.answered(asked, reply(0, 0.1), 0.1, (H, A))[0].rejected == 0


@dataclass
class Drive:
    """The policy drives: what the rule does with answers after drawn delays, and what is executed."""

    rule: ChunkPlan
    delays_s: list[float]
    asking: Asking = NOTHING_ASKED
    chunk: Chunk | None = None
    arrivals: list[ChunkReply] = field(default_factory=list)
    executed: dict[int, Chunk | None] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    events: list[ChunkEvent] = field(default_factory=list)

    def run(self, ticks: list[int]) -> None:
        for tick in ticks:
            now_s = tick * PERIOD_S
            there = [one for one in self.arrivals if one.arrived_s <= now_s + 1e-9]
            self.arrivals = [one for one in self.arrivals if one not in there]
            newest = there[-1] if there else None
            self.asking, new, events, _ = self.rule.answered(self.asking, newest, now_s, (H, A))
            if new is not None:
                self.chunk = self.rule.spliced(self.chunk, new, tick)
            if self.chunk is not None and self.chunk.at(tick) is None:
                self.chunk = None
            self.executed[tick] = self.chunk
            self.events.append(events)
            if not self.asking.waits and self.rule.due(self.chunk, self.asking, tick):
                self.asking = Asking(tick=tick, asked_s=now_s, delays_s=self.asking.delays_s)
                self.asked.append(tick)
                delay_s = self.delays_s[len(self.asked) % len(self.delays_s)]
                self.arrivals.append(reply(tick, now_s + delay_s, chunk(tick, 0.1 * (len(self.asked) % 3)).actions))


@given(
    st.lists(st.floats(0.0, 1.5), min_size=1, max_size=20),
    st.lists(st.sampled_from([1, 1, 1, 1, 2, 5]), min_size=30, max_size=150),
    st.floats(0.1, 1.0),
)
def test_whatever_the_delays_each_action_is_executed_on_its_own_tick_and_once(
    delays_s: list[float], steps: list[int], deadline_s: float
) -> None:
    drive = Drive(plan(deadline_s=deadline_s), delays_s)
    drive.run(np.cumsum(steps).tolist())
    for tick, in_force in drive.executed.items():
        if in_force is not None:
            action = in_force.at(tick)
            assert action is not None
            assert action[2] == tick  # the gripper dimension carries the tick and is never blended
            assert tick - in_force.requested >= 0
    given_up = sum(ChunkEvent.GIVEN_UP in events for events in drive.events)
    taken = sum(ChunkEvent.TAKEN in events for events in drive.events)
    assert len(drive.asked) - given_up - taken in (0, 1)  # one request in flight at most


@pytest.mark.parametrize("delay_s", [0.0, 0.04, 0.1, 0.3, 0.4])
def test_a_steady_policy_of_up_to_half_a_chunk_never_leaves_the_arm_without_a_plan(delay_s: float) -> None:
    drive = Drive(plan(execute=12), [delay_s])
    drive.run(list(range(200)))
    first = next(tick for tick, in_force in drive.executed.items() if in_force is not None)
    assert first == math.ceil(delay_s / PERIOD_S - 1e-6) or (delay_s == 0.0 and first == 1)
    assert all(drive.executed[tick] is not None for tick in range(first, 200))


def test_a_policy_too_slow_for_its_chunks_holds_in_between() -> None:
    drive = Drive(plan(deadline_s=5.0), [1.2])  # 24 ticks for chunks of 16
    drive.run(list(range(200)))
    assert all(in_force is None for in_force in drive.executed.values())


def test_a_spike_costs_at_most_the_ticks_that_it_lasts() -> None:
    usual = Drive(plan(deadline_s=10.0), [0.1])
    usual.run(list(range(300)))
    spiked = Drive(plan(deadline_s=10.0), [0.1] * 10 + [5.0] + [0.1] * 1000)
    spiked.run(list(range(300)))
    assert usual.asked[:10] == spiked.asked[:10]
    gaps = np.diff(spiked.asked)
    at = int(np.argmax(gaps))
    assert gaps[at] >= 100
    np.testing.assert_array_equal(gaps[at + 2 :], np.diff(usual.asked)[20])  # the rhythm is back with the next answer
