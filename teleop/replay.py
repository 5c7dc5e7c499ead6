"""Verifies whole runs: every committed episode replayed, in several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from robot.errors import BadInputError, HandrailError
from robot.strict import Strict
from teleop.replay_episode import FIRST, EpisodeReplay, EpisodeReport, Mismatch
from teleop.replay_parts import episode_files

Progress = Callable[[EpisodeReport], None]


class VerifyReport(Strict):
    """The replay of one or more runs.

    Attributes:
        episodes: committed episodes replayed.
        ticks: their rows.
        mismatches: values that differ; 0 is what a log must give.
        by_field: mismatches of each field.
        first: the first few of each of the first few episodes.
        largest_difference: on another machine or provider than wrote the log, greatest difference per field.
        details: one report per episode, in the order of the files.
    """

    episodes: int
    ticks: int
    mismatches: int
    by_field: dict[str, int]
    first: tuple[Mismatch, ...]
    largest_difference: dict[str, float]
    details: tuple[EpisodeReport, ...]


def verify_run(path: Path | Sequence[Path], jobs: int = 2, progress: Progress | None = None) -> VerifyReport:
    """Replay every committed episode of a run folder, or of several, or single episode files.

    Args:
        path: run folder, episodes folder, episode file, or several of them.
        jobs: processes; 0 replays in this one, whose BLAS must run on one thread as the loop's does.
        progress: called as each episode is done, in any order.

    Raises:
        BadInputError: a path, a file, or what its run folder holds for it is missing, damaged or was changed.
    """
    files = episode_files([path] if isinstance(path, Path) else list(path))
    if jobs == 0:
        replay, reports = EpisodeReplay(), []
        for file in files:
            reports.append(replay.verify(file))
            if progress:
                progress(reports[-1])
    else:
        reports = _in_processes(files, min(jobs, len(files)), progress or (lambda report: None))
    return summarise(reports)


def summarise(reports: Sequence[EpisodeReport]) -> VerifyReport:
    """Return the reports of episodes as one."""
    by_field: Counter[str] = Counter()
    largest: dict[str, float] = {}
    for report in reports:
        by_field.update(report.by_field)
        for field, difference in report.largest_difference.items():
            largest[field] = max(largest.get(field, 0.0), difference)
    wrong = [report for report in reports if report.mismatches]
    return VerifyReport(
        episodes=len(reports),
        ticks=sum(report.ticks for report in reports),
        mismatches=by_field.total(),
        by_field=dict(by_field),
        first=tuple(mismatch for report in wrong[:FIRST] for mismatch in report.first),
        largest_difference=largest,
        details=tuple(reports),
    )


def _in_processes(files: Sequence[Path], jobs: int, progress: Progress) -> list[EpisodeReport]:
    """Replay in `jobs` processes, each of which takes the next file when it has done one."""
    reports: list[EpisodeReport | None] = [None] * len(files)
    waiting = (pair for pair in enumerate(files))
    lock = threading.Lock()

    def work() -> None:
        with _Worker() as worker:
            while True:
                with lock:
                    place, file = next(waiting, (-1, None))
                if file is None:
                    return
                try:
                    report = worker.verify(file)
                except HandrailError:
                    with lock:
                        waiting.close()  # the others need not go on
                    raise
                with lock:
                    reports[place] = report
                    progress(report)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in [pool.submit(work) for _ in range(jobs)]:
                done.result()
        except BaseException:  # Ctrl-C and SIGTERM among them: the pool waits only for what is begun
            with lock:
                waiting.close()
            raise
    return [report for report in reports if report is not None]


class _Worker:
    """One `teleop.replay_worker`: a path a line goes in, a report a line comes out."""

    def __enter__(self) -> _Worker:
        # numpy splits its sums among threads, so the number of threads is part of the result
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "teleop.replay_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | threads,
        )
        return self

    def verify(self, file: Path) -> EpisodeReport:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(os.fsencode(file.resolve()) + b"\0")
            stdin.flush()
            kind, _, text = stdout.readline().decode().partition(" ")
        except BrokenPipeError:
            kind, text = "", ""
        if kind == "report":
            return EpisodeReport.model_validate_json(text)
        if kind == "bad":
            raise BadInputError(text.strip())
        raise HandrailError(f"{file}: the replaying process ended (status {self._process.wait()}); see above")

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()
