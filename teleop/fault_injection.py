"""Shows the faults that a run was asked for, so that neither the run nor its parts know of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from policy.bundle import Bundle
from robot.arm import Arm
from teleop.faulty_parts import FaultyArm, FaultyBundle, FaultyInput, FaultyRecorder
from teleop.human_input import HumanInput
from teleop.inject import Fault, LocalFaults
from teleop.learned_weights import LearnedWeights
from teleop.recorder import RecorderProcess
from teleop.rig import Rig
from teleop.weights_in_force import WeightsInForce


class FaultInjection:
    """Hands out the parts of an opened rig, wrapped where one is to fail; without faults each as it is.

    Faults of processes are the supervisor's; this tells it when they begin to count and who the recorder is.
    """

    def __init__(self, faults: Sequence[Fault], rig: Rig) -> None:
        self._asked, self._rig = bool(faults), rig
        asked_elsewhere = rig.supervisor is not None and rig.station.policy.asynchronous
        self._faults = LocalFaults(faults, rig.clock.now_s, policy=not asked_elsewhere)

    def arm(self) -> Arm:
        """The rig's arm as the loop sees it."""
        return FaultyArm(self._rig.arm, self._faults) if self._faults.shows("arm-fault") else self._rig.arm

    def human(self, human: HumanInput) -> HumanInput:
        """The person's device as the loop sees it."""
        return FaultyInput(human, self._faults) if self._faults.shows("pad-") else human

    def bundle(self) -> Bundle:
        """The base policy as the loop sees it."""
        bundle = self._rig.bundle
        return FaultyBundle(bundle, self._faults, self._rig.clock) if self._faults.shows("base-") else bundle

    def health(self, recorder: RecorderProcess, weights: WeightsInForce) -> Callable[[], None]:
        """Return what the loop calls at every tick: `Rig.check`, which also shows the faults of those two."""
        rig = self._rig
        if not self._asked:
            return rig.check
        faulty_recorder = FaultyRecorder(recorder, self._faults)

        def check() -> None:
            rig.check()
            if rig.supervisor is not None:
                rig.supervisor.tell("recorder", recorder.pid)  # it may be another one than before
            faulty_recorder.look()
            if self._faults.active("learner-garbage") and isinstance(weights, LearnedWeights):
                weights.consider(weights.version + 1, os.urandom(1000))

        return check

    def begin(self) -> None:
        """The first episode begins, or a later one: times of faults count from the first."""
        self._faults.begin()
        if self._rig.supervisor is not None:
            self._rig.supervisor.begin()
