"""Weights that a learner improves: episodes go out, checked weights come in between two ticks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from functools import partial

import numpy as np

from policy.episode_spool import EpisodeSpool
from policy.learner_episode import EpisodeArrays
from policy.observation_history import windows
from policy.robot_link import RobotLink
from policy.run_folder import RunFolder
from policy.transitions import seen_before
from policy.weights import Expected, RefusalReason, ResidualWeights, WeightsRefused, unpack
from policy.weights_gate import GoldenObservations, WeightsGate
from policy.weights_header import read_header
from robot.errors import BadInputError, HandrailError
from teleop.weights_in_force import WeightsInForce, weights_to_start_from

_GOLDEN = 24
_LEARNER_STALL_S = 120.0
_READ_S = 0.25  # between two episodes, reading what the learner lacks
_LAST_S = 10.0  # at the end of a run, for the learner to take what it lacks


class LearnedWeights(WeightsInForce):
    """The robot's end of learning.

    Lock-step takes one version per episode with a fixed lag of one, so that both cores work and the result does
    not depend on timing; live takes whatever is newest between two ticks. Weights are accepted only once golden
    observations exist, that is after the first episode.

    Args:
        link: entered by the caller; its spool is the one here.
        spool: of the run's episodes.
        start: weights in force at first; where the golden observations refuse them, a residual of zero takes over.
        newest: weights of the highest version that this run had in force; neither they nor older ones are taken again
            from the learner.
        runs: run ids that the learner's weights may name.
        between_ticks: called between two ticks, to hand over episodes that were committed meanwhile.

    Raises:
        BadInputError: `start` is not for this bundle, or beyond what the station allows.
    """

    def __init__(
        self,
        link: RobotLink,
        run: RunFolder,
        expected: Expected,
        *,
        spool: EpisodeSpool,
        lock_step: bool,
        start: bytes | None,
        newest: bytes | None = None,
        runs: Collection[str],
        between_ticks: Callable[[], None] | None = None,
    ) -> None:
        self._expected = expected
        self._zero = expected.initial_weights(run.run_id)
        self.message = self._before = start or self._zero
        self._link, self._run, self._spool, self._lock_step = link, run, spool, lock_step
        self._gate: WeightsGate | None = None
        self._runs = frozenset(runs)
        self._between_ticks = between_ticks
        self._taken: dict[int, str] = {}
        self._earlier = 0  # episodes of the run before this start of it
        first = weights_to_start_from(self.message, self._expected)
        ours = first.run_id in self._runs
        # the header alone: newer weights may be beyond what the station has come to allow, and are not used
        last = read_header(newest or self.message)
        self._newest = int(last["weights_version"]) if last["run_id"] in self._runs else -1
        self._seen = max(first.version if ours else 0, self._newest)  # newest version that was taken over or refused
        if ours or not lock_step:
            link.begin_at(first.version, seen=self._newest)
        super().__init__(first.head, first.version, run.store_weights(first.version, self.message))
        run.note_in_force(self.sha256)
        self.accepted = self.refused = self.withdrawn = 0
        self._distrusted = False
        self._unfit = ""  # why the weights in force, those of the start, are not to drive on
        self.notice = ""

    def refresh(self) -> None:
        """Take the newest weights that came; nothing in lock-step, where `before_episode` does."""
        if self._distrusted:
            self._fall_back()
        if self._between_ticks:
            self._between_ticks()
        if not self._lock_step:
            newest = self._link.take_weights()
            if newest is not None:
                self.consider(*newest)

    def taken_over(self) -> dict[int, str]:
        """Versions taken over since the last call -> SHA-256 of their messages."""
        taken, self._taken = self._taken, {}
        return taken

    def distrust(self) -> None:
        """Go back to the weights before these at the next `refresh`, and tell the learner."""
        self._distrusted = True

    def resume(self) -> None:
        """Go on with a run: the learner gets of its episodes what it lacks; in lock-step catch up with it.

        In lock-step it has then made a version for each.

        Raises:
            HandrailError: the learner did not deliver in time.
        """
        earlier = self._link.look()
        self._earlier = len(earlier)
        for key in earlier:
            if self._gate is not None:
                break
            try:
                self._observe(self._spool.read(key.episode))
            except BadInputError as error:  # the link gives it up as well, and says so
                self.notice = str(error)
        self._leave_start()
        while self._lock_step and self._seen < self._earlier:
            newest = self._link.take_weights() if self._link.wait_newer(_LEARNER_STALL_S) else None
            if newest is None:
                raise self._stalled(self._earlier)
            self.consider(*newest)
        self._taken = {}

    def before_episode(self, done: int) -> None:
        """Live: see to what the learner lacks. Lock-step: take over the version of the last but one of `done` episodes.

        `done` counts from this start of the run, the versions from the run's first episode.

        Raises:
            HandrailError: the learner did not deliver in time, or will not: it is further than this run.
        """
        if self._distrusted:  # on the last tick of the episode before: what comes now is not what failed
            self._fall_back()
        if not self._lock_step:
            self._link.look()  # labels that changed meanwhile
            self._link.read_ahead(_READ_S)
            return
        if done > 1:  # only then are the golden observations there for sure, whatever the recorder takes
            self._leave_start()
        version = self._earlier + done - 1
        if version <= self._seen:
            return
        message = self._link.wait_weights(version, _LEARNER_STALL_S)
        if message is None:
            raise self._stalled(version)
        self.consider(version, message)
        self._taken = {}  # the header names what is in force at the start

    def after_episode(self, episode: EpisodeArrays) -> None:
        """Send a committed episode; the first one gives the golden observations, on which the start is judged, too."""
        self._link.send_episode(episode)
        self._observe(episode)
        if not self._lock_step:  # there this comes between any two ticks
            self._leave_start()

    def finish(self, done: int) -> None:
        """Lock-step: wait for the versions that are still to come. Live: for the learner to have all episodes.

        Raises:
            HandrailError: in lock-step the learner is further than this run.
        """
        if self._distrusted:
            self._fall_back()
        self._leave_start()
        if self._lock_step and done:
            for version in range(self._seen + 1, self._earlier + done + 1):
                message = self._link.wait_weights(version, _LEARNER_STALL_S)
                if message is not None:
                    self.consider(version, message)
        elif not self._lock_step and self._link.wait_connected():
            self._link.look()
            self._link.wait_stored(_LAST_S)

    def lacking(self) -> str:
        """Say what the learner does not have of the run's episodes, or ""."""
        status = self._link.status
        if not status.waiting and not status.dropped:
            return ""
        why = f" ({status.problem})" if status.problem else "" if status.connected else " (it does not answer)"
        return f"{status.waiting + status.dropped} episodes have not reached the learner{why}; --resume sends them"

    def _observe(self, episode: EpisodeArrays) -> None:
        """Take golden observations from an episode, unless there are some, and judge the weights in force on them."""
        if self._gate is None:
            known = [np.isfinite(values).all(axis=1) for values in (episode.features, episode.proprio, episode.base)]
            seen = np.flatnonzero(np.logical_and.reduce(known))  # no weights give numbers on others
            if len(seen):
                rows = seen[np.linspace(0, len(seen) - 1, min(_GOLDEN, len(seen))).astype(int)]
                history, before = self._expected.history, seen_before(episode)
                golden = GoldenObservations(
                    features=windows(episode.features, history.features_ticks, rows, before),
                    proprio=windows(episode.proprio, history.proprio_ticks, rows, before),
                    base_actions=episode.base[rows],
                )
                gate = partial(
                    WeightsGate, expected=self._expected, golden=golden, runs=self._runs, newest=self._newest
                )
                try:
                    self._gate = gate(self.message)
                except WeightsRefused as refusal:
                    self._gate, self._unfit = gate(self._zero), str(refusal)
                    self.notice = f"weights {self.version} refused: {refusal}"

    def _stalled(self, version: int) -> HandrailError:
        return HandrailError(
            f"learner: weights {version} did not come within {_LEARNER_STALL_S:.0f} s "
            f"({self._link.status.problem or 'no answer'}); see that it runs, with --lock-step, and look at its log"
        )

    def consider(self, version: int, message: bytes) -> None:
        """Take weights over or refuse them; a refusal changes nothing and the learner hears of it."""
        self._seen = max(self._seen, version)
        if self._gate is None:
            self._link.answer(version, accepted=False, reason="no golden observations yet")
            self.refused += 1
            return
        try:
            if version != int(read_header(message)["weights_version"]):
                raise WeightsRefused(RefusalReason.MALFORMED, f"they came as version {version} and are another")
            weights = self._gate.accept(message)
            self._run.store_weights(version, message)
        except (WeightsRefused, BadInputError) as refusal:  # the latter of a disk that is full: no replay without them
            self.refused += 1
            self.notice = f"weights {version} refused: {refusal}"
            self._link.answer(version, accepted=False, reason=str(refusal))
            return
        self._before = self.message
        self.notice = f"weights {version} in force"
        self._use(weights, message)
        self.accepted += 1
        self._link.answer(version, accepted=True)

    def _fall_back(self) -> None:
        """Put the weights before those in force, or where they failed too a residual of zero, in their place."""
        message = self._before if self._before != self.message else self._zero
        self._withdraw("gave no numbers", message, "their residual was not finite at work")

    def _leave_start(self) -> None:
        """Put a residual of zero in the place of weights to start from that were refused on recorded observations."""
        if self._unfit:
            self._withdraw(f"refused: {self._unfit}", self._zero, self._unfit)

    def _withdraw(self, said: str, message: bytes, reason: str) -> None:
        """Put `message` in force in place of weights that may not drive, and tell person and learner."""
        failed, self._distrusted, self._unfit = self.version, False, ""
        self._before = self._zero
        weights = unpack(message, self._expected)
        self.notice = f"weights {failed} {said}; weights {weights.version} in force again"
        self._use(weights, message)
        self.withdrawn += 1
        self._link.withdraw(failed, back_to=self.version, reason=reason)

    def _use(self, weights: ResidualWeights, message: bytes) -> None:
        """Let weights drive from the next tick on, whatever the disk says to that: the ones before may have failed."""
        self.head, self.version, self.message = weights.head, weights.version, message
        self.sha256 = hashlib.sha256(message).hexdigest()
        self._taken[weights.version] = self.sha256
        try:
            self._run.store_weights(weights.version, message)
            self._run.note_in_force(self.sha256)
        except BadInputError as error:
            self.notice += f"; {error}"
