"""What all scripts in launch/ share: options, the station with its overrides, JSON output, exit codes."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np

from robot.errors import BadInputError, HandrailError, HardwareError
from robot.whole_file import write_whole
from teleop.station import LoadedStation, load_station

OK, FAILED_CHECK, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
_GREATEST = 2**31 - 1  # fits every generator, file and message that takes the number on
STATIONS = Path(__file__).resolve().parents[1] / "launch" / "stations"
_OVERRIDE = re.compile(r"--([A-Za-z_]\w*(?:\.\w+)+)(?:=(.*))?", re.DOTALL)


class ScriptParser(argparse.ArgumentParser):
    """An argument parser whose errors are BadInputError, made by `script`."""

    takes_station = False

    def error(self, message: str) -> NoReturn:
        """Raise BadInputError in place of the usage and an exit."""
        raise BadInputError(f"{message}; see {self.prog} --help")

    def read(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse the command line; `station` of the result is a LoadedStation where the script takes one.

        Args:
            arguments: without the program's name; those of the process when left out.

        Raises:
            BadInputError: an option is unknown or has a bad value, the station is bad, or --json cannot be written.
        """
        words = list(sys.argv[1:] if arguments is None else arguments)
        overrides: list[tuple[str, str]] = []
        if self.takes_station:
            words, overrides = _take_overrides(words)
        known, unknown = self.parse_known_args(words)
        if unknown:
            self._refuse(unknown[0])
        if self.takes_station:
            known.station = read_station(known.station, overrides)
        if known.json is not None:
            check_writable(known.json, "--json")
        return known

    def _refuse(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            self.error(f"{word!r} is one argument too many")
        name = word.partition("=")[0]
        options = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        near = get_close_matches(name, options, n=1, cutoff=0.5)
        cure = f"did you mean {near[0]}?" if near else f"allowed {', '.join(sorted(options))}"
        if self.takes_station and "." in name:
            cure = "a station's value is written --section.key value"
        raise BadInputError(f"unknown option {name}; {cure}")


def script(
    description: str, examples: Sequence[str], *, station: bool = False, default_station: str | None = None
) -> ScriptParser:
    """Return a parser with `--json PATH` and, where asked for, STATION with dotted overrides.

    Args:
        description: what the script does.
        examples: whole command lines, shown under --help.
        station: True when the script takes a station file.
        default_station: name of a file in launch/stations that is taken when none is given.
    """
    if station:
        examples = [*examples, f"{examples[0]} --episode.timeout_s 12   # any value of the station, by its dotted name"]
    parser = ScriptParser(
        description=description,
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.takes_station = station
    if station and default_station:
        default = STATIONS / default_station
        parser.add_argument("station", nargs="?", type=Path, default=default, help=f"default {_short(default)}")
    elif station:
        parser.add_argument("station", type=Path, help="station file, such as launch/stations/sim_place.toml")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the result as one JSON document")
    return parser


def read_station(path: Path, overrides: Sequence[tuple[str, str]] = ()) -> LoadedStation:
    """Load a station; a missing file names those that are there. Raises BadInputError."""
    if not path.exists():
        there = sorted(_short(station) for station in STATIONS.glob("*.toml"))
        near = get_close_matches(path.stem, [Path(name).stem for name in there], n=1, cutoff=0.5)
        guess = next((name for name in there if near and Path(name).stem == near[0]), None)
        cure = f"did you mean {guess}?" if guess else f"there are {', '.join(there)}"
        raise BadInputError(f"station {path}: no such file; {cure}")
    return load_station(path, overrides)


def check_writable(path: Path, option: str) -> None:
    """Try to write where `path` is to be, and leave nothing: what is refused next must not leave a folder behind.

    Raises:
        BadInputError: a file could not be written there.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "is a folder")
        there = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise BadInputError(f"{option} {path}: cannot be written ({error.strerror}); name another file") from None


def count(text: str) -> int:
    """Read a number of things, 1 or more, for `add_argument(type=count)`."""
    return _whole(text, least=1)


def seed(text: str) -> int:
    """Read a seed, 0 or more, for `add_argument(type=seed)`; numpy and torch know no negative ones."""
    return _whole(text, least=0)


def episodes_folder(folder: Path) -> Path:
    """Return the episodes folder of a run, or `folder` itself. Raises BadInputError when there is no such folder."""
    if not folder.is_dir():
        raise BadInputError(f"{folder}: no such folder; name a run or its episodes folder")
    return folder / "episodes" if (folder / "episodes").is_dir() else folder


def write_json(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write one JSON document, whole or not at all; nothing when `path` is None.

    NaN and infinity become null, as JSON has neither. Raises BadInputError when it cannot be written.
    """
    if path is None:
        return
    text = json.dumps(_plain(document), indent=2, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise BadInputError(f"--json {path}: cannot be written ({error.strerror}); check rights and space") from None


def run(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and exit: its own code (0 or 1), 2 for bad input with one line, 130 when interrupted.

    What went wrong and is no bad input (a learner that died, say) is one line and 1; a device keeps its traceback.

    SIGTERM unwinds as Ctrl-C does, so that an arm is left in order. What is our own fault keeps its traceback.
    """
    signal.signal(signal.SIGTERM, _terminate)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us, as with `>&-`
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (for the rest of the process)
    try:
        code = main()
        sys.stdout.flush()
    except BadInputError as error:
        _last_words(" ".join(str(error).split()))
        code = BAD_INPUT
    except HardwareError:  # where it came from tells what the device was doing
        raise
    except HandrailError as error:
        _last_words(" ".join(str(error).split()))
        code = FAILED_CHECK
    except KeyboardInterrupt:
        _last_words("stopped by Ctrl-C")
        code = INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)


def _last_words(line: str) -> None:
    sys.stdout.flush()
    print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)


def _whole(text: str, *, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= _GREATEST:
        raise argparse.ArgumentTypeError(f"got {text!r} (allowed {least} to {_GREATEST}, a whole number)")
    return number


def _take_overrides(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Split `--a.b value` and `--a.b=value` off, before argparse could take the value for a positional."""
    rest: list[str] = []
    overrides: list[tuple[str, str]] = []
    left = iter(words)
    for word in left:
        match = _OVERRIDE.fullmatch(word)
        if match is None:
            rest.append(word)
            continue
        key, value = match[1], match[2]
        if value is None:
            value = next(left, None)
        if value is None or value.startswith("--"):
            raise BadInputError(f"--{key}: has no value; write --{key} VALUE")
        overrides.append((key, value))
    return rest, overrides


def _plain(value: Any) -> Any:
    """What `json` knows, from numpy values, paths and the like."""
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case list() | tuple():
            return [_plain(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
        case Path():
            return str(value)
        case _:
            return value


def _short(path: Path) -> str:
    """`path` as one would type it from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
