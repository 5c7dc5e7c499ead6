from __future__ import annotations

from robot.command import Reason
from teleop.arbiter import HoldReason
from teleop.gamepad import Gamepad
from teleop.keyboard import Keyboard
from teleop.operator_status import hold_sentence


def test_every_reason_to_hold_has_its_own_sentence() -> None:
    keyboard = Keyboard()
    sentences = {
        hold_sentence(reason, Reason.FORCE, device="keyboard", lost_cure="click on it", verbs=keyboard.verbs)
        for reason in HoldReason
    }
    assert all(sentences)
    assert len(sentences) == len(HoldReason)


def test_a_hold_names_every_reason_and_the_cure_on_this_device() -> None:
    both = HoldReason.STOPPED | HoldReason.FILTER_LATCHED
    sentence = hold_sentence(
        both, Reason.FORCE | Reason.JOINT_LIMIT, device="gamepad", lost_cure="plug it in again", verbs=Gamepad().verbs
    )
    assert sentence == (
        "stopped: press Start to arm again; safety stop (joint limit, force): clear its cause, press Start"
    )


def test_no_reason_to_hold_is_no_sentence() -> None:
    assert hold_sentence(HoldReason.NONE, Reason.NONE, device="", lost_cure="", verbs=Keyboard().verbs) == ""
