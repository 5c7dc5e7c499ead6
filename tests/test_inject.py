"""What `--inject` takes, and what it makes of it."""

from __future__ import annotations

import pytest

from perception.faulty_source import CameraFault
from policy.chunk_source import ChunkFault
from robot.errors import BadInputError
from teleop.inject import KINDS, LocalFaults, process_injections, read_fault
from teleop.supervision import Deed

NAMES = ["simulated arm", "servo", "camera front", "camera wrist", "recorder", "learner"]
CAMERAS = ["front", "wrist"]


def test_a_word_gives_kind_target_time_and_amount() -> None:
    fault = read_fault("camera-slow:wrist@2.5+1.5=0.3")
    assert (fault.name, fault.target_name, fault.at_s, fault.for_s, fault.amount) == (
        "camera-slow", "wrist", 2.5, 1.5, 0.3,
    )  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_sensible_defaults(name: str) -> None:
    fault = read_fault(name)
    assert fault.at_s == 1.0
    assert fault.for_s == KINDS[name].for_s > 0.0
    assert fault.amount == KINDS[name].amount


@pytest.mark.parametrize(("name", "silence_s"), [("camera-freeze", 1.0), ("operator-freeze", 2.0)])
def test_what_stands_still_does_so_for_longer_than_the_supervisor_waits(name: str, silence_s: float) -> None:
    assert read_fault(name).for_s > silence_s


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("camera-eat", "'camera-eat' is no fault; did you mean camera-"),
        ("nonsense@3", "'nonsense' is no fault; allowed camera-kill, camera-freeze"),
        ("", "'' is no fault; allowed"),
        ("camera-kill@soon", "not KIND"),
        ("camera-slow=-1", "not KIND"),
        ("camera-kill@1.2.3", "times and amounts are numbers"),
        ("camera-silent+0", r"\+0 s is no time"),
        ("camera-silent+1000000", r"\+1e\+06 s is no time .allowed over 0 to 86400 s"),
        ("loop-stall@1" + "0" * 400, "@inf s never comes"),
        ("loop-kill+3", "the loop is killed at once; leave it out"),
        ("camera-freeze=3", "has no amount; leave out =3"),
        ("camera-drops=1.5", "got =1.5 .allowed over 0 to 1.; a share AMOUNT"),
        ("camera-slow=0", "got =0 .allowed over 0 to 100"),
        ("servo-kill:front", "takes no target"),
    ],
)
def test_a_word_that_is_none_is_refused_in_one_line(word: str, told: str) -> None:
    with pytest.raises(BadInputError, match=told) as caught:
        read_fault(word)
    assert "\n" not in str(caught.value)


def test_faults_of_processes_go_to_their_places_on_the_board() -> None:
    words = ["camera-kill:wrist@3", "camera-drops", "loop-stall", "supervisor-kill", "recorder-kill", "servo-freeze"]
    found = process_injections([read_fault(word) for word in words], NAMES, CAMERAS)
    assert [(injection.place, injection.deed) for injection in found] == [
        (4, Deed.KILL), (3, Deed.FAULT), (0, Deed.FREEZE), (None, Deed.KILL), (5, Deed.KILL), (2, Deed.FREEZE),
    ]  # fmt: skip
    assert (found[1].number, found[1].amount) == (CameraFault.DROPS, 0.3)
    assert found[0].at_s == 3.0
    assert found[2].for_s == 0.3


def test_faults_of_the_base_policy_go_where_it_runs() -> None:
    fault = read_fault("base-slow=0.7")
    assert process_injections([fault], NAMES, CAMERAS) == []
    (there,) = process_injections([fault], [*NAMES, "policy"], CAMERAS)
    assert (there.place, there.number, there.amount) == (7, ChunkFault.SLOW, 0.7)


def test_where_the_tables_arm_is_a_shadow_the_arm_that_is_switched_off_is_the_other_one() -> None:
    names = ["simulated table", "franka simulator", "servo"]
    found = process_injections([read_fault("arm-off"), read_fault("arm-reflex")], names, CAMERAS)
    assert [(injection.place, injection.deed) for injection in found] == [(2, Deed.KILL), (1, Deed.FAULT)]
    with pytest.raises(BadInputError, match=r"this run has no simulated arm of its own"):
        process_injections([read_fault("arm-off")], ["simulated table", "servo"], CAMERAS)


@pytest.mark.parametrize(
    ("word", "told"),
    [("camera-kill:top", "no camera 'top' .allowed front, wrist"), ("operator-kill", "no operator of its own")],
)
def test_a_fault_of_what_is_not_there_is_refused(word: str, told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        process_injections([read_fault(word)], NAMES, CAMERAS)


def test_faults_of_the_loop_are_shown_from_the_first_tick_on_for_their_time() -> None:
    now_s = 100.0
    faults = LocalFaults([read_fault("pad-unplug@2+1"), read_fault("servo-kill")], lambda: now_s)
    assert faults.active("pad-unplug") is None
    faults.begin()
    shown = []
    for now_s in (101.9, 102.0, 102.9, 103.0):  # noqa: B007
        shown.append(faults.active("pad-unplug") is not None)
    assert shown == [False, True, True, False]
    assert faults.shows("pad-")
    assert not faults.shows("servo")
    assert not LocalFaults([read_fault("base-nan")], lambda: now_s, policy=False)
