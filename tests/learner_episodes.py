"""Small made-up episodes for the learner's tests."""

from __future__ import annotations

import numpy as np

from policy.episode_header import Outcome
from policy.learner_episode import EpisodeArrays, EpisodeKey

FEATURES, PROPRIO, ACTION = 5, 3, 2
BUNDLE = "0" * 64


def made_up(
    episode: int, *, revision: int = 0, ticks: int = 12, outcome: Outcome = Outcome.SUCCESS, run_id: str = "run-1"
) -> EpisodeArrays:
    """Random ticks of which a person drove the middle third; the same for the same `episode`."""
    rng = np.random.default_rng(episode)
    number = np.arange(ticks)
    engaged = (number >= ticks // 3) & (number < 2 * ticks // 3)
    draw = {
        name: rng.normal(size=(ticks, width)).astype(np.float32)
        for name, width in (("features", FEATURES), ("proprio", PROPRIO), ("base", ACTION), ("human", ACTION))
    }
    human = np.where(engaged[:, None], draw["human"], np.nan).astype(np.float32)
    last = number == ticks - 1
    return EpisodeArrays(
        key=EpisodeKey(run_id, episode, revision),
        outcome=outcome,
        complete=True,
        open_loop=False,
        demonstration=False,
        bundle_sha256=BUNDLE,
        index=number,
        features=draw["features"],
        proprio=draw["proprio"],
        base=draw["base"],
        executed=np.where(engaged[:, None], draw["human"], draw["base"]),
        human=human,
        engaged=engaged,
        source=engaged.astype(np.int8),
        rewards=(last & (outcome is Outcome.SUCCESS)).astype(np.float32),
        terminated=last & (outcome in (Outcome.SUCCESS, Outcome.FAILURE)),
        truncated=last & (outcome is Outcome.TIMEOUT),
    )
