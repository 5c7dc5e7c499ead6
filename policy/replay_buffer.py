"""What the learner learns from: the transitions of many episodes in one contiguous array."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.learner_episode import EpisodeKey, Floats, Mask
from policy.observation_history import PRESENT, HistoryTicks
from policy.replay_log import PlacedEpisode, ReplayLog, Rows
from policy.replay_rows import FLAGS, RowIndex, RowLayout, RowStore
from policy.transitions import Transitions

_SPARE_ROWS = 65536  # episodes that are added before others make room, and rows that wait for a checkpoint
_NO_ROWS: Rows = np.zeros(0, np.int32)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B transitions. Float32 views into rows, so the values of one field do not lie side by side.

    Where several ticks are seen, F and P are of them all, see `policy.observation_history`.

    Attributes:
        features, proprio, base: where the window starts, (B, F), (B, P), (B, A).
        action: executed there, (B, A).
        reward: discounted sum over the window, (B,).
        discount: factor of the bootstrapped value, (B,); 0 after success or failure.
        next_features, next_proprio, next_base: where the value is bootstrapped.
        human: a person's action was at work, (B,) bool.
        human_action: what the person asked for, in ticks of `hindsight` what they would have, NaN in dimensions of
            which they said nothing, (B, A); 0 on other ticks.
        hindsight: a later takeover put right what the policy did, (B,) bool.
        approved: the policy acted, the person let it, and the episode ended in success, (B,) bool.
        demonstration: the episode was a demonstration, (B,) bool.
    """

    features: Floats
    proprio: Floats
    base: Floats
    action: Floats
    reward: Floats
    discount: Floats
    next_features: Floats
    next_proprio: Floats
    next_base: Floats
    human: Mask
    human_action: Floats
    hindsight: Mask
    approved: Mask
    demonstration: Mask


class BatchRows:
    """Memory for the rows of a batch: here (B, W), there (B, W). A later draw into it overwrites its batch."""

    def __init__(self, layout: RowLayout, batch_size: int) -> None:
        self.here: Floats = np.empty((batch_size, layout.width), np.float32)
        self.there: Floats = np.empty((batch_size, layout.width), np.float32)
        flags = self.here.view(np.bool_)
        columns = layout.columns()
        fields: dict[str, Any] = {name: self.here[:, place] for name, place in columns.items()}
        fields |= {f"next_{name}": self.there[:, columns[name]] for name in ("features", "proprio", "base")}
        fields |= {name: fields[name][:, 0] for name in ("reward", "discount")}
        fields |= {name: flags[:, layout.flag(name)] for name in FLAGS}
        self._windows: list[tuple[slice, Floats, Floats]] = []  # columns of one tick; windows here and there
        for name in ("features", "proprio"):
            ticks, size = layout.history.ticks(name), columns[name].stop - columns[name].start
            if ticks > 1:
                here, there = np.empty((2, batch_size, ticks * size), np.float32)
                fields |= {name: here, f"next_{name}": there}
                self._windows.append((columns[name], here, there))
        self._layout = layout
        self.batch = Batch(**fields)
        self.next_row: NDArray[np.int32] = self.here.view(np.int32)[:, layout.next_row]

    def take(self, values: Floats, rows: Rows) -> None:
        """Bring what begins at `rows` (B,) of all `values` (R, W) here."""
        # "clip", because "raise" goes through a copy; indices are within bounds by construction
        values.take(rows, axis=0, out=self.here, mode="clip")
        values.take(self.next_row, axis=0, out=self.there, mode="clip")
        if self._windows:
            previous = values.view(np.int32)[:, self._layout.previous_row]
            both = np.concatenate((rows, self.next_row))
            self._look_back(values, previous, both)

    def _look_back(self, values: Floats, previous: Rows, rows: Rows) -> None:
        """Fill the windows that end at `rows` (2B,), here and there, from the present tick back."""
        count = len(self.here)
        for back in range(self._layout.history.longest):
            for columns, here, there in self._windows:
                size = columns.stop - columns.start
                end = here.shape[1] - back * size
                if end <= 0:
                    continue
                if back == 0:
                    here[:, end - size :], there[:, end - size :] = self.here[:, columns], self.there[:, columns]
                    continue
                found = values[rows, columns]
                here[:, end - size : end], there[:, end - size : end] = found[:count], found[count:]
            rows = previous[rows]


@dataclass(frozen=True)
class _Held:
    """An episode in the buffer: its rows, see `PlacedEpisode`."""

    revision: int
    frames: Rows
    steps: Rows
    guided: Rows


class ReplayBuffer:
    """Transitions by episode: newer revisions replace older ones, the oldest robot episodes make room.

    Batches depend on the order of `add` and on the generator given to `sample` alone. An episode comes and goes in time
    that grows with the episode and not with the buffer.
    """

    def __init__(
        self,
        *,
        feature_size: int,
        proprio_size: int,
        action_size: int,
        history: HistoryTicks = PRESENT,
        max_frames: int = 1_000_000,
        folder: Path | None = None,
        ram_bytes: int | None = None,
        conditions: Mapping[str, Any] | None = None,
        shown_share: float = 0.5,
    ) -> None:
        """Make an empty buffer.

        Args:
            feature_size: F, of one tick.
            proprio_size: P, of one tick.
            action_size: A.
            history: how many ticks a batch shows.
            max_frames: beyond it the oldest episodes without a person's help are dropped, then the oldest of all.
            folder: where the rows are kept for the next start, see `restore`; None keeps them in memory alone.
            ram_bytes: so many of the folder's rows are read and checked whole by `restore`; where there are more, they
                are read as they are drawn.
            conditions: what else the rows of an episode depend on (JSON); others make what is in the folder void.
            shown_share: of a batch that a person showed.

        Raises:
            OSError: the folder cannot be written to.
        """
        self.layout = RowLayout(feature_size, proprio_size, action_size, history)
        self._max_frames, self._shown_share = max_frames, shown_share
        self._log: ReplayLog | None = None
        path = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "rows.float32"
            sizes = {"features": feature_size, "proprio": proprio_size, "action": action_size, "frames": max_frames}
            if self.layout.chained:
                sizes["chained"] = 1
            self._log = ReplayLog(folder / "episodes.log", {"sizes": sizes, **(conditions or {})})
        self._ram_bytes = ram_bytes
        self._store = RowStore(self.layout.width, max_frames + _SPARE_ROWS, path)
        self._forget()
        self.changes = 0  # counts up when rows are written
        self.problem = ""  # with the folder; learning goes on

    @property
    def size(self) -> int:
        """Number of transitions that may be drawn."""
        return self._live.size

    @property
    def guided_size(self) -> int:
        """Number of them that are demonstrations or interventions."""
        return self._guided.size

    @property
    def episodes(self) -> int:
        """Number of episodes held."""
        return len(self._shown) + len(self._unshown)

    @property
    def rows(self) -> Floats:
        """All rows that were ever written, (R, W), see `RowLayout`; those of episodes that left are stale."""
        return self._store.values[: self._used]

    def add(self, key: EpisodeKey, data: Transitions, stored_bytes: int = 0) -> bool:
        """Take an episode, in place of its older revision; False when this or a newer one is here already.

        `stored_bytes` is the size of the file that it came from."""
        held = self._held(key)
        taken = held is None or held.revision < key.revision
        frames = steps = guided = _NO_ROWS
        block = np.zeros((0, self.layout.width), np.float32)
        if taken:
            block = self._block(data)
            frames = self._allocate(len(block))
            block.view(np.int32)[data.frame, self.layout.next_row] = frames[data.next_frame]
            if self.layout.chained:
                block.view(np.int32)[:, self.layout.previous_row] = frames[data.previous]
            self._store.values[frames] = block
            self.changes += 1
            steps, guided = frames[data.frame], frames[data.frame[data.human | data.demonstration]]
        record = PlacedEpisode(
            key=key, stored_bytes=stored_bytes, taken=taken, frames=frames, steps=steps, guided=guided,
            checksum=zlib.crc32(block.data),
        )  # fmt: skip
        if self._log is not None:
            try:
                self._log.append(record)  # after the rows: what the log tells of is there
            except OSError as error:
                self._leave_folder(error)
        self._place(record)
        return taken

    def corrections(self, most: int = 50_000) -> Floats:
        """Return |human - base| (N, A) of at most `most` transitions that a person drove, see `policy.reachability`."""
        rows = self._store.values[self._guided.members[: min(most, self.guided_size)]]
        flags, columns = rows.view(np.bool_), self.layout.columns()
        driven = flags[:, self.layout.flag("human")]
        misses: Floats = np.abs(rows[:, columns["human_action"]] - rows[:, columns["base"]])
        return misses[driven]

    def draw(self, batch_size: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """Draw rows (B,) with replacement: `shown_share` of what a person showed, the rest of everything.

        Symmetric sampling of Ball et al. 2023, "Efficient online reinforcement learning with offline data".

        Raises:
            ValueError: the buffer is empty.
        """
        if self.size == 0:
            raise ValueError("the replay buffer holds no transition to draw")
        shown = int(batch_size * self._shown_share) if self.guided_size else 0
        rows = np.empty(batch_size, np.int32)
        rows[:shown] = self._guided.members[rng.integers(max(self.guided_size, 1), size=shown)]
        rows[shown:] = self._live.members[rng.integers(self.size, size=batch_size - shown)]
        return rows

    def sample(self, batch_size: int, rng: np.random.Generator, into: BatchRows | None = None) -> Batch:
        """Draw a batch; without `into` it has memory of its own. Raises ValueError when the buffer is empty."""
        into = into if into is not None else BatchRows(self.layout, batch_size)
        into.take(self._store.values, self.draw(batch_size, rng))
        return into.batch

    def restore(self, stored: Sequence[tuple[EpisodeKey, int]]) -> tuple[int, str]:
        """Take the first of the `stored` episodes (key, size of the file) from the folder, into an empty buffer.

        Returns:
            How many of them are in the buffer now, and why it is not all; the rest must be added.
        """
        assert self._log is not None, "a buffer without a folder has nothing to restore"
        assert self.episodes == 0, "only an empty buffer is restored"
        records, ends = self._log.records()
        sound = 0
        for record, (key, size) in zip(records, stored, strict=False):
            if (record.key, record.stored_bytes) != (key, size):
                break
            sound += 1
        reason = "" if sound == len(stored) else f"{sound} of {len(stored)} episodes are in it"
        for record in records[:sound]:
            self._place(record)
        self._used = max((int(record.frames[-1]) + 1 for record in records[:sound] if len(record.frames)), default=0)
        later = [record.frames for record in records[sound:]]
        fault = self._unsound(records[:sound], later)
        if fault:
            self.clear()
            return 0, fault
        self._recount()
        self._log.cut(ends[sound - 1] if sound else None)
        return sound, reason

    def clear(self) -> None:
        """Drop everything, in the folder as well."""
        self._forget()
        if self._log is not None:
            self._log.cut()

    def sync(self) -> None:
        """Bring to the disk what `restore` needs. Raises OSError when the disk is failing."""
        if self._log is not None:
            self._store.sync()
            self._log.sync()

    def settle(self) -> None:
        """Say that nobody will restore less than what is here now, so that rows that became free may be used again."""
        self._free.extend(self._waiting)
        self._waiting.clear()

    def _forget(self) -> None:
        self._live, self._guided = RowIndex(), RowIndex()  # transitions that may be drawn, and those that were shown
        self._shown: OrderedDict[tuple[str, int], _Held] = OrderedDict()
        self._unshown: OrderedDict[tuple[str, int], _Held] = OrderedDict()
        self._frames = 0  # of the episodes held
        self._used = 0  # rows that were ever written
        self._free: list[Rows] = []
        self._waiting: list[Rows] = []  # free for good once a checkpoint knows that they are

    def _held(self, key: EpisodeKey) -> _Held | None:
        identity = (key.run_id, key.episode)
        return self._shown.get(identity) or self._unshown.get(identity)

    def _leave_folder(self, error: OSError) -> None:
        """Go on in memory alone: what is learned does not wait for a disk that is full."""
        self.problem = f"replay rows are no longer kept for the next start ({error.strerror}); free some space"
        self._store.leave_file(self._used)
        if self._log is not None:
            self._log.close()
            self._log = None

    def _block(self, data: Transitions) -> Floats:
        """Return the rows of an episode (M, W), their next rows still to be filled in."""
        block = np.zeros((len(data.features), self.layout.width), np.float32)
        columns, flags = self.layout.columns(), block.view(np.bool_)
        for name in ("features", "proprio", "base"):
            block[:, columns[name]] = getattr(data, name)
        for name in ("action", "human_action"):
            block[data.frame, columns[name]] = getattr(data, name)
        for name in ("reward", "discount"):
            block[data.frame, columns[name].start] = getattr(data, name)
        for name in FLAGS:
            flags[data.frame, self.layout.flag(name)] = getattr(data, name)
        return block

    def _allocate(self, count: int) -> Rows:
        """Return `count` rows to write to, ascending."""
        parts, missing = [_NO_ROWS], count
        while missing and self._free:
            part = self._free.pop()
            parts.append(part[:missing])
            if len(part) > missing:
                self._free.append(part[missing:])
            missing -= len(parts[-1])
        try:
            self._store.provide(self._used + missing)
        except OSError as error:
            self._leave_folder(error)
            self._store.provide(self._used + missing)
        parts.append(np.arange(self._used, self._used + missing, dtype=np.int32))
        self._used += missing
        rows: Rows = np.concatenate(parts)
        rows.sort()
        return rows

    def _place(self, record: PlacedEpisode) -> None:
        """Let an episode be drawn whose rows are written."""
        if not record.taken:
            return
        identity = (record.key.run_id, record.key.episode)
        for episodes in (self._shown, self._unshown):
            if identity in episodes:
                self._remove(episodes.pop(identity))
        self._live.add(record.steps)
        self._guided.add(record.guided)
        held = _Held(record.key.revision, record.frames, record.steps, record.guided)
        (self._shown if len(record.guided) else self._unshown)[identity] = held
        self._frames += len(record.frames)
        while self._frames > self._max_frames and self.episodes > 1:
            self._remove((self._unshown or self._shown).popitem(last=False)[1])

    def _remove(self, held: _Held) -> None:
        self._live.remove(held.steps)
        self._guided.remove(held.guided)
        self._frames -= len(held.frames)
        if len(held.frames):
            # a start from the last checkpoint needs these rows as they are
            (self._free if self._log is None else self._waiting).append(held.frames)

    def _unsound(self, records: Sequence[PlacedEpisode], later: Sequence[Rows]) -> str:
        """Read the rows of the episodes held; return what is wrong with them, nothing if they are sound."""
        size = self._used * self._store.row_bytes
        if size > self._store.found_bytes:
            return f"{self._store.found_bytes} bytes of rows, {size} expected"
        try:
            self._store.provide(self._used)
        except OSError as error:
            return str(error.strerror)
        read = self._ram_bytes is None or size <= self._ram_bytes
        checksums = {(*record.key,): record.checksum for record in records}
        overwritten = np.zeros(self._used, np.bool_)
        for rows in later:
            overwritten[rows[rows < self._used]] = True
        for episodes in (self._shown, self._unshown):
            for (run_id, episode), held in episodes.items():
                if overwritten[held.frames].any():
                    return f"rows of run {run_id} episode {episode} were given to a later one"
                if not read or not len(held.frames):
                    continue
                first, end = int(held.frames[0]), int(held.frames[-1]) + 1
                together = end - first == len(held.frames)  # then no copy is needed
                values = self._store.values[first:end] if together else self._store.values[held.frames]
                if zlib.crc32(values.data) != checksums[run_id, episode, held.revision]:
                    return f"rows of run {run_id} episode {episode} are damaged"
        return ""

    def _recount(self) -> None:
        """Find the rows that nobody holds."""
        free = np.ones(self._used, np.bool_)
        for episodes in (self._shown, self._unshown):
            for held in episodes.values():
                free[held.frames] = False
        self._waiting.clear()
        self._free = [np.flatnonzero(free).astype(np.int32)] if free.any() else []
