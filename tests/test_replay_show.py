from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from policy.episode_reader import read_episode
from robot.errors import BadInputError
from teleop.arbiter import Source
from teleop.replay_picture import draw
from teleop.replay_show import _strip, describe
from tests.replay_run import changed, make_run


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_run(tmp_path_factory.mktemp("show"))


def test_who_drove_when_stands_in_one_strip(recorded: list[Path]) -> None:
    lines, document = describe(recorded[0])
    letters = {Source.POLICY: "p", Source.HUMAN: "H", Source.HOLD: "-", Source.RESET: "r"}
    sources = read_episode(recorded[0]).array("tick/source").astype(int)
    assert "  " + "".join(letters[Source(source)] for source in sources.tolist()) in lines
    assert document["sources"]["human"] == int((sources == Source.HUMAN).sum())
    first = int(np.flatnonzero(sources == Source.HUMAN)[0])
    assert [span["first"] for span in document["takeovers"]] == [first]


def test_outcome_holds_and_their_reasons_are_told(recorded: list[Path]) -> None:
    text = ["\n".join(describe(path)[0]) for path in recorded]
    assert "timeout (none)" in text[0]
    assert "person hold" in text[0]
    assert "repeated frames" in text[0]
    assert "residual version 0 from tick 0, 1 from tick" in text[0]
    assert "success (person)" in text[1]
    assert "abort (person)" in text[2]
    assert "because the person stopped the robot" in text[2]
    assert "stopped" in text[2]


def test_a_long_episodes_strip_keeps_a_short_takeover() -> None:
    sources = np.zeros(1000, int)
    sources[500] = Source.HUMAN
    strip = next(iter(_strip(sources, 20.0)))
    assert strip.count("H") == 1
    assert len(strip.strip()) == 96


def test_one_tick_is_told_with_every_voice(recorded: list[Path]) -> None:
    row = read_episode(recorded[0]).rows(19, 20)[0]
    lines, document = describe(recorded[0], tick=19)
    assert document["tick"]["index"] == 19
    assert f"{row['tick/human'][0]:8.4f}" in document["tick"]["human"]
    assert document["tick"]["source"] == "human"
    assert "tick 19" in lines


def test_a_tick_that_is_not_there_is_one_line(recorded: list[Path]) -> None:
    with pytest.raises(BadInputError, match="has no tick 999; its ticks are 0 to"):
        describe(recorded[0], tick=999)


def test_the_picture_shows_cameras_driver_and_a_panel_per_dimension(recorded: list[Path], tmp_path: Path) -> None:
    png = tmp_path / "episode.png"
    draw(recorded[0], png)
    picture = mpl.image.imread(png)
    assert picture.shape[1] == 11 * 130
    human, policy = ([226, 125, 36], [38, 96, 180])
    pixels = np.round(picture[..., :3] * 255).astype(int).reshape(-1, 3)
    for colour in (human, policy):
        assert (np.abs(pixels - colour).max(axis=1) <= 2).sum() > 500


def test_a_picture_that_cannot_be_written_is_one_line(recorded: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot be written"):
        draw(recorded[0], tmp_path / "nowhere" / "episode.png")


def test_an_episode_that_held_throughout_can_be_drawn(recorded: list[Path], tmp_path: Path) -> None:
    path = recorded[2]
    with changed(path, reseal=True) as demo:
        demo["tick/source"][:] = Source.HOLD
        for name in ("base", "human"):
            demo[f"tick/{name}"][:] = np.nan
    draw(path, tmp_path / "held.png")
    assert (tmp_path / "held.png").stat().st_size > 10_000
