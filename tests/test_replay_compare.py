from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policy.episode_reader import read_episode
from robot.errors import BadInputError
from teleop.arbiter import Source
from teleop.replay_compare import compare_bundle
from teleop.replay_text import compared_lines
from tests.replay_run import make_run
from tests.tiny_bundle import make_tiny_bundle, tiny_graphs, tiny_manifest, write_tiny_bundle


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    make_run(folder)
    return folder


def first(recorded: Path) -> Path:
    return min((recorded / "run" / "episodes").glob("*.h5"))


def test_the_policy_that_ran_agrees_with_itself_to_the_bit(recorded: Path) -> None:
    seen: list[Path] = []
    report = compare_bundle(recorded / "bundle", [recorded / "run"], threshold=0.0, progress=seen.append)
    assert (report.episodes, len(seen)) == (3, 3)
    base = [read_episode(path).array("tick/base") for path in seen]
    assert report.ticks == sum(int(np.isfinite(values).all(axis=1).sum()) for values in base)
    assert [one.from_base for one in report.dimensions] == [0.0] * 5
    assert report.reachable == 1.0
    assert {takeover.disagreed for takeover in report.takeovers} == {None}
    assert any("no difference over 0 before it" in line for line in compared_lines(report))


def test_another_policy_is_measured_against_every_voice(recorded: Path, tmp_path: Path) -> None:
    other = make_tiny_bundle(tmp_path / "other", seed=1)
    report = compare_bundle(other, [first(recorded)])
    columns = read_episode(first(recorded)).arrays(["tick/base", "tick/human", "tick/source", "tick/index"])
    x, gripper = report.dimensions[0], report.dimensions[4]
    assert x.from_base > 0.01
    assert x.from_human is not None
    assert x.scale == pytest.approx(0.4)
    assert x.reachable is not None
    assert 0.0 < x.reachable <= 1.0
    assert (gripper.scale, gripper.reachable) == (0.0, 0.0)
    driven = columns["tick/source"] == Source.HUMAN
    expected = np.abs(columns["tick/base"] - columns["tick/human"])[driven].astype(float).mean(axis=0)
    assert [one.base_from_human for one in report.dimensions] == pytest.approx(expected.tolist(), rel=1e-6)


def test_the_first_disagreement_lies_between_the_policys_start_and_the_takeover(recorded: Path, tmp_path: Path) -> None:
    other = make_tiny_bundle(tmp_path / "other", seed=1)
    report = compare_bundle(other, [first(recorded)], threshold=0.05)
    (takeover,) = report.takeovers
    columns = read_episode(first(recorded)).arrays(["tick/source"])
    drives = np.flatnonzero(columns["tick/source"] == Source.POLICY)
    assert takeover.tick == int(np.flatnonzero(columns["tick/source"] == Source.HUMAN)[0])
    assert takeover.disagreed == drives[0]
    assert takeover.lead_s == pytest.approx((takeover.tick - drives[0]) / 20.0)
    assert any(f"at tick {drives[0]}, " in line for line in compared_lines(report))


def test_a_policy_that_asks_for_other_proprioception_gets_it_from_the_logged_state(
    recorded: Path, tmp_path: Path
) -> None:
    other = make_tiny_bundle(tmp_path / "other", proprio={"joint_position_rad": 7, "tcp_velocity": 6})
    assert compare_bundle(other, [first(recorded)]).ticks > 10


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"rate_hz": 10.0}, "was trained at 10 Hz"),
        ({"cameras": {"front": (32, 40), "side": (32, 40)}}, "needs camera 'side'"),
        ({"cameras": {"front": (16, 16)}}, "takes camera 'front' at 16x16"),
        ({"dims": ("x", "y", "z", "gripper")}, "action dims is"),
    ],
)
def test_a_policy_that_cannot_be_compared_is_one_line(
    recorded: Path, tmp_path: Path, fields: dict[str, object], line: str
) -> None:
    other = make_tiny_bundle(tmp_path / "other", **fields)
    with pytest.raises(BadInputError, match=line):
        compare_bundle(other, [first(recorded)])


def test_other_units_are_not_compared(recorded: Path, tmp_path: Path) -> None:
    manifest = tiny_manifest()
    manifest["action"]["scale"][0] = 0.05
    other = write_tiny_bundle(tmp_path / "other", manifest, tiny_graphs(manifest))
    with pytest.raises(BadInputError, match="mean different moves"):
        compare_bundle(other, [first(recorded)])
