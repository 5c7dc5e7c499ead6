"""What a learner gave out and was before, so that a person can go back to it.

Every version of the weights is kept, and beside some of them the whole state that they came from: a handful, spread
over all that was learned, the first one always.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from robot.errors import BadInputError
from robot.whole_file import write_whole

KEPT_WEIGHTS = 200
KEPT_STATES = 12
MAX_BYTES = 1 << 30  # of weights, and of states; large networks are kept less often
LEAST_KEPT = 4
_NAME = re.compile(r"(weights|state)-(\d{8,})\.safetensors")


class LearnerHistory:
    """Weights and checkpoints by version, in `<state>/history/`."""

    def __init__(self, state_dir: Path, *, kept_weights: int = KEPT_WEIGHTS, kept_states: int = KEPT_STATES) -> None:
        """Look what is there. Raises BadInputError when the folder cannot be made."""
        self._folder = state_dir / "history"
        self._kept_weights, self._kept_states = kept_weights, kept_states
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"{self._folder}: cannot be made ({error.strerror}); choose another folder") from error

    @property
    def versions(self) -> list[int]:
        """Versions of the weights that are kept, ascending."""
        return self._numbers("weights")

    @property
    def states(self) -> list[int]:
        """Versions of which the learner's state is kept, ascending; 0 is before the first weights."""
        return self._numbers("state")

    def keep_weights(self, version: int, message: bytes) -> None:
        """Keep the weights of `version` and drop the oldest beyond the bound. Raises OSError when the disk fails."""
        write_whole(self._path("weights", version), message)
        for old in self.versions[: -_count(self._kept_weights, len(message))]:
            self._path("weights", old).unlink()

    def keep_state(self, version: int, checkpoint: Path) -> None:
        """Keep the checkpoint file, just written, as the state at `version`, unless that is kept already.

        Raises:
            OSError: the disk is failing.
        """
        target = self._path("state", version)
        if target.exists():
            return
        try:
            os.link(checkpoint, target)  # the checkpoint is replaced by renaming, so this one stays as it is
        except OSError:  # a file system without such links
            making = target.with_name(target.name + ".writing")
            shutil.copyfile(checkpoint, making)
            making.replace(target)
        states, kept = self.states, _count(self._kept_states, target.stat().st_size)
        while len(states) > kept:
            # never the first nor the last: the one that is nearest to its neighbours
            gaps = [after - before for before, after in zip(states, states[2:], strict=False)]
            dropped = states.pop(1 + gaps.index(min(gaps)))
            self._path("state", dropped).unlink()

    def weights(self, version: int) -> bytes:
        """Return the weights of `version`. Raises BadInputError when they are not kept."""
        try:
            return self._path("weights", version).read_bytes()
        except OSError:
            there = self.versions
            told = f"{there[0]} to {there[-1]}" if there else "none"
            raise BadInputError(f"{self._folder}: has no weights {version} (there are: {told}); name one") from None

    def state_before(self, version: int) -> Path:
        """Return the newest kept state of at most `version`. Raises BadInputError when there is none."""
        states = [number for number in self.states if number <= version]
        if not states:
            raise BadInputError(f"{self._folder}: has no state of the learner at {version} or before; restore it")
        return self._path("state", states[-1])

    def _numbers(self, kind: str) -> list[int]:
        found = (_NAME.fullmatch(path.name) for path in self._folder.glob(f"{kind}-*.safetensors"))
        return sorted(int(match[2]) for match in found if match)  # a copy that a person laid there is none of ours

    def _path(self, kind: str, version: int) -> Path:
        return self._folder / f"{kind}-{version:08d}.safetensors"


def _count(most: int, size: int) -> int:
    """Return how many files of `size` bytes are kept."""
    return min(most, max(LEAST_KEPT, MAX_BYTES // max(size, 1)))
