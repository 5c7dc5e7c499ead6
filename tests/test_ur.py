"""A UR arm before a stand-in of ur-rtde's two interfaces. No UR robot has ever run this."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from robot.arm import Arm
from robot.arm_state import ArmState
from robot.clock import VirtualClock, WallClock
from robot.command import Command, CommandKind, SafeCommand
from robot.errors import BadInputError, HardwareError
from robot.safety import SafetyFilter
from robot.ur import URArm, URArmConfig
from tests.contracts import FollowingArmContract
from tests.filter_bench import LIMITS
from tests.ur_stand_in import STEP_S, CyclingClock, URStandIn

CONFIG = URArmConfig(kind="ur", address="192.0.2.1", watchdog_s=0.2, max_state_age_s=0.1)


@pytest.fixture(autouse=True)
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of two workers are of one arm, and an arm has one owner."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


WIDE = LIMITS.model_copy(update={"workspace_min_m": (-2.0, -2.0, -2.0), "workspace_max_m": (2.0, 2.0, 2.0)})


class TestURArm(FollowingArmContract):
    def make(self, clock: VirtualClock) -> Arm:
        self.robot = URStandIn()
        return stand_in(clock, self.robot)

    def make_filter(self, state: ArmState) -> SafetyFilter:
        return SafetyFilter(WIDE, None, self.period_s, state.T_base_tcp[:3, :3])

    def fail(self, arm: Arm) -> None:
        self.robot.protective = True
        assert isinstance(arm, URArm)
        self.robot.advance(STEP_S)
        arm.cycle(self.begin_s)
        self.robot.protective = False  # unlocked at the pendant, and the fault stays


def stand_in(clock: VirtualClock, robot: URStandIn) -> URArm:
    cycling = CyclingClock(clock, robot)
    cycling.arm = URArm(CONFIG, cycling, connect=lambda config: (robot, robot), threaded=False)
    return cycling.arm


def towards(arm: URArm, clock: VirtualClock, delta_m: tuple[float, float, float], *, ticks: int = 1) -> np.ndarray:
    """Steps of the hand through a filter, a tick of 50 ms each; returns the last pose commanded."""
    state = arm.state()
    safety = SafetyFilter(WIDE, None, 0.05, state.T_base_tcp[:3, :3])
    memory = safety.rearm(safety.start(state), state)
    for _ in range(ticks):
        wanted = Command(
            kind=CommandKind.TCP_DELTA,
            target=np.array([*delta_m, 0.0, 0.0, 0.0]),
            gripper_width_m=0.0,
            due_s=clock.now_s() + 0.05,
        )
        memory, output = safety.step(memory, arm.state(), wanted)
        assert isinstance(output, SafeCommand)
        arm.send(output)
        clock.sleep_until(wanted.due_s)
        arm.state()
    return memory.T_base_tcp


def streamed(robot: URStandIn) -> np.ndarray:
    """All poses given to servoL, (N, 6)."""
    return np.array([call[1] for call in robot.calls if call[0] == "servoL"], np.float64)


def test_servo_l_gets_a_set_point_every_cycle_on_the_way_to_the_target() -> None:
    clock, robot = VirtualClock(100.0), URStandIn()
    with stand_in(clock, robot) as arm:
        target = towards(arm, clock, (0.0, 0.0, -2e-3), ticks=4)
        poses = streamed(robot)
        assert len(poses) == 4 * 6 + 1  # 0.2 s at 125 Hz
        assert (np.diff(poses[:, 2]) <= 1e-12).all()
        assert np.abs(np.diff(poses[:, 2])).max() < 2e-3 / 0.05 * STEP_S * 1.01
        np.testing.assert_allclose(poses[-1, :3], target[:3, 3], atol=1e-9)
        assert {call[2:] for call in robot.calls if call[0] == "servoL"} == {(STEP_S, CONFIG.lookahead_s, CONFIG.gain)}


def test_a_loop_that_falls_silent_is_stopped_and_has_to_arm_again() -> None:
    clock, robot = VirtualClock(100.0), URStandIn()
    with stand_in(clock, robot) as arm:
        towards(arm, clock, (0.0, 0.0, -2e-3), ticks=2)
        count = len(streamed(robot))
        clock.sleep_until(clock.now_s() + 0.5)
        assert "the loop was silent" in (arm.state().fault or "")
        assert ("servoStop", 10.0) in robot.calls
        assert len(streamed(robot)) - count <= int(CONFIG.watchdog_s / STEP_S) + 1
        assert not robot.running, "nobody kicked the robot's own watchdog either"
        arm.clear_fault()
        assert ("reuploadScript",) in robot.calls
        assert arm.state().fault is None
        towards(arm, clock, (0.0, 0.0, -2e-3), ticks=2)
        assert len(streamed(robot)) > count


def test_the_robots_own_watchdog_stops_it_when_the_servo_thread_is_dead() -> None:
    clock, robot = VirtualClock(100.0), URStandIn()
    cycling = CyclingClock(clock, robot)
    arm = cycling.arm = URArm(CONFIG, cycling, connect=lambda config: (robot, robot), threaded=False)
    with arm:
        towards(arm, clock, (0.0, 0.0, -2e-3), ticks=2)
        cycling.stopped = True
        clock.sleep_until(clock.now_s() + 1.5 * CONFIG.watchdog_s)
        with pytest.raises(HardwareError, match=r"its state is \d+ ms old"):
            arm.state()
        assert not robot.running


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("protective", "protective stop; unlock it at the pendant"),
        ("emergency", "emergency stop; release it"),
    ],
)
def test_a_stop_of_the_robots_own_is_no_matter_of_clearing(what: str, said: str) -> None:
    clock, robot = VirtualClock(100.0), URStandIn()
    with stand_in(clock, robot) as arm:
        setattr(robot, what, True)
        clock.sleep_until(clock.now_s() + 0.02)
        assert said in (arm.state().fault or "")
        arm.clear_fault()
        assert said in (arm.state().fault or ""), "it is still there"
        setattr(robot, what, False)
        arm.clear_fault()
        assert arm.state().fault is None


def test_a_refused_set_point_is_a_fault() -> None:
    clock, robot = VirtualClock(100.0), URStandIn()
    with stand_in(clock, robot) as arm:
        robot.refuses = True
        towards(arm, clock, (0.0, 0.0, -2e-3))
        assert "servoL was refused" in (arm.state().fault or "")


def test_a_robot_that_tells_nothing_new_has_no_state() -> None:
    clock, robot = VirtualClock(100.0), URStandIn()
    with stand_in(clock, robot) as arm:
        robot.frozen = True
        clock.sleep_until(clock.now_s() + 0.15)
        with pytest.raises(HardwareError, match=r"its state is 1\d\d ms old \(limit 100 ms\); check its network link"):
            arm.state()


def test_leaving_stops_the_robot_and_its_program() -> None:
    robot = URStandIn()
    with stand_in(VirtualClock(100.0), robot):
        pass
    assert robot.calls == [("servoStop", 10.0), ("stopScript",), ("disconnect",), ("disconnect",)]


def test_the_force_is_that_at_the_hand() -> None:
    with stand_in(VirtualClock(100.0), URStandIn()) as arm:
        assert arm.state().force_n == 5.0


def test_the_thread_streams_and_ends_with_the_arm() -> None:
    robot = URStandIn()
    arm = URArm(CONFIG, WallClock(), connect=lambda config: (robot, robot))
    with arm:
        thread = arm._thread
        assert thread is not None
        assert thread.is_alive()
    assert not thread.is_alive()


def test_an_error_of_the_library_in_the_thread_is_the_arms_fault() -> None:
    clock, robot = VirtualClock(100.0), URStandIn()

    def broken() -> bool:
        arm._leaves.set()  # one round is enough
        raise RuntimeError("connection is gone")

    robot.kickWatchdog = broken  # type: ignore[method-assign]
    arm = URArm(CONFIG, clock, connect=lambda config: (robot, robot), threaded=False)
    with arm:
        arm._stream()
        assert arm.state().fault == "ur-rtde: connection is gone"


def test_one_run_at_a_time_has_the_robot() -> None:
    clock, robot = VirtualClock(0.0), URStandIn()
    with stand_in(clock, robot), pytest.raises(BadInputError, match=r"arm 'ur-192.0.2.1': held by process"):
        stand_in(clock, URStandIn()).__enter__()
    with stand_in(clock, robot):
        pass


def test_a_connection_that_is_lost_when_the_person_arms_is_the_arms_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, robot = VirtualClock(0.0), URStandIn()
    with stand_in(clock, robot) as arm:
        monkeypatch.setattr(robot, "isProgramRunning", lost)
        with pytest.raises(HardwareError, match="arm 'ur': RTDE: not connected; look at the robot"):
            arm.clear_fault()


def test_leaving_stops_what_can_be_stopped_though_a_connection_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, robot = VirtualClock(0.0), URStandIn()
    with stand_in(clock, robot):
        monkeypatch.setattr(robot, "servoStop", lost)
    assert robot.calls == [("stopScript",), ("disconnect",), ("disconnect",)]


def test_a_robot_that_is_lost_while_it_is_opened_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, robot = VirtualClock(0.0), URStandIn()
    monkeypatch.setattr(robot, "setWatchdog", lost)
    with pytest.raises(BadInputError, match=r"192.0.2.1 was lost \(RTDE: not connected\)"):
        stand_in(clock, robot).__enter__()
    assert ("disconnect",) in robot.calls


def lost(*arguments: object) -> bool:
    raise RuntimeError("RTDE: not connected")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rtde_control", None)
    with pytest.raises(BadInputError, match="run pip install ur-rtde"), URArm(CONFIG, VirtualClock()):
        pass
