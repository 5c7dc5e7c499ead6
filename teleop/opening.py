"""What a run opens before it moves: the rig, whoever stands at it, and the weights it starts with."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from policy.episode_reader import read_episode
from policy.episode_spool import EpisodeSpool
from policy.link_keys import robot_keys
from policy.link_security import check_endpoint
from policy.robot_link import RobotLink
from policy.run_folder import RunFolder
from policy.weights import Expected
from robot.clock import Clock
from robot.config import RecordedArmConfig
from robot.environment.push_expert import PushStyle, push_motion, push_truth
from robot.errors import BadInputError
from robot.franka_config import FrankaArmConfig
from robot.realtime import check_cores
from robot.recording import Recording
from teleop.environment_parts import EnvironmentParts
from teleop.human_input import HumanInput
from teleop.inject import Target
from teleop.learned_weights import LearnedWeights
from teleop.operator_link import OperatorLink, operator_link
from teleop.push_sight import PushSight
from teleop.rig import Rig
from teleop.run_options import OWN_LEARNER, RunOptions
from teleop.scripted_expert import ScriptedExpert
from teleop.simulated_operator import OperatorTraits, SimulatedOperator
from teleop.station import LoadedStation, OperatorConfig
from teleop.station_learner import OwnLearner, check_learnable
from teleop.supervisor import Supervisor
from teleop.unattended import Unattended
from teleop.weights_in_force import WeightsInForce, fixed_weights


@dataclass(frozen=True, kw_only=True)
class OpenedRig:
    """A rig and whoever stands at it.

    Attributes:
        rig: opened.
        human: the person's device, or who stands in for a person.
        window: the same device where it is one, to be shown how the robot does; None without a person.
    """

    rig: Rig
    human: HumanInput
    window: OperatorLink | None


def try_operator(kind: Literal["gamepad", "keyboard"], config: OperatorConfig) -> None:
    """Open a person's device and window, and close them. Raises BadInputError where that cannot be done."""
    link, plan = operator_link(kind, config)
    with Supervisor([plan]), link:
        pass


def check_options(loaded: LoadedStation, options: RunOptions, clock: Clock) -> None:
    """Look for what a person has to mend, before anything is opened or written. Raises BadInputError."""
    where, arm = f"station {loaded.path}", loaded.station.arm
    if isinstance(arm, FrankaArmConfig) and arm.simulator is None and options.operator not in ("gamepad", "keyboard"):
        raise BadInputError(
            f"{where}: --operator {options.operator} has nobody at an arm that moves; use gamepad or keyboard"
        )
    if not clock.virtual:
        check_cores(loaded.station.realtime, where)
    if options.learner == OWN_LEARNER:
        if clock.virtual:
            raise BadInputError("learner 'own' needs real time; in lock-step give an endpoint, or use run_demo.py")
        if isinstance(loaded.station.arm, RecordedArmConfig):
            raise BadInputError(f"{where}: learner 'own' needs an arm that moves, not a recording")
        check_learnable(loaded)
    elif options.learner is not None:
        check_endpoint(options.learner, keys=options.keys is not None, robot=True)
    if options.keys is not None:
        robot_keys(options.keys)
    if options.learner is not None and clock.virtual and options.resume and options.weights is not None:
        raise BadInputError(
            "--weights with --resume: in lock-step the learner's next weights would replace them at once; "
            "leave out --learner, or add --real-time"
        )
    for fault in options.faults:
        if fault.kind.target is Target.LEARNER and options.learner is None:
            raise BadInputError(f"--inject {fault.word}: this run has no learner; add --learner own")


def check_same_rig(folder: RunFolder, loaded: LoadedStation) -> None:
    """Look whether the newest episode of a run that goes on is this station's, whatever was tuned since.

    Raises:
        BadInputError: it is another rig's, and what is learned from both would be of neither.
    """
    for path in sorted(folder.episodes.glob("*.h5"), reverse=True):
        try:
            name = read_episode(path).header.env_args.get("env_name")
        except BadInputError:
            continue  # a damaged one is told by those who read it
        if name != loaded.station.name:
            raise BadInputError(
                f"{folder.path}: its episodes are of station {name!r}, {loaded.path} is {loaded.station.name!r}; name "
                "a new folder"
            )
        return


def open_rig(
    stack: ExitStack, loaded: LoadedStation, clock: Clock, options: RunOptions, recording: Recording | None
) -> OpenedRig:
    """Open the rig and the person's device; `stack` closes them.

    Raises:
        BadInputError: one cannot be opened, in its own words.
    """
    window, companions = None, []
    if options.operator in ("gamepad", "keyboard"):
        window, plan = operator_link(options.operator, loaded.station.operator)
        stack.callback(window.__exit__, None, None, None)
        companions.append(plan)
    rig = Rig(
        loaded,
        clock,
        seed=options.seed,
        recording=recording,
        companions=companions,
        others=("recorder", "learner") if options.learner == OWN_LEARNER else ("recorder",),
        faults=options.faults,
    )
    try:
        stack.enter_context(rig)
    except BadInputError:
        if window is not None:
            window.poll(time.monotonic())
            if window.problem:
                raise BadInputError(window.problem) from None
        raise
    human = stack.enter_context(window or _stand_in(rig, options))
    return OpenedRig(rig=rig, human=human, window=window)


def open_weights(
    stack: ExitStack, rig: Rig, folder: RunFolder, options: RunOptions, take_commits: Callable[[], None]
) -> WeightsInForce:
    """Return the weights that the run starts with, and with a learner the link to it; `stack` closes that.

    Args:
        take_commits: hands the learner what was recorded meanwhile; in lock-step called between two ticks.

    Raises:
        BadInputError: the learner cannot be had, or the weights are not for this station and bundle.
    """
    station = rig.station
    expected = Expected.of(rig.bundle.manifest, station.residual)
    if options.learner is None:
        return fixed_weights(expected, folder, options.weights)
    newest = folder.newest_weights() if options.resume else None
    # those of the highest version may have failed at work, or a person went back from them
    start = options.weights or (folder.weights_in_force() if options.resume else None) or newest
    endpoint = options.learner
    if endpoint == OWN_LEARNER:
        endpoint = _start_learner(stack, rig, folder, options)
    keys = robot_keys(options.keys) if options.keys is not None and options.learner != OWN_LEARNER else None
    spool = EpisodeSpool(folder.episodes, folder.run_id)
    link = stack.enter_context(RobotLink(endpoint, run_id=folder.run_id, keys=keys, spool=spool))
    lock_step = rig.clock.virtual
    return LearnedWeights(
        link,
        folder,
        expected,
        spool=spool,
        lock_step=lock_step,
        start=start,
        newest=newest,
        runs=(folder.run_id, station.learner_run_id),
        # reading an episode takes 20 ms, which only a loop that no clock drives has to spare
        between_ticks=take_commits if lock_step else None,
    )


def _stand_in(rig: Rig, options: RunOptions) -> HumanInput:
    """Return who stands in for a person."""
    if options.operator == "none":
        return Unattended()
    simulation, environment = rig.simulation, rig.environment
    if environment is not None and environment.config.expert == "none":
        raise BadInputError(
            f"station {rig.loaded.path}: --operator {options.operator} needs somebody who knows the task; set "
            "arm.expert, or use gamepad, keyboard or none"
        )
    if simulation is None and environment is None:
        raise BadInputError(
            f"station {rig.loaded.path}: --operator {options.operator} needs the simulated station; "
            "use gamepad, keyboard or none"
        )
    spec = rig.bundle.manifest.action
    full = dict(zip(spec.dims, spec.scale, strict=True))
    scale_m = (full.get("x", 1.0), full.get("y", 1.0), full.get("z", 1.0))
    if environment is not None:
        return _stand_in_at(environment, rig, options, scale_m)
    assert simulation is not None
    if options.operator == "expert":
        return ScriptedExpert(simulation.world, simulation.task, scale_m=scale_m)
    return SimulatedOperator(
        simulation.world,
        simulation.task,
        scale_m=scale_m,
        period_s=rig.station.period_s,
        seed=options.seed,
        traits=OperatorTraits(drives_through=options.drives_through),
    )


def _stand_in_at(
    environment: EnvironmentParts, rig: Rig, options: RunOptions, scale_m: tuple[float, float, float]
) -> HumanInput:
    """Return who stands in for a person at an environment whose task they know."""
    style = PushStyle()
    push_truth(environment.arm_state())  # whether the station names what they look at
    if options.operator == "expert":
        return ScriptedExpert(
            environment,
            environment.task,
            scale_m=scale_m,
            motion=lambda state: push_motion(push_truth(state), state, style),
        )
    return SimulatedOperator(
        environment,
        environment.task,
        scale_m=scale_m,
        period_s=rig.station.period_s,
        seed=options.seed,
        traits=OperatorTraits(drives_through=options.drives_through),
        sight=PushSight(style),
    )


def _start_learner(stack: ExitStack, rig: Rig, folder: RunFolder, options: RunOptions) -> str:
    """Have the supervisor start a learner and return where it listens."""
    assert rig.supervisor is not None, "check_options refuses an arm without one"
    learner = OwnLearner(rig.loaded, state_dir=options.out / "learner", run_id=folder.run_id, seed=options.seed)
    learner = stack.enter_context(learner)
    rig.supervisor.add(learner.plan)
    return learner.endpoint
