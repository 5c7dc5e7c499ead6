"""What a policy needs that is asked ahead of time, from the station and the bundle: rule, source, process."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from policy.action_space import ActionSpace
from policy.bundle import Bundle
from policy.chunk_process import ChunkServerConfig
from policy.chunk_ring import RingSource, new_rings
from policy.chunk_source import HUNG_DEADLINES, ChunkRequest, ChunkSource, DelayedSource
from policy.remote_policy import RemotePolicy, RemoteSettings, check_remote_endpoint
from robot.errors import BadInputError
from teleop.chunk_plan import ChunkPlan
from teleop.station import LoadedStation, PolicyConfig, Station
from teleop.supervision import ChildPlan
from teleop.supervisor import Supervisor

CHILD = "policy"


def make_chunk_plan(station: Station, bundle: Bundle) -> ChunkPlan | None:
    """The rule by which chunks are asked for ahead of time; None for a policy that is asked within the tick."""
    manifest, config = bundle.manifest, station.policy
    if not config.asynchronous:
        return None
    return ChunkPlan(
        period_s=station.period_s,
        deadline_s=config.deadline_s,
        execute_steps=manifest.execute_steps,
        seam_ticks=config.seam_ticks,
        seam_bound=config.seam_bound,
        blended=ActionSpace(manifest.action).motion,
    )


def make_chunk_source(station: Station, bundle: Bundle) -> ChunkSource | None:
    """What answers requests in lock-step, here and at once, in virtual time after `simulated_delay_s`.

    None for a policy that is asked within the tick. Raises BadInputError where a remote policy cannot be asked.
    """
    config = station.policy
    if not config.asynchronous:
        return None
    settings = remote_settings(config)
    if bundle.manifest.remote is not None:
        act = RemotePolicy(bundle.manifest, settings).act
    else:

        def act(request: ChunkRequest) -> NDArray[np.float32]:
            return bundle.act(request.features, request.proprio)

    return DelayedSource(act, lambda: config.simulated_delay_s, hung_after_s=HUNG_DEADLINES * config.deadline_s)


def remote_settings(config: PolicyConfig) -> RemoteSettings:
    """Where a remote policy is, as the station says."""
    return RemoteSettings(
        endpoint=config.endpoint,
        prompt=config.prompt,
        api_key_variable=config.api_key_variable,
        deadline_s=config.deadline_s,
    )


def policy_misfits(loaded: LoadedStation, bundle: Bundle) -> list[str]:
    """One line per reason why what the station says of a slow or remote policy does not go with the bundle."""
    config, manifest = loaded.station.policy, bundle.manifest
    where, name = f"station {loaded.path}: policy", f"bundle {manifest.name!r}"
    lines = []
    if config.asynchronous and config.seam_ticks > manifest.chunk_length:
        lines.append(
            f"{where}.seam_ticks is {config.seam_ticks}, but a chunk of {name} has {manifest.chunk_length} actions "
            f"(allowed 0 to {manifest.chunk_length}); make it less"
        )
    if manifest.remote is None:
        if not config.endpoint:
            return lines
        return [
            *lines,
            f"{where}.endpoint is {config.endpoint!r}, but {name} acts itself; remove it or name a remote bundle",
        ]
    if not config.asynchronous:
        lines.append(f"{where}.mode is 'synchronous', but {name} acts elsewhere; say 'asynchronous'")
    try:
        check_remote_endpoint(config.endpoint)
    except BadInputError as error:
        lines.append(f"{where}.{error}")
    if config.api_key_variable and config.api_key_variable not in os.environ:
        lines.append(f"{where}.api_key_variable: the environment has no {config.api_key_variable}; export it first")
    return lines


def condemn_if_hung(source: RingSource, supervisor: Supervisor) -> None:
    """Have the chunk server killed and started anew when it hangs; for every tick.

    One that still loads does not hang, however long that takes. `ready` is read first: what was said before is heard.
    """
    if supervisor.board.places["ready"][supervisor.place(CHILD)] and source.hung:
        supervisor.condemn(CHILD)


class ChunkChild:
    """The chunk server as a process under the supervisor, in real time, and the loop's end of it.

    Entering makes the rings. `plan` is for the supervisor, `source` for the loop.
    """

    def __init__(self, station: Station, bundle: Bundle) -> None:
        self._station, self._bundle = station, bundle

    def __enter__(self) -> Self:
        """Make the rings. Raises BadInputError where there is no memory for them."""
        config, manifest = self._station.policy, self._bundle.manifest
        try:
            self._requests, self._replies = new_rings(manifest)
        except OSError as error:
            raise BadInputError(f"policy: no shared memory for its messages ({error.strerror}); free some") from None
        self.source = RingSource(
            manifest, self._requests, self._replies, hung_after_s=HUNG_DEADLINES * config.deadline_s
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.close()
        self._replies.close()

    @property
    def plan(self) -> ChildPlan:
        """How the supervisor starts it."""
        config = self._station.policy
        told = ChunkServerConfig(
            bundle=str(self._bundle.folder.resolve()),
            provider=config.provider,
            threads=config.threads,
            remote=remote_settings(config) if self._bundle.manifest.remote is not None else None,
        )
        rings = [("--requests", self._requests.files), ("--replies", self._replies.files)]
        arguments = [word for name, files in rings for word in (name, *map(str, files))]
        return ChildPlan(
            name=CHILD,
            module="policy.chunk_process",
            arguments=("--config", told.model_dump_json(), *arguments),
            files=(*self._requests.files, *self._replies.files),
            restart=True,
        )
