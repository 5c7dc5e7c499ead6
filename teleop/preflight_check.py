"""What a preflight says of one part of a station."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from robot.errors import HandrailError


class Result(enum.StrEnum):
    """What a check came to; only FAILED keeps a station from running."""

    PASSED = "ok"
    NOTE = "note"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One part of the station and what was found there."""

    part: str
    result: Result
    found: str


def passed(part: str, found: str) -> Check:
    """Return that all is well."""
    return Check(part=part, result=Result.PASSED, found=found)


def noted(part: str, found: str) -> Check:
    """Return what a person should know, and what keeps nothing from running."""
    return Check(part=part, result=Result.NOTE, found=found)


def failed(part: str, why: HandrailError | str) -> Check:
    """Return what keeps the station from running."""
    return Check(part=part, result=Result.FAILED, found=str(why))
