import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.observation import Verdict
from teleop.arbiter import Arbiter, ArbiterState, HoldReason, Source, Voices
from teleop.human_input import AssistMode, HumanCommand, HumanEvent

SILENCE_S = 0.1
MOTION = np.array([True, True, True, True, False])

floats = st.floats(-3.0, 3.0, width=32)
actions = st.lists(floats, min_size=5, max_size=5).map(lambda values: np.array(values, np.float32))
wishes = actions.map(lambda action: np.clip(action, -1.0, 1.0))  # as `ActionSpace.from_human` gives them
events = st.integers(0, 127).map(HumanEvent)
states = st.builds(
    ArbiterState,
    armed=st.booleans(),
    stopped=st.booleans(),
    holding=st.booleans(),
    previous=st.sampled_from(Source),
)
arbiters = st.builds(
    lambda mode, perturb: Arbiter(mode=mode, silence_s=SILENCE_S, motion=MOTION, perturb=perturb),
    st.sampled_from(AssistMode),
    st.booleans(),
)
humans = st.builds(
    HumanCommand,
    gripper=st.none() | st.floats(-1.0, 1.0),
    engaged=st.booleans(),
    events=events,
    polled_s=st.floats(9.0, 10.0) | st.just(float("nan")),
    connected=st.booleans(),
)
voices_of_all_kinds = st.builds(
    Voices,
    base=st.none() | actions,
    residual=actions,
    noise=actions,
    human=humans,
    human_action=wishes,
    reset=st.none() | wishes,
    verdict=st.sampled_from(Verdict),
    overrun=st.booleans(),
    filter_latched=st.booleans(),
    now_s=st.just(10.0),
)


def voices(**changes: object) -> Voices:
    """Everything in order: fresh frames, a policy, a person who watches."""
    calm = Voices(
        base=np.full(5, 0.5, np.float32),
        residual=np.full(5, 0.1, np.float32),
        noise=np.zeros(5, np.float32),
        human=HumanCommand(polled_s=10.0),
        human_action=np.full(5, -0.25, np.float32),
        reset=None,
        verdict=Verdict.FRESH,
        overrun=False,
        filter_latched=False,
        now_s=10.0,
    )
    return dataclasses.replace(calm, **changes)  # type: ignore[arg-type]


def human(**changes: object) -> HumanCommand:
    return dataclasses.replace(HumanCommand(polled_s=10.0), **changes)  # type: ignore[arg-type]


ARMED = ArbiterState(armed=True, previous=Source.POLICY)
TAKEOVER = Arbiter(mode=AssistMode.TAKEOVER, silence_s=SILENCE_S, motion=MOTION)
NUDGE = Arbiter(mode=AssistMode.NUDGE, silence_s=SILENCE_S, motion=MOTION)


@given(arbiters, states, voices_of_all_kinds)
def test_nobody_drives_an_arm_that_is_disarmed_stopped_unplugged_or_silent(
    arbiter: Arbiter, state: ArbiterState, said: Voices
) -> None:
    after, decision = arbiter.step(state, said)
    alive = said.human.connected and said.now_s - said.human.polled_s <= SILENCE_S
    if not after.armed or after.stopped or not alive or said.filter_latched or said.overrun or after.holding:
        assert decision.source is Source.HOLD
        assert decision.action is None
        assert decision.reason is not HoldReason.NONE
    if said.verdict is not Verdict.FRESH and said.reset is None:
        assert decision.source is Source.HOLD


@given(arbiters, states, voices_of_all_kinds)
def test_decided_action_is_finite_and_within_bounds(arbiter: Arbiter, state: ArbiterState, said: Voices) -> None:
    after, decision = arbiter.step(state, said)
    assert (decision.action is None) == (decision.source is Source.HOLD)
    assert (decision.reason is HoldReason.NONE) == (decision.source is not Source.HOLD)
    assert after.previous is decision.source
    if decision.action is not None:
        assert decision.action.dtype == np.float32
        assert decision.action.shape == (5,)
        assert np.all(np.abs(decision.action) <= 1.0)


@given(arbiters, states, voices_of_all_kinds)
def test_human_wins_while_deadman_is_held(arbiter: Arbiter, state: ArbiterState, said: Voices) -> None:
    _, decision = arbiter.step(state, said)
    if decision.source in (Source.POLICY, Source.RESET):
        assert not said.human.engaged
    if decision.source is Source.HUMAN:
        assert said.human.engaged
        if arbiter.mode is AssistMode.TAKEOVER and not arbiter.perturb:
            np.testing.assert_array_equal(decision.action, said.human_action)


@given(arbiters, states, voices_of_all_kinds)
def test_a_stop_wins_over_everything_else_in_the_same_tick(arbiter: Arbiter, state: ArbiterState, said: Voices) -> None:
    stop = dataclasses.replace(said.human, events=said.human.events | HumanEvent.STOP)
    after, decision = arbiter.step(state, dataclasses.replace(said, human=stop))
    assert after.stopped
    assert not after.armed
    assert decision.action is None
    assert HoldReason.STOPPED in decision.reason


@given(arbiters, states, voices_of_all_kinds)
def test_same_state_and_voices_give_the_same_bits(arbiter: Arbiter, state: ArbiterState, said: Voices) -> None:
    arrays = [array.copy() for array in (said.residual, said.noise, said.human_action)]
    first_state, first = arbiter.step(state, said)
    again_state, again = arbiter.step(state, said)
    assert first_state == again_state
    assert (first.source, first.reason) == (again.source, again.reason)
    if first.action is not None and again.action is not None:
        assert first.action.tobytes() == again.action.tobytes()
    for before, after in zip(arrays, (said.residual, said.noise, said.human_action), strict=True):
        np.testing.assert_array_equal(before, after)


@given(states)
def test_state_survives_packing(state: ArbiterState) -> None:
    assert ArbiterState.unpacked(state.packed()) == state


def test_a_run_starts_disarmed() -> None:
    _, decision = TAKEOVER.step(ArbiterState(), voices(human=human(engaged=True)))
    assert decision.reason is HoldReason.NOT_ARMED


def test_release_hands_back_at_the_next_tick() -> None:
    driving, decision = TAKEOVER.step(ARMED, voices(human=human(engaged=True)))
    assert decision.source is Source.HUMAN
    _, decision = TAKEOVER.step(driving, voices())
    assert decision.source is Source.POLICY
    np.testing.assert_array_equal(decision.action, np.full(5, 0.6, np.float32))


def test_a_stop_lasts_until_the_arm_verb() -> None:
    state, _ = TAKEOVER.step(ARMED, voices(human=human(events=HumanEvent.STOP)))
    for _ in range(3):
        state, decision = TAKEOVER.step(state, voices(human=human(engaged=True)))
        assert decision.reason is HoldReason.STOPPED
    _, decision = TAKEOVER.step(state, voices(human=human(events=HumanEvent.ARM)))
    assert decision.source is Source.POLICY


def test_hold_verb_toggles_and_arming_ends_it() -> None:
    toggle = voices(human=human(events=HumanEvent.HOLD))
    state, decision = TAKEOVER.step(ARMED, toggle)
    assert decision.reason is HoldReason.PERSON_HOLD
    _, decision = TAKEOVER.step(state, toggle)
    assert decision.source is Source.POLICY
    _, decision = TAKEOVER.step(state, voices(human=human(events=HumanEvent.ARM)))
    assert decision.source is Source.POLICY


def test_homing_does_not_look_and_yields_to_the_drive_button() -> None:
    home = np.full(5, 0.125, np.float32)
    _, decision = TAKEOVER.step(ARMED, voices(reset=home, verdict=Verdict.STALE))
    assert decision.source is Source.RESET
    np.testing.assert_array_equal(decision.action, home)
    stuck = voices(reset=home, verdict=Verdict.STALE, human=human(engaged=True))
    assert TAKEOVER.step(ARMED, stuck)[1].source is Source.HUMAN


def test_without_a_proposal_only_the_person_moves_the_arm() -> None:
    _, decision = TAKEOVER.step(ARMED, voices(base=None))
    assert decision.reason is HoldReason.NO_PROPOSAL
    for arbiter in (TAKEOVER, NUDGE):
        _, decision = arbiter.step(ARMED, voices(base=None, human=human(engaged=True)))
        np.testing.assert_array_equal(decision.action, np.full(5, -0.25, np.float32))


def test_nudge_adds_to_motion_and_leaves_the_gripper_to_the_policy() -> None:
    _, decision = NUDGE.step(ARMED, voices(human=human(engaged=True)))
    np.testing.assert_allclose(decision.action, [0.35, 0.35, 0.35, 0.35, 0.6], rtol=1e-6)


def test_nudge_moves_the_gripper_when_the_person_asks() -> None:
    _, decision = NUDGE.step(ARMED, voices(human=human(engaged=True, gripper=-1.0)))
    np.testing.assert_allclose(decision.action, [0.35, 0.35, 0.35, 0.35, -0.25], rtol=1e-6)


def test_perturbing_disturbs_the_person_and_not_the_policy_twice() -> None:
    arbiter = dataclasses.replace(TAKEOVER, perturb=True)
    noise = np.full(5, 0.5, np.float32)
    _, decision = arbiter.step(ARMED, voices(noise=noise, human=human(engaged=True)))
    np.testing.assert_array_equal(decision.action, np.full(5, 0.25, np.float32))
    _, decision = arbiter.step(ARMED, voices(noise=noise))
    np.testing.assert_array_equal(decision.action, np.full(5, 0.6, np.float32))


@pytest.mark.parametrize("polled_s", [9.89, float("nan"), -float("inf")])
def test_a_poller_silent_for_too_long_holds(polled_s: float) -> None:
    _, decision = TAKEOVER.step(ARMED, voices(human=human(engaged=True, polled_s=polled_s)))
    assert decision.reason is HoldReason.DEVICE_SILENT


def test_every_reason_is_told_at_once() -> None:
    _, decision = TAKEOVER.step(
        ArbiterState(),
        voices(human=human(connected=False, events=HumanEvent.HOLD), overrun=True, filter_latched=True,
               verdict=Verdict.SKEWED),
    )  # fmt: skip
    assert decision.reason == (
        HoldReason.NOT_ARMED | HoldReason.PERSON_HOLD | HoldReason.DEVICE_UNPLUGGED | HoldReason.OVERRUN
        | HoldReason.FILTER_LATCHED | HoldReason.SKEWED_FRAMES
    )  # fmt: skip
