"""The part of a report that shows one corrected episode: what every voice wanted, and what the cameras saw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy.episode_reader import read_episode
from teleop.arbiter import Source
from teleop.episode_digest import EpisodeDigest
from teleop.report_page import VOICE_KEY, colour_key, figure, strip, text
from teleop.report_plots import traces_figure
from teleop.report_svg import picture

_MOMENTS = 8
_WIDE_PIXELS, _MANY_CAMERAS_PIXELS = 160, 96  # keep the page below 3 MB for three, and for more cameras


def corrected_episode(digest: EpisodeDigest, number: int) -> list[str]:
    """Return the parts of the section, as HTML; `number` counts the training episodes from 1.

    Raises:
        BadInputError: the file is gone or damaged.
    """
    episode = read_episode(digest.path)
    spec, rate_hz = episode.header.spec, digest.rate_hz
    logged = episode.arrays(["tick/base", "tick/residual", "tick/human", "tick/commanded"])
    voices = {name.removeprefix("tick/"): values.astype(np.float64) for name, values in logged.items()}
    # without a proposal nothing is corrected: the log's zeros there are no voice
    voices["residual"] = np.where(np.isfinite(voices["base"]), voices["residual"], np.nan)
    first = int(np.argmax(digest.sources == Source.HUMAN))
    chosen = "that succeeded, " if digest.success else "(none succeeded) "
    words = (
        f"Training episode {number}: {digest.outcome.value} after {digest.ticks / rate_hz:.1f} s. The person"
        f" took over {_times(digest.interventions)}, first at {first / rate_hz:.1f} s, and drove"
        f" {digest.human_ticks / rate_hz:.1f} s in all (shaded). Of the corrected episodes {chosen}"
        "it is the one in which the person drove for the median time."
    )
    note = (
        "Actions are normalised; the base and the residual go on in shadow while the person drives. Dotted: the bound "
        "of the residual. The commanded action is what the safety filter let through."
    )
    moments = _moments(digest.sources)
    most_pixels = _WIDE_PIXELS if len(spec.cameras) <= 3 else _MANY_CAMERAS_PIXELS
    cameras: dict[str, list[str]] = {}
    for name, _, _ in spec.cameras:
        images = episode.array(f"obs/{name}_image").astype(np.uint8)
        cameras[name] = [picture(images[tick], most_pixels=most_pixels) for tick in moments]
    at = [(f"{tick / rate_hz:.1f} s", Source(int(digest.sources[tick]))) for tick in moments]
    return [
        text(words),
        colour_key(VOICE_KEY),
        figure(traces_figure(voices, digest.sources, episode.header.action, episode.header.residual_scale, rate_hz)),
        text(note, "note"),
        strip(at, cameras),
    ]


def _moments(sources: NDArray[np.uint8]) -> list[int]:
    """Ticks to show: evenly spread from the end of the reset to the end, the first of the person's among them."""
    driven = np.flatnonzero(sources != Source.RESET)
    ticks = driven[np.linspace(0, len(driven) - 1, min(_MOMENTS, len(driven))).round().astype(int)]
    takeover = int(np.argmax(sources == Source.HUMAN))
    ticks[np.argmin(np.abs(ticks - takeover))] = takeover
    return [int(tick) for tick in ticks]


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
