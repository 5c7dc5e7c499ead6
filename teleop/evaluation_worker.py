"""One process of an evaluation: `python -m teleop.evaluation_worker`, a job as JSON on stdin, a line per episode out.

A process of its own and not a fork: MuJoCo, ONNX Runtime and the evaluation's own threads do not survive one.
"""

from __future__ import annotations

import base64
import gc
import os
import sys
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel

from policy.episode_header import EpisodeHeader, LabelSource
from policy.provenance import Provenance, collect_provenance, utc_now
from policy.weights import Expected, unpack
from robot.clock import VirtualClock
from robot.errors import BadInputError, HandrailError
from robot.simulation.layout import Split
from teleop.chunk_parts import make_chunk_source
from teleop.exploration import Exploration
from teleop.loop import ControlLoop
from teleop.loop_parts import LoopParts
from teleop.rig import Rig, make_pipeline
from teleop.station import ExplorationConfig, LoadedStation, Station
from teleop.tick import TickState
from teleop.unattended import Unattended
from teleop.unrecorded import Unrecorded
from teleop.weights_in_force import WeightsInForce


class Job(BaseModel):
    """What a worker does.

    Attributes:
        station: values in force.
        path: the station file, for the bundle's relative path and for messages.
        weights: base64 of a weights message; None for the base policy alone.
        split, seed: family of layouts.
        layouts: indices of the layouts, in this order.
    """

    station: Station
    path: Path
    weights: str | None
    split: Split
    seed: int
    layouts: list[int]


class Line(BaseModel):
    """One finished episode."""

    layout: int
    outcome: str
    ticks: int


def evaluate_layouts(job: Job, lines: TextIO) -> None:
    """Run the job's layouts in lock-step without a person and write a `Line` to `lines` for each."""
    loaded = LoadedStation(station=job.station, path=job.path)
    station, clock = job.station, VirtualClock()
    person = Unattended()
    with Rig(loaded, clock, seed=job.seed) as rig:
        manifest = rig.bundle.manifest
        expected = Expected.of(manifest, station.residual)
        message = base64.b64decode(job.weights) if job.weights else expected.initial_weights("none")
        weights = unpack(message, expected)
        loop = ControlLoop(
            LoopParts(
                clock=clock,
                arm=rig.arm,
                synchroniser=rig.synchroniser,
                human=person,
                pipeline=make_pipeline(station, rig.bundle, rig.safety()),
                recorder=Unrecorded(),
                weights=WeightsInForce(weights.head, weights.version, weights.sha256),
                exploration=Exploration(ExplorationConfig(), seed=0),
                health=rig.check,
                chunks=make_chunk_source(station, rig.bundle),
                homing=rig.homing(),
                judge=rig.judge,
                task_reward=rig.task_reward(),
                watcher=None,
                labels=LabelSource.TASK,
                spec=rig.spec,
                period_s=station.period_s,
                timeout_s=station.episode.timeout_s,
                reset_timeout_s=station.episode.reset_timeout_s,
            )
        )
        provenance = collect_provenance(clock, operator=None)
        gc.freeze()
        gc.disable()
        for index in job.layouts:
            rig.clear()
            if not loop.armed:  # also after an episode that ended in a latched fault
                person.arm()
            loop.wait_armed()
            layout = rig.draw_layout(job.split, job.seed, index)
            result = loop.run_episode(
                lambda state, index=index: _header(rig, index, state, provenance),  # type: ignore[misc]
                lambda start_s, layout=layout: rig.lay(layout, None, start_s),  # type: ignore[misc]
            )
            assert result.outcome is not None
            line = Line(layout=index, outcome=result.outcome.outcome.value, ticks=result.ticks)
            print(line.model_dump_json(), file=lines, flush=True)
            gc.collect()


def _header(rig: Rig, index: int, state: TickState, provenance: Provenance) -> EpisodeHeader:
    """A header that nobody keeps."""
    return EpisodeHeader(
        run_id="evaluation",
        episode=index,
        started_utc=utc_now(),
        rate_hz=rig.station.loop.rate_hz,
        spec=rig.spec,
        env_args={},
        station_sha256="0" * 64,
        bundle_sha256=rig.bundle.sha256,
        reward_sha256=rig.reward_sha256,
        action=rig.bundle.manifest.action,
        filter_state={},
        arbiter_state={},
        open_loop=False,
        provenance=provenance,
    )


def main() -> int:
    """Read the job and run it; errors are one line on stderr."""
    # whatever else prints in this process, such as an environment's physics, is no line of ours
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        evaluate_layouts(Job.model_validate_json(sys.stdin.read()), lines)
    except HandrailError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, BadInputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
