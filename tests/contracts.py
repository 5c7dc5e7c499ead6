"""Contract tests: inherit one, make the object under test, and every check runs on it."""

from __future__ import annotations

import contextlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from perception.camera import Camera
from perception.frame import Frame, FrameStamp
from robot.arm import Arm
from robot.arm_state import ArmState
from robot.clock import VirtualClock
from robot.command import Command, CommandKind, Hold, Reason, SafeCommand
from robot.errors import HardwareError
from robot.safety import SafetyFilter
from teleop.human_input import HumanCommand, HumanEvent, HumanInput


class HumanInputContract(ABC):
    """What the loop relies on in every device. Inherit, give `make`, and let `stir` press things between polls."""

    @abstractmethod
    def make(self) -> HumanInput:
        """A device that has not been entered."""

    def stir(self, human: HumanInput, step: int) -> None:
        """Something a person may do before poll number `step`; by default nothing."""
        return None

    def polls(self, human: HumanInput, *, steps: int = 120) -> Iterator[tuple[float, HumanCommand]]:
        for step in range(steps):
            self.stir(human, step)
            now_s = 100.0 + 0.05 * step
            yield now_s, human.poll(now_s)

    def test_human_input_gives_finite_bounded_float64(self) -> None:
        with self.make() as human:
            for _, command in self.polls(human):
                assert command.twist.shape == (6,)
                assert command.twist.dtype == np.float64
                assert np.all(np.abs(command.twist) <= 1.0)  # also refuses NaN
                assert command.gripper is None or -1.0 <= command.gripper <= 1.0
                assert isinstance(command.events, HumanEvent)
                assert type(command.engaged) is bool
                assert type(command.connected) is bool

    def test_human_input_moves_nothing_unless_engaged(self) -> None:
        with self.make() as human:
            for _, command in self.polls(human):
                if not command.engaged:
                    assert not command.twist.any()

    def test_human_input_is_never_engaged_while_unplugged(self) -> None:
        with self.make() as human:
            assert not [now_s for now_s, command in self.polls(human) if command.engaged and not command.connected]

    def test_polled_s_never_goes_back_nor_ahead(self) -> None:
        with self.make() as human:
            last_s = -math.inf
            for now_s, command in self.polls(human):
                assert last_s <= command.polled_s <= now_s
                last_s = command.polled_s

    def test_edges_are_cleared_by_the_poll_that_reports_them(self) -> None:
        with self.make() as human:
            for now_s, command in self.polls(human):
                assert not human.poll(now_s + 0.001).events & command.events

    def test_commands_do_not_share_memory(self) -> None:
        # the log keeps what an earlier tick was given
        with self.make() as human:
            commands = [command for _, command in self.polls(human, steps=12)]
            for earlier, later in itertools.pairwise(commands):
                assert not np.shares_memory(earlier.twist, later.twist)

    def test_human_input_enters_as_itself_and_lets_errors_through(self) -> None:
        failure = RuntimeError("of the loop")
        human = self.make()

        def run() -> None:
            with human as entered:
                assert entered is human
                raise failure

        with pytest.raises(RuntimeError, match="of the loop"):
            run()


def newest(camera: Camera, now_s: float) -> Frame | None:
    """The newest frame that has arrived by `now_s`."""
    stamps = camera.recent(now_s, 1)
    return camera.frame(stamps[-1]) if stamps else None


class CameraContract(ABC):
    """What the synchroniser relies on in every camera. Inherit, give `make`, `begin_s` and `let_run`."""

    begin_s = 100.0  # host time at which the source begins to run
    kept = 5  # frames that can still be asked for, at least; a recording may have no more
    TOLERANCE_S = 1e-9  # rounding of times that were summed in another order

    @abstractmethod
    def make(self) -> Camera:
        """A camera that has not been entered, of a source that begins at `begin_s`."""

    def let_run(self, now_s: float) -> None:
        """Let the source run up to `now_s`, where it does not do so by itself."""
        return None

    def looks(
        self, camera: Camera, count: int, *, tick_s: float = 0.05, ticks: int = 60
    ) -> Iterator[tuple[float, Sequence[FrameStamp]]]:
        for tick in range(ticks):
            now_s = self.begin_s + tick_s * tick
            self.let_run(now_s)
            yield now_s, camera.recent(now_s, count)

    def frames(self, camera: Camera, *, tick_s: float = 0.05, ticks: int = 60) -> Iterator[tuple[float, Frame]]:
        for now_s, stamps in self.looks(camera, 1, tick_s=tick_s, ticks=ticks):
            for stamp in stamps:
                frame = camera.frame(stamp)
                assert frame is not None
                yield now_s, frame

    def test_camera_has_nothing_before_its_first_frame(self) -> None:
        with self.make() as camera:
            assert not camera.recent(self.begin_s - 60.0, 8)

    def test_camera_gives_frames_of_the_promised_size_and_name(self) -> None:
        with self.make() as camera:
            seen = list(self.frames(camera))
            assert len({frame.frame_id for _, frame in seen}) >= 3
            for _, frame in seen:
                assert frame.camera == camera.name
                assert frame.rgb.shape == (*camera.size, 3)
                assert frame.rgb.dtype == np.uint8
                assert not frame.rgb.flags.writeable
                assert frame.depth_m is None or frame.depth_m.shape == camera.size
                assert 0.0 <= frame.uncertainty_s < math.inf

    def test_no_frame_comes_from_the_future(self) -> None:
        with self.make() as camera:
            for now_s, stamps in self.looks(camera, 8, tick_s=0.0173):
                for stamp in stamps:
                    assert stamp.captured_s <= stamp.arrived_s <= now_s + self.TOLERANCE_S

    def test_frames_that_have_arrived_by_an_earlier_time_can_still_be_asked_for(self) -> None:
        with self.make() as camera:
            looks = list(self.looks(camera, 1, tick_s=0.0173))
            newest_s, (newest_stamp,) = next(look for look in reversed(looks) if look[1])
            earlier = camera.recent(newest_stamp.arrived_s - 1e-3, 8)
            assert earlier
            assert newest_stamp.frame_id > earlier[-1].frame_id
            assert all(stamp.arrived_s < newest_stamp.arrived_s <= newest_s + self.TOLERANCE_S for stamp in earlier)

    def test_recent_stamps_are_the_newest_ones_oldest_first(self) -> None:
        with self.make() as camera:
            for now_s, stamps in self.looks(camera, 8, tick_s=0.0173):
                for earlier, later in itertools.pairwise(stamps):
                    assert later.frame_id > earlier.frame_id
                    assert later.captured_s > earlier.captured_s
                for count in (1, 2, 3):
                    fewer = camera.recent(now_s, count)
                    assert [stamp.frame_id for stamp in fewer] == [stamp.frame_id for stamp in stamps[-count:]]
            assert len(stamps) >= self.kept

    def test_a_stamp_leads_to_its_own_frame(self) -> None:
        with self.make() as camera:
            seen: dict[int, Frame] = {}
            for _, stamps in self.looks(camera, 4):
                for stamp in stamps:
                    frame = camera.frame(stamp)
                    assert frame is not None
                    assert (frame.frame_id, frame.captured_s, frame.arrived_s, frame.uncertainty_s) == (
                        stamp.frame_id, stamp.captured_s, stamp.arrived_s, stamp.uncertainty_s,
                    )  # fmt: skip
                    # the same frame is the same picture, however often and however late it is asked for
                    assert np.array_equal(frame.rgb, seen.setdefault(stamp.frame_id, frame).rgb)
            assert len(seen) >= 3

    def test_frames_come_in_order(self) -> None:
        with self.make() as camera:
            for (_, earlier), (_, later) in itertools.pairwise(self.frames(camera, tick_s=0.0173)):
                if later.frame_id != earlier.frame_id:
                    assert later.frame_id > earlier.frame_id
                    assert later.captured_s > earlier.captured_s
                    assert later.arrived_s >= earlier.arrived_s

    def test_an_earlier_picture_does_not_change_while_the_camera_goes_on(self) -> None:
        # the log keeps what an earlier tick was given
        with self.make() as camera:
            kept = [(frame, frame.rgb.copy()) for _, frame in self.frames(camera)]
            for frame, copy in kept:
                np.testing.assert_array_equal(frame.rgb, copy)

    def test_camera_enters_as_itself_and_lets_errors_through(self) -> None:
        failure = RuntimeError("of the loop")
        camera = self.make()

        def run() -> None:
            with camera as entered:
                assert entered is camera
                raise failure

        with pytest.raises(RuntimeError, match="of the loop"):
            run()


class ArmContract(ABC):
    """What the loop relies on in every arm. Inherit, and give `make` and `make_filter`."""

    begin_s = 100.0
    period_s = 0.05
    settle_s = 1.0  # how long the arm may take to come to rest after a hold
    still_m = 1e-4  # how far an arm at rest may creep
    ahead_s = 1e-9  # how far a state's time may be ahead of the clock: rounding

    @abstractmethod
    def make(self, clock: VirtualClock) -> Arm:
        """An arm that has not been entered; `clock` stands at `begin_s`."""

    @abstractmethod
    def make_filter(self, state: ArmState) -> SafetyFilter:
        """A filter for ticks of `period_s` that lets the arm move a few millimetres from `state`."""

    def drive(self, arm: Arm, clock: VirtualClock, target: list[float], *, ticks: int) -> list[ArmState]:
        """Send a TCP delta through a freshly armed filter for some ticks; return the state after each."""
        state = arm.state()
        safety = self.make_filter(state)
        memory = safety.rearm(safety.start(state), state)
        states = []
        for _ in range(ticks):
            due_s = clock.now_s() + self.period_s
            wanted = Command(
                kind=CommandKind.TCP_DELTA,
                target=np.array(target),
                gripper_width_m=state.gripper_width_m,
                due_s=due_s,
            )
            memory, output = safety.step(memory, arm.state(), wanted)
            if isinstance(output, SafeCommand):
                arm.send(output)
            else:
                assert isinstance(output, Hold)
                arm.hold()
            clock.sleep_until(due_s)
            states.append(arm.state())
        return states

    def test_arm_accepts_nothing_but_a_safe_command(self) -> None:
        clock = VirtualClock(self.begin_s)
        with self.make(clock) as arm:
            unchecked = Command(
                kind=CommandKind.TCP_DELTA, target=np.zeros(6), gripper_width_m=0.0, due_s=clock.now_s() + 0.05
            )
            for wrong in (unchecked, np.zeros(6), None, Hold(reasons=Reason.NONE, latched=False)):
                with pytest.raises(TypeError, match="an arm accepts a SafeCommand only"):
                    arm.send(wrong)  # type: ignore[arg-type]

    def test_state_is_finite_float64_of_the_promised_shapes(self) -> None:
        clock = VirtualClock(self.begin_s)
        with self.make(clock) as arm:
            for state in self.drive(arm, clock, [0.0, 0.0, -1e-3, 0.0, 0.0, 0.0], ticks=5):
                joints = (arm.joint_count,)
                for array, shape in (
                    (state.q_rad, joints),
                    (state.dq_rad_s, joints),
                    (state.T_base_tcp, (4, 4)),
                    (state.tcp_velocity, (6,)),
                ):
                    assert array.shape == shape
                    assert array.dtype == np.float64
                    assert np.isfinite(array).all()
                R_base_tcp = state.T_base_tcp[:3, :3]
                np.testing.assert_allclose(R_base_tcp @ R_base_tcp.T, np.eye(3), atol=1e-6)
                np.testing.assert_array_equal(state.T_base_tcp[3], [0.0, 0.0, 0.0, 1.0])
                assert math.isfinite(state.gripper_width_m)
                assert state.force_n is None or state.force_n >= 0.0

    def test_an_earlier_state_does_not_change_while_the_arm_moves_on(self) -> None:
        # the log keeps what an earlier tick was given
        clock = VirtualClock(self.begin_s)
        with self.make(clock) as arm:
            earlier = arm.state()
            copies = [array.copy() for array in (earlier.q_rad, earlier.dq_rad_s, earlier.T_base_tcp)]
            self.drive(arm, clock, [0.0, 0.0, -2e-3, 0.0, 0.0, 0.0], ticks=8)
            for array, copy in zip((earlier.q_rad, earlier.dq_rad_s, earlier.T_base_tcp), copies, strict=True):
                np.testing.assert_array_equal(array, copy)

    def test_measured_s_never_goes_back_nor_ahead(self) -> None:
        clock = VirtualClock(self.begin_s)
        with self.make(clock) as arm:
            last_s = -math.inf
            for tick in range(60):
                clock.sleep_until(self.begin_s + 0.0173 * tick)
                state = arm.state()
                assert last_s <= state.measured_s <= clock.now_s() + self.ahead_s
                last_s = state.measured_s

    def test_arm_can_be_left_and_entered_again_and_lets_errors_through(self) -> None:
        failure = RuntimeError("of the loop")
        arm = self.make(VirtualClock(self.begin_s))

        def run() -> None:
            with arm as entered:
                assert entered is arm
                raise failure

        for _ in range(2):
            with pytest.raises(RuntimeError, match="of the loop"):
                run()
        with arm:
            assert np.isfinite(arm.state().T_base_tcp).all()


class FollowingArmContract(ArmContract):
    """What it relies on besides in an arm that goes where it is sent; `fail` is to be given, too."""

    @abstractmethod
    def fail(self, arm: Arm) -> None:
        """Bring the arm to a latched fault, as its own reflex would."""

    def test_arm_follows_a_safe_command(self) -> None:
        clock = VirtualClock(self.begin_s)
        with self.make(clock) as arm:
            before = arm.state().T_base_tcp[:3, 3]
            moved = self.drive(arm, clock, [0.0, 0.0, -2e-3, 0.0, 0.0, 0.0], ticks=10)[-1].T_base_tcp[:3, 3] - before
            assert moved[2] < -5e-3
            assert np.abs(moved[:2]).max() < 3e-3

    def test_hold_after_send_keeps_the_arm_still(self) -> None:
        clock = VirtualClock(self.begin_s)
        with self.make(clock) as arm:
            self.drive(arm, clock, [0.0, 0.0, -2e-3, 0.0, 0.0, 0.0], ticks=10)
            arm.hold()
            clock.sleep_until(clock.now_s() + self.settle_s)
            held = arm.state().T_base_tcp
            clock.sleep_until(clock.now_s() + 1.0)
            assert np.linalg.norm(arm.state().T_base_tcp[:3, 3] - held[:3, 3]) < self.still_m

    def test_a_fault_stops_the_arm_until_it_is_cleared(self) -> None:
        clock = VirtualClock(self.begin_s)
        with self.make(clock) as arm:
            state = arm.state()
            safety = self.make_filter(state)
            memory = safety.rearm(safety.start(state), state)
            command = Command(
                kind=CommandKind.TCP_DELTA,
                target=np.array([0.0, 0.0, -3e-3, 0.0, 0.0, 0.0]),
                gripper_width_m=state.gripper_width_m,
                due_s=clock.now_s() + self.period_s,
            )
            _, safe = safety.step(memory, state, command)
            assert isinstance(safe, SafeCommand)
            self.fail(arm)
            assert arm.state().fault is not None
            clock.sleep_until(clock.now_s() + self.settle_s)
            stopped = arm.state().T_base_tcp
            with contextlib.suppress(HardwareError):  # an arm may refuse aloud or not at all
                arm.send(safe)
            clock.sleep_until(clock.now_s() + self.settle_s)
            assert arm.state().fault is not None
            assert np.linalg.norm(arm.state().T_base_tcp[:3, 3] - stopped[:3, 3]) < self.still_m
            arm.clear_fault()
            assert arm.state().fault is None
            moved = self.drive(arm, clock, [0.0, 0.0, -2e-3, 0.0, 0.0, 0.0], ticks=10)[-1].T_base_tcp - stopped
            assert moved[2, 3] < -5e-3
