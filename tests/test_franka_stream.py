"""What the servo sees of a Franka: nothing moves before the arm verb, and faults stay until it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robot.errors import HardwareError
from robot.fr3 import HOME_Q_RAD, FR3Kinematics
from robot.franka_config import FrankaArmConfig
from robot.franka_stream import FrankaStream
from robot.joint_path import PathPlanner
from robot.joint_stream import Reading, SetPoint
from robot.servo import JointTarget, Servo, ServoLimits
from robot.servo_config import motion_limits
from tests.franka_bench import franka
from tests.franka_link import FakeLink

HOME = tuple(HOME_Q_RAD)
STILL = (0.0,) * 7


class Bench:
    """A stream on a fake arm and a fake clock; a round of its thread is a call."""

    def __init__(self) -> None:
        self.now_s, self.link = 50.0, FakeLink()
        self.stream = FrankaStream(franka("10.0.0.2"), lambda config: self.link, lambda: self.now_s)
        self.stream.begin(self.link)

    def round(
        self,
        clears: int,
        q_rad: tuple[float, ...] = HOME,
        width_m: float = 0.04,
        *,
        dq_rad_s: tuple[float, ...] = STILL,
        resting: bool = False,
    ) -> Reading:
        """One step of the servo, one round of the thread, and what the servo reads then."""
        self.stream.write(
            SetPoint(
                time_s=self.now_s,
                q_rad=q_rad,
                dq_rad_s=dq_rad_s,
                ddq_rad_s2=STILL,
                gripper_width_m=width_m,
                clears=clears,
                resting=resting,
            )
        )
        self.now_s += 0.004
        self.stream.attend()
        reading = self.stream.read()
        assert reading is not None
        return reading

    def armed(self) -> Reading:
        """After the person armed for the first time."""
        self.round(0)
        return self.round(1)


def test_before_the_arm_verb_nothing_is_asked_of_the_arm() -> None:
    bench = Bench()
    for _ in range(5):
        reading = bench.round(0, (0.1, *HOME[1:]))
        assert not reading.following
        assert reading.arm.fault is None
        assert reading.q_set_rad == HOME  # where it stands, so that the set-point begins there
    assert (bench.link.asked, bench.link.followed, bench.link.hand.done) == ([], [], [])


def test_after_the_arm_verb_it_tracks_and_is_given_every_set_point() -> None:
    bench = Bench()
    reading = bench.armed()
    assert reading.following
    assert reading.clears == 1
    assert bench.link.asked == ["start"]  # nothing was wrong, so nothing was cleared
    onward = (0.1, *HOME[1:])
    assert bench.round(1, onward).q_set_rad == onward
    assert bench.link.followed == [onward]


@pytest.mark.parametrize(
    ("mode", "errors", "fault"),
    [
        (
            "Reflex",
            ("joint_reflex", "power_limit_violation"),
            "franka 10.0.0.2 stopped by a reflex (joint_reflex, power_limit_violation); look at the arm, then "
            "arm again",
        ),
        (
            "UserStopped",
            (),
            "franka 10.0.0.2 is user-stopped; look at the arm, release the stop, then arm again",
        ),
        ("Guiding", (), "franka 10.0.0.2 is guided by hand; let go of it, then arm again"),
        (
            "Other",
            (),
            "franka 10.0.0.2 is locked or busy; unlock the brakes and activate FCI in Desk, then arm again",
        ),
        ("AutomaticErrorRecovery", (), "franka 10.0.0.2 is recovering; wait, then arm again"),
        ("Rest", (), "franka 10.0.0.2 is in mode 'Rest', which is unknown here; look at Desk, then arm again"),
    ],
)
def test_a_mode_that_is_no_work_is_a_fault_that_stays_until_the_arm_verb(
    mode: str, errors: tuple[str, ...], fault: str
) -> None:
    bench = Bench()
    bench.armed()
    bench.link.show(mode, *errors)
    reading = bench.round(1)
    assert reading.arm.fault == fault
    assert len(fault.encode()) <= 200  # or the loop would see half of it
    bench.link.show("Idle")  # gone by itself, as when the stop button is released
    followed = len(bench.link.followed)
    for _ in range(20):
        reading = bench.round(1, (0.1, *HOME[1:]))
        assert reading.arm.fault == fault
        assert not reading.following
    assert bench.link.asked == ["start"]
    assert len(bench.link.followed) == followed
    reading = bench.round(2)
    assert reading.arm.fault is None
    assert reading.following


def test_only_the_arm_verb_has_a_reflex_cleared_and_it_does_so_once() -> None:
    bench = Bench()
    bench.armed()
    bench.link.show("Reflex", "joint_reflex")
    for _ in range(20):
        bench.round(1)
    assert "recover" not in bench.link.asked
    for _ in range(5):
        assert bench.round(2).arm.fault is None
    assert bench.link.asked == ["start", "recover", "start"]


def test_an_arm_that_does_not_recover_stays_faulted_and_says_why() -> None:
    bench = Bench()
    bench.armed()
    bench.link.show("Reflex", "joint_reflex")
    bench.round(1)
    bench.link.stuck = True
    reading = bench.round(2)
    assert not reading.following
    assert reading.clears == 2  # heeded, so that the fault that is shown is the new one
    assert reading.arm.fault == (
        "franka fake: does not recover (manual recovery required); look at the arm, then arm again"
    )
    assert bench.link.asked == ["start", "recover"]


def test_a_stop_button_that_is_still_pressed_is_not_cleared_by_the_arm_verb() -> None:
    bench = Bench()
    bench.armed()
    bench.link.show("UserStopped")
    bench.round(1)
    reading = bench.round(2)
    assert reading.arm.fault is not None
    assert "user-stopped" in reading.arm.fault
    assert bench.link.asked == ["start"]


def test_tracking_that_ends_for_no_mode_is_a_fault_with_the_vendors_words() -> None:
    bench = Bench()
    bench.armed()
    bench.link.sample = replace(bench.link.sample, mode="Idle", tracks=False)
    reading = bench.round(1)
    assert reading.arm.fault == ("franka 10.0.0.2 stopped tracking (motion aborted); look at it, then arm again")
    assert not reading.following


def test_a_state_is_as_old_as_its_first_sight() -> None:
    bench = Bench()
    measured_s = bench.round(0).arm.measured_s
    assert measured_s == bench.now_s
    frozen = bench.link.sample
    bench.link.read = lambda: frozen  # type: ignore[method-assign]
    for _ in range(3):
        assert bench.round(0).arm.measured_s == measured_s


def test_the_state_has_the_arms_own_joints_pose_and_wrench_and_the_velocity_of_its_tcp() -> None:
    bench = Bench()
    q_rad, dq_rad_s = np.linspace(-1.0, 1.0, 7), np.linspace(0.3, -0.2, 7)
    wrench = np.array([3.0, 0.0, -4.0, 0.1, 0.2, 0.3])
    bench.link.sample = replace(bench.link.sample, q_rad=q_rad, dq_rad_s=dq_rad_s, wrench=wrench)
    arm = bench.round(0).arm
    np.testing.assert_array_equal(arm.q_rad, q_rad)
    np.testing.assert_array_equal(arm.dq_rad_s, dq_rad_s)
    np.testing.assert_array_equal(arm.T_base_tcp, bench.link.sample.T_base_tcp)
    assert arm.force_n == 5.0
    assert arm.wrench is not None
    np.testing.assert_array_equal(arm.wrench, wrench)
    step_s = 1e-6
    kinematics = FR3Kinematics()
    moved = kinematics.forward(q_rad + step_s * dq_rad_s)[:3, 3] - kinematics.forward(q_rad)[:3, 3]
    np.testing.assert_allclose(arm.tcp_velocity[:3], moved / step_s, atol=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        arm.q_rad[0] = 0.0


def test_without_an_estimate_there_is_no_force_and_no_wrench_instead_of_none_of_it() -> None:
    bench = Bench()
    bench.link.sample = replace(bench.link.sample, wrench=None)
    arm = bench.round(0).arm
    assert arm.force_n is None
    assert arm.wrench is None


def test_the_hands_fault_is_the_arms_which_follows_on_so_that_it_can_be_braked() -> None:
    bench = Bench()
    bench.armed()
    bench.stream._hand.fault = "franka 10.0.0.2: hand does not move (no power); look at the hand, then arm again"
    reading = bench.round(1)
    assert reading.arm.fault == bench.stream._hand.fault
    assert reading.following
    assert bench.round(2).arm.fault is None


def test_an_arm_in_motion_whose_hand_fails_is_braked_to_rest_and_latched() -> None:
    """The controller tracks position and velocity of its last set-point: one that moves must not be the last."""
    bench = Bench()
    bench.link.moves = True
    reading = bench.armed()
    limits = ServoLimits(
        loop_period_s=0.05, delay_s=0.025, watchdog_s=0.125, max_state_age_s=0.02, max_tracking_rad=0.3
    )
    servo = Servo(PathPlanner(motion_limits(franka("10.0.0.2").servo)), limits, reading, bench.now_s)
    speeds = []
    for step in range(500):
        if step % 12 == 0:
            q_rad = (HOME[0] + 0.019 * (step // 12), *HOME[1:])
            due_s = bench.now_s + 0.05
            target = JointTarget(q_rad=q_rad, gripper_width_m=0.04, due_s=due_s, sent_s=bench.now_s)
            servo.target(target, bench.now_s)
        point = servo.step(bench.now_s, reading)
        reading = bench.round(1, point.q_rad, point.gripper_width_m, dq_rad_s=point.dq_rad_s, resting=point.resting)
        speeds.append(bench.link.velocity[0])
        if step == 299:
            assert speeds[-1] > 0.3
            bench.stream._hand.fault = "franka 10.0.0.2: hand does not move; look at the hand, then arm again"
    assert servo.fault == bench.stream._hand.fault
    assert servo.at_rest
    assert speeds[-1] == 0.0
    assert np.abs(np.diff(speeds)).max() < 0.05  # without a jump


@pytest.mark.parametrize("begun", [False, True])
def test_a_gripper_wish_that_waits_when_the_arm_comes_to_rest_does_not_begin_and_one_that_began_goes_on(
    begun: bool,
) -> None:
    bench = Bench()
    bench.armed()
    bench.round(1, width_m=0.0)
    if begun:
        assert bench.stream._hand.work_once()
    bench.round(1, width_m=0.0, resting=True)
    assert not bench.stream._hand.work_once()
    assert bench.link.hand.done == ([("grasp", 0.0)] if begun else [])
    bench.round(1, width_m=0.0)  # a target again
    assert bench.stream._hand.work_once() is not begun


def test_a_gripper_wish_that_had_not_begun_when_the_arm_stopped_does_not_begin_once_it_is_armed_again() -> None:
    bench = Bench()
    bench.armed()
    bench.round(1, width_m=0.0)  # the policy closes; the fingers are still busy
    bench.link.show("Reflex", "joint_reflex")
    reading = bench.round(1, width_m=0.0)
    assert reading.gripper_set_m == 0.04  # where they are
    assert not bench.stream._hand.work_once()
    reading = bench.round(2, width_m=reading.gripper_set_m)  # what the servo says before the loop says anything
    assert reading.following
    assert not bench.stream._hand.work_once()
    assert bench.link.hand.done == []
    bench.round(2, width_m=0.0)
    assert bench.stream._hand.work_once()


def test_what_the_hand_closed_on_is_held_over_a_reflex() -> None:
    bench = Bench()
    bench.armed()
    bench.round(1, width_m=0.0)
    assert bench.stream._hand.work_once()
    bench.link.hand.width = 0.03  # of a block
    bench.link.show("Reflex", "joint_reflex")
    assert bench.round(1, width_m=0.0).gripper_set_m == 0.0
    assert bench.round(2, width_m=0.0).following
    assert not bench.stream._hand.work_once()
    assert bench.link.hand.done == [("grasp", 0.0)]


def test_a_thread_that_ends_for_whatever_cause_is_a_lost_connection() -> None:
    bench = Bench()
    bench.armed()
    bench.link.read = lambda: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    bench.stream._attend_on()
    with pytest.raises(HardwareError, match=r"^division by zero; the arm stops by itself"):
        bench.stream.read()


def test_whatever_the_vendors_library_raises_while_it_connects_is_heard() -> None:
    def connect(config: FrankaArmConfig) -> FakeLink:
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        FrankaStream(franka("10.0.0.2"), connect).open(lambda: True)


def test_a_lost_connection_ends_the_stream() -> None:
    bench = Bench()
    bench.armed()
    bench.link.lost = True
    bench.stream._attend_on()  # what its thread does
    with pytest.raises(
        HardwareError,
        match=r"^franka fake: connection lost \(timeout\); the arm stops by itself: look at it, then start the run ",
    ):
        bench.stream.read()
