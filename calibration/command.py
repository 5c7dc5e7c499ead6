"""What `launch/calibrate_rig.py` asks of a subcommand: a module with these four names, called command_<name>.py."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a subcommand found.

    Attributes:
        passed: False when a check failed; the script then exits with 1 and writes no document.
        document: what `--json` gets.
    """

    passed: bool
    document: Mapping[str, Any] = field(default_factory=dict)


class Command(Protocol):
    """A subcommand; modules fulfil it.

    `SUMMARY` is the text of `--help`, its first line alone that of the script; `EXAMPLES` are whole command lines that
    begin with the script's name.
    """

    SUMMARY: str
    EXAMPLES: Sequence[str]

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options; `--json PATH` is there already."""

    def run(self, options: Namespace) -> Outcome:
        """Do it, with progress on stderr and lines for people on stdout.

        Raises:
            BadInputError: a file or an option cannot be used; exit code 2.
        """
