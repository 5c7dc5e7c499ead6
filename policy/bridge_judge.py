"""Open-loop error of a bundle on the episodes of a recording that it was not trained on, without the loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.bridge_data import ActionStatistics, Steps, play, unseen
from policy.bundle import Bundle
from policy.open_loop import baseline_actions, open_loop_error
from robot.recording import Recording

Array = NDArray[np.float64]


def judge_bridge(recording: Recording, bundle: Bundle) -> dict[str, Any]:
    """Return the number of judged steps, the policy's error and those of the baselines.

    Raises:
        BadInputError: the bundle was trained on all episodes, or not on recordings.
    """
    steps = play(recording, 1)
    rows = np.isin(steps.episode, unseen(recording, bundle.manifest.training))
    statistics = ActionStatistics.from_training(bundle.manifest.training, f"bundle {bundle.folder}")
    operator = steps.chunk[rows, 0]
    opening = np.concatenate([episode.opening for episode in recording.episodes])[rows]
    baselines = baseline_actions(opening, statistics)
    errors = {name: open_loop_error(wanted, operator, statistics) for name, wanted in baselines.items()}
    return {
        "held_out_steps": len(operator),
        "error": open_loop_error(bundle_actions(bundle, steps, rows), operator, statistics).summary(),
        "baselines": {name: error.summary() for name, error in errors.items()},
    }


def bundle_actions(bundle: Bundle, steps: Steps, rows: NDArray[np.bool_]) -> Array:
    """Return the bundle's first actions on the steps `rows`, (n, 7), SI units and opening 0 to 1."""
    actions = np.stack(
        [
            bundle.act(
                bundle.encode({name: values[row] for name, values in steps.images.items()}, steps.proprio[row]),
                steps.proprio[row],
            )[0]
            for row in np.flatnonzero(rows)
        ]
    ).astype(np.float64)
    scale = np.array(bundle.manifest.action.scale[:6])
    return np.concatenate([actions[:, :6] * scale, (actions[:, 6:] + 1.0) / 2.0], axis=1)
