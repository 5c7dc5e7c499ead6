"""Requests and answers as the loop and the chunk server exchange them: records whose sizes the manifest fixes."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import DTypeLike

from policy.chunk_source import ChunkReply, ChunkRequest, ReplyKind
from policy.manifest import Manifest

_WHY_BYTES = 240


class MessageKind(IntEnum):
    """What a message is."""

    REQUEST = 1  # loop to server
    REPLY = 2  # server to loop
    HELLO = 3  # server to loop: a new process is there; what was asked of its predecessor is lost


class ChunkMessages:
    """Packs and reads both messages. Whatever has not exactly the size that the manifest gives it is refused."""

    def __init__(self, manifest: Manifest) -> None:
        head: list[tuple[str, DTypeLike]] = [("number", "<u8"), ("tick", "<i8"), ("time_s", "<f8")]
        # a policy of the bundle's own works on the features; pictures are for one that has its own eyes
        self._cameras = [
            camera for camera in manifest.cameras if manifest.remote and camera.name in manifest.remote.images
        ]
        self._request = np.dtype(
            [
                *head,
                ("features", "<f4", (manifest.feature_size,)),
                ("proprio", "<f4", (manifest.proprio_size,)),
                *((f"image_{c.name}", "u1", (c.height, c.width, 3)) for c in self._cameras),
            ]
        )
        chunk = (manifest.chunk_length, manifest.action.size)
        self._reply = np.dtype([*head, ("kind", "<i8"), ("chunk", "<f4", chunk), ("why", f"S{_WHY_BYTES}")])

    @property
    def request_bytes(self) -> int:
        """Size of a request."""
        return self._request.itemsize

    @property
    def reply_bytes(self) -> int:
        """Size of an answer."""
        return self._reply.itemsize

    def pack_request(self, number: int, request: ChunkRequest) -> memoryview:
        """Return the bytes of a request with a number of the sender's own."""
        record = np.zeros(1, self._request)
        record["number"], record["tick"], record["time_s"] = number, request.tick, request.asked_s
        record["features"], record["proprio"] = request.features, request.proprio
        for camera in self._cameras:
            record[f"image_{camera.name}"] = request.images[camera.name]
        return record.view(np.uint8).data

    def read_request(self, data: bytes) -> tuple[int, ChunkRequest]:
        """Return number and request. Raises ValueError on another size."""
        record = _record(data, self._request)
        return int(record["number"]), ChunkRequest(
            tick=int(record["tick"]),
            asked_s=float(record["time_s"]),
            features=record["features"],
            proprio=record["proprio"],
            images={camera.name: record[f"image_{camera.name}"] for camera in self._cameras},
        )

    def pack_reply(self, number: int, reply: ChunkReply) -> memoryview:
        """Return the bytes of the answer to the request of that number."""
        record = np.zeros(1, self._reply)
        record["number"], record["tick"], record["time_s"] = number, reply.tick, reply.arrived_s
        record["kind"], record["chunk"] = int(reply.kind), np.nan if reply.actions is None else reply.actions
        record["why"] = reply.why.encode()[:_WHY_BYTES]
        return record.view(np.uint8).data

    def read_reply(self, data: bytes) -> tuple[int, ChunkReply]:
        """Return number and answer. Raises ValueError on another size or an unknown kind."""
        record = _record(data, self._reply)
        kind = ReplyKind(int(record["kind"]))
        why = bytes(record["why"]).decode(errors="replace")
        return int(record["number"]), ChunkReply(
            tick=int(record["tick"]),
            arrived_s=float(record["time_s"]),
            kind=kind,
            actions=record["chunk"] if kind is ReplyKind.CHUNK else None,
            why=" ".join(why.split()),
        )


def _record(data: bytes, dtype: np.dtype[np.void]) -> np.void:
    if len(data) != dtype.itemsize:
        raise ValueError(f"a message of {len(data)} bytes where the manifest gives it {dtype.itemsize}")
    record: np.void = np.frombuffer(data, dtype)[0]
    return record
