#!/usr/bin/env python3
"""Learns a residual for a station: beside a robot that sends its episodes, or offline from recorded ones."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from environment import cli

from tqdm import tqdm

from policy.learner_process import StateTakenError, run_learner, stop_when_asked
from policy.learner_settings import LearnerSettings
from policy.learner_status import LearnerStatus, StatusFile
from policy.link_keys import learner_keys
from policy.link_security import check_endpoint
from robot.errors import BadInputError, HandrailError
from teleop.station import LoadedStation
from teleop.station_learner import learner_settings

_UPDATES = 2000


def main() -> int:
    """Learn until stopped or, offline, until all updates are made."""
    args = _parser().read()
    folder = args.keys or args.station.keys_path
    keys = learner_keys(folder) if folder is not None else None
    settings = _settings(args.station, args, keys=keys is not None)
    if args.rollback is not None and not settings.state_dir.exists():
        raise BadInputError(f"--rollback {args.rollback}: {settings.state_dir} has no learner; name its --state")
    stop = stop_when_asked()
    made = [folder for folder in (settings.state_dir, *settings.state_dir.parents) if not folder.exists()]
    write, phases = StatusFile(settings.state_dir / "status.json", announce=False), {"loading"}
    with _Progress(settings) as progress:

        def report(status: LearnerStatus) -> None:
            write(status)
            progress(status)
            phases.add(status.phase)

        try:
            status = run_learner(settings, stop=stop, keys=keys, roll_back=args.rollback, report=report)
        except (BrokenPipeError, StateTakenError):  # nobody reads what we say; the state is not ours
            raise
        except BadInputError:
            robots_sent = settings.endpoint is not None and any(settings.state_dir.glob("episodes/*"))
            if phases == {"loading"} and not robots_sent:
                _leave_nothing(made)
            raise
        except OSError as error:
            raise HandrailError(
                f"learner: {error}; free some space in {settings.state_dir} and start it again"
            ) from error
    weights = settings.state_dir / "weights.safetensors"
    print("\n".join([status.line(), *status.advice]))
    print(f"weights {status.version}: {weights}" if weights.exists() else "no weights yet", flush=True)
    document = dataclasses.asdict(status) | {"state": settings.state_dir, "run_id": settings.run_id}
    cli.write_json(args.json, document | {"weights": weights if weights.exists() else None})
    return cli.OK


def _leave_nothing(made: Sequence[Path]) -> None:
    """Remove what a refused start made: its state, and the folders round it, the innermost first, that are empty."""
    if made:
        shutil.rmtree(made[0], ignore_errors=True)
    with suppress(OSError):  # somebody else put something there meanwhile
        for folder in made[1:]:
            folder.rmdir()


class _Progress:
    """A bar over the updates offline, a line about every change beside a robot."""

    def __init__(self, settings: LearnerSettings) -> None:
        self._bar = (
            tqdm(total=settings.offline_updates, unit="update", disable=None) if settings.endpoint is None else None
        )
        self._said: tuple[object, ...] = ()
        self._wanting: tuple[str, ...] = ()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, status: LearnerStatus) -> None:
        """Show what is new."""
        if self._bar is not None:
            self._bar.set_description(status.phase)
            self._bar.update(status.updates - self._bar.n)
            return
        news = (status.phase == "loading", status.episodes, status.version, status.refused, status.problem)
        if news != self._said and status.phase != "stopped":
            where = f"{status.endpoint}, " if status.phase == "loading" else ""
            print(f"{where}{status.line()}", flush=True)
            self._said = news
        wanting = tuple(line.split(":")[0] for line in status.advice)  # the shares in the lines change all the time
        if wanting != self._wanting:
            print("\n".join(status.advice) or "all corrections are within reach", flush=True)
            self._wanting = wanting


def _settings(loaded: LoadedStation, args: argparse.Namespace, *, keys: bool) -> LearnerSettings:
    station = loaded.station
    offline = bool(args.episodes or args.demonstrations) and args.endpoint is None
    if offline and args.lock_step:
        raise BadInputError("--lock-step: is for a robot beside the learner; add --endpoint or leave it out")
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    default = Path("runs") / (f"{now}-learner-{station.name}" if offline else f"learner-{station.name}")
    endpoint = None if offline else args.endpoint or station.learner.endpoint
    if endpoint is not None:
        check_endpoint(endpoint, keys=keys)
    settings = learner_settings(
        loaded,
        state_dir=args.state or default,
        run_id=station.learner_run_id,
        seed=args.seed,
        lock_step=args.lock_step,
        endpoint=endpoint,
    )
    updates = args.updates if args.updates is not None else _UPDATES if args.episodes or args.demonstrations else 0
    more = {
        "episodes": tuple(cli.episodes_folder(path) for path in args.episodes),
        "demonstrations": tuple(cli.episodes_folder(path) for path in args.demonstrations),
        "offline_updates": updates,
        "threads": args.threads,
    }
    return settings.model_copy(update=more)


def _parser() -> cli.ScriptParser:
    parser = cli.script(
        __doc__ or "",
        [
            "run_learner.py launch/stations/sim_place.toml",
            "run_learner.py launch/stations/sim_place.toml --endpoint tcp://127.0.0.1:5701 --lock-step",
            "run_learner.py launch/stations/sim_place.toml --endpoint 'tcp://*:5701' --keys keys/learner",
            "run_learner.py launch/stations/sim_place.toml --rollback 41",
            "run_learner.py launch/stations/sim_place.toml --episodes runs/today --updates 4000",
        ],
        station=True,
    )
    parser.add_argument("--endpoint", help="where to listen (default: the station's learner.endpoint)")
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="DIR",
        help="the learner's keys, made by make_keys.py, for robots on other machines (default: the station's "
        "learner.keys)",
    )
    parser.add_argument(
        "--rollback",
        type=cli.count,
        metavar="VERSION",
        help="give robots the weights of an earlier version again, as a new one, and learn on from there",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="checkpoint, stored episodes and weights; started there again, the learner goes on "
        "(default runs/learner-<station>; offline a new folder)",
    )
    parser.add_argument(
        "--episodes",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="recorded episodes to start from; without --endpoint the learner works offline and ends",
    )
    parser.add_argument(
        "--demonstrations",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="the same, of a person showing the task",
    )
    parser.add_argument(
        "--updates", type=cli.count, metavar="N", help=f"to make on those episodes (default {_UPDATES})"
    )
    parser.add_argument(
        "--lock-step", action="store_true", help="one version per episode, for a robot that runs in lock-step"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the networks and of what is drawn")
    parser.add_argument("--threads", type=cli.count, default=1, help="of torch (default 1)")
    return parser


if __name__ == "__main__":
    cli.run(main)
