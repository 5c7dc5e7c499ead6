"""The episodes that a learner starts from, and those that it may not learn from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from policy.episode_reader import latest_revisions
from policy.learner_episode import EpisodeArrays, EpisodeKey, of_episode
from policy.learner_settings import LearnerSettings
from policy.learner_store import EpisodeStore
from robot.errors import BadInputError


def episodes_to_start_from(settings: LearnerSettings) -> Iterator[EpisodeArrays]:
    """Yield the episodes in the folders of the settings, without those that ended before their first tick."""
    for folder, demonstration in _folders(settings):
        for recorded in latest_revisions(folder):
            episode = of_episode(recorded, demonstration=demonstration)
            if len(episode.source):
                yield episode


def refuse_more(settings: LearnerSettings, store: EpisodeStore) -> None:
    """Raise BadInputError where folders hold what is not in the store: it would be left out without a word."""
    for folder, _ in _folders(settings):
        for recorded in latest_revisions(folder):
            key = EpisodeKey(*recorded.identity)
            if recorded.length and not store.knows(key):
                raise BadInputError(
                    f"{folder}: {settings.state_dir} has a learner that did not start from run {key.run_id} "
                    f"episode {key.episode} revision {key.revision}; choose another --state to start from these "
                    "episodes, or name none of them to go on"
                )


def refuse_other_bundle(episode: EpisodeArrays, wanted: str) -> None:
    """Raise BadInputError unless the bundle of hash `wanted` ran: features of another one mean something else."""
    found = episode.bundle_sha256 or "none"
    if found != wanted:
        raise BadInputError(
            f"run {episode.key.run_id} episode {episode.key.episode}: was recorded under bundle {found[:12]} "
            f"(allowed {wanted[:12]}, which this learner is for); leave it out, or start a learner in another "
            "state_dir with that bundle, which the episode's run keeps in bundles/"
        )


def _folders(settings: LearnerSettings) -> list[tuple[Path, bool]]:
    """Return the folders of the settings, and whether a person drove what is in them."""
    shown = [(folder, True) for folder in settings.demonstrations]
    return shown + [(folder, False) for folder in settings.episodes]
