"""When the learner updates, publishes and saves; the update rule itself is `policy.residual_learner`.

Knows neither sockets nor signals. Its state is a function of the settings, the episodes in the order in which they
came and, where updates run freely, of how many were made between them.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import safetensors
import safetensors.numpy

from policy import hindsight, learner_episode, observation_history, replay_buffer, replay_rows, weights
from policy import transitions as transition_rules
from policy.batch_prefetch import BatchPrefetch
from policy.learner_episode import EpisodeArrays, Floats
from policy.learner_history import LearnerHistory
from policy.learner_messages import MalformedMessageError
from policy.learner_settings import FreeRunning, LearnerSettings, LockStep
from policy.learner_start import episodes_to_start_from, refuse_more, refuse_other_bundle
from policy.learner_store import EpisodeStore, sound_message
from policy.reachability import Reachability
from policy.replay_buffer import Batch, ReplayBuffer
from policy.transitions import transitions
from policy.weights_header import WeightsRefused, read_header
from robot.errors import BadInputError, HandrailError
from robot.whole_file import write_whole

_CURSORS = ("_taken", "_owed", "_offline", "_live_ticks", "_published_at", "_insists", "updates", "version")
UPDATES_TOGETHER = 50  # between two looks at the link
EPOCH_UTC = "1970-01-01T00:00:00+00:00"


class Learner(Protocol):
    """The algorithm: what `policy.residual_learner.ResidualLearner` is to this module."""

    def update(self, batch: Batch) -> dict[str, float]:
        """Learn from a batch and return figures to show."""
        ...

    def tensors(self) -> dict[str, Floats]:
        """Return the weights by name, as `policy.weights.pack` takes them."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next update depends on, random state included."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        ...


class Updates(Protocol):
    """Several updates at once, from batches as `ReplayBuffer.sample` would draw them."""

    def run(self, count: int, rng: np.random.Generator) -> dict[str, float]:
        """Make `count` updates and return figures to show."""
        ...


UpdatesOver = Callable[[ReplayBuffer], Updates]


class Training:
    """Learning from a store of episodes that grows."""

    def __init__(self, settings: LearnerSettings, learner: Learner, updates_over: UpdatesOver | None = None) -> None:
        """Go on from the checkpoint in `settings.state_dir`, or start anew where there is none.

        With `updates_over` the updates are made by what it returns for the buffer, some at a time.

        Raises:
            BadInputError: checkpoint or stored episodes are damaged or were made with other settings; an episode
                to start from cannot be learned from, or comes too late to start from it.
        """
        self._settings, self._learner = settings, learner
        self._dims = settings.dims
        self._store = EpisodeStore(settings.state_dir / "episodes")
        self._history = LearnerHistory(settings.state_dir)
        self._checkpoint = settings.state_dir / "checkpoint.safetensors"
        self._weights = settings.state_dir / "weights.safetensors"
        self._buffer = ReplayBuffer(
            feature_size=settings.feature_size,
            proprio_size=settings.proprio_size,
            action_size=settings.action_size,
            history=settings.history,
            max_frames=settings.max_frames,
            folder=settings.state_dir / "replay",
            ram_bytes=settings.replay_ram_mb << 20,
            conditions=_conditions(settings),
            shown_share=settings.shown_share,
        )
        self._rng = np.random.default_rng(settings.seed)
        self._ahead = BatchPrefetch(self._buffer, settings.batch_size, self._rng)
        self._together = updates_over(self._buffer) if updates_over is not None else None
        self._taken = 0  # stored episodes that are in the buffer
        self._owed = 0  # updates to make before anything else
        self._offline = 0  # updates on the episodes to start from, beside those that live ticks allow
        self._live_ticks = 0
        self._published_at = 0  # updates when weights were published last
        self.message = b""  # the weights published last
        self.updates = self.version = 0
        self.busy_s = 0.0
        self.figures: dict[str, float] = {}
        self.problem = ""
        self._reach: Reachability | None = None
        self._reach_of = -1  # changes of the buffer that it was measured at
        self._insists = False  # on the weights given out last, after a rollback
        if self._checkpoint.exists():
            self._resume()
        else:
            self._start()
        self._count_on()

    @property
    def episodes(self) -> int:
        """Episodes in the buffer."""
        return self._buffer.episodes

    @property
    def buffer_size(self) -> int:
        """Transitions in the buffer."""
        return self._buffer.size

    @property
    def guided_size(self) -> int:
        """Transitions that a person showed."""
        return self._buffer.guided_size

    def reachability(self) -> Reachability | None:
        """Return what the corrections ask of the residual; None where its bounds are not known."""
        if self._buffer.changes != self._reach_of:
            self._reach, self._reach_of = self._measure_reach(), self._buffer.changes
        return self._reach

    def _measure_reach(self) -> Reachability | None:
        settings, size = self._settings, self._settings.action_size
        scale = settings.algorithm.get("scale")
        if not isinstance(scale, list) or len(scale) != size:
            return None
        bounds = [float(bound) for bound in scale if isinstance(bound, int | float)]
        names = settings.action_names or tuple(map(str, range(size)))
        chooses = settings.algorithm.get("gripper") is not None
        return Reachability.of(self._buffer.corrections(), names, bounds, gripper=chooses)

    @property
    def behind(self) -> bool:
        """True when ticks come faster than the learner can use them."""
        schedule = self._settings.schedule
        if isinstance(schedule, LockStep):
            return self._taken < len(self._store)
        return max(self.updates - self._offline, 0) < schedule.min_updates_per_tick * self._live_ticks

    def accept(self, episode: EpisodeArrays, payload: bytes | None = None) -> Literal["stored", "known"]:
        """Bring an episode to the disk, to be learned from soon.

        Raises:
            BadInputError: it cannot be learned from; nothing is stored.
            OSError: the disk is full or failing.
        """
        if self._store.knows(episode.key):
            return "known"
        self._store.add(episode, self._checked(episode, payload))
        return "stored"

    def _checked(self, episode: EpisodeArrays, payload: bytes | None = None) -> bytes:
        """Return the message of `episode` to be stored; what came as a `payload` was checked as one on arrival.

        Raises:
            BadInputError: it cannot be learned from, or not be read back.
        """
        refuse_other_bundle(episode, self._settings.bundle_sha256)
        found = (episode.features.shape[1], episode.proprio.shape[1], episode.base.shape[1])
        settings = self._settings
        wanted = (settings.feature_size, settings.proprio_size, settings.action_size)
        if found != wanted:
            raise BadInputError(
                f"run {episode.key.run_id} episode {episode.key.episode}: features, proprioception and action have "
                f"sizes {found} (allowed {wanted}); start the learner with the robot's bundle"
            )
        transitions(episode, n_step=1, discount=self._settings.discount)  # refuses what may not be learned from
        try:
            return sound_message(episode) if payload is None else payload
        except MalformedMessageError as error:
            where = f"run {episode.key.run_id} episode {episode.key.episode}"
            raise BadInputError(f"{where}: cannot be learned from ({error}); leave it out") from error

    def newest_revision(self, run_id: str, episode: int) -> int:
        """Return the newest revision of an episode that is stored, -1 when there is none."""
        return self._store.newest_revision(run_id, episode)

    def step(self, newer_than: int = 0) -> bool:
        """Do the next piece of work, one update at most (some on a GPU); False when there is none.

        `newer_than` is a version that some robot has already: versions given out freely are above it.
        """
        schedule = self._settings.schedule
        if self._insists and newer_than > self.version:
            self._give_out(newer_than + 1, self._given_out(self.message))
        if self._owed > 0:
            self._owed -= self._update(self._owed)
            if self._owed == 0:
                self._ahead.halt()
                self._publish(newer_than)
            return True
        if self._taken < len(self._store):
            fresh = self._take()
            if fresh and isinstance(schedule, LockStep):
                self._owed = schedule.updates_per_episode if self.ready else 0
                if self._owed == 0:
                    self._publish(newer_than)
            return True
        if isinstance(schedule, LockStep):
            return False
        return self._step_freely(schedule, newer_than)

    def save(self) -> None:
        """Write the checkpoint. Raises HandrailError when learning has diverged; the last good one then stays."""
        from policy.learner_checkpoint import save_checkpoint  # torch, in the learner's process only

        self._finite_tensors()
        self._ahead.halt()  # the generator as it is after the last batch that was learned from
        self._buffer.sync()  # what the checkpoint says is in the buffer is on the disk before it says so
        state = {
            "fingerprint": self._settings.fingerprint(),
            "learner": self._learner.state_dict(),
            "rng": self._rng.bit_generator.state,
            "message": np.frombuffer(self.message, dtype=np.uint8),
            "cursors": {name: getattr(self, name) for name in _CURSORS},
        }
        save_checkpoint(self._checkpoint, state)
        self._buffer.settle()
        self._history.keep_state(self.version, self._checkpoint)

    def roll_back(self, version: int) -> None:
        """Give out the weights of `version` once more, as a new version, and learn on from the state that led to them.

        That state is the newest kept one that is no later than those weights. What was learned since is forgotten; the
        episodes are not, so the updates on them are made anew, with the labels that they have by now.

        Raises:
            BadInputError: the schedule is lock-step, which knows one version per episode; or they are not kept.
        """
        if isinstance(self._settings.schedule, LockStep):
            raise BadInputError("rollback: in lock-step each episode has its version; roll back without --lock-step")
        tensors = self._given_out(self._history.weights(version))
        self._ahead.halt()
        while self._taken < len(self._store):
            self._take()
        state = self._state_before(version)
        self._learner.load_state_dict(state["learner"])
        self._rng.bit_generator.state = state["rng"]
        self.updates, self._owed, self._insists = state["cursors"]["updates"], 0, True
        self._take_as_given_out(self.version + 1, self._packed(self.version + 1, tensors))
        self.save()  # first: after a kill in between, robots get these weights, and not those that led away from them
        self._write_weights()

    def _state_before(self, version: int) -> dict[str, Any]:
        """Return the newest kept state that had learned no more than the weights of `version`."""
        state = self._load(self._history.state_before(version))
        cursors = state["cursors"]
        if cursors["version"] == version and cursors["updates"] > cursors["_published_at"]:  # saved a while after
            state = self._load(self._history.state_before(version - 1))
        return state

    @property
    def ready(self) -> bool:
        """True once there are transitions enough to begin with."""
        return self._buffer.size >= self._settings.min_transitions

    def _step_freely(self, schedule: FreeRunning, newer_than: int) -> bool:
        room = math.ceil(schedule.max_updates_per_tick * self._live_ticks) + self._offline - self.updates
        allowed = self.ready and room > 0
        if allowed:
            self._update(room)
        else:
            self._ahead.halt()
        waiting = self.updates - self._published_at
        due = waiting >= schedule.publish_every_updates or (waiting > 0 and not allowed)
        if due and not self.behind:
            try:
                self._publish(newer_than)
                self.problem = ""
            except OSError as error:  # robots keep what they have until there is room
                self.problem = f"{self._settings.state_dir}: cannot write weights ({error.strerror}); free some space"
        return allowed

    def _update(self, most: int) -> int:
        """Make one update, or up to `most` together; return how many."""
        started_s = time.perf_counter()
        settings, made = self._settings, 1
        if self._together is not None:
            made = min(most, UPDATES_TOGETHER)
            self.figures = self._together.run(made, self._rng)
        elif settings.prefetch:
            self.figures = self._learner.update(self._ahead.next())
        else:
            self.figures = self._learner.update(self._buffer.sample(settings.batch_size, self._rng))
        self.updates += made
        self.busy_s += time.perf_counter() - started_s
        return made

    def _take(self) -> bool:
        """Bring the next stored episode into the buffer; True for its first revision."""
        episode, settings = self._store.load(self._taken), self._settings
        # it may have been stored for a checkpoint that was taken away
        refuse_other_bundle(episode, settings.bundle_sha256)
        data = transitions(
            episode,
            n_step=settings.n_step,
            discount=settings.discount,
            doubt_ticks=settings.doubt_ticks,
            cut_at_handover=settings.cut_at_handover,
            level=settings.hindsight,
        )
        fresh = self._store.is_first(self._taken)
        self._ahead.halt()
        self._buffer.add(episode.key, data, self._store.size(self._taken))
        self.problem = self._buffer.problem or self.problem
        self._taken += 1
        if fresh:
            self._live_ticks += data.size
        return fresh

    def _publish(self, newer_than: int) -> None:
        lock_step = isinstance(self._settings.schedule, LockStep)
        self._give_out(self.version + 1 if lock_step else max(self.version, newer_than) + 1, self._finite_tensors())
        self._insists = False

    def _give_out(self, version: int, tensors: Mapping[str, Floats]) -> None:
        """Make the weights message of `version`. On the disk first: no version is ever given out twice."""
        message = self._packed(version, tensors)
        self._history.keep_weights(version, message)
        write_whole(self._weights, message)
        self._take_as_given_out(version, message)

    def _packed(self, version: int, tensors: Mapping[str, Floats]) -> bytes:
        return weights.pack(
            version=version,
            run_id=self._settings.run_id,
            bundle_sha256=self._settings.bundle_sha256,
            dims=self._dims,
            tensors=tensors,
            # a lock-step run gives the same bytes each time
            created_utc=EPOCH_UTC if isinstance(self._settings.schedule, LockStep) else None,
        )

    def _take_as_given_out(self, version: int, message: bytes) -> None:
        self.message, self.version, self._published_at = message, version, self.updates

    def _write_weights(self) -> None:
        self._history.keep_weights(self.version, self.message)
        write_whole(self._weights, self.message)

    def _given_out(self, message: bytes) -> dict[str, Floats]:
        """Return what is in a weights message of this learner. Raises BadInputError when it is damaged."""
        try:
            header = read_header(message)
            tensors = safetensors.numpy.load(message)
            whole = weights.pack(
                version=int(header["weights_version"]),
                run_id=header["run_id"],
                bundle_sha256=header["bundle_sha256"],
                dims=self._dims,
                tensors=tensors,
                created_utc=header["created_utc"],
            )
        except (WeightsRefused, safetensors.SafetensorError, ValueError) as error:
            raise BadInputError(
                f"{self._settings.state_dir}: kept weights are damaged ({error}); restore them"
            ) from None
        if whole != message:  # the checksum in it is another, or it is of another learner
            raise BadInputError(f"{self._settings.state_dir}: kept weights are damaged or not its own; restore them")
        return tensors

    def _count_on(self) -> None:
        """Go on from the newest version given out, which may be later than the checkpoint.

        In lock-step the same version is made again, bit for bit.
        """
        newest = max(self._history.versions, default=0)
        if not isinstance(self._settings.schedule, LockStep) and newest > self.version:
            self.version, self.message = newest, self._history.weights(newest)
        elif self._insists and newest < self.version:
            self._write_weights()  # killed within a rollback

    def _finite_tensors(self) -> dict[str, Floats]:
        tensors = self._learner.tensors()
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise HandrailError(
                    f"learner: {name} is not finite after {self.updates} updates; robots keep the weights in force, "
                    f"start the learner again to go on from {self._checkpoint} or lower its learning rates"
                )
        return tensors

    def _start(self) -> None:
        self._buffer.clear()
        for episode in episodes_to_start_from(self._settings):
            self._checked(episode)  # all of them first: what is stored stays, though its folder is named no more
        for episode in episodes_to_start_from(self._settings):
            self.accept(episode)
        if self._settings.demonstrations or self._settings.episodes or self._settings.endpoint is None:
            while self._taken < len(self._store):
                self._take()
        # else: what is stored already came live to a learner whose checkpoint is gone, and is learned once more
        self._live_ticks = 0
        if self._settings.offline_updates and not self.ready:
            raise BadInputError(
                f"learner: the episodes to start from give {self._buffer.size} transitions "
                f"(min_transitions {self._settings.min_transitions}); name more or lower learner.min_transitions"
            )
        self._owed = self._offline = self._settings.offline_updates
        self.save()  # from here on, what is stored beyond `_taken` came live

    def _resume(self) -> None:
        state = self._load(self._checkpoint)
        refuse_more(self._settings, self._store)
        if state["cursors"]["_taken"] > len(self._store):
            raise BadInputError(
                f"{self._checkpoint}: learned from {state['cursors']['_taken']} stored episodes, {len(self._store)} "
                "are there; restore the others or choose another state_dir"
            )
        wanted = state["cursors"]["_taken"]
        self._taken, fault = self._buffer.restore(self._store.files(wanted))
        if fault:
            print(
                f"{self._settings.state_dir / 'replay'}: {fault}; made anew from the stored episodes", file=sys.stderr
            )
        while self._taken < wanted:
            self._take()
        for name in _CURSORS:
            if name in state["cursors"]:  # an older release wrote fewer
                setattr(self, name, state["cursors"][name])
        self._learner.load_state_dict(state["learner"])
        self._rng.bit_generator.state = state["rng"]
        self.message = state["message"].tobytes()

    def _load(self, path: Path) -> dict[str, Any]:
        """Return a state that `save` wrote. Raises BadInputError when it is damaged or of other settings."""
        from policy.learner_checkpoint import load_checkpoint  # torch, in the learner's process only

        state = load_checkpoint(path)
        now, then = self._settings.fingerprint(), state["fingerprint"]
        for name in now | then:
            if then.get(name) != now.get(name):
                raise BadInputError(
                    f"{path}: made with {name} {then.get(name)!r} (now {now.get(name)!r}); "
                    "go on with the same settings or choose another state_dir"
                )
        return state


def _conditions(settings: LearnerSettings) -> dict[str, Any]:
    """What the rows of an episode depend on beside the episode: settings, and the code that makes them."""
    code = hashlib.sha256()
    for module in (transition_rules, hindsight, learner_episode, observation_history, replay_rows, replay_buffer):
        assert module.__file__ is not None, "modules of our own lie in files"
        code.update(Path(module.__file__).read_bytes())
    rules = {"n_step", "discount", "doubt_ticks", "cut_at_handover", "hindsight"}
    chosen = settings.model_dump(mode="json", include=rules)
    return chosen | {"code": code.hexdigest()}
