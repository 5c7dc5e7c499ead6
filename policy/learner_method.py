"""Which algorithm learns from the episodes: ours, or a published one to compare it with on the same logs.

| method | what it is |
|---|---|
| `handrail` | `policy.residual_learner`: a residual from corrections, approval and reward |
| `hg_dagger` | the residual by imitation of the person alone (HG-DAgger, Kelly et al. 2019) |
| `resfit` | `policy.resfit_learner`: a residual from reward alone, without a person |
| `rlpd` | `policy.rlpd_learner`: no base, from reward; wants a bundle whose base holds still |
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue, TypeAdapter, ValidationError

from policy.baseline_config import ResfitConfig, RlpdConfig
from policy.learner_config import LearnerConfig
from policy.learner_settings import Method, first_fault
from robot.errors import BadInputError

MethodConfig = LearnerConfig | ResfitConfig | RlpdConfig

_HG_DAGGER: dict[str, JsonValue] = {"q_weight": 0.0, "approval_weight": 0.0, "imitation_floor": 1.0, "q_filter": False}
_CONFIGS: dict[Method, type[LearnerConfig] | type[ResfitConfig] | type[RlpdConfig]] = {
    "handrail": LearnerConfig,
    "hg_dagger": LearnerConfig,
    "resfit": ResfitConfig,
    "rlpd": RlpdConfig,
}


def read_method(method: Method, algorithm: Mapping[str, JsonValue], where: str) -> MethodConfig:
    """Read `algorithm` of a station or of a learner's settings. Raises BadInputError, `where` in front."""
    config = _CONFIGS[method]
    fields = {**_HG_DAGGER, **algorithm} if method == "hg_dagger" else dict(algorithm)
    try:
        return TypeAdapter[MethodConfig](config).validate_python(fields)
    except ValidationError as error:
        raise BadInputError(
            f"{where}: algorithm: {first_fault(error)}; the fields of method '{method}' are those of "
            f"{config.__module__}.{config.__qualname__}"
        ) from error


def told(
    method: Method, *, scale: tuple[float, ...], gate: bool, gripper: int | None, where: str, binary: int | None = None
) -> dict[str, JsonValue]:
    """Return what a station's residual says to a method, as fields of its algorithm.

    Args:
        method: that learns.
        scale: bounds of the residual, (A,).
        gate: whether the station has a value gate.
        gripper: dimension that a gripper head decides, None without one.
        where: for messages.
        binary: dimension of a gripper that is open or closed, None without one.

    Raises:
        BadInputError: the method knows no gate or gripper head; `where` in front.
    """
    if method in ("handrail", "hg_dagger"):
        return {"scale": [*scale], "gate": gate, "gripper": gripper}
    if gate or gripper is not None:
        part = "gate" if gate else "gripper"
        raise BadInputError(f"{where}: method '{method}' has no {part}; set residual.{part} to false")
    if method == "resfit":
        return {"scale": [*scale], "binary": binary}
    if any(bound not in (0.0, 1.0) for bound in scale):
        raise BadInputError(
            f"{where}: residual.scale is {[*scale]}; method 'rlpd' gives the whole action on a base that holds still, "
            f"so set it to {[1.0] * len(scale)}, with 0 for what need not move, and policy.bundle to one of "
            "`export_policy.py blank --encode-of BUNDLE`"
        )
    return {"scale": [*scale], "binary": binary}
