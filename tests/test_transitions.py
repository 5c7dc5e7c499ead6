"""Each rule by hand, and all of them together against a slow and obvious reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.episode_header import Outcome
from policy.learner_episode import HOLD, HUMAN, POLICY, RESET, EpisodeArrays, EpisodeKey
from policy.transitions import Transitions, transitions
from robot.errors import BadInputError

GAMMA = 0.9
SOURCES = {"p": POLICY, "h": HUMAN, "-": HOLD, "r": RESET}


def episode(sources: str, *, outcome: str = "success", **changes: object) -> EpisodeArrays:
    """An episode whose rewards are powers of two, so that each sum tells its ticks; success ends the last one."""
    ticks = len(sources)
    source = np.array([SOURCES[letter] for letter in sources], dtype=np.int8)
    number = np.arange(ticks, dtype=np.float32)
    engaged = source == HUMAN
    last = number == ticks - 1
    whole = EpisodeArrays(
        key=EpisodeKey("run", 0, 0),
        outcome=Outcome(outcome),
        complete=True,
        open_loop=False,
        demonstration=False,
        bundle_sha256="0" * 64,
        index=np.arange(ticks),
        features=number[:, None].repeat(3, axis=1),
        proprio=number[:, None] + 100.0,
        base=number[:, None].repeat(2, axis=1) + 200.0,
        executed=number[:, None].repeat(2, axis=1) + 300.0,
        human=np.where(engaged[:, None], number[:, None].repeat(2, axis=1) + 400.0, np.nan).astype(np.float32),
        engaged=engaged,
        source=source,
        rewards=(2.0**number).astype(np.float32),
        terminated=last & (outcome in ("success", "failure")),
        truncated=last & (outcome == "timeout"),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def windows(data: Transitions) -> dict[int, tuple[int | None, float, float]]:
    """First tick -> (tick bootstrapped at, reward, discount)."""
    return {
        int(data.features[frame, 0]): (
            int(data.features[after, 0]) if factor > 0.0 else None,
            round(float(reward), 3),
            round(float(factor), 5),
        )
        for frame, after, reward, factor in zip(data.frame, data.next_frame, data.reward, data.discount, strict=True)
    }


def of(sources: str, *, n_step: int = 3, **changes: object) -> dict[int, tuple[int | None, float, float]]:
    return windows(transitions(episode(sources, **changes), n_step=n_step, discount=GAMMA))  # type: ignore[arg-type]


def test_success_ends_the_return_without_bootstrap() -> None:
    assert of("pppp") == {
        0: (3, round(1 + 0.9 * 2 + 0.81 * 4, 3), 0.729),
        1: (None, round(2 + 0.9 * 4 + 0.81 * 8, 3), 0.0),
        2: (None, round(4 + 0.9 * 8, 3), 0.0),
        3: (None, 8.0, 0.0),
    }


def test_timeout_bootstraps_at_the_last_logged_tick_and_drops_that_tick_itself() -> None:
    assert of("ppp", outcome="timeout") == {0: (2, 2.8, 0.81), 1: (2, 2.0, 0.9)}


def test_window_stops_at_handover_and_bootstraps_at_the_first_tick_of_the_next_source() -> None:
    found = of("pphhp", n_step=4)
    assert found[0] == (2, 2.8, 0.81)
    assert found[1] == (2, 2.0, 0.9)
    assert found[2] == (4, round(4 + 0.9 * 8, 3), 0.81)
    assert found[4] == (None, 16.0, 0.0)


def test_a_window_runs_on_over_a_handover_where_it_is_told_to() -> None:
    found = windows(transitions(episode("pphhp"), n_step=4, discount=GAMMA, cut_at_handover=False))
    assert found[0] == (4, round(1 + 0.9 * 2 + 0.81 * 4 + 0.729 * 8, 3), round(0.9**4, 5))
    assert found[3] == (None, round(8 + 0.9 * 16, 3), 0.0)


@pytest.mark.parametrize("idle", ["-", "r"])
def test_hold_and_reset_are_neither_learned_nor_bootstrapped_from(idle: str) -> None:
    assert of(f"pp{idle}pp", n_step=2) == {
        0: (1, 1.0, 0.9),
        3: (None, round(8 + 0.9 * 16, 3), 0.0),
        4: (None, 16.0, 0.0),
    }


def test_no_window_spans_missing_ticks() -> None:
    found = of("pppp", index=np.array([0, 1, 5, 6]))
    assert found[0] == (1, 1.0, 0.9)
    assert 1 not in found


def test_tick_without_base_proposal_is_left_out() -> None:
    base = episode("ppp").base.copy()
    base[1] = np.nan
    data = transitions(episode("ppp", base=base), n_step=3, discount=GAMMA)
    assert windows(data) == {2: (None, 4.0, 0.0)}
    assert np.isfinite(data.base).all()


@pytest.mark.parametrize("changes", [{"outcome": "abort"}, {"outcome": "success", "complete": False}])
def test_an_episode_whose_end_nobody_saw_has_no_terminal_tick(changes: dict[str, object]) -> None:
    terminated = np.array([False, False, True])
    found = of("ppp", **(changes | {"terminated": terminated}))
    assert found == {0: (2, 2.8, 0.81), 1: (2, 2.0, 0.9)}


def test_rerecorded_episode_teaches_nothing() -> None:
    assert transitions(episode("pppp", outcome="rerecord"), n_step=3, discount=GAMMA).size == 0


def test_ending_declared_while_holding_belongs_to_the_last_acting_tick() -> None:
    assert of("pp--", n_step=2) == {
        0: (None, round(1 + 0.9 * (2 + 4 + 8), 3), 0.0),
        1: (None, 14.0, 0.0),
    }


@pytest.mark.parametrize("outcome", ["success", "failure"])
@pytest.mark.parametrize("index", [[0, 1, 3, 4], [0, 1, 2, 9]])
def test_an_ending_declared_in_a_hold_counts_though_the_loop_skipped_ticks_in_it(
    outcome: str, index: list[int]
) -> None:
    assert of("pp--", n_step=2, outcome=outcome, index=np.array(index)) == {
        0: (None, round(1 + 0.9 * (2 + 4 + 8), 3), 0.0),
        1: (None, 14.0, 0.0),
    }


def test_open_loop_episode_is_refused_in_one_line() -> None:
    with pytest.raises(BadInputError, match="run run episode 0: it is open_loop") as caught:
        transitions(episode("pp", open_loop=True), n_step=1, discount=GAMMA)
    assert "\n" not in str(caught.value)


def test_what_the_policy_did_is_approved_where_no_takeover_follows_soon_and_success_does() -> None:
    def approved(sources: str, **changes: object) -> list[bool]:
        data = transitions(episode(sources, **changes), n_step=1, discount=GAMMA, doubt_ticks=2)  # type: ignore[arg-type]
        return [bool(flag) for flag in data.approved]

    assert approved("ppp") == [True, True, True]
    assert approved("ppp", outcome="failure") == [False, False, False]
    assert approved("pppphp") == [True, True, False, False, False, True]
    assert approved("pppphp", index=np.array([0, 1, 5, 6, 7, 8])) == [True, False, False, False, True]  # 1 | 5: a gap


def test_what_the_person_asked_for_stands_beside_what_was_executed() -> None:
    data = transitions(episode("ph"), n_step=1, discount=GAMMA)
    assert data.human.tolist() == [False, True]
    assert data.hindsight.tolist() == [False, False]
    np.testing.assert_array_equal(data.human_action, [[0.0, 0.0], [401.0, 401.0]])
    np.testing.assert_array_equal(data.action, [[300.0, 300.0], [301.0, 301.0]])


def reference(whole: EpisodeArrays, n_step: int) -> dict[int, tuple[int | None, float, float]]:
    """The rules, one tick at a time."""
    ticks = whole.ticks
    seen_end = whole.outcome in (Outcome.SUCCESS, Outcome.FAILURE) and whole.complete
    rewards = [float(value) for value in whole.rewards]
    ended = [bool(value) and seen_end for value in whole.terminated]
    acts = [
        whole.source[tick] in (POLICY, HUMAN) and bool(np.isfinite(whole.base[tick]).all()) for tick in range(ticks)
    ]
    for tick in range(ticks):
        if ended[tick] and whole.source[tick] == HOLD:
            last = tick
            while last >= 0 and whole.source[last] == HOLD:
                last -= 1
            if last >= 0 and acts[last]:
                rewards[last] += sum(rewards[last + 1 : tick + 1])
                ended[last] = True
    found: dict[int, tuple[int | None, float, float]] = {}
    for start in range(ticks):
        if not acts[start] or whole.outcome is Outcome.RERECORD:
            continue
        best: tuple[int | None, float, float] | None = None
        total = 0.0
        for step in range(n_step):
            tick = start + step
            total += GAMMA**step * rewards[tick]
            if ended[tick]:
                best = (None, total, 0.0)
                break
            if whole.truncated[tick] or tick + 1 == ticks:
                break
            if not acts[tick + 1] or whole.index[tick + 1] != whole.index[tick] + 1:
                break
            best = (tick + 1, total, GAMMA ** (step + 1))
            if whole.source[tick + 1] != whole.source[start]:
                break
        if best is not None:
            found[start] = best
    return found


@st.composite
def episodes(draw: st.DrawFn) -> EpisodeArrays:
    sources = draw(st.text("pphh-r", min_size=1, max_size=14))
    ticks = len(sources)
    flags = st.lists(st.integers(0, 5), min_size=ticks, max_size=ticks)
    base = episode(sources).base.copy()
    base[np.array(draw(flags)) == 5] = np.nan
    return episode(
        sources,
        outcome=draw(st.sampled_from(["success", "failure", "timeout", "abort", "rerecord", "incomplete"])),
        complete=draw(st.sampled_from([True, True, False])),
        index=np.cumsum([1 + (flag == 5) for flag in draw(flags)]),
        base=base,
        rewards=np.array(draw(flags), dtype=np.float32),
        terminated=np.array([flag == 5 for flag in draw(flags)]),
        truncated=np.array([flag == 5 for flag in draw(flags)]),
    )


@settings(max_examples=400, deadline=None)
@given(whole=episodes(), n_step=st.integers(1, 5))
def test_matches_the_rules_applied_one_tick_at_a_time(whole: EpisodeArrays, n_step: int) -> None:
    found = windows(transitions(whole, n_step=n_step, discount=GAMMA))
    wanted = reference(whole, n_step)
    assert found.keys() == wanted.keys()
    for tick, (after, reward, factor) in wanted.items():
        assert found[tick][0] == after
        assert found[tick][1:] == pytest.approx((reward, factor), abs=2e-3)
