from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.config import PatternCameraConfig, SimulatedCameraConfig
from policy.episode_streams import EncodedFrame
from policy.stream_codec import Codec
from teleop.frame_collector import Backlog, FrameCollector, FullFrames
from teleop.recorder_streams import EpisodeMarks, StreamArguments, StreamSource, read_arguments, stream_specs
from tests.stream_frames import DEPTH, JPEG, colour_picture, encoded, sensor_depth
from tests.stream_rings import SLOTS, TestCamera, camera, lossless, mark, marked

FAR_S = 1000.0  # later than any grace


class Bench:
    """One camera and its collector, stepped by hand."""

    def __init__(self, front: TestCamera, marks: EpisodeMarks, collector: FrameCollector, backlog: Backlog) -> None:
        self.front, self.marks, self.collector, self.backlog = front, marks, collector, backlog

    def begin(self, episode: int, at_s: float) -> None:
        mark(self.marks, episode, at_s, self.front, begins=True)

    def end(self, episode: int, at_s: float) -> None:
        mark(self.marks, episode, at_s, self.front, begins=False)

    def work(self, now_s: float = 0.0) -> None:
        while self.collector.step(now_s):
            pass

    def ids(self, episode: int, stream: str = "front") -> list[int]:
        return [frame.frame_id - 1000 for name, frame in self.backlog.take(episode) if name == stream]


def again(front: TestCamera, marks: EpisodeMarks, text: str) -> tuple[FrameCollector, Backlog]:
    """A collector as a recorder's process makes it, with descriptors of its own."""
    arguments = read_arguments(text)
    source = arguments.sources[0].model_copy(update={"file": os.dup(front.ring.file)})
    backlog = Backlog()
    return FrameCollector(source, 0, marks, backlog), backlog


@contextmanager
def make_bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        front = stack.enter_context(camera())
        marks, arguments = stack.enter_context(marked(front))
        collector, backlog = again(front, marks, arguments.model_dump_json())
        stack.callback(collector.close)
        yield Bench(front, marks, collector, backlog)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with make_bench() as made:
        yield made


def test_the_frames_of_an_episode_are_taken_with_those_shortly_before_it(bench: Bench) -> None:
    bench.front.publish(9.0, 3)  # long before
    bench.front.publish(9.95, 5)  # what the first tick may look at
    bench.begin(0, 10.0)
    bench.work()
    bench.front.publish(10.0, 3)
    bench.work()
    bench.end(0, 10.025)
    bench.front.publish(10.03, 2)
    bench.work()
    assert bench.ids(0) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert bench.backlog.lost(0).total() == 0
    assert bench.collector.done == 0


def test_frames_are_encoded_as_they_were_published(bench: Bench) -> None:
    bench.begin(0, 10.0)
    bench.front.publish(10.0, 2)
    bench.work()
    taken = bench.backlog.take(0)
    assert [name for name, _ in taken] == ["front", "front_depth"] * 2
    for place, (_, frame) in enumerate(taken):
        number = place // 2
        assert (frame.frame_id, frame.captured_s) == (1000 + number, 10.0 + 0.01 * number)
        assert (frame.arrived_s, frame.uncertainty_s) == (frame.captured_s + 0.001, 1e-4)
    depth = DEPTH.picture_codec().decode(taken[3][1].data)
    assert depth.tobytes() == sensor_depth(*depth.shape, seed=1).tobytes()
    colour = JPEG.picture_codec()
    assert taken[2][1].data == colour.encode(colour_picture(24, 32, seed=1))


def test_a_frame_that_arrives_after_the_end_is_taken_if_it_was_captured_before(bench: Bench) -> None:
    bench.begin(0, 10.0)
    bench.front.publish(10.0)
    bench.end(0, 10.02)
    bench.work(10.03)
    assert bench.collector.done == -1
    bench.front.publish(10.015)
    bench.work(10.05)
    assert bench.collector.done == -1
    bench.work(FAR_S)
    assert bench.collector.done == 0
    assert bench.ids(0) == [0, 1]


def test_a_camera_that_gives_nothing_holds_up_no_episode(bench: Bench) -> None:
    bench.begin(0, 10.0)
    bench.end(0, 11.0)
    bench.work(FAR_S)
    assert bench.collector.done == 0
    assert bench.ids(0) == []


def test_frames_that_were_overwritten_before_it_came_are_counted(bench: Bench) -> None:
    bench.begin(0, 10.0)
    bench.work()
    bench.front.publish(10.0, SLOTS + 5)
    bench.work()
    assert bench.ids(0) == list(range(5, SLOTS + 5))
    assert bench.backlog.lost(0) == {"front": 5, "front_depth": 5}
    assert bench.backlog.lost(0).total() == 0


def test_a_collector_that_comes_after_the_episodes_counts_all_that_it_missed(bench: Bench) -> None:
    """As the successor of a recorder that died, for which whole episodes wait."""
    for episode in range(3):
        bench.begin(episode, 10.0 + episode)
        bench.front.publish(10.0 + episode, SLOTS + 4)
        bench.end(episode, 10.5 + episode)
        bench.front.publish(10.6 + episode, 3)
    bench.work(FAR_S)
    assert bench.collector.done == 2
    for episode, lost in enumerate((SLOTS + 4, SLOTS + 4, 7)):
        assert bench.backlog.lost(episode) == {"front": lost, "front_depth": lost}
    assert len(bench.ids(2)) == SLOTS + 4 - 7


def test_an_episode_without_an_end_ends_where_the_next_begins(bench: Bench) -> None:
    bench.begin(0, 10.0)
    bench.front.publish(10.0, 2)
    bench.work()
    bench.begin(1, 10.015)
    bench.front.publish(10.02, 2)
    bench.work()
    assert bench.collector.done == 0
    assert bench.ids(0) == [0, 1]
    assert bench.ids(1) == [0, 1, 2, 3]  # the first two are those shortly before it


def test_between_episodes_nothing_is_encoded(bench: Bench) -> None:
    bench.begin(0, 10.0)
    bench.end(0, 10.001)
    bench.work(FAR_S)
    bench.front.publish(20.0, 5)
    assert not bench.collector.step(FAR_S)
    assert bench.ids(7) == []


actions = st.lists(st.one_of(st.integers(1, 2 * SLOTS), st.sampled_from(["begin", "end", "work"])), max_size=40)


@settings(deadline=None, max_examples=60)
@given(actions)
def test_every_frame_of_an_episode_is_taken_once_or_counted(steps: list[int | str]) -> None:
    """However publisher, loop and collector take turns."""
    with make_bench() as bench:
        episode, now_s, running = -1, 10.0, False
        published: dict[int, list[int]] = {}
        for step in steps:
            if isinstance(step, int):
                if running:
                    published[episode] += range(bench.front.ring.count, bench.front.ring.count + step)
                bench.front.publish(now_s, step)
                now_s += 0.01 * step
            elif step == "begin" and not running:
                now_s += 1.0  # none is shortly before
                episode, running = episode + 1, True
                published[episode] = []
                bench.begin(episode, now_s)
            elif step == "end" and running:
                bench.end(episode, now_s - 0.005)
                running = False
            elif step == "work":
                bench.work()
        if running:
            bench.end(episode, now_s)
        bench.work(now_s + FAR_S)
        assert bench.collector.done == episode
        for one, numbers in published.items():
            lost = bench.backlog.lost(one)
            taken = bench.ids(one)
            assert taken == sorted(set(taken))
            assert set(taken) <= set(numbers)
            assert len(taken) + lost["front"] == len(numbers)


def test_the_backlog_is_bounded_and_counts_what_finds_no_room() -> None:
    frame = encoded(JPEG, 0)
    backlog = Backlog(capacity_bytes=3 * len(frame.data))
    for _ in range(5):
        backlog.put(0, "front", frame, number=0)
    assert len(backlog.take(0)) == 3
    assert backlog.lost(0) == {"front": 2}
    backlog.put(0, "front", frame, number=0)
    assert len(backlog.take(0)) == 1


def test_what_nobody_asked_for_makes_room_for_a_later_episode() -> None:
    frame = encoded(JPEG, 0)
    backlog = Backlog(capacity_bytes=2 * len(frame.data))
    backlog.put(0, "front", frame, number=0)
    backlog.put(2, "front", frame, number=0)
    backlog.lose(0, "front", 4, until=4)
    assert backlog.take(1) == []
    assert backlog.lost(1).total() == 0
    assert [name for name, _ in backlog.take(2)] == ["front"]


def test_frames_are_taken_in_portions_that_hold_up_no_row() -> None:
    frame = EncodedFrame(frame_id=0, captured_s=0.0, arrived_s=0.0, data=bytes(3_000_000))
    backlog = Backlog()
    for _ in range(4):
        backlog.put(0, "front", frame, number=0)
    assert [len(backlog.take(0)) for _ in range(3)] == [3, 1, 0]


def test_threads_collect_from_several_cameras() -> None:
    with camera() as front, camera(specs=(lossless("wrist"),)) as wrist, marked(front, wrist) as (marks, arguments):
        mine = arguments.model_copy(
            update={
                "marks": os.dup(arguments.marks),
                "sources": tuple(
                    source.model_copy(update={"file": os.dup(source.file)}) for source in arguments.sources
                ),
            }
        )
        with FullFrames(mine, backlog=Backlog(), now_s=lambda: FAR_S) as frames:
            assert [spec.name for spec in frames.specs] == ["front", "front_depth", "wrist"]
            mark(marks, 0, 10.0, front, wrist, begins=True)
            front.publish(10.0, 3)
            wrist.publish(10.0, 2)
            mark(marks, 0, 10.5, front, wrist, begins=False)
            while not frames.settled(0):
                os.sched_yield()
            names = [name for name, _ in frames.take(0)]
            assert sorted(names) == ["front"] * 3 + ["front_depth"] * 3 + ["wrist"] * 2
            assert frames.problem == ""


def test_a_collector_that_fails_is_named_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: FrameCollector, now_s: float) -> bool:
        raise MemoryError("no memory")

    monkeypatch.setattr(FrameCollector, "step", broken)
    with camera() as front, marked(front) as (_, arguments):
        mine = arguments.model_copy(
            update={
                "marks": os.dup(arguments.marks),
                "sources": (arguments.sources[0].model_copy(update={"file": os.dup(front.ring.file)}),),
            }
        )
        with FullFrames(mine, backlog=Backlog()) as frames:
            while not frames.settled(0):
                os.sched_yield()
            assert frames.problem == "camera 'front': its full-size frames are recorded no more (no memory)"


def test_what_is_given_up_is_counted_to_the_last_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those taken, lost, waiting, being encoded and not yet looked at together are those that were published."""
    with camera() as front, marked(front) as (marks, arguments):
        front.publish(9.9, 2)  # those shortly before are taken as well, and nobody is owed them
        mark(marks, 0, 10.0, front, begins=True)
        front.publish(10.0, SLOTS + 5)
        frames = FullFrames(mine(arguments, front), backlog=Backlog(), now_s=lambda: 10.1)
        (collector,) = frames._collectors
        for _ in range(6):  # the begin, and five frames
            assert collector.step(10.1)
        assert len(frames.take(0)) == 2 * 5
        for _ in range(3):
            assert collector.step(10.1)
        mark(marks, 0, 11.0, front, begins=False)
        front.publish(11.5, 1)  # after the end: none of its own
        encode, given_up = JPEG.picture_codec().__class__.encode, []

        def give_up_meanwhile(self: object, pixels: object) -> bytes:
            if not given_up:
                given_up.append(frames.give_up(0))
            return encode(self, pixels)  # type: ignore[arg-type]

        monkeypatch.setattr(JPEG.picture_codec().__class__, "encode", give_up_meanwhile)
        assert collector.step(11.6)
        while collector.step(FAR_S):
            pass
        assert given_up == [{"front": SLOTS, "front_depth": SLOTS}]
        assert frames.take(0) == []
        assert frames.lost(0).total() == 0
        assert frames.give_up(0).total() == 0
        mark(marks, 1, 20.0, front, begins=True)
        front.publish(20.0, 2)
        while collector.step(20.1):
            pass
        assert len(frames.take(1)) == 2 * 2  # the next episode has its own
        mark(marks, 1, 20.2, front, begins=False)
        front.publish(20.3, 1)
        while collector.step(FAR_S):
            pass
        assert frames.give_up(1).total() == 0


def mine(arguments: StreamArguments, front: TestCamera) -> StreamArguments:
    """The arguments with descriptors of their own."""
    (source,) = arguments.sources
    return arguments.model_copy(
        update={
            "marks": os.dup(arguments.marks),
            "sources": (source.model_copy(update={"file": os.dup(front.ring.file)}),),
        }
    )


def test_a_station_says_what_is_recorded_of_a_camera() -> None:
    plain = PatternCameraConfig(kind="pattern", name="front", height=480, width=640, rate_hz=30.0)
    assert stream_specs(plain) == ()
    jpeg = plain.model_copy(update={"stream": "jpeg", "jpeg_quality": 80})
    assert [(spec.name, spec.codec, spec.quality) for spec in stream_specs(jpeg)] == [("front", Codec.JPEG, 80)]
    deep = SimulatedCameraConfig(
        kind="simulated", name="top", height=48, width=64, rate_hz=30.0, mount="base", eye_m=(1.0, 0.0, 1.0),
        target_m=(0.0, 0.0, 0.0), up=(0.0, 0.0, 1.0), vertical_fov_deg=50.0, stream="lossless", depth_stream=True,
    )  # fmt: skip
    assert [(spec.name, spec.codec, spec.quality) for spec in stream_specs(deep)] == [
        ("top", Codec.LOSSLESS, None),
        ("top_depth", Codec.DEPTH, None),
    ]
    with camera() as front:
        assert StreamSource.of(plain, front.ring) is None
