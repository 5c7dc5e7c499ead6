"""What the corrections in a run's recordings ask of the residual that its station allows."""

from __future__ import annotations

from collections.abc import Iterable

from policy.episode_reader import Episode
from policy.learner_episode import of_episode
from policy.manifest import Manifest
from policy.reachability import Reachability, corrections
from teleop.station import Station


def run_reachability(station: Station, manifest: Manifest, episodes: Iterable[Episode]) -> Reachability | None:
    """Measure the corrections of committed `episodes`; None for a station without a residual.

    Raises:
        BadInputError: a file is damaged.
    """
    if station.residual is None:
        return None
    dims = manifest.action.dims
    driven = (of_episode(episode) for episode in episodes if episode.array("tick/engaged").any())
    return Reachability.of(
        corrections(driven, len(dims)), dims, station.residual.scale, gripper=station.residual.gripper
    )
