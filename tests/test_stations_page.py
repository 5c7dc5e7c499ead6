"""docs/stations.md is what its generator writes, has every key of a station, and its examples load."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from docs import generate_stations
from robot.errors import BadInputError
from robot.strict import Strict
from teleop.station import Station, load_station

TEXT = generate_stations.PAGE.read_text()
STATIONS = sorted((Path(__file__).parents[1] / "launch" / "stations").glob("*.toml"))
ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def chapter(title: str) -> str:
    """What stands under a heading, up to the next one."""
    _, found, rest = TEXT.partition(f"# {title}\n")
    assert found, title
    return re.split(r"\n#+ ", rest)[0]


def row(title: str, key: str) -> list[str]:
    """Unit, allowed, default and meaning of a key."""
    (line,) = re.findall(rf"^\| `{key}` \| .*$", chapter(title), re.MULTILINE)
    return [cell.strip() for cell in line.split(" | ")[1:]]


def test_the_page_is_what_the_generator_writes() -> None:
    wanted = generate_stations.page(generate_stations.head_of(TEXT))
    assert wanted == TEXT, "run docs/generate_stations.py"


def test_every_key_of_every_table_is_on_the_page() -> None:
    tables = re.split(r"^#+ ", TEXT, flags=re.MULTILINE)
    shown = {frozenset(ROW.findall(table)) for table in tables}
    schema = Station.model_json_schema()
    for name, model in {"Station": schema, **schema["$defs"]}.items():
        if model.get("type") == "object":
            assert frozenset(model["properties"]) in shown, name


def dotted(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield key
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict) and key not in ("options", "readings", "algorithm"):
                yield from dotted(inner)


@pytest.mark.parametrize("station", STATIONS, ids=lambda path: path.stem)
def test_every_key_of_the_shipped_stations_is_on_the_page(station: Path) -> None:
    assert set(dotted(tomllib.loads(station.read_text()))) <= set(ROW.findall(TEXT))


def test_the_examples_are_stations(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    names = []
    for example in examples:
        path = tmp_path / "station.toml"
        path.write_text(example)
        names.append(load_station(path).station.name)
    assert names == ["small", "left_bench"]


def test_a_row_tells_unit_range_default_and_meaning() -> None:
    assert row("loop", "rate_hz") == ["Hz", "number, 5 to 100", "`20`", "ticks per second |"]
    assert row("safety", "max_speed_m_s")[:3] == ["m/s", "number, 0.001 to 3", "**required**"]
    assert row("safety", "max_rotation_speed_rad_s")[1] == "number, 0.001 to 2 pi"
    assert row("camera: uvc", "exposure_us")[0] == "us"
    assert row("camera: simulated", "vertical_fov_deg")[1] == "number, over 1 to under 150"
    assert row("arm: franka", "home_m")[1] == "list of 3: number, -5 to 5"
    assert row("learner", "discount")[1:3] == ["number, over 0 to under 1", "`0.98`"]
    assert row("residual", "history")[1:3] == ["table", "left out"]


def test_each_kind_has_a_section_that_says_its_own_word() -> None:
    for part, kinds in {
        "arm": ("simulated", "recorded", "franka", "gymnasium"),
        "camera": ("simulated", "pattern", "realsense", "uvc", "playback", "recorded", "gymnasium"),
    }.items():
        for kind in kinds:
            assert row(f"{part}: {kind}", "kind")[1:3] == [f'`"{kind}"`', "**required**"]


class Base(Strict):
    """What all have.

    Attributes:
        reach_m: how far it goes [m].
    """

    reach_m: float


class Told(Base):
    """A thing. Its `colour` shines.

    It has a second paragraph.

    Attributes:
        low, high: an end
            of the range.
    """

    low: float
    high: Annotated[int, Field(ge=2)] = 3
    colour: str = "red"


class Untold(Base):
    """A thing."""

    colour: str


class Contradicting(Strict):
    """A thing.

    Attributes:
        reach_m: how far it goes [rad].
    """

    reach_m: float


def test_words_come_from_the_model_those_it_extends_and_its_prose() -> None:
    prose, words = generate_stations.words_of(Told)
    assert prose == ["A thing. Its `colour` shines.", "It has a second paragraph."]
    assert words == {
        "reach_m": "how far it goes [m].",
        "low": "an end of the range.",
        "high": "an end of the range.",
        "colour": "Its `colour` shines.",
    }


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Untold, r"Untold\.colour: has no words; say it under Attributes: there"),
        (Contradicting, r"Contradicting\.reach_m: its words say \[rad\], its name m; correct one"),
    ],
)
def test_a_key_without_words_or_with_another_unit_is_refused(model: type[Strict], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        list(generate_stations.section(model))


def test_a_page_without_the_marker_is_refused() -> None:
    with pytest.raises(BadInputError, match="put it below what is written by hand"):
        generate_stations.head_of("# Stations\n")
