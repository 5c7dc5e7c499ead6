from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from policy.episode_schema import DELAY_WINDOW, DIGEST_FIELD, STAGES, EpisodeSpec, row_digest
from tests.episodes import SPEC, make_rows

DOC = Path(__file__).parents[1] / "docs" / "episode_format.md"
# every size differs, so that a dimension mixed up in the page shows
ODD = EpisodeSpec(
    cameras=(("front", 31, 37), ("wrist", 31, 37), ("side", 31, 37)),
    proprio=(("joint_position_rad", 41),),
    action_size=5,
    chunk_length=11,
    feature_size=13,
    joint_count=17,
    asynchronous=True,
    reward_model=True,
    cloud_points=43,
    readings=(("goal", 47),),
    task_reward=True,
    wrench=True,
)
SIZES = {
    "A": 5,
    "H": 11,
    "F": 13,
    "N": 17,
    "M": 58,
    "C": 3,
    "S": len(STAGES),
    "W": DELAY_WINDOW,
    "height": 31,
    "width": 37,
    "size": 41,
    "P": 43,
    "K": 47,
}


def documented() -> dict[str, tuple[str, tuple[int, ...]]]:
    found = {}
    for line in DOC.read_text().splitlines():
        cells = re.fullmatch(r"\| `([\w/<>]+)` \| ([uif]\d) \| \((.*?)\) \| .+ \|", line)
        if cells:
            shape = tuple(SIZES.get(size) or int(size) for size in re.findall(r"\w+", cells[3]))
            found[cells[1]] = (cells[2], shape)
    return found


def test_the_page_lists_every_dataset_with_its_type_and_shape() -> None:
    schema = ODD.fields() | ODD.measured_fields()
    named = {
        re.sub(r"obs/\w+_image", "obs/<camera>_image", name)
        .replace("joint_position_rad", "<key>")
        .replace("reading_goal", "reading_<name>"): kind
        for name, kind in schema.items()
    }
    assert documented() == named


def test_a_row_is_packed_and_has_every_field() -> None:
    dtype = ODD.row_dtype()
    assert dtype.names == tuple(ODD.fields())
    assert dtype.itemsize == sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in ODD.fields().values())


def test_the_digest_sees_every_byte_of_every_other_field() -> None:
    row = make_rows(1)[0]
    digest = row_digest(row)
    data = row.reshape(1).view(np.uint8)
    offset = SPEC.row_dtype().fields[DIGEST_FIELD][1]  # type: ignore[index]
    for place in range(len(data)):
        data[place] ^= 1
        same = row_digest(row) == digest
        data[place] ^= 1
        assert same == (offset <= place < offset + 8), place


@pytest.mark.parametrize(
    "wrong",
    [
        {"joint_count": -1},
        {"action_size": 0},
        {"cameras": (("Front", 8, 8),)},
        {"cameras": (("a", 8, 8), ("a", 8, 8))},
        {"frames": 3},
    ],
)
def test_impossible_sizes_and_names_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EpisodeSpec.model_validate(ODD.model_dump() | wrong)
