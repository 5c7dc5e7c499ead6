"""One start of the robot: a run folder, an opened rig, a recorder, a person, a loop, and perhaps a learner."""

from __future__ import annotations

import gc
import json
import os
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from policy.episode_commit import Committed
from policy.episode_header import EpisodeHeader, LabelSource
from policy.episode_reader import read_episode
from policy.episode_recovery import recording_lock
from policy.learner_episode import of_episode
from policy.provenance import collect_provenance, utc_now
from policy.run_folder import RunFolder, remove_half_made
from robot.clock import Clock, WallClock
from robot.errors import HandrailError, HardwareError
from robot.realtime import ask_for, give_back, without_collections
from robot.recording import Recording
from robot.simulation.layout import Layout
from teleop.environment_parts import EnvironmentJudge, EnvironmentLayout
from teleop.episode_result import EpisodeResult
from teleop.exploration import Exploration
from teleop.fault_injection import FaultInjection
from teleop.judge import Judge, LastingJudge
from teleop.learned_weights import LearnedWeights
from teleop.loop import ControlLoop
from teleop.loop_parts import LoopParts, Watcher
from teleop.opening import check_options, check_same_rig, open_rig, open_weights
from teleop.operator_view import OperatorView
from teleop.recorder import RecorderProcess
from teleop.rig import make_pipeline
from teleop.run_options import RunOptions
from teleop.scripted_expert import ScriptedExpert
from teleop.simulated_operator import SimulatedOperator
from teleop.station import ExplorationConfig, LoadedStation
from teleop.station_calibration import camera_poses, moved_since_training, station_calibrations
from teleop.tick import TickState
from teleop.unattended import Unattended

_COMMIT_S = 60.0
_ARM_BACK_S, _LOOK_S = 5.0, 0.02  # the longest that a stand-in for a person waits for an arm, and between two looks


class Run:
    """An opened run. Entering makes the folder, starts the recorder and opens the rig; the arm stays disarmed."""

    def __init__(
        self, loaded: LoadedStation, clock: Clock, options: RunOptions, *, recording: Recording | None = None
    ) -> None:
        self._loaded, self._clock, self._options, self._recording = loaded, clock, options, recording
        self._real = isinstance(clock, WallClock)
        self.results: list[EpisodeResult] = []
        self.moved: list[str] = []  # cameras that are elsewhere than when the bundle was trained, a line each
        self.committed: list[Committed] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Open everything. Raises BadInputError for what a person can mend."""
        with ExitStack() as stack, ExitStack() as hardware:
            options, clock = self._options, self._clock
            # before the folder, so that what a person has to mend leaves none behind
            check_options(self._loaded, options, clock)
            calibrations = station_calibrations(self._loaded)
            opened = open_rig(hardware, self._loaded, clock, options, self._recording)
            self.rig, self._human, self._window = opened.rig, opened.human, opened.window
            self._injection = FaultInjection(options.faults, self.rig)
            provenance = collect_provenance(clock, operator=options.operator)
            self.folder = RunFolder.create(options.out, provenance, resume=options.resume)
            if options.resume:
                check_same_rig(self.folder, self._loaded)
            with recording_lock(self.folder.episodes):  # the recorder's own word would come late and be no bad input
                remove_half_made(options.out)
            self._recorder = stack.enter_context(
                RecorderProcess(self.folder.episodes, lock_step=clock.virtual, streams=self.rig.streams)
            )
            self.weights = open_weights(
                stack, self.rig, self.folder, options, lambda: self._take_commits(wait_for=None)
            )
            self._station_sha256 = self.folder.store_station(self._loaded.text)
            self._calibrations = {
                # one file goes by its camera's name; of two, each also by its kind
                name if len(measured.files) == 1 else f"{name}.{file.kind}": self.folder.store_station(file.data)
                for name, measured in calibrations.items()
                for file in measured.files
            }
            poses = camera_poses(self._loaded, calibrations)
            self.moved = moved_since_training(self._loaded, poses, self.rig.bundle.manifest.calibration)
            self._bundle_sha256 = self.rig.bundle.sha256
            self.folder.store_bundle(self._bundle_sha256, self.rig.bundle.files())
            if self.rig.reward is not None:
                self.folder.store_reward(self.rig.reward.model.sha256, self.rig.reward.model.files())
            if not self._recorder.wait_ready(_COMMIT_S):
                why = ", ".join(failure.message for failure in self._recorder.failures()) or "it said nothing"
                raise HandrailError(f"{self.folder.episodes}: the recorder did not start ({why})")
            self._chunks = self.rig.chunks()
            self._told_failures: set[str] = set()
            self.loop = ControlLoop(self._parts())
            if options.resume and isinstance(self.weights, LearnedWeights):
                self.committed += self._recorder.committed()  # what an earlier start left and the recorder finished
                self.weights.resume()
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
            BadInputError: the run's own learner refused what it was given, which no further episode would mend.
        """
        if self.rig.supervisor is not None:
            self.rig.supervisor.check_added()
        self.rig.clear()
        if self._done and not self.loop.armed:
            if self.results[-1].rows <= 1:  # it latched in its first tick: arming alone will not help
                self.rig.free()
            self._ask_to_arm()
        if not self.loop.wait_armed(self._ask_to_arm):
            return None
        index = self._next
        if isinstance(self.weights, LearnedWeights):
            if self._clock.virtual and self._done >= 2:
                self._take_commits(wait_for=index - 2)
            self.weights.before_episode(self._done)
        layout = self._layout(index)
        self._injection.begin()
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
        reward = [said] if self.rig.reward and (said := self.rig.reward.news()) else []
        return "; ".join([*weights, *restarted, *fresh, *reward, *self.problems[told:]])

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
        if not self.rig.harmless:
            raise HandrailError(
                f"run {self.folder.run_id}: the robot latched before episode {self._next} and nobody is there to arm "
                "it; look at the robot and start again with a gamepad or the keyboard"
            )
        if self._real and not self.rig.arm.open_loop:
            self._await_arm()
        self._human.arm()

    def _await_arm(self) -> None:
        """Wait until the arm can be seen again: what would be armed before that is latched in its first tick.

        Raises:
            HardwareError: it is gone.
        """
        ends_s = self._clock.now_s() + _ARM_BACK_S
        while True:
            self.rig.check()
            try:
                self.rig.arm.state()
                return
            except HardwareError:
                if self._clock.now_s() > ends_s:
                    raise
            self._clock.sleep_until(self._clock.now_s() + _LOOK_S)

    def _take_commits(self, wait_for: int | None) -> None:
        if wait_for is not None:
            self._recorder.wait_committed(self.folder.run_id, wait_for, _COMMIT_S)
        for committed in self._recorder.committed():
            self.committed.append(committed)
            if isinstance(self.weights, LearnedWeights):
                self.weights.after_episode(of_episode(read_episode(committed.path)))

    def _parts(self) -> LoopParts:
        station, rig, options, injection = self._loaded.station, self.rig, self._options, self._injection
        by_person = options.operator in ("gamepad", "keyboard")
        return LoopParts(
            clock=self._clock,
            arm=injection.arm(),
            synchroniser=rig.synchroniser,
            human=injection.human(self._human),
            pipeline=make_pipeline(station, injection.bundle(), rig.safety()),
            recorder=self._recorder,
            weights=self.weights,
            exploration=Exploration(station.exploration if options.explore else ExplorationConfig(), seed=options.seed),
            health=injection.health(self._recorder, self.weights),
            chunks=self._chunks,
            homing=rig.homing(),
            judge=self._judge(),
            reward=rig.reward,
            task_reward=rig.task_reward(),
            watcher=self._watcher(),
            labels=LabelSource.PERSON if by_person else LabelSource.OPERATOR_SIMULATED,
            spec=rig.spec,
            period_s=station.period_s,
            stall_s=station.loop.stall_s,
            rehearse_s=min(station.realtime.rehearse_s, 0.25 * station.period_s) if self._real else 0.0,
            timeout_s=station.episode.timeout_s,
            reset_timeout_s=station.episode.reset_timeout_s,
        )

    def _judge(self) -> Judge | None:
        """Return the task function, None where it has no say."""
        config, judge = self._loaded.station.reward, self.rig.judge
        if isinstance(judge, EnvironmentJudge) and config.source != "task":
            return judge.silent()  # its end is still the episode's
        if judge is None or config.source != "task":
            return None
        ticks = round(config.dwell_s / self._loaded.station.period_s)
        return LastingJudge(judge, ticks) if ticks else judge

    def _watcher(self) -> Watcher | None:
        if self._window is None:
            return None
        return OperatorView(
            self._window, self._clock, self._loaded.station.loop.rate_hz, self.results, notice="; ".join(self.moved)
        )

    def _layout(self, index: int) -> Layout | EnvironmentLayout | None:
        return self.rig.draw_layout(self._options.split, self._options.seed, index)

    def _lay(self, index: int, layout: Layout | EnvironmentLayout | None, start_s: float) -> None:
        if isinstance(self._human, (SimulatedOperator, ScriptedExpert)):
            self._human.lay_table()
        self.rig.lay(layout, self._recorded_episode(index), start_s)

    def _recorded_episode(self, index: int) -> int | None:
        if self._recording is None:
            return None
        return self._options.recorded[index] if self._options.recorded else index

    def _header(self, index: int, layout: Layout | EnvironmentLayout | None, state: TickState) -> EpisodeHeader:
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
            calibrations=self._calibrations,
            reward_sha256=rig.reward_sha256,
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
