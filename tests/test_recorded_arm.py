from __future__ import annotations

import numpy as np
import pytest

from robot.arm import Arm
from robot.arm_state import ArmState
from robot.clock import VirtualClock
from robot.command import Command, CommandKind, Reason, SafeCommand
from robot.errors import HardwareError
from robot.recorded_arm import RecordedArm
from robot.recording import Recording
from robot.safety import SafetyFilter
from tests.contracts import ArmContract
from tests.filter_bench import LIMITS
from tests.test_recording import EXCERPT


class TestRecordedArm(ArmContract):
    def make(self, clock: VirtualClock) -> Arm:
        recording = Recording.open(EXCERPT)
        recording.select(0, self.begin_s)
        return RecordedArm(recording, clock, gripper_open_m=0.074, gripper_closed_m=0.030)

    def make_filter(self, state: ArmState) -> SafetyFilter:
        return SafetyFilter(LIMITS, None, self.period_s, state.T_base_tcp[:3, :3])


def make(start_s: float = 20.0) -> tuple[RecordedArm, Recording, VirtualClock]:
    recording, clock = Recording.open(EXCERPT), VirtualClock(start_s)
    return RecordedArm(recording, clock, gripper_open_m=0.074, gripper_closed_m=0.030), recording, clock


def safe_command() -> SafeCommand:
    return SafeCommand(
        T_base_tcp=np.eye(4),
        q_rad=np.zeros(0),
        gripper_width_m=0.05,
        due_s=20.2,
        reasons=Reason.NONE,
        token=SafeCommand._TOKEN,
    )


def test_arm_is_known_by_its_tcp_only_and_says_that_it_plays() -> None:
    arm: Arm = make()[0]
    assert arm.joint_count == 0
    assert arm.open_loop is True


def test_state_is_that_of_the_playing_step() -> None:
    arm, recording, clock = make()
    episode = recording.select(1, 20.0)
    with arm:
        for step in range(5):
            clock.sleep_until(20.0 + step / 5.0 + 0.07)
            state = arm.state()
            np.testing.assert_array_equal(state.T_base_tcp, episode.T_base_tcp[step])
            np.testing.assert_array_equal(state.tcp_velocity, episode.tcp_velocity[step])
            assert state.gripper_width_m == pytest.approx(0.030 + 0.044 * episode.opening[step])
            assert state.measured_s == recording.times_s[step] <= clock.now_s()
            assert state.q_rad.shape == state.dq_rad_s.shape == (0,)
            assert state.T_base_tcp.dtype == state.tcp_velocity.dtype == np.float64


def test_arm_rests_in_the_first_pose_until_the_playback_begins() -> None:
    arm, recording, clock = make(15.0)
    episode = recording.select(1, 20.0)
    state = arm.state()
    np.testing.assert_array_equal(state.T_base_tcp, episode.T_base_tcp[0])
    assert not state.tcp_velocity.any()
    assert state.measured_s == clock.now_s()


def test_state_grows_old_after_the_last_step() -> None:
    arm, recording, clock = make()
    recording.select(1, 20.0)
    clock.sleep_until(90.0)
    assert arm.state().measured_s == recording.times_s[-1]


def test_commands_and_holds_change_nothing() -> None:
    arm, recording, clock = make()
    recording.select(0, 20.0)
    clock.sleep_until(20.4)
    before = arm.state()
    arm.send(safe_command())
    arm.hold()
    arm.clear_fault()
    after = arm.state()
    np.testing.assert_array_equal(after.T_base_tcp, before.T_base_tcp)
    assert (after.measured_s, after.gripper_width_m) == (before.measured_s, before.gripper_width_m)


def test_only_a_safe_command_is_taken() -> None:
    arm, recording, _ = make()
    recording.select(0, 20.0)
    unchecked = Command(kind=CommandKind.TCP_DELTA, target=np.zeros(6), gripper_width_m=0.05, due_s=20.2)
    with pytest.raises(TypeError, match="an arm accepts a SafeCommand only, got Command"):
        arm.send(unchecked)  # type: ignore[arg-type]


def test_state_without_a_playing_episode_is_a_hardware_error() -> None:
    with pytest.raises(HardwareError, match="no episode is playing"):
        make()[0].state()
