"""What `launch/calibrate_rig.py` asks of a subcommand: four names of a module command_<name>.py or an object."""

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
    """A subcommand; modules fulfil it, and an object where it needs something from above this package."""

    @property
    def SUMMARY(self) -> str:  # noqa: N802 (a constant of the module)
        """The text of `--help`; its first line stands in that of the script."""

    @property
    def EXAMPLES(self) -> Sequence[str]:  # noqa: N802
        """Whole command lines that begin with the script's name."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options; `--json PATH` is there already."""

    def run(self, options: Namespace) -> Outcome:
        """Do it, with progress on stderr and lines for people on stdout.

        Raises:
            BadInputError: a file or an option cannot be used; exit code 2.
        """
