"""What the operator window shows of a tick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robot.command import Reason
from teleop.arbiter import HoldReason, Source


@dataclass(frozen=True, kw_only=True)
class OperatorStatus:
    """One tick as the person sees it. Cheap to build: it refers to the tick's images and copies nothing.

    Attributes:
        images: per camera, shape (H, W, 3) uint8, red first; sizes may differ.
        source: whose action reaches the arm.
        armed: False until the person arms, after a stop and after a fault.
        connected: False while the supervising device is unplugged.
        hold_reason: why nobody drives.
        safety: what the safety filter changed or refused.
        rate_hz: measured tick rate [Hz].
        wanted_rate_hz: tick rate of the station [Hz].
        tick: ticks since the start of the episode.
        episode: index of the episode, from 0.
        successes: episodes that ended in success so far.
        failures: episodes that ended in failure or timeout so far.
        notice: one line of news, such as new weights in force.
    """

    images: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    source: Source
    armed: bool
    connected: bool = True
    hold_reason: HoldReason = HoldReason.NONE
    safety: Reason = Reason.NONE
    rate_hz: float
    wanted_rate_hz: float
    tick: int
    episode: int
    successes: int
    failures: int
    notice: str = ""


def hold_sentence(
    hold_reason: HoldReason, safety: Reason, *, device: str, lost_cure: str, verbs: Mapping[str, str]
) -> str:
    """Why the arm holds and what ends it, in the words of the person's device; empty when nothing holds it.

    Args:
        hold_reason: every reason that holds now.
        safety: what the safety filter said, for a latched filter.
        device: name of the supervising device.
        lost_cure: how the person brings that device back.
        verbs: how each verb is given on it.
    """
    cures = {
        HoldReason.NOT_ARMED: f"not armed: press {verbs['arm']}",
        HoldReason.STOPPED: f"stopped: press {verbs['arm']} to arm again",
        HoldReason.PERSON_HOLD: f"held by you: press {verbs['hold']} to go on",
        HoldReason.DEVICE_SILENT: f"{device} was not read in time",
        HoldReason.DEVICE_UNPLUGGED: f"{device} is gone: {lost_cure}",
        HoldReason.STALE_FRAMES: "camera frames are too old: check links and load",
        HoldReason.SKEWED_FRAMES: "cameras are out of step",
        HoldReason.REPEATED_FRAMES: "a camera repeats its last frame",
        HoldReason.MISSING_FRAMES: "a camera gives no frames",
        HoldReason.NO_PROPOSAL: "the policy is late or its chunk is used up",
        HoldReason.OVERRUN: "the loop is slower than its period",
        HoldReason.FILTER_LATCHED: f"safety stop ({words(safety)}): clear its cause, press {verbs['arm']}",
    }
    return "; ".join(cures[reason] for reason in hold_reason)


def words(safety: Reason) -> str:
    """The filter's reasons in words."""
    return ", ".join((reason.name or "").lower().replace("_", " ") for reason in safety) or "latched before"
