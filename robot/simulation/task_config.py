"""The simulated arm's task, as a person writes it in a station file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robot.strict import Strict


class PlaceTaskConfig(Strict):
    """Put the block on the pad.

    Attributes:
        tolerance_m: how far the block's centre may be from the pad's [m].
    """

    kind: Literal["place"]
    tolerance_m: Annotated[float, Field(ge=0.001, le=0.05)]


class InsertTaskConfig(Strict):
    """Push the peg into the socket.

    Attributes:
        depth_m: how deep [m].
        jam_force_n: not to be pressed harder for longer than `jam_s` [N].
        crash_force_n: not to be pressed harder at all [N].
        jam_s: how long a jam may last [s].
    """

    kind: Literal["insert"]
    depth_m: Annotated[float, Field(ge=0.005, le=0.03)]
    jam_force_n: Annotated[float, Field(ge=1.0, le=100.0)]
    crash_force_n: Annotated[float, Field(ge=1.0, le=500.0)]
    jam_s: Annotated[float, Field(ge=0.1, le=10.0)]


TaskConfig = Annotated[PlaceTaskConfig | InsertTaskConfig, Field(discriminator="kind")]
