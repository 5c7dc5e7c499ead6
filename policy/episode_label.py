"""Labels that come after an episode was committed."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py

from policy.episode_commit import Committed, describe
from policy.episode_file import COMMITTING, check_space, write_label
from policy.episode_header import LabelSource, Outcome
from policy.episode_reader import read_episode
from robot.errors import BadInputError
from robot.whole_file import sync


def label_episode(path: Path, outcome: Outcome, source: LabelSource) -> Committed:
    """Give a committed episode another label: the next revision takes its place under the same name, at once.

    The earlier labels stay in the file, and no array is touched: rewards, `terminated` and digests remain
    what the tick knew, the label in force is `Episode.outcome`. Someone who has the old revision open keeps it.

    Raises:
        BadInputError: the file is no sound episode, or `outcome` is incomplete, which no one can know better.
        NoSpaceError: the disk is full; the episode is untouched.
        OSError: the disk is failing; the same.
    """
    if outcome is Outcome.INCOMPLETE:
        raise BadInputError(f"{path}: 'incomplete' is no label for a person to give; allowed are the other outcomes")
    episode = read_episode(path)
    label = episode.outcome.model_copy(update={"outcome": outcome, "label_source": source})
    check_space(path.parent, path.stat().st_size)
    temporary = path.with_name(path.name + COMMITTING)
    try:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+") as file:
            write_label(file, [*episode.labels, label])
        sync(temporary)
        temporary.replace(path)
    except RuntimeError as error:  # h5py's name for some failed writes
        raise OSError(f"{temporary}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
    return describe(path)
