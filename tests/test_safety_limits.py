import pytest
from pydantic import ValidationError

from robot.safety_limits import SafetyLimits
from tests.filter_bench import LIMITS

GOOD = LIMITS.model_dump()


@pytest.mark.parametrize("field", sorted(GOOD))
def test_every_threshold_must_be_written(field: str) -> None:
    with pytest.raises(ValidationError, match=f"{field}\n  Field required"):
        SafetyLimits.model_validate({key: value for key, value in GOOD.items() if key != field})


@pytest.mark.parametrize("field", sorted(set(GOOD) - {"workspace_min_m", "workspace_max_m"}))
@pytest.mark.parametrize("value", [-0.1, 1e4, float("nan"), "fast", None])
def test_every_threshold_has_a_range(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        SafetyLimits.model_validate({**GOOD, field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("workspace_min_m", (0.2, 0.3, 0.05), "y is 0.3 to 0.3 m"),
        ("workspace_max_m", (600.0, 0.3, 0.6), "less than or equal to 5"),
        ("workspace_max_m", (0.6, 0.3), "Field required"),
        ("gripper_min_m", 0.08, "they are 0.08 and 0.08 m"),
        ("max_acceleration_m_s2", 0.1, "takes 3 s, at most 1 s are allowed; raise the acceleration"),
        ("max_angular_acceleration_rad_s2", 0.5, "takes 3 s, at most 1 s are allowed"),
        ("max_sped_m_s", 0.1, "Extra inputs are not permitted"),
    ],
)
def test_thresholds_that_contradict_each_other_are_refused_with_the_numbers(
    field: str, value: object, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        SafetyLimits.model_validate({**GOOD, field: value})


def test_lists_as_they_come_from_toml_are_taken() -> None:
    limits = SafetyLimits.model_validate({**GOOD, "workspace_min_m": [0.2, -0.3, 0.05]})
    assert limits == LIMITS
