from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from perception.config import PlaybackCameraConfig
from perception.footage import open_footage
from perception.frame_source import FrameSource, Place, RawFrame
from perception.playback_source import PlaybackSource, check_footage
from robot.clock import VirtualClock
from robot.errors import BadInputError, HardwareError
from tests.footage import picture, write_uneven_video, write_video
from tests.source_contract import HEIGHT, PERIOD_S, RATE_HZ, WIDTH, Device, Fault, FrameSourceContract

CONFIG = PlaybackCameraConfig(
    kind="playback", name="front", file="front.avi", height=HEIGHT, width=WIDTH, rate_hz=RATE_HZ
)


class Faulty:
    """A source of its own pace, with the fault that a test wants of the next frame."""

    def __init__(self, source: FrameSource, path: Path) -> None:
        self.source, self.path, self.fault, self.entered = source, path, None, False
        self.fault: Fault | None = None

    def __enter__(self) -> Faulty:
        self.source.__enter__()
        return self

    def __exit__(self, *what: object) -> None:
        self.source.__exit__(None, None, None)

    def wait(self, timeout_s: float, place: Place | None = None) -> RawFrame | None:
        frame = self.source.wait(timeout_s, place)
        if frame is None or self.fault is Fault.FROZEN:
            return None
        assert frame.device_s is not None
        glitch_s = {Fault.FUTURE_STAMP: 0.8, Fault.CLOCK_BACK: -0.8}.get(self.fault, 0.0) if self.fault else 0.0
        half = HEIGHT // 2 if self.fault is Fault.WRONG_SIZE else HEIGHT
        return RawFrame(
            frame_id=frame.frame_id, arrived_s=frame.arrived_s, device_s=frame.device_s + glitch_s, rgb=frame.rgb[:half]
        )

    def give(self, number: int, fault: Fault | None) -> None:
        self.fault = fault

    def picture(self, number: int) -> NDArray[np.uint8]:
        return picture(number)

    def unplug(self) -> None:
        self.path.rename(self.path.with_suffix(".away"))
        self.fault = Fault.FROZEN

    def plug(self) -> None:
        self.path.with_suffix(".away").rename(self.path)


class TestPlaybackSource(FrameSourceContract):
    @pytest.fixture(autouse=True)
    def _video(self, tmp_path: Path) -> None:
        self.path = tmp_path / "front.avi"
        write_video(self.path, [picture(number) for number in range(60)], fourcc="FFV1")

    def make(self, clock: VirtualClock) -> tuple[FrameSource, Device]:
        faulty = Faulty(PlaybackSource(CONFIG, self.path, clock=clock), self.path)
        return faulty, faulty

    def config(self) -> PlaybackCameraConfig:
        return CONFIG


def play(path: Path, count: int, *, pause_s: float = 0.0, **changes: object) -> list[tuple[float, RawFrame]]:
    """Frames with when each was given since the beginning; at most `count` waits."""
    clock = VirtualClock(50.0)
    config = PlaybackCameraConfig.model_validate(CONFIG.model_dump() | changes)
    found = []
    with PlaybackSource(config, path, clock=clock) as source:
        for _ in range(count):
            frame = source.wait(0.3)
            if frame is not None:
                found.append((clock.now_s() - 50.0, frame))
            clock.sleep_until(clock.now_s() + pause_s)
    return found


@pytest.mark.parametrize(
    ("name", "fourcc", "off"), [("a.avi", "FFV1", 0), ("a.avi", "MJPG", 12), ("a.mp4", "mp4v", 40)]
)
def test_videos_of_the_usual_kinds_play(tmp_path: Path, name: str, fourcc: str, off: int) -> None:
    write_video(tmp_path / name, [picture(number) for number in range(20)], fourcc=fourcc)
    check_footage(CONFIG, tmp_path / name)
    for k, (given_s, frame) in enumerate(play(tmp_path / name, 20)):
        assert given_s == pytest.approx(k * PERIOD_S, abs=1e-3)
        assert np.abs(frame.rgb.astype(int) - picture(k)).max() <= off


def test_frames_come_at_the_containers_own_times_and_begin_anew_a_period_after_the_end(tmp_path: Path) -> None:
    times_ms = [0, 40, 80, 200, 233, 400]
    write_uneven_video(tmp_path / "a.mkv", times_ms, [picture(k) for k in range(6)])
    played = play(tmp_path / "a.mkv", 12)
    second_s = 0.4 + PERIOD_S
    expected_s = [1e-3 * time_ms for time_ms in times_ms] + [1e-3 * time_ms + second_s for time_ms in times_ms]
    assert [given_s for given_s, _ in played] == pytest.approx(expected_s, abs=2e-3)
    assert [frame.device_s for _, frame in played] == pytest.approx(expected_s, abs=2e-3)
    assert [frame.frame_id for _, frame in played] == list(range(12))
    assert np.abs(played[7][1].rgb.astype(int) - picture(1)).max() <= 12


def test_without_repetition_it_falls_silent_at_the_end(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", [picture(k) for k in range(5)], fourcc="FFV1")
    assert [frame.frame_id for _, frame in play(tmp_path / "a.avi", 12, repeat=False)] == [0, 1, 2, 3, 4]


def test_frames_for_which_nobody_waited_are_lost_and_the_ids_tell(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", [picture(k) for k in range(40)], fourcc="FFV1")
    played = play(tmp_path / "a.avi", 6, pause_s=0.1)
    assert set(np.diff([frame.frame_id for _, frame in played])) <= {3, 4}
    for given_s, frame in played:
        assert frame.device_s is not None
        assert 0.0 <= given_s - frame.device_s < PERIOD_S + 1e-6
        np.testing.assert_array_equal(frame.rgb, picture(frame.frame_id))


def write_episode(path: Path) -> None:
    """The parts of an episode that a camera is played from; the third tick had no new frame, the fifth none at all."""
    with h5py.File(path, "w") as file:
        cameras = [["front", HEIGHT, WIDTH], ["wrist", HEIGHT, WIDTH]]
        file.attrs["header"] = np.bytes_(json.dumps({"spec": {"cameras": cameras}}))
        ids = np.array([[7, 3], [9, 5], [9, 5], [11, 8], [-1, -1], [12, 9]])
        captured_s = 900.0 + 0.05 * np.array([[0, 0], [1, 1.5], [1, 1.5], [2, 3], [np.nan, np.nan], [3, 4]])
        file["data/demo_0/tick/frame_id"], file["data/demo_0/tick/captured_s"] = ids, captured_s
        for column, name in enumerate(("front", "wrist")):
            file[f"data/demo_0/obs/{name}_image"] = np.stack([picture(k) + column for k in range(6)])


def test_a_camera_of_an_episode_plays_at_the_times_of_its_frames(tmp_path: Path) -> None:
    write_episode(tmp_path / "e.h5")
    played = play(tmp_path / "e.h5", 8, view="wrist", repeat=False, rate_hz=20.0)
    assert [given_s for given_s, _ in played] == pytest.approx([0.0, 0.075, 0.15, 0.2])
    for (_, frame), tick in zip(played, (0, 1, 3, 5), strict=True):
        np.testing.assert_array_equal(frame.rgb, picture(tick) + 1)


def test_what_cannot_be_played_is_refused_before_anything_starts(tmp_path: Path) -> None:
    video, episode, other = tmp_path / "a.avi", tmp_path / "e.h5", tmp_path / "x.avi"
    write_video(video, [picture(k) for k in range(40)], fourcc="FFV1")
    write_video(tmp_path / "one.avi", [picture(0)], fourcc="FFV1")
    write_episode(episode)
    other.write_bytes(b"no video" * 100)
    (tmp_path / "x.h5").write_bytes(b"no episode")
    view = CONFIG.model_copy(update={"view": "wrist"})
    for config, path, message in [
        (CONFIG, tmp_path / "none.avi", "no such file; correct `file`"),
        (CONFIG, other, "is no video that OpenCV can read"),
        (CONFIG, episode, "is an episode; name one of its cameras with `view`"),
        (view, video, "is a video; leave `view` out"),
        (view, tmp_path / "x.h5", "not a readable episode"),
        (CONFIG.model_copy(update={"view": "left"}), episode, "has no camera 'left' (allowed ['front', 'wrist'])"),
        (CONFIG.model_copy(update={"width": 64}), video, "has pictures of 32x24, the station says 64x24"),
        (CONFIG.model_copy(update={"rate_hz": 10.0}), video, "has 30 frames a second, the station says rate_hz = 10"),
        (CONFIG, tmp_path / "one.avi", "has 1 frames; at least 2 needed"),
    ]:
        with pytest.raises(BadInputError) as caught:
            check_footage(config, path)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_times_that_go_back_are_refused(tmp_path: Path) -> None:
    write_episode(tmp_path / "e.h5")
    with h5py.File(tmp_path / "e.h5", "a") as file:
        file["data/demo_0/tick/captured_s"][3, 0] = 1.0
    with open_footage(tmp_path / "e.h5", "front") as pictures, pytest.raises(BadInputError, match="frame 2 is of 1 s"):
        list(pictures)
    with pytest.raises(HardwareError, match="frame 2 is of 1 s"):
        play(tmp_path / "e.h5", 5, view="front")
