"""The one root of all errors that Handrail raises on purpose."""

from __future__ import annotations


class HandrailError(Exception):
    """Root of every typed error. Its text says what, where, got, allowed and cure in one line."""


class BadInputError(HandrailError):
    """Something a person gave (station, bundle, path, option) cannot be used; scripts exit with 2."""


class HardwareError(HandrailError):
    """A device did not do what it must; never swallowed, never cleared by code."""
