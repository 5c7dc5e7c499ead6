"""How the recorder comes by full-size frames: a thread for each camera that encodes what its ring gets in an episode.

Copying aside, the work is done without Python's lock, so these threads go on while the recorder's main thread writes,
commits and waits for the disk.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from perception.frame_ring import FrameRing, PublishedStamp
from policy.episode_header import StreamSpec
from policy.episode_streams import EncodedFrame
from policy.stream_codec import Codec
from teleop.recorder_streams import EpisodeMark, EpisodeMarks, StreamArgument, StreamArguments

_POLL_S = 0.01  # a ring keeps at least 8 frames, one of a recorded camera those of a second
_LEAD_S = 0.25  # the first tick may use frames that were taken so long before the episode
_LATE_S = 0.1  # a frame that was taken within the episode may arrive so long after its end
_TAKE_BYTES = 8_000_000  # what is written at once, between two looks at the rows
BACKLOG_BYTES = 128_000_000


class Backlog:
    """Encoded frames on their way to the file, in a bounded memory, and how many were lost. For any thread.

    It also keeps how far each stream of an episode has come, by the number of the frame in its ring, so that what is
    given up in the middle can be counted to the last frame.
    """

    def __init__(self, capacity_bytes: int = BACKLOG_BYTES) -> None:
        self._capacity, self._bytes = capacity_bytes, 0
        self._frames: deque[tuple[int, str, EncodedFrame]] = deque()
        self._lost: Counter[tuple[int, str]] = Counter()
        self._next: dict[tuple[int, str], int] = {}
        self._given_up = -1
        self._lock = threading.Lock()

    def put(self, episode: int, stream: str, frame: EncodedFrame, *, number: int) -> None:
        """Keep frame `number` of an episode, or count it as lost where there is no room."""
        with self._lock:
            if episode <= self._given_up:
                return
            self._next[episode, stream] = number + 1
            if self._bytes + len(frame.data) > self._capacity:
                self._lost[episode, stream] += 1
                return
            self._frames.append((episode, stream, frame))
            self._bytes += len(frame.data)

    def lose(self, episode: int, stream: str, count: int, *, until: int) -> None:
        """Count frames that could not be read; the next one to come is frame `until`."""
        with self._lock:
            if episode <= self._given_up:
                return
            self._next[episode, stream] = until
            self._lost[episode, stream] += count

    def finish(self, episode: int, stream: str) -> None:
        """Nothing more comes of an episode."""
        with self._lock:
            if episode > self._given_up:
                self._next[episode, stream] = sys.maxsize

    def given_up(self, episode: int) -> bool:
        """Return whether nobody wants an episode's frames any more."""
        return episode <= self._given_up

    def give_up(self, episode: int, due: Mapping[str, tuple[int, int]]) -> Counter[str]:
        """Let go of all that is there and all that still comes of an episode, and of those before it.

        Args:
            due: by stream the numbers of the episode's first frame and of the one after its last.

        Returns:
            By stream how many of its frames were neither taken nor told as lost before.
        """
        with self._lock:
            missing = Counter({stream: count for (of, stream), count in self._lost.items() if of == episode})
            for of, stream, _ in self._frames:
                missing[stream] += of == episode
            if episode > self._given_up:
                for stream, (first, end) in due.items():
                    missing[stream] += max(0, end - max(first, self._next.get((episode, stream), 0)))
            self._given_up = max(episode, self._given_up)
            self._frames = deque(one for one in self._frames if one[0] > episode)
            self._bytes = sum(len(frame.data) for _, _, frame in self._frames)
            self._lost = Counter({key: count for key, count in self._lost.items() if key[0] > episode})
            self._next = {key: number for key, number in self._next.items() if key[0] > episode}
        return +missing

    def take(self, episode: int) -> list[tuple[str, EncodedFrame]]:
        """Return some 8 MB of an episode, with the stream's name; what is there of an earlier one is let go."""
        taken, left = [], _TAKE_BYTES
        with self._lock:
            while self._frames and self._frames[0][0] <= episode and left > 0:
                of, stream, frame = self._frames.popleft()
                self._bytes -= len(frame.data)
                if of == episode:
                    taken.append((stream, frame))
                    left -= len(frame.data)
        return taken

    def lost(self, episode: int) -> Counter[str]:
        """Return how many frames of an episode were lost since the last call, by stream."""
        with self._lock:
            found = Counter({stream: count for (of, stream), count in self._lost.items() if of == episode})
            self._lost = Counter({key: count for key, count in self._lost.items() if key[0] > episode})
        return found


class FrameCollector:
    """Takes the frames of one camera that were taken within an episode. One thread calls `step` again and again.

    Frames have numbers in their ring, so that every one that was overwritten before it came is counted.
    """

    def __init__(self, source: StreamArgument, place: int, marks: EpisodeMarks, backlog: Backlog) -> None:
        """Args: `place` is where this source's counts stand in a mark. Raises HardwareError for a wrong ring."""
        self._ring, self._place, self._marks, self._backlog = (
            FrameRing(source.file, source.layout),
            place,
            marks,
            backlog,
        )
        self.camera = source.layout.camera
        self._encoders = [(spec, spec.picture_codec()) for spec in source.specs]
        self._rgb = np.empty((*source.layout.full, 3), np.uint8)
        with_depth = any(spec.codec is Codec.DEPTH for spec in source.specs)
        self._depth = np.empty(source.layout.full, np.float32) if with_depth else None
        self._mark = marks.oldest  # number of the next one to be read
        self._begin: EpisodeMark | None = None
        self._end: EpisodeMark | None = None
        self._next = 0
        self.done = -1  # last episode of which all frames were taken

    def step(self, now_s: float) -> bool:
        """Do the next thing there is to do, at most one frame; False when there is nothing."""
        if self._begin is None:
            return self._look_for_begin()
        if self._end is None:
            self._look_for_end()
        count = self._ring.count  # first: what is published after it is none that could not be read
        stamp = self._oldest()
        self._lose(count if stamp is None else stamp.number)
        if stamp is not None and (self._end is None or stamp.captured_s <= self._end.at_s):
            self._take(stamp)
            return True
        if self._end is not None and (stamp is not None or now_s > self._end.at_s + _LATE_S):
            for spec, _ in self._encoders:
                self._backlog.finish(self._end.episode, spec.name)
            self.done, self._begin, self._end = self._end.episode, None, None
            return True
        return False

    @property
    def published(self) -> int:
        """How many frames the camera has published so far."""
        return self._ring.count

    def close(self) -> None:
        """Let go of the ring."""
        self._ring.close()

    def _look_for_begin(self) -> bool:
        mark = self._marks.read(self._mark)
        if mark is None:
            return False
        self._mark += 1
        if mark.begins:
            self._begin, self._end = mark, None
            self._next = mark.counts[self._place]
            # those that the first tick may look at: the newest, and what was taken shortly before
            for stamp in self._ring.newest_first():
                if stamp.number < self._next and stamp.captured_s >= mark.at_s - _LEAD_S:
                    self._next = min(self._next, stamp.number)
        return True

    def _look_for_end(self) -> None:
        mark = self._marks.read(self._mark)
        if mark is not None:
            # a begin that follows a begin: the loop had no end to tell
            self._end = mark if not mark.begins else _ended_by(mark, self._begin)
            self._mark += not mark.begins

    def _oldest(self) -> PublishedStamp | None:
        """Return the stamp of the oldest frame that is still to be taken."""
        oldest = None
        for stamp in self._ring.newest_first():
            if stamp.number < self._next:
                break
            oldest = stamp
        return oldest

    def _take(self, stamp: PublishedStamp) -> None:
        assert self._begin is not None
        self._next = stamp.number + 1
        if self._backlog.given_up(self._begin.episode):  # counted already
            return
        if not self._ring.full(stamp.number, self._rgb, self._depth):
            self._count_lost(stamp.number, 1)
            return
        for spec, encoder in self._encoders:
            pixels = self._depth if spec.codec is Codec.DEPTH else self._rgb
            assert pixels is not None
            frame = EncodedFrame(
                frame_id=stamp.frame_id,
                captured_s=stamp.captured_s,
                arrived_s=stamp.arrived_s,
                uncertainty_s=stamp.uncertainty_s,
                data=encoder.encode(pixels),
            )
            self._backlog.put(self._begin.episode, spec.name, frame, number=stamp.number)

    def _lose(self, until: int) -> None:
        """Frames from the next one to `until` were overwritten before they were read."""
        if until > self._next:
            self._count_lost(self._next, until - self._next)
            self._next = until

    def _count_lost(self, first: int, count: int) -> None:
        assert self._begin is not None
        # those before the episode were only hoped for, those after its end are none of its own
        least = max(first, self._begin.counts[self._place])
        most = first + count if self._end is None else min(first + count, self._end.counts[self._place])
        for spec, _ in self._encoders:
            self._backlog.lose(self._begin.episode, spec.name, max(0, most - least), until=first + count)


class FullFrames:
    """All collectors, each in its thread, for the recorder's main thread."""

    def __init__(
        self, arguments: StreamArguments, *, backlog: Backlog, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Take over the rings. Raises HardwareError for what is none."""
        self.specs: tuple[StreamSpec, ...] = arguments.specs
        self._sources, self._backlog, self._now_s = arguments.sources, backlog, now_s
        self._marks = EpisodeMarks(arguments.marks, len(arguments.sources))
        self._collectors = [
            FrameCollector(source, place, self._marks, backlog) for place, source in enumerate(arguments.sources)
        ]
        self._leave = threading.Event()
        self.problem = ""  # why a collector ended; the others go on
        self._threads = [
            threading.Thread(target=self._collect, args=(collector,), name=f"frames {place}", daemon=True)
            for place, collector in enumerate(self._collectors)
        ]

    def __enter__(self) -> Self:
        """Start to collect."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        for thread in self._threads:
            thread.join()
        for collector in self._collectors:
            collector.close()
        self._marks.close()

    def take(self, episode: int) -> Sequence[tuple[str, EncodedFrame]]:
        """Return some of the frames of an episode that are ready, with their stream's name. Never waits."""
        return self._backlog.take(episode)

    def lost(self, episode: int) -> Counter[str]:
        """Return how many of its frames were lost since the last call, by stream."""
        return self._backlog.lost(episode)

    def give_up(self, episode: int) -> Counter[str]:
        """Let go of what is still to come of an episode; return how many frames that costs, by stream."""
        begin, end = self._marks_of(episode)
        due: dict[str, tuple[int, int]] = {}
        for place, (collector, source) in enumerate(zip(self._collectors, self._sources, strict=True)):
            if begin is not None:
                until = collector.published if end is None else end.counts[place]
                due |= {spec.name: (begin.counts[place], until) for spec in source.specs}
        return self._backlog.give_up(episode, due)

    def settled(self, episode: int) -> bool:
        """Return whether nothing more comes of an episode."""
        pairs = zip(self._collectors, self._threads, strict=True)
        return all(collector.done >= episode or not thread.is_alive() for collector, thread in pairs)

    def _marks_of(self, episode: int) -> tuple[EpisodeMark | None, EpisodeMark | None]:
        """Return where an episode begins and ends, None for what is not known."""
        begin = None
        for number in range(self._marks.oldest, self._marks.count):
            mark = self._marks.read(number)
            if mark is None:
                continue
            if begin is not None:  # its end, or the begin of the next one where the loop had no end to tell
                return begin, mark
            if mark.begins and mark.episode == episode:
                begin = mark
        return begin, None

    def _collect(self, collector: FrameCollector) -> None:
        try:
            while not self._leave.is_set():
                if not collector.step(self._now_s()):
                    self._leave.wait(_POLL_S)
        except Exception as error:  # of encoder or memory: no reason to lose rows
            self.problem = f"camera {collector.camera!r}: its full-size frames are recorded no more ({error})"


def _ended_by(mark: EpisodeMark, begin: EpisodeMark | None) -> EpisodeMark:
    """Return the end of `begin` where the next episode's begin is all that is known of it."""
    assert begin is not None
    return EpisodeMark(episode=begin.episode, begins=False, at_s=mark.at_s, counts=mark.counts)
