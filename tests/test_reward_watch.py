from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from policy.episode_header import LabelSource, Outcome
from policy.onnx_session import PolicyError
from policy.reward_model import load_reward_model
from policy.reward_rule import RewardAnswer
from robot.errors import BadInputError
from teleop.human_input import HumanEvent
from teleop.reward_watch import check_cost
from tests.loop_bench import LoopBench, Script, says, when
from tests.tiny_bundle import make_tiny_bundle
from tests.tiny_reward import make_tiny_reward

FREE = 20  # ticks of an episode that nobody ends


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def bench(bundle: Path, reward: Path, *more: tuple[str, str], source: str = "model") -> LoopBench:
    """The simulated station, whose front camera's picture is always reddish, with a reward model."""
    return LoopBench(bundle, ("reward.source", source), ("reward.path", json.dumps(str(reward))), *more)


def always(tmp_path: Path, debounce_ticks: int = 3) -> Path:
    return make_tiny_reward(tmp_path / "reward", threshold=0.01, debounce_ticks=debounce_ticks)


def test_the_model_ends_an_episode_after_so_many_free_ticks_in_a_row(bundle: Path, tmp_path: Path) -> None:
    with bench(bundle, always(tmp_path, debounce_ticks=4)) as loop:
        result = loop.episode()
        rows = loop.free_rows
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.label_source) == (Outcome.SUCCESS, LabelSource.REWARD_MODEL)
    assert [int(row["tick/reward_streak"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["rewards"]) for row in rows] == [0.0, 0.0, 0.0, 1.0]
    assert rows[-1]["terminated"] == 1


def test_its_probability_is_that_of_the_logged_picture_and_homing_asks_nothing(bundle: Path, tmp_path: Path) -> None:
    with bench(bundle, always(tmp_path)) as loop:
        loop.episode()
        rows, free = loop.recorder.rows, loop.free_rows
    assert len(free) < len(rows)
    for row in rows[: len(rows) - len(free)]:
        assert row["tick/reward_answer"] == RewardAnswer.NOT_ASKED
        assert np.isnan(row["tick/reward_probability"])
        assert row["tick/reward_streak"] == 0
    for row in free:
        assert row["tick/reward_answer"] == RewardAnswer.GIVEN
        redness = row["obs/front_image"][..., 0].mean() / 255
        assert row["tick/reward_probability"] == pytest.approx(redness, abs=1e-5)
        assert np.isnan(row["tick/reward_ms"])  # lock-step does not depend on the machine's speed


@pytest.mark.parametrize(
    ("event", "outcome"), [(HumanEvent.FAILURE, Outcome.FAILURE), (HumanEvent.RERECORD, Outcome.RERECORD)]
)
def test_the_person_wins_over_the_model(bundle: Path, tmp_path: Path, event: HumanEvent, outcome: Outcome) -> None:
    script: Script = when(t3=says(event))  # the very tick on which the model's verdict would be heeded
    with bench(bundle, always(tmp_path)) as loop:
        result = loop.episode(script)
        streak = int(loop.recorder.rows[-1]["tick/reward_streak"])
    assert streak == 3
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.label_source) == (outcome, LabelSource.PERSON)
    assert loop.recorder.rows[-1]["rewards"] == 0.0


@pytest.mark.parametrize("source", ["task", "person"])
def test_a_model_that_only_looks_on_is_logged_and_ends_nothing(bundle: Path, tmp_path: Path, source: str) -> None:
    with bench(bundle, always(tmp_path), source=source) as loop:
        result = loop.episode()
        rows = loop.free_rows
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.label_source) == (Outcome.TIMEOUT, LabelSource.NONE)
    assert [int(row["tick/reward_streak"]) for row in rows] == list(range(1, FREE + 1))


def test_the_station_overrides_threshold_and_debounce(bundle: Path, tmp_path: Path) -> None:
    with bench(bundle, always(tmp_path), ("reward.debounce_ticks", "6")) as loop:
        loop.episode()
        assert len(loop.free_rows) == 6
    with bench(bundle, always(tmp_path), ("reward.threshold", "0.999")) as loop:
        result = loop.episode()
        assert len(loop.free_rows) == FREE
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.TIMEOUT


def test_the_next_episode_begins_without_the_last_one_s_streak(bundle: Path, tmp_path: Path) -> None:
    with bench(bundle, always(tmp_path)) as loop:
        loop.episode()
        loop.episode()
        assert [int(row["tick/reward_streak"]) for row in loop.free_rows] == [1, 2, 3]


@pytest.mark.parametrize("scale", [0.0, 1e6])
def test_what_is_no_probability_is_no_reward_is_logged_and_is_told_once(
    bundle: Path, tmp_path: Path, scale: float
) -> None:
    reward = make_tiny_reward(tmp_path / "reward", threshold=0.01, scale=scale)
    with bench(bundle, reward) as loop:
        result = loop.episode()
        rows, watch = loop.free_rows, loop.rig.reward
    assert result.outcome is not None
    assert result.outcome.outcome is Outcome.TIMEOUT
    assert {int(row["tick/reward_answer"]) for row in rows} == {RewardAnswer.UNUSABLE}
    assert not any(0.0 <= row["tick/reward_probability"] <= 1.0 for row in rows)
    assert watch is not None
    assert watch.unusable == FREE
    assert watch.news() == f"reward model: no reward from {FREE} ticks of this run, {FREE} times it gave no number " + (
        "from 0 to 1"
    )
    assert watch.news() == ""


def test_a_model_that_raises_costs_its_reward_and_nothing_else(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(bundle, always(tmp_path)) as loop:
        watch = loop.rig.reward
        assert watch is not None
        honest, calls = watch.model.probability, 0

        def raises_on_the_third(images: object, proprio: object) -> np.float32:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise PolicyError("out of memory")
            return honest(images, proprio)  # type: ignore[arg-type]

        monkeypatch.setattr(watch.model, "probability", raises_on_the_third)
        result = loop.episode()
        streaks = [int(row["tick/reward_streak"]) for row in loop.free_rows]
        answers = [int(row["tick/reward_answer"]) for row in loop.free_rows]
    assert streaks == [1, 2, 0, 1, 2, 3]
    assert answers[2] == RewardAnswer.FAILED
    assert result.failure is None
    assert "out of memory" in watch.news()


def test_frames_that_may_not_be_trusted_are_not_judged(bundle: Path, tmp_path: Path) -> None:
    stale = ("camera.wrist.drop_rate", "0.4"), ("synchroniser.max_repeats", "0")
    with bench(bundle, always(tmp_path), *stale, ("reward.debounce_ticks", "50")) as loop:
        loop.episode()
        rows = loop.free_rows
    trusted = [int(row["tick/verdict"]) == 0 for row in rows]
    assert not all(trusted)
    assert [int(row["tick/reward_answer"]) == RewardAnswer.GIVEN for row in rows] == trusted
    assert all(int(row["tick/reward_streak"]) == 0 for row, fresh in zip(rows, trusted, strict=True) if not fresh)


def test_a_picture_that_is_seen_again_is_no_new_evidence(bundle: Path, tmp_path: Path) -> None:
    again = ("camera.front.drop_rate", "0.4"), ("synchroniser.max_repeats", "3")
    with bench(bundle, always(tmp_path), *again, ("reward.debounce_ticks", "50")) as loop:
        loop.episode()
        rows = loop.recorder.rows
    front, streaks, repeats = 0, [], 0
    streak = 0
    for before, row in itertools.pairwise(rows):
        if not np.isnan(row["tick/reset"]).all():
            continue
        repeated = int(row["tick/frame_id"][front]) == int(before["tick/frame_id"][front])
        given = int(row["tick/reward_answer"]) == RewardAnswer.GIVEN
        repeats += repeated and given
        streak = streak + (not repeated) if given else 0
        streaks.append(int(row["tick/reward_streak"]) == streak)
    assert repeats
    assert all(streaks)


def test_a_model_of_other_cameras_is_refused_before_anything_opens(bundle: Path, tmp_path: Path) -> None:
    reward = make_tiny_reward(tmp_path / "reward", cameras={"side": (32, 40)})
    with pytest.raises(BadInputError, match="looks at camera 'side', which the policy of station 'sim_place' does not"):
        bench(bundle, reward)


def test_a_model_that_would_eat_the_tick_is_refused(tmp_path: Path) -> None:
    model = load_reward_model(always(tmp_path), provider="cpu")
    check_cost(model, 60.0)
    with pytest.raises(BadInputError, match=r"takes .* ms at least \(limit 0\.0 ms, a quarter of a tick\)"):
        check_cost(model, 1e-7)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((("reward.source", "model"),), "source 'model' needs path"),
        ((("reward.threshold", "0.5"),), "threshold and debounce_ticks are a reward model's"),
        ((("reward.source", "model"), ("reward.path", "no/where")), r"cannot read reward\.json"),
    ],
)
def test_a_reward_section_that_says_half_is_refused(bundle: Path, more: tuple[tuple[str, str], ...], told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        LoopBench(bundle, *more)


def test_rows_without_a_reward_model_have_no_columns_of_one(bundle: Path) -> None:
    with LoopBench(bundle) as loop:
        loop.episode()
        names = loop.recorder.rows[0].dtype.names or ()
    assert not [name for name in names if "reward_" in name]
