"""The file that `intrinsics` leaves: one camera's lens, how sure it is, and what it rests on."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from calibration.board import Board
from calibration.intrinsics import Intrinsics
from calibration.result import CalibrationResult, sealed
from perception.camera_model import CameraModel
from perception.config import Finite
from robot.strict import Strict

Share = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
LIMIT_PX = 1.0
LEAST_FOCAL_SHARE = 0.02


class HeldOutFigures(Strict):
    """Distances [px] between corners seen and those predicted by lenses that were fitted without the picture."""

    rms_px: Share
    median_px: Share
    p90_px: Share


class IntrinsicsResult(CalibrationResult):
    """What a calibration of a lens found.

    Attributes:
        camera: the lens.
        half_widths_95: half of each parameter's 95 % interval, by name, in the parameter's own unit.
        covariance: of all parameters, in the order of those names.
        held_out: on pictures left out of the fit, five rounds.
        sigma_px: standard deviation of one coordinate of a corner [px].
        tried: held-out root mean square [px] of each kind of lens that was fitted.
        board: what was in the pictures.
        advice: what the set of pictures still lacks.
    """

    kind: Literal["intrinsics"] = "intrinsics"
    camera: CameraModel
    half_widths_95: dict[str, Share]
    covariance: tuple[tuple[Finite, ...], ...]
    held_out: HeldOutFigures
    sigma_px: Share
    tried: dict[str, Share]
    board: Board
    advice: tuple[str, ...]

    @classmethod
    def of(cls, found: Intrinsics, board: Board, inputs: dict[str, str], advice: tuple[str, ...]) -> IntrinsicsResult:
        """Return the result, dated and sealed; `inputs` are the pictures that count, file name to SHA-256."""
        model = found.fit.model
        values: dict[str, Any] = {
            "inputs": inputs,
            "camera": model.model_dump(),
            "half_widths_95": dict(zip(model.names, found.fit.half_widths.tolist(), strict=True)),
            "covariance": found.fit.covariance.tolist(),
            "held_out": {
                "rms_px": found.held_out.rms_px,
                "median_px": found.held_out.median_px,
                "p90_px": found.held_out.p90_px,
            },
            "sigma_px": found.fit.sigma_px,
            "tried": {str(kind): rms for kind, rms in found.tried.items() if math.isfinite(rms)},
            "board": board.model_dump(),
            "advice": advice,
        }
        return sealed(cls, values)


def refusals(found: Intrinsics) -> list[str]:
    """Return why a calibration must not be used, one line each; none where it may."""
    lines = []
    rms = found.held_out.rms_px
    if not rms <= LIMIT_PX:
        lines.append(
            f"held-out error {rms:.2f} px (limit {LIMIT_PX:g} px): is the board flat, its file the right one, and the "
            "lens's focus fixed? blurred pictures do it too"
        )
    model, half = found.fit.model, found.fit.half_widths
    share = float(max(half[0] / model.fx, half[1] / model.fy))
    if not share <= LEAST_FOCAL_SHARE:
        lines.append(
            f"the focal length is known to {100 * share:.1f} % only (limit {100 * LEAST_FOCAL_SHARE:g} %): tilt the "
            "board by 15 to 45 degrees, to all four sides"
        )
    off = max(half[2], half[3]) / model.width
    if not off <= LEAST_FOCAL_SHARE:
        lines.append(
            f"the principal point is known to {max(half[2], half[3]):.0f} px only (limit "
            f"{LEAST_FOCAL_SHARE * model.width:.0f} px): tilt the board, and show it near all edges of the picture"
        )
    return lines
