"""The contract of every camera driver, faults included, checked with what publishes its frames behind it."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.config import LiveCameraConfig
from perception.frame_publisher import FramePublisher
from perception.frame_ring import FrameLayout, FrameRing, PublishedStamp
from perception.frame_source import FrameSource
from robot.clock import VirtualClock
from robot.errors import HardwareError

HEIGHT, WIDTH, RATE_HZ = 24, 32, 30.0
PERIOD_S = 1.0 / RATE_HZ


class Fault(enum.Enum):
    """What a device can do wrong with one picture."""

    FROZEN = enum.auto()  # nothing comes
    WRONG_SIZE = enum.auto()
    FUTURE_STAMP = enum.auto()  # of 0.8 s later
    CLOCK_BACK = enum.auto()  # of 0.8 s earlier


class Device(Protocol):
    """A device at whose end a test sits."""

    def give(self, number: int, fault: Fault | None) -> None:
        """Take picture `number`, whose time has come, and send it."""
        ...

    def picture(self, number: int) -> NDArray[np.uint8]:
        """Return what picture `number` shows, (H, W, 3), red first."""
        ...

    def unplug(self) -> None:
        """Be gone."""
        ...

    def plug(self) -> None:
        """Be there again."""
        ...


class Bench:
    """A source, what publishes its frames, and their ring."""

    def __init__(self, source: FrameSource, device: Device, ring: FrameRing, config: LiveCameraConfig) -> None:
        self.source, self.device, self.ring = source, device, ring
        self.said: list[str] = []
        self.publisher = FramePublisher(ring, config, self.said.append)

    def newest(self) -> PublishedStamp:
        return next(self.ring.newest_first())


class FrameSourceContract(ABC):
    """What `camera_process` relies on in every driver. Inherit, and give `make` and `config`."""

    clock: VirtualClock
    counts_lost = True  # whether ids tell of frames that the device lost
    has_clock = True  # whether its frames bear stamps
    tolerance = 0  # grey levels that a lossy format may be off

    @abstractmethod
    def make(self, clock: VirtualClock) -> tuple[FrameSource, Device]:
        """A source that has not been entered and the device that it will open; `clock` stands at 100 s."""

    @abstractmethod
    def config(self) -> LiveCameraConfig:
        """Section of the station, of `WIDTH` x `HEIGHT` at `RATE_HZ`."""

    @contextmanager
    def bench(self) -> Iterator[Bench]:
        self.clock = VirtualClock(100.0)
        self.taken = 0
        source, device = self.make(self.clock)
        layout = FrameLayout.of(self.config(), usable_s=10.0)
        with closing(FrameRing.new(layout)) as ring:
            yield Bench(source, device, ring, self.config())

    def step(self, bench: Bench, fault: Fault | None = None, *, lost: int = 0) -> bool:
        """Let one frame period pass; True where a frame was published."""
        for _ in range(lost + 1):
            self.taken += 1
            self.clock.sleep_until(100.0 + self.taken * PERIOD_S)
        bench.device.give(self.taken, fault)
        frame = bench.source.wait(0.02 if fault is Fault.FROZEN else 0.5, bench.publisher.place())
        return frame is not None and bench.publisher.take(frame)

    def test_frames_show_what_the_device_saw_red_first_and_in_order(self) -> None:
        with self.bench() as bench, bench.source:
            shown = np.empty((HEIGHT, WIDTH, 3), np.uint8)
            for _ in range(12):
                if self.step(bench):
                    stamp = bench.newest()
                    assert bench.ring.full(stamp.number, shown)
                    apart = shown.astype(int) - bench.device.picture(self.taken)
                    assert np.abs(apart).max() <= self.tolerance
            stamps = bench.ring.stamps(20)
            assert len(stamps) >= 10
            assert np.all(np.diff([stamp.frame_id for stamp in stamps]) == 1)
            assert np.diff([stamp.captured_s for stamp in stamps]) == pytest.approx(PERIOD_S, abs=2e-3)
            assert not bench.publisher.refused

    def test_a_frozen_device_gives_nothing_in_time_and_then_goes_on(self) -> None:
        with self.bench() as bench, bench.source:
            self.run_in(bench)
            assert not [k for k in range(3) if self.step(bench, Fault.FROZEN)]
            before = bench.newest()
            self.until_published(bench)
            assert bench.newest().captured_s - before.captured_s >= 3.5 * PERIOD_S

    def test_a_gap_shows_in_the_times_and_where_the_device_counts_in_the_ids(self) -> None:
        with self.bench() as bench, bench.source:
            self.run_in(bench)
            before = bench.newest()
            self.step(bench, lost=5)
            self.until_published(bench)
            after = bench.newest()
            passed = round((after.captured_s - before.captured_s) / PERIOD_S)
            assert passed >= 6
            if self.counts_lost:
                assert after.frame_id - before.frame_id == passed

    def test_a_picture_of_another_size_is_never_published(self) -> None:
        with self.bench() as bench, bench.source:
            self.run_in(bench)
            count = bench.ring.count
            failure = self.failure(bench, Fault.WRONG_SIZE, steps=1)
            said = [failure] if failure else bench.said  # or nothing, where it finds no frame that belongs to it
            assert not [line for line in said if "the station says" not in line or "\n" in line]
            assert bench.ring.count == count

    def test_an_unplugged_device_is_an_error_or_silent_and_goes_on_when_it_is_back(self) -> None:
        with self.bench() as bench:
            with bench.source:
                self.run_in(bench)
                before = bench.newest()
                bench.device.unplug()
                self.failure(bench, Fault.FROZEN, steps=3)
                assert bench.newest() == before
            for _ in range(2):
                with pytest.raises(HardwareError) as caught:
                    self.enter_and_wait(bench)
                assert "\n" not in str(caught.value)
            bench.device.plug()
            with bench.source:
                bench.publisher.begin()
                self.until_published(bench)
                self.until_published(bench)
            after = bench.newest()
            assert after.frame_id > before.frame_id
            assert after.captured_s > before.captured_s
            assert after.captured_s <= after.arrived_s <= self.clock.now_s()

    @pytest.mark.parametrize("fault", [Fault.FUTURE_STAMP, Fault.CLOCK_BACK])
    def test_a_glitch_of_the_clock_is_refused_and_the_next_frame_is_used(self, fault: Fault) -> None:
        if not self.has_clock:
            return
        with self.bench() as bench, bench.source:
            self.run_in(bench)
            assert not self.step(bench, fault)
            assert not bench.said or "its stamp is" in bench.said[-1]
            refused = bench.newest()
            self.until_published(bench)
            after = bench.newest()
            assert 1.5 * PERIOD_S < after.captured_s - refused.captured_s < 6.0 * PERIOD_S

    def test_source_enters_as_itself_and_lets_errors_through(self) -> None:
        failure = RuntimeError("of the process")
        with self.bench() as bench:

            def run() -> None:
                with bench.source as entered:
                    assert entered is bench.source
                    raise failure

            for _ in range(2):
                with pytest.raises(RuntimeError, match="of the process"):
                    run()
            with bench.source:
                bench.publisher.begin()
                self.until_published(bench)

    def failure(self, bench: Bench, fault: Fault, *, steps: int) -> str | None:
        """What the source says when it fails within so many steps; None where it does not."""
        try:
            assert not [k for k in range(steps) if self.step(bench, fault)]
        except HardwareError as error:
            return str(error)
        return None

    def enter_and_wait(self, bench: Bench) -> None:
        with bench.source:
            for _ in range(3):
                self.step(bench, Fault.FROZEN)

    def run_in(self, bench: Bench, frames: int = 40) -> None:
        """Let so many frames come that the clock of the device is known to some milliseconds."""
        for _ in range(frames):
            self.step(bench)
        assert bench.ring.count >= frames - 3

    def until_published(self, bench: Bench) -> None:
        for _ in range(5):
            if self.step(bench):
                return
        raise AssertionError(f"no frame was published: {bench.said}")
