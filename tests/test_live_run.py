"""Whole runs in real time with real processes, each with something that breaks in its middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.observation import Verdict
from policy.episode_reader import Episode, latest_revisions
from teleop.arbiter import HoldReason, Source
from teleop.replay import verify_run
from tests.test_supervisor import gone

ROOT = Path(__file__).parents[1]
STATION = ROOT / "launch" / "stations" / "sim_place.toml"
RUN_S = 120.0  # a safety net; a run takes some ten seconds
FAULT_S = 1.5  # from the first tick, in the middle of the first episode
# a machine that tests on both cores may delay the simulated arm by more than a real controller ever is
PATIENT = ("--arm.servo.max_state_age_s", "0.2", "--arm.servo.arm_age_s", "0.5")


@dataclass(frozen=True)
class Ran:
    """A finished run."""

    status: int
    said: str
    document: dict[str, Any]
    episodes: list[Episode]

    def reasons(self, episode: int = 0) -> HoldReason:
        """All reasons for which ticks of an episode held, those of the reset left out."""
        rows = self.episodes[episode]
        found = HoldReason.NONE
        for reason in rows.array("tick/hold_reason")[free(rows)].tolist():
            found |= HoldReason(int(reason))
        return found


def free(episode: Episode) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Ticks after the reset."""
    return np.isnan(episode.array("tick/reset")).all(axis=1)


def live_run(folder: Path, *words: str, episodes: int = 1, timeout_s: float = 5.0) -> Ran:
    """Run the shipped station with `words` and wait for its end."""
    command = [sys.executable, str(ROOT / "launch" / "run_robot.py"), str(STATION), "--real-time"]
    command += ["--episodes", str(episodes), "--out", str(folder / "run"), "--json", str(folder / "run.json")]
    command += ["--operator", "none", "--episode.timeout_s", str(timeout_s), *PATIENT, *words]
    done = subprocess.run(
        command, cwd=folder, timeout=RUN_S, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert "Traceback" not in done.stdout, done.stdout
    document = json.loads((folder / "run.json").read_text())
    assert all(map(gone, document["processes"].values())), "a process was left behind"
    found = latest_revisions(folder / "run" / "episodes")
    return Ran(status=done.returncode, said=done.stdout, document=document, episodes=list(found))


def never_old_nor_backward(episodes: Sequence[Episode], max_age_s: float) -> None:
    """No tick acted on frames that were too old, and no camera's frames went back."""
    for episode in episodes:
        acted = episode.array("tick/source") == Source.POLICY
        age_s = (episode.array("tick/start_s")[:, None] - episode.array("tick/captured_s")).max(axis=1)
        assert (age_s[acted] <= max_age_s).all()
        assert (episode.array("tick/verdict")[acted] == Verdict.FRESH).all()
        for ids in episode.array("tick/frame_id").T:
            seen = ids[ids >= 0]
            assert (np.diff(seen) >= 0).all()


def sees_again(episode: Episode) -> bool:
    """Whether ticks acted on what they saw once more after the longest time that none did."""
    acted = np.flatnonzero(episode.array("tick/source") == Source.POLICY)
    after = int(np.argmax(np.diff(acted))) + 1
    return len(acted) - after >= 5


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (f"camera-kill:wrist@{FAULT_S}", "camera wrist ended by signal 9 and was started again"),
        (f"camera-freeze:front@{FAULT_S}+20", "camera front was silent and was started again"),
    ],
)
def test_a_camera_process_that_dies_or_freezes_is_started_again_and_the_robot_holds_meanwhile(
    tmp_path: Path, fault: str, said: str
) -> None:
    ran = live_run(tmp_path, "--inject", fault, timeout_s=8.0)
    assert ran.status == 0
    assert said in ran.said
    assert ran.reasons() & (HoldReason.STALE_FRAMES | HoldReason.REPEATED_FRAMES)
    never_old_nor_backward(ran.episodes, 0.15)
    assert sees_again(ran.episodes[0])
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0


@pytest.mark.parametrize(
    ("fault", "holds"),
    [
        ("camera-slow:front@1.5+1=0.4", True),
        ("camera-silent:front@1.5+1", True),
        ("camera-gone:front@1.5+1", True),
        ("camera-size:front@1.5+1", True),
        ("camera-disorder:front@1.5+2", False),
        ("camera-drops:front@1.5+2=0.3", False),
        ("camera-clock:front@1.5+2=5", False),
    ],
)
def test_frames_that_cannot_be_trusted_are_never_acted_on_and_the_run_goes_on(
    tmp_path: Path, fault: str, holds: bool
) -> None:
    ran = live_run(tmp_path, "--inject", fault, timeout_s=7.0)
    assert ran.status == 0
    never_old_nor_backward(ran.episodes, 0.15)
    if holds:
        assert ran.reasons() & (
            HoldReason.STALE_FRAMES | HoldReason.REPEATED_FRAMES | HoldReason.SKEWED_FRAMES | HoldReason.MISSING_FRAMES
        )
    else:
        ids = ran.episodes[0].array("tick/frame_id")[:, 0]
        assert (np.diff(ids[ids >= 0]) > 1).any()  # frames were refused or lost, so the fault was there
    assert sees_again(ran.episodes[0])
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("pad-unplug", HoldReason.DEVICE_UNPLUGGED), ("pad-silent", HoldReason.DEVICE_SILENT)],
)
def test_a_device_that_is_gone_or_silent_holds_until_it_is_back(tmp_path: Path, fault: str, reason: HoldReason) -> None:
    ran = live_run(tmp_path, "--inject", f"{fault}@{FAULT_S}+1")
    assert ran.status == 0
    assert reason in ran.reasons()
    episode = ran.episodes[0]
    held = (episode.array("tick/hold_reason").astype(int) & int(reason)) != 0
    assert not np.isin(episode.array("tick/source")[held], [Source.POLICY, Source.HUMAN]).any()
    assert sees_again(episode)


def test_a_base_policy_that_raises_holds_and_is_told(tmp_path: Path) -> None:
    ran = live_run(tmp_path, "--inject", f"base-raise@{FAULT_S}+0.5")
    assert ran.status == 0
    assert "the base policy failed in" in ran.said
    episode = ran.episodes[0]
    failed = episode.array("tick/policy_failed").astype(bool)
    assert failed.any()
    assert (episode.array("tick/hold_reason")[failed & free(episode)] == HoldReason.NO_PROPOSAL).all()
    assert sees_again(episode)
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0


def test_a_base_policy_that_gives_nan_latches_until_the_person_arms(tmp_path: Path) -> None:
    ran = live_run(tmp_path, "--inject", f"base-nan@{FAULT_S}+0.8", episodes=2)
    first, second = ran.episodes
    assert first.outcome.outcome.value == "abort"
    assert "NOT_FINITE" in (first.outcome.reason or "")
    assert bool(first.array("tick/latched")[-1])
    assert second.array("tick/source")[-1] == Source.POLICY
    # the replay asks the real policy and finds what it would have said
    assert set(verify_run(tmp_path / "run", jobs=1).by_field) >= {"tick/chunk", "tick/base"}


def test_an_asynchronous_policy_that_hangs_is_killed_started_again_and_the_robot_holds(tmp_path: Path) -> None:
    slow = ("--policy.mode", "asynchronous", "--policy.deadline_s", "0.3")
    ran = live_run(tmp_path, *slow, "--inject", f"base-hang@{FAULT_S}+1.5", timeout_s=9.0)
    assert ran.status == 0
    assert "policy was silent and was started again" in ran.said
    assert HoldReason.NO_PROPOSAL in ran.reasons()
    assert sees_again(ran.episodes[0])
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0


def test_a_loop_that_stands_still_finds_the_arm_at_rest_and_counts_what_it_missed(tmp_path: Path) -> None:
    ran = live_run(tmp_path, "--inject", f"loop-stall@{FAULT_S}+0.6")
    assert ran.status == 0
    episode = ran.episodes[0]
    index, start_s = episode.array("tick/index"), episode.array("tick/start_s")
    after = int(np.argmax(np.diff(start_s))) + 1
    assert start_s[after] - start_s[after - 1] > 0.5
    assert index[after] - index[after - 1] > 10
    assert episode.labels[0].skipped_ticks >= 10
    assert episode.labels[0].complete
    # the servo brought it to rest meanwhile, whatever the last command was
    assert np.linalg.norm(episode.array("tick/tcp_velocity")[after][:3]) < 0.01
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("servo-kill", "servo ended by signal 9; look at the arm"),
        ("arm-off", "simulated arm ended by signal 9; look at the arm"),
        ("supervisor-kill", "the supervisor is gone"),
    ],
)
def test_a_run_without_what_moves_the_arm_ends_with_its_episode_on_disk(tmp_path: Path, fault: str, told: str) -> None:
    ran = live_run(tmp_path, "--inject", f"{fault}@{FAULT_S}", episodes=3)
    assert ran.status == 1
    assert told in ran.document["failure"]
    (episode,) = ran.episodes
    assert episode.outcome.outcome.value == "abort"
    assert told in (episode.outcome.reason or "")
    assert episode.labels[0].complete
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0


def test_an_arm_fault_latches_brakes_and_is_cleared_by_the_arm_verb_alone(tmp_path: Path) -> None:
    ran = live_run(tmp_path, "--inject", f"arm-fault@{FAULT_S}+1", episodes=2)
    first, second = ran.episodes
    faults = first.array("tick/arm_fault").astype(bool)
    assert faults.any()
    began = int(np.argmax(faults))
    assert first.array("tick/latched")[began:].astype(bool).all()
    assert "injected fault" in (first.outcome.reason or "")
    assert not second.array("tick/arm_fault").astype(bool).any()
    assert second.array("tick/source")[-1] == Source.POLICY


def test_a_killed_recorder_costs_its_episode_rows_and_nothing_else(tmp_path: Path) -> None:
    ran = live_run(tmp_path, "--inject", f"recorder-kill@{FAULT_S}", episodes=2, timeout_s=3.0)
    assert ran.status == 1  # not all is recorded, and the person hears so
    assert "the recorder ended" in ran.said
    assert ran.document["timing"]["deadline_misses"] <= 1
    first, second = ran.episodes
    assert (first.labels[0].complete, second.labels[0].complete) == (False, True)
    assert first.array("tick/start_s")[-1] - first.array("tick/start_s")[0] > FAULT_S - 0.6  # at most 0.5 s are lost
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0


@pytest.mark.parametrize("fault", ["disk-full", "disk-slow"])
def test_a_full_or_slow_disk_never_delays_a_tick(tmp_path: Path, fault: str) -> None:
    ran = live_run(tmp_path, "--inject", f"{fault}@{FAULT_S}+1", episodes=2, timeout_s=3.0)
    assert ran.document["timing"]["deadline_misses"] <= 1
    assert len(ran.episodes) == 2
    assert ran.episodes[1].labels[0].complete
    if fault == "disk-full":
        assert ran.status == 1
        assert "MB free on its disk" in ran.said
        assert not ran.episodes[0].labels[0].complete
    else:
        assert ran.status == 0


def test_when_the_loop_is_killed_everything_ends_and_what_was_recorded_is_there(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "launch" / "run_robot.py"), str(STATION), "--real-time", "--operator", "none"]
    command += ["--episodes", "2", "--out", str(tmp_path / "run"), "--inject", "loop-kill@2", *PATIENT]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        assert run.stdout is not None
        assert b"ready in" in run.stdout.readline()
        family = _family(run.pid)
        assert len(family) >= 6  # supervisor, arm, servo, two cameras, recorder
        assert run.wait(RUN_S) == -9
    deadline_s = time.monotonic() + 20.0
    while not all(map(gone, family)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert all(map(gone, family))
    (episode,) = latest_revisions(tmp_path / "run" / "episodes")
    assert episode.outcome.outcome.value == "incomplete"
    assert episode.length > 20
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0


def _family(pid: int) -> list[int]:
    """Processes that `pid` started, and those that these did."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [descendant for child in children for descendant in _family(child)]


def test_injections_that_a_run_cannot_show_are_refused_in_one_line(tmp_path: Path) -> None:
    for words, told in (
        (["--inject", "servo-kill"], "need --real-time"),
        (["--inject", "camera-kill:top", "--real-time"], "no camera 'top' (allowed front, wrist)"),
        (["--inject", "nonsense"], "'nonsense' is no fault; allowed camera-kill"),
    ):
        command = [sys.executable, str(ROOT / "launch" / "run_robot.py"), str(STATION), "--out", str(tmp_path / "run")]
        done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True, timeout=RUN_S)
        assert done.returncode == 2
        assert told in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "run").exists()


def test_a_learner_of_the_runs_own_that_is_killed_goes_on_and_garbage_for_weights_is_refused(tmp_path: Path) -> None:
    words = ("--learner", "own", "--learner.min_transitions", "50", "--inject", "learner-kill@4")
    ran = live_run(tmp_path, *words, "--inject", "learner-garbage@7+1", episodes=4, timeout_s=4.0)
    assert ran.status == 0
    assert "learner ended by signal 9 and was started again" in ran.said
    assert ran.document["weights"]["refused"] >= 1
    assert len(ran.episodes) == 4
    assert all(episode.labels[0].complete for episode in ran.episodes)
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0


def test_full_size_frames_are_recorded_by_the_recorder_alone(tmp_path: Path) -> None:
    words = (
        "--camera.front.stream",
        "jpeg",
        "--camera.wrist.stream",
        "lossless",
        "--camera.front.depth_stream",
        "true",
    )
    ran = live_run(tmp_path, *words, timeout_s=3.0)
    assert ran.status == 0
    episode = ran.episodes[0]
    for name in ("front", "wrist", "front_depth"):
        stream = episode.stream(name)
        assert stream.dropped == 0
        places = episode.tick_frames(stream)
        assert (np.asarray(places)[free(episode)] >= 0).all()  # each tick's frame is there
    # the policy's picture is the whole frame on this station, so what is lossless is the very same
    places = np.asarray(episode.tick_frames(episode.stream("wrist")))
    row = len(places) - 1
    np.testing.assert_array_equal(
        episode.stream("wrist").pixels(int(places[row])), episode.array("obs/wrist_image")[row]
    )
    assert verify_run(tmp_path / "run", jobs=1).mismatches == 0
