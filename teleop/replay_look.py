"""The loop's synchroniser on logged frames: proprioception, skew and verdict once more."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np

from perception.config import SynchroniserConfig
from perception.frame import Frame
from perception.observation import Verdict
from perception.synchroniser import Synchroniser
from policy.episode_schema import EpisodeSpec, Row
from teleop.replay_finding import Finding, differing
from teleop.tick import TickInputs


class _LoggedCamera:
    """Gives the frame that the log has for the tick being replayed."""

    def __init__(self, name: str, height: int, width: int) -> None:
        self.name = name
        self.size = (height, width)
        self.frame: Frame | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def latest(self, now_s: float) -> Frame | None:
        return self.frame


class LoggedLook:
    """Observes logged frames as the loop did.

    How often a frame had been repeated before the first row is not in the log, so until each camera has shown
    a new one, fresh and repeated are taken as logged.
    """

    def __init__(self, spec: EpisodeSpec, config: SynchroniserConfig) -> None:
        self._spec, self._config = spec, config
        self.restart()

    def restart(self) -> None:
        """Forget the frames seen: an episode begins, or ticks are missing."""
        self._cameras = [_LoggedCamera(*camera) for camera in self._spec.cameras]
        keys = [key for key, _ in self._spec.proprio]
        self._synchroniser = Synchroniser(self._cameras, self._config, keys)
        self._first_ids: dict[str, int] = {}
        self._renewed: set[str] = set()

    def findings(self, row: Row, inputs: TickInputs) -> Iterator[Finding]:
        """Yield what the synchroniser sees otherwise than the log says."""
        look, tick = inputs.observation, inputs.index
        for camera in self._cameras:
            name, frame_id = camera.name, look.frame_ids[camera.name]
            camera.frame = None
            if frame_id >= 0:
                camera.frame = Frame(
                    camera=name,
                    frame_id=frame_id,
                    captured_s=look.captured_s[name],
                    arrived_s=look.arrived_s[name],
                    rgb=look.images[name],
                )
                if self._first_ids.setdefault(name, frame_id) != frame_id:
                    self._renewed.add(name)
            elif row[f"obs/{name}_image"].any():
                yield Finding(
                    tick=tick, field=f"obs/{name}_image", logged="a picture", expected="none, as its id is -1"
                )
        again = self._synchroniser.observe(inputs.now_s, look.state)
        for field, logged, expected in (
            ("tick/captured_s", look.captured_s, again.captured_s),
            ("tick/arrived_s", look.arrived_s, again.arrived_s),
        ):
            pair = [np.array([values[camera.name] for camera in self._cameras]) for values in (logged, expected)]
            found = differing(field, pair[0], pair[1], tick=tick, arithmetic=False)
            if found:
                yield found
        found = differing("tick/skew_s", np.array(look.skew_s), np.array(again.skew_s), tick=tick, arithmetic=False)
        if found:
            yield found
        unsure = len(self._renewed) < len(self._cameras)
        verdicts = {look.verdict, again.verdict}
        if len(verdicts) > 1 and not (unsure and verdicts == {Verdict.FRESH, Verdict.REPEATED}):
            yield Finding(tick=tick, field="tick/verdict", logged=look.verdict.name, expected=again.verdict.name)
        start = 0
        for key, size in self._spec.proprio:
            expected_values = again.proprio[start : start + size]
            found = differing(f"obs/{key}", row[f"obs/{key}"], expected_values, tick=tick, arithmetic=True)
            if found:
                yield found
            start += size
