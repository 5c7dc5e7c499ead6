"""The simulated arm's task, as a person writes it in a station file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robot.strict import Strict


class PlaceTaskConfig(Strict):
    """Put the block on the pad, its centre within `tolerance_m` of the pad's."""

    kind: Literal["place"]
    tolerance_m: Annotated[float, Field(ge=0.001, le=0.05)]


class InsertTaskConfig(Strict):
    """Push the peg `depth_m` deep into the socket.

    Not to be pressed harder than `jam_force_n` for longer than `jam_s`, nor harder than `crash_force_n` at all.
    """

    kind: Literal["insert"]
    depth_m: Annotated[float, Field(ge=0.005, le=0.03)]
    jam_force_n: Annotated[float, Field(ge=1.0, le=100.0)]
    crash_force_n: Annotated[float, Field(ge=1.0, le=500.0)]
    jam_s: Annotated[float, Field(ge=0.1, le=10.0)]


TaskConfig = Annotated[PlaceTaskConfig | InsertTaskConfig, Field(discriminator="kind")]
