"""Contract tests: inherit one, make the object under test, and every check runs on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from perception.camera import Camera
from perception.frame import Frame
from teleop.human_input import HumanCommand, HumanEvent, HumanInput


class HumanInputContract:
    """What the loop relies on in every device. Inherit, give `make`, and let `stir` press things between polls."""

    def make(self) -> HumanInput:
        """A device that has not been entered."""
        raise NotImplementedError

    def stir(self, human: HumanInput, step: int) -> None:
        """Something a person may do before poll number `step`; by default nothing."""

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


class CameraContract:
    """What the synchroniser relies on in every camera. Inherit, give `make`, `begin_s` and `let_run`."""

    begin_s = 100.0  # host time at which the source begins to run
    TOLERANCE_S = 1e-9  # rounding of times that were summed in another order

    def make(self) -> Camera:
        """A camera that has not been entered, of a source that begins at `begin_s`."""
        raise NotImplementedError

    def let_run(self, now_s: float) -> None:
        """Let the source run up to `now_s`, where it does not do so by itself."""

    def frames(self, camera: Camera, *, tick_s: float = 0.05, ticks: int = 60) -> Iterator[tuple[float, Frame]]:
        for tick in range(ticks):
            now_s = self.begin_s + tick_s * tick
            self.let_run(now_s)
            frame = camera.latest(now_s)
            if frame is not None:
                yield now_s, frame

    def test_camera_has_nothing_before_its_first_frame(self) -> None:
        with self.make() as camera:
            assert camera.latest(self.begin_s - 60.0) is None

    def test_camera_gives_frames_of_the_promised_size_and_name(self) -> None:
        with self.make() as camera:
            seen = list(self.frames(camera))
            assert len({frame.frame_id for _, frame in seen}) >= 3
            for _, frame in seen:
                assert frame.camera == camera.name
                assert frame.rgb.shape == (*camera.size, 3)
                assert frame.rgb.dtype == np.uint8
                assert frame.depth_m is None or frame.depth_m.shape == camera.size

    def test_no_frame_comes_from_the_future(self) -> None:
        with self.make() as camera:
            for now_s, frame in self.frames(camera, tick_s=0.0173):
                assert frame.captured_s <= frame.arrived_s <= now_s + self.TOLERANCE_S

    def test_frames_come_in_order_and_a_repeat_is_the_same_frame(self) -> None:
        with self.make() as camera:
            for (_, earlier), (_, later) in itertools.pairwise(self.frames(camera, tick_s=0.0173)):
                if later.frame_id == earlier.frame_id:
                    assert later.captured_s == earlier.captured_s
                    assert np.array_equal(later.rgb, earlier.rgb)
                else:
                    assert later.frame_id > earlier.frame_id
                    assert later.captured_s > earlier.captured_s
                    assert later.arrived_s >= earlier.arrived_s

    def test_camera_enters_as_itself_and_lets_errors_through(self) -> None:
        failure = RuntimeError("of the loop")
        camera = self.make()

        def run() -> None:
            with camera as entered:
                assert entered is camera
                raise failure

        with pytest.raises(RuntimeError, match="of the loop"):
            run()
