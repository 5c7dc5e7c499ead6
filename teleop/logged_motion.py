"""What an arm or its gripper was told and what it did, from logged episodes; the rest is the calibration's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policy.episode_reader import Episode, read_episode
from robot.errors import BadInputError
from teleop.replay_parts import episode_files

Array = NDArray[np.float64]
Part = Literal["arm", "gripper"]

_PLACE = ("x_m", "y_m", "z_m")
_WIDTH = "width_m"
_HELD_S = 0.005  # a gripper's command stays until the next one; between samples lines are drawn


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """Ticks of one episode without a gap, in each of which there was a command.

    Attributes:
        commanded_s: (N,), rising [s]: when a pose was to be reached, or a gripper's width was sent.
        commanded: (N, channels) [m or rad].
        measured_s: (M,), rising, of the same clock [s].
        measured: (M, channels), in the same order and units.
    """

    commanded_s: Array
    commanded: Array
    measured_s: Array
    measured: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedMotion:
    """What episodes show of one part.

    Attributes:
        columns: names of the channels.
        stretches: of all episodes, in order.
        files: file name -> SHA-256 of each episode.
        due_after_s: how long after the start of its tick a command counts from, median [s].
    """

    columns: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    files: Mapping[str, str]
    due_after_s: float


def logged_motion(
    paths: Sequence[Path],
    part: Part,
    columns: Sequence[str] | None = None,
    progress: Callable[[], object] | None = None,
) -> LoggedMotion:
    """Return what an arm or a gripper was told and did in the newest revision of each episode.

    Held ticks have no command and end a stretch, as do ticks that were skipped or lost.

    Args:
        paths: run folders, episodes folders or episode files, all of one rig.
        part: what is looked at.
        columns: `x_m`, `y_m`, `z_m` of the TCP in the base frame, `q1_rad` and so on, or `width_m`; None for x, y and z
            of an arm and for the width of a gripper.
        progress: called after each episode.

    Raises:
        BadInputError: no such path, no sound episode, one that was recorded open loop, a column that it has not, or no
            tick with a command.
    """
    newest: dict[tuple[str, int], Episode] = {}
    for path in episode_files(list(paths)):
        episode = read_episode(path, as_executed=True)
        run, index, revision = episode.identity
        if (run, index) not in newest or newest[run, index].revision < revision:
            newest[run, index] = episode
    names = tuple(columns) if columns else _PLACE if part == "arm" else (_WIDTH,)
    stretches: list[Stretch] = []
    after_s: list[Array] = []
    files: dict[str, str] = {}
    for episode in newest.values():
        own, delays_s = _stretches(episode, part, names)
        stretches += own
        after_s.append(delays_s)
        with episode.path.open("rb") as stream:
            files[episode.path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
        if progress is not None:
            progress()
    if not stretches:
        raise BadInputError(f"{paths[0]}: no tick has a command and a measured {', '.join(names)}; name other episodes")
    due_after_s = float(np.median(np.concatenate(after_s)))
    return LoggedMotion(columns=names, stretches=tuple(stretches), files=files, due_after_s=due_after_s)


def _stretches(episode: Episode, part: Part, names: Sequence[str]) -> tuple[list[Stretch], Array]:
    """Stretches of one episode, and how long after its tick's start each command counts from (N,)."""
    joints = tuple(f"q{number}_rad" for number in range(1, episode.header.spec.joint_count + 1))
    allowed = (*_PLACE, *joints) if part == "arm" else (_WIDTH,)
    for name in names:
        if name not in allowed:
            raise BadInputError(
                f"--columns: {episode.path.name} has no {name!r} of {part}; allowed {', '.join(allowed)}"
            )
    # a pose has a time at which it is due, a gripper's width has not
    when = "tick/due_s" if part == "arm" else "tick/end_s"
    fields = [when, "tick/index", "tick/held", "tick/start_s", "tick/state_s"]
    values = {name: array.astype(np.float64) for name, array in episode.arrays(fields).items()}
    commanded, measured = (_channels(episode, part, names, wanted=wanted) for wanted in (True, False))
    usable = (values["tick/held"] == 0.0) & np.isfinite(commanded).all(axis=1) & np.isfinite(measured).all(axis=1)
    found = []
    for rows in _runs(usable, values["tick/index"]):
        told_s, told = values[when][rows], commanded[rows]
        if part == "gripper":
            told_s, told = _held_between(told_s, told)
        state_s, first = np.unique(values["tick/state_s"][rows], return_index=True)  # a state may serve two ticks
        if (np.diff(told_s) > 0.0).all():
            found.append(
                Stretch(commanded_s=told_s, commanded=told, measured_s=state_s, measured=measured[rows][first])
            )
    return found, (values[when] - values["tick/start_s"])[usable]


def _channels(episode: Episode, part: Part, names: Sequence[str], *, wanted: bool) -> Array:
    """What was commanded (`wanted`) or measured, (T, channels)."""
    if part == "gripper":
        width = episode.array("tick/commanded_gripper_m" if wanted else "tick/gripper_width_m")
        return width.astype(np.float64)[:, None]
    pose = episode.array("tick/commanded_T" if wanted else "tick/T_base_tcp").astype(np.float64)
    columns = {name: pose[:, axis, 3] for axis, name in enumerate(_PLACE)}
    if not set(names) <= columns.keys():
        q_rad = episode.array("tick/commanded_q" if wanted else "tick/q_rad").astype(np.float64)
        columns |= {f"q{joint}_rad": values for joint, values in enumerate(q_rad.T, start=1)}
    return np.stack([columns[name] for name in names], axis=1)


def _runs(usable: NDArray[np.bool_], index: Array) -> Iterator[NDArray[np.intp]]:
    """Rows of each longest run of usable ticks that follow each other, of two and more."""
    rows = np.flatnonzero(usable)
    breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(index[rows]) != 1.0)) + 1
    yield from (run for run in np.split(rows, breaks) if len(run) > 1)


def _held_between(t_s: Array, values: Array) -> tuple[Array, Array]:
    """Samples of what stays as it is from one row to the next."""
    fine_s = np.arange(t_s[0], t_s[-1], _HELD_S)
    return fine_s, values[np.searchsorted(t_s, fine_s, side="right") - 1]
