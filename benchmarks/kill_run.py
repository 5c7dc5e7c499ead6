#!/usr/bin/env python3
"""Kills a run with SIGKILL at random moments and looks at what is left; prints one JSON line.

Four kinds, in turn: `run_robot.py` alone, then with its recorder at the same instant; the same two for a run that
trains with a learner child. After each kill: processes that outlive it must end by themselves and leave no temporary
files; every committed episode must open and verify; the open one must be there up to its last 0.5 s; the run must go on
with --resume.

    .venv/bin/python benchmarks/kill_run.py --times 20
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))

from environment import cli

import numpy as np
from numpy.typing import NDArray

from policy.episode_header import EpisodeHeader
from policy.episode_reader import latest_revisions
from policy.episode_recovery import recover_folder
from robot.clock import VirtualClock
from teleop.loop import ControlLoop
from teleop.loop_parts import Tick
from teleop.recorder import RecorderProcess
from teleop.replay import verify_run
from teleop.training import train_online

_LAUNCH = Path(__file__).resolve().parents[1] / "launch"
_MARK = "HANDRAIL_KILL_RUN"  # names the processes of one run in their environment, whoever their parent is now
_TORCH_CACHE = "torchinductor_"  # one for each user, made whenever torch is imported
_ENDS_WITHIN_S = 30.0
_LOSES_AT_MOST_S = 0.5
_NOTES = 200_000
_NOTE = np.dtype([("episode", "i8"), ("index", "i8"), ("at_s", "f8")])


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What runs and what is killed."""

    learner: bool
    everything: bool

    @property
    def name(self) -> str:
        """For the report."""
        return ("training" if self.learner else "run") + (" and its children" if self.everything else "")


KINDS = tuple(Kind(learner=learner, everything=everything) for learner in (False, True) for everything in (False, True))


@dataclass(frozen=True, kw_only=True)
class Killed:
    """What one kill left.

    Attributes:
        kind: what was killed.
        after_s: from its start to the kill [s].
        ticks: executed until then, by the loop's own count.
        episodes: begun until then.
        children: processes of the run at the kill.
        outlived_s: how long the last of the others lived on [s]; infinite when one had to be ended.
        partials: recordings that only `recover` finished.
        unrecovered: recordings that could not be.
        committed, mismatches: episodes that open, and values of theirs that a replay finds to differ.
        rows: in all episodes.
        lost_ticks, lost_s: executed and not in a file, and the time from the first of them to the kill [s].
        strays: temporary files and half-made files that stayed.
        resumed: the run went on and its new episode verified; None where it had not become a run yet.
    """

    kind: str
    after_s: float
    ticks: int
    episodes: int
    children: int
    outlived_s: float
    partials: int
    unrecovered: tuple[str, ...]
    committed: int
    mismatches: int
    rows: int
    lost_ticks: int
    lost_s: float
    strays: tuple[str, ...]
    resumed: bool | None

    @property
    def problems(self) -> list[str]:
        """What must not be."""
        checks = {
            "outlived": self.outlived_s > _ENDS_WITHIN_S,
            "unrecovered": bool(self.unrecovered),
            "mismatches": self.mismatches > 0,
            "lost": self.lost_s > _LOSES_AT_MOST_S,
            "strays": bool(self.strays),
            "not resumed": self.resumed is False,
        }
        return [name for name, wrong in checks.items() if wrong]


def main() -> int:
    """Kill so many times; 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--within-s", type=float, default=9.0, help="a kill comes at most so long after the start")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    words = [str(cli.STATIONS / "sim_place.toml")]
    kills = []
    for number in range(args.times):
        with tempfile.TemporaryDirectory(prefix="kill-") as folder:
            after_s = rng.uniform(0.2, args.within_s)
            kills.append(kill_once(KINDS[number % len(KINDS)], after_s, Path(folder), words, seed=number))
        print(f"{number + 1}/{args.times}: {kills[-1]}", file=sys.stderr, flush=True)
    problems = Counter(problem for killed in kills for problem in killed.problems)
    result = {
        "benchmark": "kill_run",
        "times": args.times,
        "in_an_episode": sum(killed.ticks > 0 for killed in kills),
        "ticks": sum(killed.ticks for killed in kills),
        "committed": sum(killed.committed for killed in kills),
        "mismatches": sum(killed.mismatches for killed in kills),
        "lost_ticks": _spread([killed.lost_ticks for killed in kills]),
        "lost_s": _spread([killed.lost_s for killed in kills]),
        "outlived_s": _spread([killed.outlived_s for killed in kills]),
        "resumed": sum(killed.resumed is True for killed in kills),
        "problems": dict(problems),
        "kills": [dataclasses.asdict(killed) for killed in kills],
    }
    print(json.dumps(result))
    return 1 if problems else 0


def kill_once(kind: Kind, after_s: float, folder: Path, words: Sequence[str], *, seed: int, ticks: int = 0) -> Killed:
    """Start a run in `folder`, kill it `after_s` later, but not before it made `ticks` ticks, and look.

    Args:
        kind: what runs and what is killed.
        after_s: from the start to the kill [s].
        folder: empty; its path must be short enough for sockets.
        words: station file and overrides.
        seed: of the run.
        ticks: of the run, counted over its episodes.
    """
    run, temporary, notes, mark = folder / "run", folder / "tmp", folder / "notes", uuid.uuid4().hex
    temporary.mkdir()
    _notes(notes, "w+")
    victim = "train" if kind.learner else "run"
    command = [sys.executable, __file__, "--victim", victim, str(notes), *words, "--out", str(run), "--seed", str(seed)]
    environment = os.environ | {"TMPDIR": str(temporary), _MARK: mark}
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
    began_s = time.monotonic()
    time.sleep(after_s)
    while ticks and process.poll() is None and _notes(notes, "r")["at_s"][ticks - 1] == 0.0:
        os.sched_yield()
    if process.poll() is not None:
        raise SystemExit(f"the run ended by itself: {(folder / 'said').read_text()}")
    children = [pid for pid in marked(mark) if pid != process.pid]
    watched = [os.pidfd_open(pid) for pid in children]
    for pid in [process.pid, *(children if kind.everything else [])]:
        os.kill(pid, signal.SIGKILL)
    killed_s = time.monotonic()
    process.wait()
    outlived_s = _await_end(mark, watched, killed_s)
    executed = _notes(notes, "r")
    executed = executed[executed["at_s"] > 0.0]
    strays = [str(path.relative_to(folder)) for path in temporary.rglob("*") if not path.name.startswith(_TORCH_CACHE)]
    whole = (run / "run.json").exists()
    partials, rows = 0, dict[int, int]()
    problems: tuple[str, ...] = ()
    if whole:
        partials = len(list(run.glob("episodes/*.partial")))
        problems = recover_folder(run).problems
        rows = {episode.header.episode: episode.length for episode in latest_revisions(run / "episodes")}
        strays += [str(path.relative_to(folder)) for path in run.rglob("*") if _half_made(path)]
    lost_s = [killed_s - float(note["at_s"]) for note in executed if note["index"] >= rows.get(int(note["episode"]), 0)]
    return Killed(
        kind=kind.name,
        after_s=round(killed_s - began_s, 3),
        ticks=len(executed),
        episodes=len(np.unique(executed["episode"])),
        children=len(children),
        outlived_s=round(outlived_s, 3),
        partials=partials,
        unrecovered=problems,
        committed=len(rows),
        mismatches=verify_run(run, jobs=0).mismatches if rows else 0,
        rows=sum(rows.values()),
        lost_ticks=len(lost_s),
        lost_s=round(max(lost_s, default=0.0), 3),
        strays=tuple(strays),
        resumed=_resume(run, words, seed) if whole else None,
    )


def marked(mark: str) -> list[int]:
    """Return the ids of the living processes that were started with this mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # gone meanwhile, or another user's
                continue
    return found


def _await_end(mark: str, watched: list[int], killed_s: float) -> float:
    """Wait until no process of the run is left; end those that stay too long.

    One that is about to end has no environment any more and may still hold its locks, hence `watched`, the
    descriptors of those that are known.
    """
    left = [*watched]
    while left or marked(mark):
        if time.monotonic() - killed_s > _ENDS_WITHIN_S:
            for pid in marked(mark):
                os.kill(pid, signal.SIGKILL)
            return float("inf")
        left = [descriptor for descriptor in left if not select.select([descriptor], [], [], 0.02)[0]]
    for descriptor in watched:
        os.close(descriptor)
    return time.monotonic() - killed_s


def _half_made(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix in (".partial", ".creating", ".committing", ".tmp")


def _resume(run: Path, words: Sequence[str], seed: int) -> bool:
    """Run one more episode in the same folder, and verify that one."""
    script = [sys.executable, str(_LAUNCH / "run_robot.py"), *words, "--out", str(run), "--seed", str(seed)]
    before = set(run.glob("episodes/*.h5"))
    done = subprocess.run([*script, "--resume", "--episodes", "1"], capture_output=True, text=True, check=False)
    fresh = list(set(run.glob("episodes/*.h5")) - before)
    if done.returncode or len(fresh) != 1:
        print(done.stdout, done.stderr, file=sys.stderr)
        return False
    return verify_run(fresh, jobs=0).mismatches == 0


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 4), "worst": round(float(max(values)), 4)}


def _notes(path: Path, mode: str) -> NDArray[np.void]:
    """Where the run notes its ticks: shared memory of a file, which a kill does not touch."""
    notes: NDArray[np.void] = np.memmap(path, _NOTE, mode, shape=(_NOTES,))  # type: ignore[call-overload]
    return notes


def victim(what: str, notes_path: Path, words: Sequence[str]) -> None:
    """Be the run that is killed: `run_robot.py`, or a training with a learner child, that notes each tick."""
    notes, count, episode = _notes(notes_path, "r+"), 0, -1
    tick, begin = ControlLoop.tick, RecorderProcess.begin

    def noted_begin(recorder: RecorderProcess, header: EpisodeHeader) -> None:
        nonlocal episode
        episode = header.episode
        begin(recorder, header)

    def noted_tick(loop: ControlLoop, index: int, *args: object, **named: object) -> Tick:
        nonlocal count
        done: Tick = tick(loop, index, *args, **named)  # type: ignore[arg-type]
        notes[count] = (episode, index, time.monotonic())
        count += 1
        return done

    RecorderProcess.begin, ControlLoop.tick = noted_begin, noted_tick  # type: ignore[method-assign,assignment]
    if what == "run":
        sys.argv = ["run_robot.py", *words, "--episodes", "100000"]
        runpy.run_path(str(_LAUNCH / "run_robot.py"), run_name="__main__")
    parser = cli.script("Trains until it is killed.", ["kill_run.py --victim train"], station=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int)
    args = parser.read(words)
    train_online(
        args.station,
        VirtualClock(),
        out=args.out,
        episodes=100_000,
        seed=args.seed,
        operator="simulated",
        progress=lambda number, result, news: None,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--victim"]:
        victim(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    else:
        sys.exit(main())
