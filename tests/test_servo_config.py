"""The servo's section of a station: what it must say, and what follows from the loop's rate."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from robot.servo_config import ServoConfig
from tests.servo_bench import SERVO

SAFETY = ("watchdog_s", "max_state_age_s", "velocity_share", "acceleration_share", "jerk_share", "max_tracking_rad")


@pytest.mark.parametrize("key", SAFETY)
def test_what_safety_rests_on_has_no_default(key: str) -> None:
    fields = SERVO.model_dump()
    del fields[key]
    with pytest.raises(ValidationError, match=f"(?s){key}.*Field required"):
        ServoConfig.model_validate(fields)


def test_the_watchdog_is_two_and_a_half_periods_unless_the_station_allows_less() -> None:
    assert SERVO.watchdog_for_s(0.05) == pytest.approx(0.125)
    assert SERVO.watchdog_for_s(0.2) == SERVO.watchdog_s


def test_the_delay_is_half_a_period_where_the_station_says_nothing() -> None:
    assert SERVO.delay_for_s(0.05) == pytest.approx(0.025)
    assert SERVO.model_copy(update={"delay_s": 0.04}).delay_for_s(0.05) == 0.04


def test_a_jerk_with_which_braking_would_begin_too_late_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"taking back the acceleration of joint 1 adds 1\.25 rad/s"):
        ServoConfig.model_validate({**SERVO.model_dump(), "acceleration_share": 1.0, "jerk_share": 0.008})
