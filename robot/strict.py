"""The base of everything a person or a peer writes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Frozen pydantic model that refuses unknown keys, and numbers that are none: a NaN limits nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
