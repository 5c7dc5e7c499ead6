"""A base policy that runs elsewhere: a bundle's observation in the server's words, and its actions in ours."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from perception.policy_image import in_order
from policy.chunk_source import ChunkRequest, MisshapenChunkError
from policy.link_security import is_loopback
from policy.manifest import Manifest
from robot.errors import BadInputError
from robot.strict import Strict


class RemoteSettings(Strict):
    """Where a remote policy is and what it is told.

    Attributes:
        endpoint: ws://127.0.0.1:8000 on this machine, wss://HOST:PORT elsewhere.
        prompt: what to do, for a policy that is told so in words.
        api_key_variable: environment variable that holds the server's API key, empty without one; a key in a station
            would end in every run folder.
        deadline_s: for one answer [s].
    """

    endpoint: str
    prompt: str = ""
    api_key_variable: str = ""
    deadline_s: float


def check_remote_endpoint(endpoint: str) -> None:
    """Raise BadInputError when `endpoint` is no websocket address, or leaves this machine without TLS.

    What comes back moves an arm, so nobody on the network may put words in the server's mouth.
    """
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or parts.scheme not in ("ws", "wss") or parts.username is not None or port == 0:
        raise BadInputError(f"endpoint: got {endpoint!r} (allowed ws:// or wss://HOST:PORT), e.g. ws://127.0.0.1:8000")
    if parts.scheme == "ws" and not is_loopback(host):
        raise BadInputError(
            f"endpoint: {endpoint!r} leaves this machine without TLS (allowed without: 127.0.0.1, ::1, localhost); "
            "use wss://, or an SSH tunnel to a loopback address"
        )


class RemotePolicy:
    """Gives chunks by asking a server. Connects when first asked; for one thread."""

    def __init__(self, manifest: Manifest, settings: RemoteSettings) -> None:
        """Prepare.

        Raises:
            BadInputError: the endpoint is not allowed, or the API key's variable is not set.
        """
        from policy.openpi_client import OpenpiClient  # websockets take time to load, which local policies do not have

        check_remote_endpoint(settings.endpoint)
        remote = manifest.remote
        assert remote is not None, "a bundle that acts itself"
        key = None
        if settings.api_key_variable:
            key = os.environ.get(settings.api_key_variable)
            if not key:
                raise BadInputError(
                    f"policy.api_key_variable: the environment has no {settings.api_key_variable}; export it first"
                )
        chunk_bytes = 8 * manifest.chunk_length * manifest.action.size
        self._client = OpenpiClient(settings.endpoint, key, chunk_bytes=chunk_bytes)
        self._remote, self._settings = remote, settings
        self._colours = {camera.name: camera.colour for camera in manifest.cameras}
        self._shape = (manifest.chunk_length, manifest.action.size)
        self._scale, self._offset = np.array(remote.scale), np.array(remote.offset)
        places, start = {}, 0
        self._proprio_scale = np.ones(manifest.proprio_size, np.float32)
        self._proprio_offset = np.zeros(manifest.proprio_size, np.float32)
        for entry in manifest.proprio:
            place = places[entry.key] = slice(start, start + entry.size)
            self._proprio_scale[place] = remote.state_scale.get(entry.key, 1.0)
            self._proprio_offset[place] = remote.state_offset.get(entry.key, 0.0)
            start += entry.size
        self._state = {name: [places[key] for key in keys] for name, keys in remote.state.items()}

    def connect(self) -> dict[str, Any]:
        """Connect ahead of the first request and return what the server says of itself. Raises PolicyError."""
        self._client.open(self._settings.deadline_s)
        return self._client.metadata

    def act(self, request: ChunkRequest) -> NDArray[np.float32]:
        """Return the chunk (H, A), normalised, finite or not.

        Raises:
            MisshapenChunkError: the answer holds no chunk of the manifest's shape.
            PolicyError: no usable answer by the deadline.
        """
        remote = self._remote
        observation: dict[str, object] = {
            key: in_order(request.images[camera], self._colours[camera]) for camera, key in remote.images.items()
        }
        proprio = request.proprio * self._proprio_scale + self._proprio_offset
        for name, parts in self._state.items():
            observation[name] = np.concatenate([proprio[part] for part in parts])
        if remote.prompt:
            observation[remote.prompt] = self._settings.prompt
        answer = self._client.infer(observation, self._settings.deadline_s)
        actions = answer.get(remote.actions)
        if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "fiu" or actions.shape != self._shape:
            got = f"{actions.shape} {actions.dtype}" if isinstance(actions, np.ndarray) else type(actions).__name__
            raise MisshapenChunkError(
                f"policy server {self._settings.endpoint}: {remote.actions!r} is {got}, the bundle says {self._shape}; "
                "export the bundle for this server's chunks"
            )
        with np.errstate(all="ignore"):
            chunk: NDArray[np.float32] = (actions * self._scale + self._offset).astype(np.float32)
        chunk.setflags(write=False)
        return chunk

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
