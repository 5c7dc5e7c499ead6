"""A recorder that keeps nothing, for measurements that only count outcomes."""

from __future__ import annotations

from policy.episode_header import EpisodeHeader, EpisodeOutcome
from policy.episode_schema import Row


class Unrecorded:
    """Takes every row and forgets it."""

    def begin(self, header: EpisodeHeader) -> None:
        """Start an episode."""

    def put(self, row: Row) -> bool:
        """Forget a row."""
        return True

    def end(self, outcome: EpisodeOutcome) -> None:
        """End an episode."""

    def close(self) -> None:
        """Let go of nothing."""
