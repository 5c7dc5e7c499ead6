#!/usr/bin/env python3
"""Kills a learner, its robots, or all at once with SIGKILL at random moments of one session; prints one JSON line.

The learner is `policy.learner_process` with small networks. The robots are the robot's end of the line as it is,
without cameras and arm: each commits episodes to its run folder, now and then corrects a label of an earlier one, and
takes weights. After each kill what died is started again. At the end every episode that a robot committed must be in
the learner's store once, and in its newest revision; meanwhile no update may be lost beyond the last checkpoint, no
version may be given out twice, and none may fall below what a robot has accepted.

    .venv/bin/python benchmarks/kill_learner.py --times 20
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from safetensors import safe_open

from benchmarks.random_bundle import write_random_bundle
from policy.bundle import Bundle, load_bundle
from policy.episode_commit import commit_episode
from policy.episode_header import EpisodeHeader, EpisodeOutcome, LabelSource, Outcome
from policy.episode_label import label_episode
from policy.episode_reader import latest_revisions, read_episode
from policy.episode_recovery import recover_folder
from policy.episode_schema import EpisodeSpec, Row, seal
from policy.episode_spool import EpisodeSpool
from policy.episode_writer import EpisodeWriter
from policy.learner_episode import of_episode
from policy.learner_process import REPORT_EVERY_S
from policy.learner_settings import FreeRunning, LearnerSettings
from policy.learner_store import EpisodeStore
from policy.observation_history import history_of
from policy.provenance import collect_provenance
from policy.robot_link import RobotLink
from policy.run_folder import RunFolder, remove_half_made
from policy.weights import Expected
from robot.clock import WallClock
from teleop.learned_weights import LearnedWeights
from teleop.station import ResidualConfig

KINDS = ("learner", "robot", "both")
RATE_HZ, TICKS, SCALE = 20.0, 12, 0.2
LEARNER_RUN = "learner-killed"
_CORRECTED = 0.2  # share of episodes after which an earlier one gets another label
_STARTS_WITHIN_S, _SETTLES_WITHIN_S = 90.0, 120.0
_SAVES_WITHIN_S = 5.0  # beyond its time, on a machine that does other things


@dataclass(frozen=True, kw_only=True)
class Killed:
    """What one kill left.

    Attributes:
        kind: who was killed.
        after_s: from the last start to the kill [s].
        updates: made when it was killed, as of up to a second before; those that a robot's kill cost are none.
        lost_updates: of them, not in the checkpoint.
        checkpoint_age_s: at the kill, counted from when the learner began to learn where there was none since [s].
        stalled_s: how much longer than asked this script slept before the kill; so long the machine stood still [s].
        version: highest that a robot had accepted.
        version_after: the learner's at its first word after the kill.
        updates_after: likewise.
    """

    kind: str
    after_s: float
    updates: int
    lost_updates: int
    checkpoint_age_s: float
    stalled_s: float
    version: int
    version_after: int
    updates_after: int
    checkpoint_every_s: float
    saved_updates: int

    @property
    def problems(self) -> list[str]:
        """What must not be."""
        checks = {
            "version fell": self.version_after < self.version,
            "updates below the checkpoint": self.updates_after < self.saved_updates,
            "checkpoint too old": self.checkpoint_age_s > self.checkpoint_every_s + _SAVES_WITHIN_S + self.stalled_s,
        }
        return [name for name, wrong in checks.items() if wrong]


@dataclass
class Session:
    """Learner and robots of one folder, started and killed here."""

    folder: Path
    settings: LearnerSettings
    bundle: Path
    robots: int
    learner: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    learning_s: float = 0.0
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def stop_file(self) -> Path:
        """Tells the robots to make no more episodes."""
        return self.folder / "enough"

    def run(self, number: int) -> Path:
        """Folder of a robot's run."""
        return self.folder / f"robot-{number}"

    def start_learner(self) -> dict[str, Any]:
        """Start the learner and return its first word after loading."""
        path = self.folder / "learner.json"
        path.write_text(self.settings.model_dump_json())
        (self.settings.state_dir / "status.json").unlink(missing_ok=True)
        parent = str(os.getpid())
        command = [sys.executable, "-X", "faulthandler", "-m", "policy.learner_process"]
        command += ["--settings", str(path), "--parent-pid", parent]
        with (self.folder / "learner.log").open("ab") as log:
            self.learner = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        self.started_s = time.monotonic()
        self.wait(lambda: self.status().get("phase", "loading") != "loading", _STARTS_WITHIN_S)
        self.learning_s = time.monotonic() - REPORT_EVERY_S  # it says so at the end of its first report's time
        return self.status()

    def start_robot(self, number: int) -> None:
        """Start a robot, or go on with its run."""
        words = [str(self.run(number)), str(self.settings.endpoint), str(self.bundle), str(self.stop_file), str(number)]
        with (self.folder / f"robot-{number}.log").open("ab") as log:
            self.running[number] = subprocess.Popen(
                [sys.executable, __file__, "--robot", *words], stdout=log, stderr=log
            )

    def status(self) -> dict[str, Any]:
        """What the learner said last; empty before it said anything."""
        try:
            found: dict[str, Any] = json.loads((self.settings.state_dir / "status.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def accepted(self) -> int:
        """Highest version that any robot has in its folder."""
        names = [path.name for number in range(self.robots) for path in self.run(number).glob("weights/[0-9]*-*")]
        return max((int(name.partition("-")[0]) for name in names), default=0)

    def kill(self, kind: str, number: int, *, stalled_s: float) -> Killed:
        """Kill by SIGKILL, start again what died, and look; `stalled_s` is for the report."""
        assert self.learner is not None
        before, version = self.status(), self.accepted()
        saved = self.settings.state_dir / "checkpoint.safetensors"
        victims = {"learner": [self.learner], "robot": [self.running[number]]}
        victims["both"] = [self.learner, *self.running.values()]
        for process in victims[kind]:
            if process.poll() is not None:
                raise SystemExit(f"a process ended by itself: {self.said()}")
        for process in victims[kind]:
            process.kill()
        killed_s, now_s = time.monotonic(), time.time()
        for process in victims[kind]:
            process.wait()
        age_s = min(now_s - saved.stat().st_mtime, killed_s - self.learning_s)
        saved_updates = updates_in(saved) if kind != "robot" else 0
        after_s = killed_s - self.started_s
        if kind != "robot":
            after = self.start_learner()
        for place in [number] if kind == "robot" else list(self.running) if kind == "both" else []:
            self.start_robot(place)
        if kind == "robot":
            spoken = self.settings.state_dir / "status.json"
            self.wait(lambda: spoken.stat().st_mtime > now_s, _STARTS_WITHIN_S)
            after = self.status()
        return Killed(
            kind=kind,
            after_s=round(after_s, 2),
            updates=before["updates"],
            lost_updates=max(0, before["updates"] - saved_updates) if kind != "robot" else 0,
            checkpoint_age_s=round(age_s, 2) if kind != "robot" else 0.0,
            stalled_s=round(stalled_s, 2),
            version=version,
            version_after=after["version"],
            updates_after=after["updates"],
            checkpoint_every_s=self.settings.checkpoint_every_s,
            saved_updates=saved_updates,
        )

    def finish(self) -> dict[str, Any]:
        """Let the robots hand over everything and end all in order; return what is where."""
        assert self.learner is not None
        self.stop_file.touch()
        for process in self.running.values():
            if process.wait(_SETTLES_WITHIN_S):
                raise SystemExit(f"a robot failed: {self.said()}")
        self.learner.send_signal(signal.SIGTERM)
        self.learner.wait(_SETTLES_WITHIN_S)
        committed, labels = dict[tuple[str, int], int](), 0
        doubled = 0
        for number in range(self.robots):
            for episode in latest_revisions(self.run(number) / "episodes"):
                run_id, index, revision = episode.identity
                if episode.length:  # else killed before its first rows were on the disk
                    committed[run_id, index] = revision
                labels += revision
            versions = Counter(path.name.partition("-")[0] for path in self.run(number).glob("weights/[0-9]*-*"))
            doubled += sum(count - 1 for count in versions.values())
        kept = EpisodeStore(self.settings.state_dir / "episodes")
        keys = [tuple(kept.load(number).key) for number in range(len(kept))]
        newest = {identity: kept.newest_revision(*identity) for identity in committed}
        return {
            "committed": len(committed),
            "corrected_labels": labels,
            "stored_messages": len(keys),
            "lost": sum(newest[identity] < revision for identity, revision in committed.items()),
            "duplicate": len(keys) - len(set(keys)),
            "unknown": len({key[:2] for key in keys} - set(committed)),
            "in_buffer": self.status()["episodes"],
            "versions_given_out_twice": doubled,
            "malformed": self.status()["malformed"],
            "updates": self.status()["updates"],
            "version": self.status()["version"],
        }

    def wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Wait for something of the processes' doing. Raises SystemExit when it does not come."""
        until_s = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > until_s:
                raise SystemExit(f"waited {timeout_s:.0f} s in vain: {self.said()}")
            time.sleep(0.02)

    def said(self) -> str:
        """Return the last words of all; a learner that hangs says where."""
        if self.learner is not None and self.learner.poll() is None:
            self.learner.send_signal(signal.SIGABRT)
            self.learner.wait()
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def end(self) -> None:
        """End what still runs."""
        for process in [self.learner, *self.running.values()]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def main() -> int:
    """Kill each kind so many times; 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="of each kind: learner, robot, both")
    parser.add_argument("--robots", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--within-s", type=float, default=4.0, help="a kill comes at most so long after the last start")
    parser.add_argument("--checkpoint-every-s", type=float, default=2.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:  # sockets need a short path
        result = kill_often(
            Path(folder),
            times=args.times,
            robots=args.robots,
            seed=args.seed,
            within_s=args.within_s,
            checkpoint_every_s=args.checkpoint_every_s,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    print(json.dumps(result))
    return 1 if result["problems"] else 0


def kill_often(
    folder: Path,
    *,
    times: int,
    robots: int,
    seed: int,
    within_s: float,
    checkpoint_every_s: float,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run a session with `times` kills of each kind and return what came of it; all is well without `problems`."""
    rng = random.Random(seed)
    bundle_folder = write_random_bundle(folder / "bundle", ["front"], rate_hz=RATE_HZ)
    session = Session(
        folder=folder,
        settings=settings_for(folder, bundle_folder, checkpoint_every_s),
        bundle=bundle_folder,
        robots=robots,
    )
    kills: list[Killed] = []
    try:
        session.start_learner()
        for number in range(robots):
            session.start_robot(number)
        session.wait(lambda: session.status()["updates"] > 0, _STARTS_WITHIN_S)
        for count in range(times * len(KINDS)):
            pause_s, began_s = rng.uniform(0.05, within_s), time.monotonic()
            time.sleep(pause_s)
            stalled_s = time.monotonic() - began_s - pause_s
            kills.append(session.kill(KINDS[count % len(KINDS)], rng.randrange(robots), stalled_s=stalled_s))
            say(f"{count + 1}/{times * len(KINDS)}: {kills[-1]}")
        left = session.finish()
    finally:
        session.end()
    problems = Counter(problem for killed in kills for problem in killed.problems)
    problems += Counter({name: left[name] for name in ("lost", "duplicate", "unknown", "versions_given_out_twice")})
    problems += Counter({"not in the buffer": left["committed"] - left["in_buffer"]})
    of_learner = [killed for killed in kills if killed.kind != "robot"]
    return {
        "benchmark": "kill_learner",
        "kills": dict(Counter(killed.kind for killed in kills)),
        "robots": robots,
        "checkpoint_every_s": checkpoint_every_s,
        **left,
        "lost_updates": _spread([killed.lost_updates for killed in of_learner]),
        "stalled_s": _spread([killed.stalled_s for killed in kills]),
        "checkpoint_age_s": _spread([killed.checkpoint_age_s for killed in of_learner]),
        "problems": dict(problems),
        "each": [dataclasses.asdict(killed) for killed in kills],
    }


def settings_for(folder: Path, bundle: Path, checkpoint_every_s: float) -> LearnerSettings:
    """Settings of a learner with small networks that is never idle for long."""
    manifest = load_bundle(bundle, "cpu").manifest
    return LearnerSettings(
        state_dir=folder / "learner",
        run_id=LEARNER_RUN,
        bundle_sha256=manifest.content_sha256,
        feature_size=manifest.feature_size,
        proprio_size=manifest.proprio_size,
        action_size=manifest.action.size,
        history=history_of(manifest, None),
        endpoint=f"ipc://{folder}/line",
        schedule=FreeRunning(min_updates_per_tick=0.0, max_updates_per_tick=2.0, publish_every_updates=20),
        batch_size=16,
        min_transitions=16,
        niceness=0,
        checkpoint_every_s=checkpoint_every_s,
        algorithm={"scale": [SCALE] * manifest.action.size, "hidden": [16, 16]},
    )


def updates_in(checkpoint: Path) -> int:
    """Return how many updates a checkpoint holds, without loading torch."""
    with safe_open(str(checkpoint), framework="np") as file:
        state = dict(json.loads(file.metadata()["state"])["dict"])
    return int(dict(state["cursors"]["dict"])["updates"])


def robot(run: Path, endpoint: str, bundle_folder: Path, stop_file: Path, seed: int) -> None:
    """Be a robot: commit episodes and take weights until told to stop, then hand over what is left."""
    bundle = load_bundle(bundle_folder, "cpu")
    provenance = collect_provenance(WallClock(), operator=None)
    folder = RunFolder.create(run, provenance, resume=True)
    recover_folder(run)
    remove_half_made(run)
    spool = EpisodeSpool(folder.episodes, folder.run_id)
    rng, parent = np.random.default_rng([seed, time.time_ns()]), os.getppid()
    with RobotLink(endpoint, run_id=folder.run_id, spool=spool) as link:
        newest = folder.newest_weights()
        weights = LearnedWeights(
            link,
            folder,
            Expected.of(bundle.manifest, ResidualConfig(scale=(SCALE,) * bundle.manifest.action.size)),
            spool=spool,
            lock_step=False,
            start=newest,
            newest=newest,
            runs=(folder.run_id, LEARNER_RUN),
        )
        weights.resume()
        number = folder.next_episode()
        while not stop_file.exists() and os.getppid() == parent:
            weights.before_episode(number)
            with EpisodeWriter(folder.episodes, header_of(folder, bundle, number)) as writer:
                for row in rows_of(bundle, rng):
                    writer.append(row)
                    weights.refresh()
                    time.sleep(0.25 / RATE_HZ)
                partial = writer.finish(EpisodeOutcome(outcome=Outcome.SUCCESS, label_source=LabelSource.TASK))
            weights.after_episode(of_episode(read_episode(commit_episode(partial).path)))
            number += 1
            if rng.random() < _CORRECTED:
                episodes = sorted(folder.episodes.glob("*.h5"))
                label_episode(episodes[rng.integers(len(episodes))], Outcome.FAILURE, LabelSource.PERSON)
        link.look()
        while not link.wait_stored(1.0) and os.getppid() == parent:
            weights.refresh()
        print(link.status, flush=True)


def rows_of(bundle: Bundle, rng: np.random.Generator) -> list[Row]:
    """Rows of the policy alone with made-up observations."""
    spec, found = spec_of(bundle), []
    for index in range(TICKS):
        row = np.zeros((), spec.row_dtype())
        row["tick/index"], row["tick/T_base_tcp"] = index, np.eye(4)
        row["tick/human"] = row["tick/reset"] = np.nan
        for name in ("tick/features", "tick/base", "tick/commanded"):
            row[name] = rng.uniform(-0.5, 0.5, row[name].shape)
        row["rewards"] = row["terminated"] = row["dones"] = index == TICKS - 1
        seal(row)
        found.append(row)
    return found


def spec_of(bundle: Bundle) -> EpisodeSpec:
    """What a row of a robot holds; no picture, for a learner gets none."""
    manifest = bundle.manifest
    return EpisodeSpec(
        cameras=(("front", 4, 4),),
        proprio=tuple((entry.key, entry.size) for entry in manifest.proprio),
        action_size=manifest.action.size,
        chunk_length=manifest.chunk_length,
        feature_size=manifest.feature_size,
        joint_count=7,
    )


def header_of(folder: RunFolder, bundle: Bundle, number: int) -> EpisodeHeader:
    """What an episode says of itself."""
    return EpisodeHeader(
        run_id=folder.run_id,
        episode=number,
        started_utc="20261101T101530.123456Z",
        rate_hz=RATE_HZ,
        spec=spec_of(bundle),
        env_args={},
        station_sha256="1" * 64,
        bundle_sha256=bundle.sha256,
        action=bundle.manifest.action,
        filter_state={},
        arbiter_state={},
        open_loop=False,
        provenance=folder.info.provenance,
    )


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 3), "worst": round(float(max(values)), 3)} if values else {}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:2] == ["--robot"]:
        robot(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]), int(sys.argv[6]))
    else:
        sys.exit(main())
