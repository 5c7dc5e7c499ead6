from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.recorded_camera import RecordedCamera
from policy.bridge_data import DIMS, GRIPPER_CLOSED_M, GRIPPER_OPEN_M, VIEWS, ActionStatistics
from policy.bundle import load_bundle
from policy.episode_commit import commit_episode
from policy.episode_header import EpisodeOutcome, LabelSource, Outcome
from policy.episode_reader import Episode, read_episode
from policy.episode_schema import EpisodeSpec
from policy.episode_writer import EpisodeWriter
from policy.manifest import ActionSpec, Manifest
from policy.open_loop import baseline_actions, open_loop_error
from robot.clock import VirtualClock
from robot.errors import BadInputError
from robot.recorded_arm import RecordedArm
from robot.recording import RecordedEpisode, Recording
from teleop.open_loop_report import open_loop_report
from tests.contracts import newest
from tests.episodes import header
from tests.test_recording import EXCERPT

BUNDLE = Path(__file__).parents[1] / "policy/bundles/bridge"
SEEN, UNSEEN, ALSO_UNSEEN = 0, 1, 2
Array = NDArray[np.float64]
Voice = Callable[[RecordedEpisode, int], Array | None]


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load_bundle(BUNDLE, provider="cpu").manifest


def normalised(si: Array, spec: ActionSpec) -> Array:
    action = si / np.array(spec.scale)
    action[6] = 2.0 * si[6] - 1.0
    return action


def log(
    folder: Path,
    recording: Recording,
    manifest: Manifest,
    numbers: list[int],
    base: Voice,
    *,
    first_resets: bool = False,
) -> list[Episode]:
    """Episodes as the loop would log them, with `base` (SI) as the base action; one tick goes before the playback."""
    spec = EpisodeSpec(
        cameras=tuple((name, 64, 64) for name in VIEWS),
        proprio=(("tcp_position_m", 3),),
        action_size=7,
        chunk_length=4,
        feature_size=16,
        joint_count=0,
    )
    clock = VirtualClock(100.0)
    arm = RecordedArm(recording, clock, gripper_open_m=GRIPPER_OPEN_M, gripper_closed_m=GRIPPER_CLOSED_M)
    camera = RecordedCamera(recording, "view_0", "image_0")
    logged = []
    for index, number in enumerate(numbers):
        start_s = clock.now_s() + 0.5
        played = recording.select(number, start_s)
        own = header(index, open_loop=True).model_copy(
            update={"spec": spec, "layout": recording.layout(), "action": manifest.action, "residual_scale": ()}
        )
        with EpisodeWriter(folder, own) as writer:
            for tick in range(-1, len(played)):
                clock.sleep_until(start_s + tick / 5.0)
                state, frame = arm.state(), newest(camera, clock.now_s())
                row = np.zeros((), spec.row_dtype())
                row["tick/index"] = tick + 1
                row["tick/reset"] = 0.0 if tick == 0 and first_resets else np.nan
                row["tick/state_s"] = state.measured_s
                row["tick/captured_s"] = np.nan if frame is None else frame.captured_s
                row["tick/T_base_tcp"] = state.T_base_tcp
                row["tick/gripper_width_m"] = state.gripper_width_m
                wanted = base(played, max(tick, 0))
                row["tick/base"] = np.nan if wanted is None else normalised(wanted, manifest.action)
                writer.append(row)
            writer.finish(EpisodeOutcome(outcome=Outcome.TIMEOUT, label_source=LabelSource.TASK))
        logged.append(read_episode(folder / commit_episode(writer.path).path))
        clock.sleep_until(clock.now_s() + 1.0)
    return logged


def operators(played: RecordedEpisode, step: int) -> Array:
    return played.action[step]


def test_policy_that_does_what_the_operator_did_has_no_error(tmp_path: Path, manifest: Manifest) -> None:
    recording = Recording.open(EXCERPT)
    episodes = log(tmp_path, recording, manifest, [UNSEEN, ALSO_UNSEEN], operators)
    report = open_loop_report(episodes, recording, manifest)
    assert (report.episodes, report.ticks, report.silent_ticks, report.seen_episodes) == (2, 10, 0, 0)
    assert report.error.motion == pytest.approx(0.0, abs=1e-6)
    assert report.error.gripper == pytest.approx(0.0, abs=1e-6)
    assert report.beats_all
    assert "nearer to the operator's motion than all baselines" in report.verdict()


def test_error_is_the_mean_absolute_error_in_training_spreads(tmp_path: Path, manifest: Manifest) -> None:
    recording = Recording.open(EXCERPT)
    off = np.array([0.001, 0.0, -0.002, 0.01, 0.0, 0.02, -0.25])
    episodes = log(tmp_path, recording, manifest, [UNSEEN], lambda played, step: played.action[step] + off)
    report = open_loop_report(episodes, recording, manifest)
    spread = np.array([float(manifest.training[f"spread_{dim}"]) for dim in DIMS])
    np.testing.assert_allclose(report.error.dims, np.abs(off) / spread, rtol=1e-4, atol=1e-6)
    assert report.error.motion == pytest.approx((np.abs(off) / spread)[:6].mean(), rel=1e-4)
    assert report.error.gripper == pytest.approx(0.25 / spread[6], rel=1e-4)


def test_baselines_are_the_training_mean_no_motion_and_the_gripper_as_it_is(tmp_path: Path, manifest: Manifest) -> None:
    recording = Recording.open(EXCERPT)
    episodes = log(tmp_path, recording, manifest, [UNSEEN, ALSO_UNSEEN], operators)
    report = open_loop_report(episodes, recording, manifest)
    played = [recording.episodes[number] for number in (UNSEEN, ALSO_UNSEEN)]
    operator = np.concatenate([episode.action for episode in played])
    opening = np.concatenate([episode.opening for episode in played])
    mean, spread = (
        np.array([float(manifest.training[f"{kind}_{dim}"]) for dim in DIMS]) for kind in ("mean", "spread")
    )
    about_mean, size = np.abs(operator - mean).mean(0) / spread, np.abs(operator).mean(0) / spread
    hold = np.abs(operator[:, 6] - opening).mean() / spread[6]
    expected = {
        "mean": (about_mean[:6].mean(), about_mean[6]),
        "still": (size[:6].mean(), about_mean[6]),
        "hold_gripper": (size[:6].mean(), hold),
    }
    for name, (motion, gripper) in expected.items():
        assert report.baselines[name].motion == pytest.approx(motion)
        assert report.baselines[name].gripper == pytest.approx(gripper)


def test_worse_policy_is_called_so_with_the_dimension_that_costs_most(tmp_path: Path, manifest: Manifest) -> None:
    recording = Recording.open(EXCERPT)
    bad = np.array([0.0, 0.0, 0.0, 0.0, 0.14, 0.0, 0.0])
    episodes = log(tmp_path, recording, manifest, [UNSEEN], lambda played, step: played.action[step] + bad)
    report = open_loop_report(episodes, recording, manifest)
    assert not report.beats_all
    assert "does NOT beat all baselines on motion" in report.verdict()
    assert "it loses most on pitch" in report.verdict()
    assert report.summary()["beats_all_baselines_on_motion"] is False


def test_trained_on_episodes_and_silent_ticks_are_counted_not_judged(tmp_path: Path, manifest: Manifest) -> None:
    recording = Recording.open(EXCERPT)
    episodes = log(
        tmp_path,
        recording,
        manifest,
        [SEEN, UNSEEN],
        lambda played, step: None if step == 3 else played.action[step],
    )
    report = open_loop_report(episodes, recording, manifest)
    assert (report.episodes, report.ticks, report.silent_ticks, report.seen_episodes) == (1, 4, 1, 1)
    assert "1 ticks without a base action, 1 episodes of the training" in report.text()


def test_reset_ticks_are_not_judged(tmp_path: Path, manifest: Manifest) -> None:
    recording = Recording.open(EXCERPT)
    episodes = log(tmp_path, recording, manifest, [UNSEEN], operators, first_resets=True)
    assert open_loop_report(episodes, recording, manifest).ticks == 4


def test_summary_and_table_name_what_the_json_document_must_have(tmp_path: Path, manifest: Manifest) -> None:
    recording = Recording.open(EXCERPT)
    report = open_loop_report(log(tmp_path, recording, manifest, [UNSEEN], operators), recording, manifest)
    summary = report.summary()
    assert summary["error"] == {"motion": report.error.motion, "gripper": report.error.gripper}
    assert list(report.baselines) == ["mean", "still", "hold_gripper"]
    lines = report.text().splitlines()
    assert [line.split()[0] for line in lines[3:]] == [*DIMS, "motion"]


def test_run_without_anything_to_judge_is_one_line(tmp_path: Path, manifest: Manifest) -> None:
    recording = Recording.open(EXCERPT)
    episodes = log(tmp_path, recording, manifest, [SEEN], operators)
    with pytest.raises(BadInputError, match=r"no tick to judge in 1 episodes \(1 were trained on"):
        open_loop_report(episodes, recording, manifest)


def test_episode_of_something_else_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    recording = Recording.open(EXCERPT)
    episode = log(tmp_path, recording, manifest, [UNSEEN], operators)[0]
    other = Recording(recording.path, 5.0, recording.episodes[:1])
    with pytest.raises(BadInputError, match=r"not an episode of recording .*; give the recording that was played"):
        open_loop_report([episode], other, manifest)


def test_bundle_not_trained_on_recordings_is_refused(manifest: Manifest) -> None:
    bare = manifest.model_copy(update={"training": {}})
    with pytest.raises(BadInputError, match="training facts lack 'mean_x'"):
        open_loop_report([], Recording.open(EXCERPT), bare)


def test_scaling_an_axis_and_its_spread_leaves_the_error_alone() -> None:
    rng = np.random.default_rng(0)
    actions, operator = rng.normal(size=(20, 7)), rng.normal(size=(20, 7))
    units = np.array([1e-3, 1.0, 5.0, 1.0, 2.0, 1.0, 3.0])
    plain = open_loop_error(actions, operator, ActionStatistics(mean=np.zeros(7), spread=np.ones(7)))
    scaled = open_loop_error(actions * units, operator * units, ActionStatistics(mean=np.zeros(7), spread=units))
    np.testing.assert_allclose(plain.dims, scaled.dims)


def test_still_baselines_do_not_move() -> None:
    statistics = ActionStatistics(mean=np.full(7, 0.3), spread=np.ones(7))
    actions = baseline_actions(np.array([0.9, 0.1]), statistics)
    assert not actions["still"][:, :6].any()
    assert not actions["hold_gripper"][:, :6].any()
    np.testing.assert_array_equal(actions["hold_gripper"][:, 6], [0.9, 0.1])
    np.testing.assert_array_equal(actions["still"][:, 6], [0.3, 0.3])
