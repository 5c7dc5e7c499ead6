"""One start of the robot: a run folder, an opened rig, a recorder, a person, a loop, and perhaps a learner."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from policy.episode_commit import Committed
from policy.episode_header import EpisodeHeader, LabelSource
from policy.episode_reader import latest_revisions, read_episode
from policy.episode_recovery import recording_lock
from policy.learner_episode import of_episode
from policy.link_security import check_endpoint
from policy.provenance import collect_provenance, utc_now
from policy.robot_link import RobotLink
from policy.run_folder import RunFolder, remove_half_made
from robot.clock import Clock
from robot.errors import BadInputError, HandrailError
from robot.recording import Recording
from robot.simulation.layout import Layout, Split, draw_layout
from teleop.exploration import Exploration
from teleop.human_input import HumanInput
from teleop.learned_weights import LearnedWeights
from teleop.loop import ControlLoop, EpisodeResult, LoopParts, Watcher
from teleop.recorder import RecorderProcess
from teleop.rig import Rig, make_pipeline
from teleop.scripted_expert import ScriptedExpert
from teleop.simulated_operator import SimulatedOperator
from teleop.station import ExplorationConfig, LoadedStation, Station
from teleop.tick import TickState
from teleop.unattended import Unattended
from teleop.weights_in_force import WeightsInForce, fixed_weights

if TYPE_CHECKING:
    from teleop.window import OperatorWindow

OperatorKind = Literal["simulated", "expert", "gamepad", "keyboard", "none"]
_COMMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is told beside its station.

    Attributes:
        out: run folder.
        operator: whose hands are on it.
        seed: of layouts, exploration and the simulated person.
        split: family of layouts.
        learner: endpoint of a learner process, None without.
        weights: message of the weights to start from; None for a residual of zero, or with a learner for those that a
            resumed run had in force last.
        explore: add exploration noise (training only).
        resume: go on with the run in `out`.
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


def operator_window(kind: Literal["gamepad", "keyboard"], station: Station) -> OperatorWindow:
    """Return a person's device with its window, not opened yet."""
    # SDL and its window take time to load, which a run without them is not to wait for
    from teleop.gamepad import Gamepad
    from teleop.keyboard import Keyboard
    from teleop.window import OperatorWindow

    if kind == "gamepad":
        return OperatorWindow(Gamepad(station.operator.gamepad))
    return OperatorWindow(Keyboard(station.operator.keyboard))


class Run:
    """An opened run. Entering makes the folder, starts the recorder and opens the rig; the arm stays disarmed."""

    def __init__(
        self, loaded: LoadedStation, clock: Clock, options: RunOptions, *, recording: Recording | None = None
    ) -> None:
        self._loaded, self._clock, self._options, self._recording = loaded, clock, options, recording
        self.results: list[EpisodeResult] = []
        self.committed: list[Committed] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Open everything. Raises BadInputError for what a person can mend."""
        with ExitStack() as stack, ExitStack() as hardware:
            options, clock = self._options, self._clock
            # before the folder, so that what a person has to mend leaves none behind
            if options.learner is not None:
                check_endpoint(options.learner, keys=False)
            self.rig = hardware.enter_context(Rig(self._loaded, clock, seed=options.seed, recording=self._recording))
            self._human = hardware.enter_context(self._open_human())
            provenance = collect_provenance(clock, operator=options.operator)
            self.folder = RunFolder.create(options.out, provenance, resume=options.resume)
            with recording_lock(self.folder.episodes):  # the recorder's own word would come late and be no bad input
                remove_half_made(options.out)
            self._recorder = stack.enter_context(RecorderProcess(self.folder.episodes, lock_step=clock.virtual))
            self.weights = self._open_weights(stack)
            self._station_sha256 = self.folder.store_station(self._loaded.text)
            self._bundle_sha256 = self.rig.bundle.sha256
            self.folder.store_bundle(self._bundle_sha256, self.rig.bundle.files())
            if not self._recorder.wait_ready(_COMMIT_S):
                why = ", ".join(failure.message for failure in self._recorder.failures()) or "it said nothing"
                raise HandrailError(f"{self.folder.episodes}: the recorder did not start ({why})")
            self.loop = ControlLoop(self._parts())
            if options.resume and isinstance(self.weights, LearnedWeights):
                self.committed += self._recorder.committed()  # what an earlier start left and the recorder finished
                self.weights.resume(map(of_episode, latest_revisions(self.folder.episodes)))
            stack.push(hardware.pop_all())  # closed first, whatever the recorder still has to write
            self._stack = stack.pop_all()
        self._first = self._next = self.folder.next_episode()
        self._done = self._told = 0
        # Collections belong between episodes: one over a full heap takes longer than a tick.
        gc.collect()
        gc.freeze()
        gc.disable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.enable()
        gc.unfreeze()
        self._stack.__exit__(kind, error, trace)

    def episode(self) -> EpisodeResult | None:
        """Run one episode and commit it; None when the person closed the run before it began.

        In lock-step without a learner it returns after the commit. With one, commits are taken while the next
        episode runs, so that recorder, learner and loop work side by side; the order is the same on every run.
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
        result = self.loop.run_episode(
            lambda state: self._header(index, layout, state),
            lambda start_s: self._lay(index, layout, start_s),
        )
        if isinstance(self._human, (SimulatedOperator, ScriptedExpert)):
            self._human.stand_back()
        self._next += 1
        self.results.append(result)
        overlaps = isinstance(self.weights, LearnedWeights)
        self._take_commits(wait_for=index if self._clock.virtual and not overlaps else None)
        self._done += 1
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
        return "; ".join([*weights, *self.problems[told:]])

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
            arm=rig.arm,
            synchroniser=rig.synchroniser,
            human=self._human,
            pipeline=make_pipeline(station, rig.bundle, rig.safety()),
            recorder=self._recorder,
            weights=self.weights,
            exploration=Exploration(station.exploration if options.explore else ExplorationConfig(), seed=options.seed),
            homing=rig.homing(),
            judge=rig.judge,
            watcher=self._watcher(),
            labels=LabelSource.PERSON if by_person else LabelSource.OPERATOR_SIMULATED,
            spec=rig.spec,
            period_s=station.period_s,
            timeout_s=station.episode.timeout_s,
            reset_timeout_s=station.episode.reset_timeout_s,
        )

    def _open_human(self) -> HumanInput:
        station, options = self._loaded.station, self._options
        match options.operator:
            case "gamepad" | "keyboard":
                return operator_window(options.operator, station)
            case "none":
                return Unattended()
            case "simulated" | "expert":
                simulation = self.rig.simulation
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
        link = stack.enter_context(RobotLink(options.learner, run_id=self.folder.run_id))
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

    def _watcher(self) -> Watcher | None:
        if self._options.operator not in ("gamepad", "keyboard"):
            return None
        from teleop.operator_view import OperatorView
        from teleop.window import OperatorWindow

        assert isinstance(self._human, OperatorWindow)
        return OperatorView(self._human, self._clock, self._loaded.station.loop.rate_hz, self.results)

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


Progress = Callable[[EpisodeResult], None]
