"""One start of the robot: a run folder, an opened rig, a recorder, a person, a loop, and perhaps a learner."""

from __future__ import annotations

import gc
import json
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from policy.bundle import Bundle
from policy.episode_commit import Committed
from policy.episode_header import EpisodeHeader, LabelSource
from policy.episode_reader import latest_revisions, read_episode
from policy.episode_recovery import recording_lock
from policy.learner_episode import of_episode
from policy.link_security import check_endpoint
from policy.provenance import collect_provenance, utc_now
from policy.robot_link import RobotLink
from policy.run_folder import RunFolder, remove_half_made
from robot.clock import Clock, WallClock
from robot.errors import BadInputError, HandrailError
from robot.realtime import ask_for, give_back, without_collections
from robot.recording import Recording
from robot.simulation.layout import Layout, Split, draw_layout
from teleop.episode_result import EpisodeResult
from teleop.exploration import Exploration
from teleop.faulty_parts import FaultyArm, FaultyBundle, FaultyInput, FaultyRecorder
from teleop.human_input import HumanInput
from teleop.inject import Fault, LocalFaults
from teleop.learned_weights import LearnedWeights
from teleop.loop import ControlLoop
from teleop.loop_parts import LoopParts, Watcher
from teleop.operator_link import operator_link
from teleop.operator_view import OperatorView
from teleop.recorder import RecorderProcess
from teleop.rig import Rig, make_pipeline
from teleop.scripted_expert import ScriptedExpert
from teleop.simulated_operator import SimulatedOperator
from teleop.station import ExplorationConfig, LoadedStation, OperatorConfig
from teleop.station_learner import OwnLearner
from teleop.supervisor import Supervisor
from teleop.tick import TickState
from teleop.unattended import Unattended
from teleop.weights_in_force import WeightsInForce, fixed_weights

OperatorKind = Literal["simulated", "expert", "gamepad", "keyboard", "none"]
OWN_LEARNER = "own"
_COMMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is told beside its station.

    Attributes:
        out: run folder.
        operator: whose hands are on it.
        seed: of layouts, exploration and the simulated person.
        split: family of layouts.
        learner: endpoint of a learner process, `own` for one of this run's in real time, None without.
        weights: message of the weights to start from; None for a residual of zero, or with a learner for those that a
            resumed run had in force last.
        explore: add exploration noise (training only).
        resume: go on with the run in `out`.
        faults: to be injected.
        recorded: of a recorded arm, which of the recording's episodes are played, one for each of the run's own; all
            when empty.
    """

    out: Path
    operator: OperatorKind
    seed: int = 0
    split: Split = Split.TRAINING
    learner: str | None = None
    weights: bytes | None = None
    explore: bool = False
    resume: bool = False
    recorded: tuple[int, ...] = ()
    faults: tuple[Fault, ...] = ()


def try_operator(kind: Literal["gamepad", "keyboard"], config: OperatorConfig) -> None:
    """Open a person's device and window, and close them. Raises BadInputError where that cannot be done."""
    link, plan = operator_link(kind, config)
    with Supervisor([plan]), link:
        pass


class Run:
    """An opened run. Entering makes the folder, starts the recorder and opens the rig; the arm stays disarmed."""

    def __init__(
        self, loaded: LoadedStation, clock: Clock, options: RunOptions, *, recording: Recording | None = None
    ) -> None:
        self._loaded, self._clock, self._options, self._recording = loaded, clock, options, recording
        self._real = isinstance(clock, WallClock)
        self.results: list[EpisodeResult] = []
        self.committed: list[Committed] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Open everything. Raises BadInputError for what a person can mend."""
        with ExitStack() as stack, ExitStack() as hardware:
            options, clock = self._options, self._clock
            # before the folder, so that what a person has to mend leaves none behind
            if options.learner == OWN_LEARNER and clock.virtual:
                raise BadInputError("learner 'own' needs real time; in lock-step give an endpoint, or use run_demo.py")
            if options.learner not in (None, OWN_LEARNER):
                check_endpoint(options.learner, keys=False)
            self._open_rig(hardware)
            provenance = collect_provenance(clock, operator=options.operator)
            self.folder = RunFolder.create(options.out, provenance, resume=options.resume)
            with recording_lock(self.folder.episodes):  # the recorder's own word would come late and be no bad input
                remove_half_made(options.out)
            self._recorder = stack.enter_context(
                RecorderProcess(self.folder.episodes, lock_step=clock.virtual, streams=self.rig.streams)
            )
            self.weights = self._open_weights(stack)
            self._station_sha256 = self.folder.store_station(self._loaded.text)
            self._bundle_sha256 = self.rig.bundle.sha256
            self.folder.store_bundle(self._bundle_sha256, self.rig.bundle.files())
            if not self._recorder.wait_ready(_COMMIT_S):
                why = ", ".join(failure.message for failure in self._recorder.failures()) or "it said nothing"
                raise HandrailError(f"{self.folder.episodes}: the recorder did not start ({why})")
            self._chunks = self.rig.chunks()
            self._told_failures: set[str] = set()
            self._faulty_recorder = FaultyRecorder(self._recorder, self._faults)
            self.loop = ControlLoop(self._parts())
            if options.resume and isinstance(self.weights, LearnedWeights):
                self.committed += self._recorder.committed()  # what an earlier start left and the recorder finished
                self.weights.resume(map(of_episode, latest_revisions(self.folder.episodes)))
            self.granted = ""
            if self._real:
                wanted, cores = self._loaded.station.realtime, os.sched_getaffinity(0)
                stack.callback(give_back, wanted, cores)
                self.granted = ask_for(wanted)
            self._first = self._next = self.folder.next_episode()
            self._done = self._told = 0
            stack.push(hardware.pop_all())  # closed first, whatever the recorder still has to write
            stack.enter_context(without_collections())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def episode(self) -> EpisodeResult | None:
        """Run one episode and commit it; None when the person closed the run before it began.

        In lock-step without a learner it returns after the commit. With one, commits are taken while the next
        episode runs, so that recorder, learner and loop work side by side; the order is the same on every run.

        Raises:
            HardwareError: the run cannot go on; the episode is aborted, in `results`, and on disk.
        """
        self._ask_to_arm()
        if not self.loop.wait_armed():
            return None
        index = self._next
        if isinstance(self.weights, LearnedWeights):
            if self._clock.virtual and self._done >= 2:
                self._take_commits(wait_for=index - 2)
            self.weights.before_episode(self._done)
        layout = self._layout(index)
        self._begin_injections()
        result = self.loop.run_episode(
            lambda state: self._header(index, layout, state),
            lambda start_s: self._lay(index, layout, start_s),
        )
        if isinstance(self._human, (SimulatedOperator, ScriptedExpert)):
            self._human.stand_back()
        self._next += 1
        self.results.append(result)
        overlaps = isinstance(self.weights, LearnedWeights)
        wait = result.failure is not None or (self._clock.virtual and not overlaps)
        self._take_commits(wait_for=index if wait else None)
        self._done += 1
        if result.failure is not None:
            raise result.failure
        gc.collect()
        return result

    @property
    def problems(self) -> list[str]:
        """What the recorder could not do so far, in words for the person."""
        return [failure.message for failure in self._recorder.failures()]

    def news(self) -> str:
        """What to tell the person after an episode: of the weights, and what the recorder could not do since."""
        told, self._told = self._told, len(self.problems)
        weights = [self.weights.notice] if isinstance(self.weights, LearnedWeights) and self.weights.notice else []
        restarted = self.rig.supervisor.news() if self.rig.supervisor else []
        unanswered = list(dict.fromkeys(self._chunks.failures)) if self._chunks else []
        fresh = [_printable(line) for line in unanswered if line not in self._told_failures]
        self._told_failures.update(unanswered)
        return "; ".join([*weights, *restarted, *fresh, *self.problems[told:]])

    def processes(self) -> dict[str, int]:
        """Return the ids of the run's processes by what they are called."""
        found = {"loop": os.getpid()}
        if self._recorder.pid is not None:
            found["recorder"] = self._recorder.pid
        return found | (self.rig.supervisor.pids() if self.rig.supervisor else {})

    @property
    def recorded(self) -> int:
        """How many of the episodes in `results` are on disk."""
        mine = range(self._first, self._next)
        return sum(done.run_id == self.folder.run_id and done.episode in mine for done in self.committed)

    def finish(self) -> None:
        """Wait for the last commits and, with a learner, for its last weights."""
        if self.results:
            self._take_commits(wait_for=self._next - 1)
        if isinstance(self.weights, LearnedWeights):
            self.weights.finish(self._done)

    def _ask_to_arm(self) -> None:
        """Ask a stand-in for a person to arm again after a stop or a fault, as the window asks a person.

        Raises:
            HandrailError: nobody is there, and the arm is one that could hurt.
        """
        if not isinstance(self._human, (SimulatedOperator, ScriptedExpert, Unattended)):
            return
        if self._done and not self.loop.armed:
            if self.rig.simulation is None and not self.rig.arm.open_loop:
                raise HandrailError(
                    f"run {self.folder.run_id}: the robot latched in episode {self._next - 1} and nobody is there to "
                    "arm it; look at the robot and start again with a gamepad or the keyboard"
                )
            self._human.arm()

    def _take_commits(self, wait_for: int | None) -> None:
        if wait_for is not None:
            self._recorder.wait_committed(self.folder.run_id, wait_for, _COMMIT_S)
        for committed in self._recorder.committed():
            self.committed.append(committed)
            if isinstance(self.weights, LearnedWeights):
                self.weights.after_episode(of_episode(read_episode(committed.path)))

    def _parts(self) -> LoopParts:
        station, rig, options = self._loaded.station, self.rig, self._options
        by_person = options.operator in ("gamepad", "keyboard")
        return LoopParts(
            clock=self._clock,
            arm=FaultyArm(rig.arm, self._faults) if self._faults.shows("arm-fault") else rig.arm,
            synchroniser=rig.synchroniser,
            human=FaultyInput(self._human, self._faults) if self._faults.shows("pad-") else self._human,
            pipeline=make_pipeline(station, self._bundle(), rig.safety()),
            recorder=self._recorder,
            weights=self.weights,
            exploration=Exploration(station.exploration if options.explore else ExplorationConfig(), seed=options.seed),
            health=self._check if self._options.faults else rig.check,
            chunks=self._chunks,
            homing=rig.homing(),
            judge=rig.judge,
            watcher=self._watcher(),
            labels=LabelSource.PERSON if by_person else LabelSource.OPERATOR_SIMULATED,
            spec=rig.spec,
            period_s=station.period_s,
            stall_s=station.loop.stall_s,
            rehearse_s=min(station.realtime.rehearse_s, 0.25 * station.period_s) if self._real else 0.0,
            timeout_s=station.episode.timeout_s,
            reset_timeout_s=station.episode.reset_timeout_s,
        )

    def _open_rig(self, hardware: ExitStack) -> None:
        """Open the rig and the person's device. Raises BadInputError in the words of whoever could not be opened."""
        options, station = self._options, self._loaded.station
        link, companions = None, []
        if options.operator in ("gamepad", "keyboard"):
            link, plan = operator_link(options.operator, station.operator)
            hardware.callback(link.__exit__, None, None, None)
            companions.append(plan)
        rig = Rig(
            self._loaded,
            self._clock,
            seed=options.seed,
            recording=self._recording,
            companions=companions,
            others=("recorder", "learner") if options.learner == OWN_LEARNER else ("recorder",),
            faults=options.faults,
        )
        try:
            self.rig = hardware.enter_context(rig)
        except BadInputError:
            if link is not None:
                link.poll(time.monotonic())
                if link.problem:
                    raise BadInputError(link.problem) from None
            raise
        self._link = link
        self._human: HumanInput = hardware.enter_context(link or self._open_human())
        asked_elsewhere = self.rig.supervisor is not None and station.policy.asynchronous
        self._faults = LocalFaults(options.faults, self._clock.now_s, policy=not asked_elsewhere)

    def _open_human(self) -> HumanInput:
        """Return who stands in for a person."""
        station, options, simulation = self._loaded.station, self._options, self.rig.simulation
        if options.operator == "none":
            return Unattended()
        if simulation is None:
            raise BadInputError(
                f"station {self._loaded.path}: --operator {options.operator} needs the simulated station; "
                "use gamepad, keyboard or none"
            )
        spec = self.rig.bundle.manifest.action
        full = dict(zip(spec.dims, spec.scale, strict=True))
        scale_m = (full.get("x", 1.0), full.get("y", 1.0), full.get("z", 1.0))
        if options.operator == "expert":
            return ScriptedExpert(simulation.world, simulation.task, scale_m=scale_m)
        return SimulatedOperator(
            simulation.world, simulation.task, scale_m=scale_m, period_s=station.period_s, seed=options.seed
        )

    def _open_weights(self, stack: ExitStack) -> WeightsInForce:
        station, options = self._loaded.station, self._options
        bundle = self.rig.bundle
        size = bundle.manifest.action.size
        scale = np.array(station.residual.scale if station.residual else [0.0] * size, np.float32)
        if options.learner is None:
            return fixed_weights(bundle, self.folder, scale, options.weights)
        start = options.weights
        if start is None and options.resume:
            start = self.folder.newest_weights()
        endpoint = options.learner
        if endpoint == OWN_LEARNER:
            endpoint = self._start_learner(stack)
        link = stack.enter_context(RobotLink(endpoint, run_id=self.folder.run_id))
        lock_step = self._clock.virtual
        return LearnedWeights(
            link,
            self.folder,
            bundle,
            scale=scale,
            lock_step=lock_step,
            start=start,
            runs=(self.folder.run_id, station.learner_run_id),
            # reading an episode takes 20 ms, which only a loop that no clock drives has to spare
            between_ticks=(lambda: self._take_commits(wait_for=None)) if lock_step else None,
        )

    def _start_learner(self, stack: ExitStack) -> str:
        """Have the supervisor start a learner and return where it listens."""
        supervisor = self.rig.supervisor
        if supervisor is None:
            raise BadInputError(f"station {self._loaded.path}: learner 'own' needs an arm that moves, not a recording")
        learner = OwnLearner(
            self._loaded, state_dir=self._options.out / "learner", run_id=self.folder.run_id, seed=self._options.seed
        )
        learner = stack.enter_context(learner)
        supervisor.add(learner.plan)
        return learner.endpoint

    def _bundle(self) -> Bundle:
        """The base policy as the loop sees it."""
        if self._faults.shows("base-"):
            return FaultyBundle(self.rig.bundle, self._faults, self._clock)
        return self.rig.bundle

    def _begin_injections(self) -> None:
        """From the first episode on faults are due, and the supervisor has to know the recorder."""
        self._faults.begin()
        if self.rig.supervisor is not None:
            self.rig.supervisor.begin()

    def _check(self) -> None:
        """As `Rig.check`, and show the faults of those that only this class has. Raises HardwareError."""
        self.rig.check()
        if self.rig.supervisor is not None:
            self.rig.supervisor.tell("recorder", self._recorder.pid)  # it may be another one than before
        self._faulty_recorder.look()
        if self._faults.active("learner-garbage") and isinstance(self.weights, LearnedWeights):
            self.weights.consider(self.weights.version + 1, os.urandom(1000))

    def _watcher(self) -> Watcher | None:
        if self._link is None:
            return None
        return OperatorView(self._link, self._clock, self._loaded.station.loop.rate_hz, self.results)

    def _layout(self, index: int) -> Layout | None:
        if self.rig.simulation is None:
            return None
        return draw_layout(self._options.split, self._options.seed, index)

    def _lay(self, index: int, layout: Layout | None, start_s: float) -> None:
        if isinstance(self._human, (SimulatedOperator, ScriptedExpert)):
            self._human.lay_table()
        self.rig.lay(layout, self._recorded_episode(index), start_s)

    def _recorded_episode(self, index: int) -> int | None:
        if self._recording is None:
            return None
        return self._options.recorded[index] if self._options.recorded else index

    def _header(self, index: int, layout: Layout | None, state: TickState) -> EpisodeHeader:
        station, rig = self._loaded.station, self.rig
        described = {} if layout is None else json.loads(json.dumps(vars(layout)))
        if self._recording is not None:
            described = dict(self._recording.layout())
        return EpisodeHeader(
            run_id=self.folder.run_id,
            episode=index,
            started_utc=utc_now(),
            rate_hz=station.loop.rate_hz,
            spec=rig.spec,
            env_args={"env_name": station.name, "type": 0, "env_kwargs": {}},
            station_sha256=self._station_sha256,
            bundle_sha256=self._bundle_sha256,
            weights={self.weights.version: self.weights.sha256},
            action=rig.bundle.manifest.action,
            residual_scale=tuple(float(value) for value in self.weights.head.scale),
            filter_state=json.loads(state.filter.to_json()) | {"R_base_home": rig.T_base_home[:3, :3].tolist()},
            arbiter_state={"packed": state.arbiter.packed()},
            inference_provider=rig.bundle.provider,
            seed=self._options.seed,
            layout=described,
            open_loop=rig.arm.open_loop,
            provenance=collect_provenance(self._clock, operator=self._options.operator),
        )


def _printable(line: str) -> str:
    """What another process or a server said, without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in line)
