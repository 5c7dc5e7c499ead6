from __future__ import annotations

import json
import math
import struct

import pytest
from pydantic import ValidationError

from policy.episode_header import EpisodeHeader, EpisodeOutcome, LabelSource, Outcome, incomplete
from robot.errors import BadInputError
from tests.episodes import AWKWARD, SUCCESS, header


def bits(value: object) -> object:
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, list):
        return [bits(item) for item in value]
    return {key: bits(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_every_float_of_the_opaque_states_comes_back_bit_for_bit() -> None:
    state = AWKWARD | {"nan": math.nan, "inf": -math.inf, "deep": {"third": [1 / 3]}}
    original = header().model_copy(update={"filter_state": state})
    read = EpisodeHeader.from_json(original.to_json(), where="test")
    assert bits(read.filter_state) == bits(state)


def test_a_header_comes_back_equal() -> None:
    assert EpisodeHeader.from_json(header().to_json(), where="test") == header()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("schema_version", 3, "schema_version"),
        ("station_sha256", "12", "station_sha256"),
        ("residual_scale", [0.1], "residual_scale has 1 values, the action 4"),
        ("surprise", 1, "surprise"),
    ],
)
def test_a_wrong_header_is_one_line_that_names_file_and_key(key: str, value: object, says: str) -> None:
    content = json.loads(header().to_json()) | {key: value}
    with pytest.raises(BadInputError, match=r"^some\.h5: ") as error:
        EpisodeHeader.from_json(json.dumps(content), where="some.h5")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_text_that_is_no_json_is_one_line() -> None:
    with pytest.raises(BadInputError, match=r"some.h5: EpisodeHeader is not JSON"):
        EpisodeHeader.from_json("{", where="some.h5")


def test_an_outcome_with_missing_ticks_cannot_claim_to_be_complete() -> None:
    with pytest.raises(ValidationError):
        EpisodeOutcome(outcome=Outcome.SUCCESS, label_source=LabelSource.TASK, dropped_ticks=1)
    with pytest.raises(ValidationError):
        EpisodeOutcome(outcome=Outcome.INCOMPLETE, label_source=LabelSource.NONE)


def test_gaps_keep_the_label_and_take_away_completeness() -> None:
    outcome = SUCCESS.with_gaps(3, "queue full").with_gaps(2, "again")
    assert outcome.success
    assert not outcome.complete
    assert outcome.dropped_ticks == 5
    assert outcome.reason == "queue full; again"
    assert EpisodeOutcome.from_json(outcome.to_json(), where="test") == outcome
    assert not incomplete("cut").success
