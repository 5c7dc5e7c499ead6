"""The learner's process: `python -m policy.learner_process --settings FILE`.

It binds before it loads torch, so that a robot may connect at once, and says where by one JSON line on stdout.
Killed at any moment it loses nothing that it acknowledged; SIGTERM and SIGINT let it write a checkpoint first.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from policy.baseline_config import ResfitConfig, RlpdConfig
from policy.learner_link import LearnerLink, ReceivedEpisode
from policy.learner_method import read_method
from policy.learner_settings import LearnerSettings, load_settings
from policy.learner_status import LearnerStatus, StatusFile
from policy.learner_training import Learner, Training, UpdatesOver
from policy.link_security import LearnerKeys
from robot.errors import BadInputError, HandrailError
from robot.supervised import Supervised

IDLE_WAIT_S = 0.05
REPORT_EVERY_S = 1.0


MakeLearner = Callable[[LearnerSettings], Learner]
Report = Callable[[LearnerStatus], None]


def make_learner_of(settings: LearnerSettings) -> Learner:
    """Load torch and return the algorithm. Raises BadInputError on a wrong field in `settings.algorithm`."""
    import torch

    from policy.residual_learner import LearnerDims, ResidualLearner

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInputError("learner settings: device is 'cuda', torch finds none (allowed here: 'cpu', 'auto')")
    torch.set_num_threads(settings.threads)
    config = read_method(settings.method, settings.algorithm, "learner settings")
    sizes = settings.dims
    if isinstance(config, ResfitConfig | RlpdConfig):
        return _baseline(config, (sizes.features, sizes.proprio, sizes.action), settings.seed)
    dims = LearnerDims(feature_size=sizes.features, proprio_size=sizes.proprio, action_size=sizes.action)
    return ResidualLearner(dims, config, settings.seed, device=device)


def _baseline(config: ResfitConfig | RlpdConfig, sizes: tuple[int, int, int], seed: int) -> Learner:
    from policy.resfit_learner import ResfitLearner
    from policy.rlpd_learner import RlpdLearner

    if isinstance(config, ResfitConfig):
        return ResfitLearner(*sizes, config, seed)
    return RlpdLearner(*sizes, config, seed)


def updates_on_device(settings: LearnerSettings, learner: Learner) -> UpdatesOver | None:
    """Return what makes updates where the learner is, beside a CPU; None on a CPU."""
    from policy.device_updates import DeviceUpdates
    from policy.residual_learner import ResidualLearner

    if not isinstance(learner, ResidualLearner) or learner.device.type == "cpu":
        return None
    return lambda buffer: DeviceUpdates(learner, buffer, batch_size=settings.batch_size)


def run_learner(
    settings: LearnerSettings,
    *,
    stop: Callable[[], bool],
    keys: LearnerKeys | None = None,
    roll_back: int | None = None,
    make_learner: MakeLearner = make_learner_of,
    report: Report = lambda status: None,
) -> LearnerStatus:
    """Learn until `stop` says so or, offline, until all updates are made; return the last status.

    Args:
        settings: of the learner.
        stop: asked between two pieces of work.
        keys: for robots on other machines.
        roll_back: version of the weights to give out again and to learn on from, see `Training.roll_back`.
        make_learner: loads the algorithm.
        report: told of each status.

    Raises:
        BadInputError: settings, folder, checkpoint or endpoint cannot be used.
        HandrailError: learning has diverged.
    """
    with ExitStack() as stack:
        stack.enter_context(_owned(settings.state_dir))
        link = None
        if settings.endpoint is not None:
            _many_files()
            link = stack.enter_context(LearnerLink(settings.endpoint, keys=keys))
        endpoint = link.endpoint if link else None
        report(LearnerStatus(endpoint=endpoint, pid=os.getpid(), phase="loading"))
        if stop():  # before seconds go into loading torch
            ended = LearnerStatus(endpoint=endpoint, pid=os.getpid(), phase="stopped")
            report(ended)
            return ended
        learner = make_learner(settings)
        training = Training(settings, learner, updates_on_device(settings, learner))
        if roll_back is not None:
            training.roll_back(roll_back)
        return _Loop(settings, training, link, report).run(stop)


class StateTakenError(BadInputError):
    """Another learner has the state's folder."""


class _Loop:
    """Network, learning, checkpoints and reports, one after another in one thread."""

    def __init__(self, settings: LearnerSettings, training: Training, link: LearnerLink | None, report: Report) -> None:
        self._settings, self._training, self._link, self._report = settings, training, link, report
        self._problem = self._disk = ""
        if link is not None:
            link.know(training.newest_revision)
        self._first_update = training.updates
        self._offered = 0

    def run(self, stop: Callable[[], bool]) -> LearnerStatus:
        saved_s = reported_s = time.monotonic()
        self._offer()
        busy = True
        while not stop():
            self._receive(0.0 if busy else IDLE_WAIT_S)
            busy = self._training.step(self._link.robot_version if self._link else 0)
            self._offer()
            now_s = time.monotonic()
            if now_s - saved_s >= self._settings.checkpoint_every_s:
                self._save()
                saved_s = time.monotonic()
            if now_s - reported_s >= REPORT_EVERY_S:
                idle = "waiting" if self._training.ready else "gathering"
                self._report(self._status("learning" if busy else idle))
                reported_s = now_s
            if self._link is None and not busy:
                break
        self._training.save()
        self._disk = ""
        status = self._status("stopped")
        self._report(status)
        return status

    def _save(self) -> None:
        """Write the checkpoint; a disk that is full now may have room the next time, and the last one stays."""
        try:
            self._training.save()
            self._disk = ""
        except OSError as error:
            self._disk = f"{self._settings.state_dir}: no checkpoint written ({error.strerror}); free some space"

    def _receive(self, timeout_s: float) -> None:
        if self._link is None:
            return
        for received in self._link.poll(timeout_s):
            self._keep(self._link, received)

    def _keep(self, link: LearnerLink, received: ReceivedEpisode) -> None:
        try:
            link.acknowledge(received, self._training.accept(received.episode, received.payload))
        except BadInputError as error:
            self._problem = str(error)
            link.acknowledge(received, "refused", str(error))
        except OSError as error:  # not acknowledged, so the robot keeps it and sends it again
            self._problem = f"{self._settings.state_dir}: cannot store an episode ({error.strerror}); free some space"

    def _offer(self) -> None:
        if self._link is not None and self._training.version > self._offered:
            self._link.publish(self._training.version, self._training.message)
            self._offered = self._training.version

    def _status(self, phase: str) -> LearnerStatus:
        training, link = self._training, self._link
        reach = training.reachability()
        return LearnerStatus(
            endpoint=link.endpoint if link else None,
            pid=os.getpid(),
            phase=phase,
            updates=training.updates,
            updates_per_s=(training.updates - self._first_update) / max(training.busy_s, 1e-9),
            episodes=training.episodes,
            transitions=training.buffer_size,
            guided=training.guided_size,
            version=training.version,
            accepted=link.accepted if link else 0,
            refused=link.refused if link else 0,
            malformed=link.malformed if link else 0,
            ignored=link.ignored if link else 0,
            withdrawn=link.withdrawn if link else 0,
            robots=link.robots if link else 0,
            denied=link.denied if link else 0,
            behind=training.behind,
            figures=training.figures,
            reach=reach.summary() if reach else None,
            advice=tuple(reach.lines()) if reach else (),
            problem=self._disk or training.problem or self._problem or (link.problem if link else ""),
        )


def _many_files() -> None:
    """Let this process open all the files that it may: connections of strangers must not keep it from its own."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Make `folder` and hold its lock, so that two learners never write to one state."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock: IO[str] = (folder / "lock").open("w")
    except OSError as error:
        raise BadInputError(f"{folder}: cannot be written to ({error.strerror}); choose another --state") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateTakenError(f"{folder}: another learner works here; stop it or choose another --state") from error
        yield


def stop_when_asked(parent_pid: int | None = None) -> Callable[[], bool]:
    """Return what tells of a SIGTERM or SIGINT since now, or of the end of our parent, the process `parent_pid`."""
    asked: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return lambda: bool(asked) or (parent_pid is not None and os.getppid() != parent_pid)


def _stop_when_told(supervised: Supervised) -> Callable[[], bool]:
    """Return what tells that a supervisor wants us to end, and shows it at each call that we live."""

    def stop() -> bool:
        supervised.beat()
        return supervised.stopping

    return stop


def _told_when_at_work(supervised: Supervised, report: Report) -> Report:
    """Return a report that also tells the supervisor once all was read and taken: who refuses before is not retried."""

    def told(status: LearnerStatus) -> None:
        if status.phase != "loading":
            supervised.ready()
        report(status)

    return told


def main(arguments: list[str] | None = None, *, make_learner: MakeLearner = make_learner_of) -> int:
    """Run the process; return 0 when stopped, 1 when learning diverged, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m policy.learner_process",
        description="Learns a residual from the episodes that robots send.",
        epilog="example: python -m policy.learner_process --settings learner.json --parent-pid $$",
    )
    parser.add_argument("--settings", type=Path, required=True, help="JSON file, see policy.learner_settings")
    parser.add_argument("--parent-pid", type=int, help="stop when this process, our parent, is gone")
    Supervised.add_arguments(parser, required=False)
    options = parser.parse_args(arguments)
    stop, supervised = stop_when_asked(options.parent_pid), None
    if options.board is not None:
        supervised = Supervised(options.board, options.place, options.parent, orphaned=signal.SIGTERM)
        stop = _stop_when_told(supervised)
    try:
        settings = load_settings(options.settings)
        os.nice(settings.niceness)
        report: Report = StatusFile(settings.state_dir / "status.json", announce=supervised is None)
        if supervised is not None:
            report = _told_when_at_work(supervised, report)
        run_learner(settings, stop=stop, make_learner=make_learner, report=report)
    except StateTakenError as error:
        print(error, file=sys.stderr)
        return 2 if supervised is None else 1  # of the run before, which ends just now: a supervisor tries again
    except BadInputError as error:
        print(error, file=sys.stderr)
        return 2
    except HandrailError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"learner: {error}; free some space in the folder of its state and start it again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
