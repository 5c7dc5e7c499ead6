"""The newest status on its way to the operator's window: written by the loop, read when there is time."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot.command import Reason
from robot.shared_ring import SharedRing
from teleop.arbiter import HoldReason, Source
from teleop.operator_status import OperatorStatus

MAX_RATE_HZ = 30.0
_SLOTS = 4
# source, armed, connected, hold_reason, safety, rate_hz, wanted_rate_hz, tick, episode, successes, failures; then the
# bytes of the JSON text behind it, after which the pictures follow
_HEAD = struct.Struct("=5Q2d4qQ")
_TEXT_BYTES = 8192  # what it says cannot exceed it, even if JSON writes every letter with six
_NOTICE_LETTERS, _NAME_LETTERS, _DEVICE_LETTERS = 200, 64, 128
_PICTURES = 8
# Every fifth row of 640x480; of several cameras of that size one goes in a record, in turns.
_PIXEL_BYTES = 200_000

Picture = NDArray[np.uint8]


def new_status_ring() -> SharedRing:
    """Make the ring that both ends take. Raises OSError where there is no memory for it."""
    return SharedRing.new(slots=_SLOTS, record_bytes=_HEAD.size + _TEXT_BYTES + _PIXEL_BYTES)


class StatusWriter:
    """The loop's end. Its cost is bounded whatever the cameras: large pictures are thinned, many take turns."""

    def __init__(self, ring: SharedRing) -> None:
        self._ring = ring
        self._shown_s = -math.inf
        self._turn = 0
        self._said: tuple[str, str, list[tuple[str, int, int, int]]] | None = None
        self._said_text = b""
        self._copy = np.zeros(_PIXEL_BYTES, np.uint8)  # made once: new memory of this size costs more than the copy

    def show(self, status: OperatorStatus, *, now_s: float, device: str = "") -> bool:
        """Write a status unless one was written less than 1 / `MAX_RATE_HZ` ago; return whether it was.

        Args:
            status: of this tick.
            now_s: host monotonic clock [s].
            device: identity of the device that supervises, for a window that has to be opened again.
        """
        if now_s - self._shown_s < 1.0 / MAX_RATE_HZ:
            return False
        self._shown_s = now_s
        pictures = self._pictures(status)
        text = self._text(status.notice, device, [(name, *picture.shape[:2], step) for name, picture, step in pictures])
        head = _HEAD.pack(
            status.source,
            status.armed,
            status.connected,
            status.hold_reason,
            status.safety,
            status.rate_hz,
            status.wanted_rate_hz,
            status.tick,
            status.episode,
            status.successes,
            status.failures,
            len(text),
        )
        self._ring.write(head, text, *(picture.data for _, picture, _ in pictures))
        return True

    def _text(self, notice: str, device: str, shapes: list[tuple[str, int, int, int]]) -> bytes:
        """What has no fixed length; hardly ever another than before."""
        if (notice, device, shapes) != self._said:
            self._said = notice, device, shapes
            said = {
                "notice": notice[:_NOTICE_LETTERS],
                "device": device[:_DEVICE_LETTERS],
                "pictures": [(name[:_NAME_LETTERS], *shape) for name, *shape in shapes],
            }
            self._said_text = json.dumps(said).encode()
        return self._said_text

    def _pictures(self, status: OperatorStatus) -> list[tuple[str, Picture, int]]:
        """As many pictures as fit into a record, beginning where the last record ended."""
        names = list(status.images)
        chosen: list[tuple[str, Picture, int]] = []
        room = _PIXEL_BYTES
        for turn in range(min(len(names), _PICTURES)):
            name = names[(self._turn + turn) % len(names)]
            image = status.images[name]
            room -= min(image.nbytes, _PIXEL_BYTES)  # a large one takes the time of a whole record
            if room < 0:
                break
            chosen.append((name, *self._rows(image)))
        self._turn = (self._turn + len(chosen)) % max(1, len(names))
        return chosen

    def _rows(self, image: Picture) -> tuple[Picture, int]:
        """The picture (H, W, 3), contiguous: whole, or every n-th row of a large one, and n.

        Rows are copied at the speed of memory, pixels ten times slower: who reads leaves out the columns.
        """
        if image.nbytes <= _PIXEL_BYTES:
            return np.ascontiguousarray(image), 1
        step = -(-image.shape[0] // max(1, _PIXEL_BYTES // image[0].nbytes))
        rows = image[::step, : _PIXEL_BYTES // 3]
        copy = self._copy[: rows.size].reshape(rows.shape)
        np.copyto(copy, rows)
        return copy, step


class StatusReader:
    """The window's end."""

    def __init__(self, ring: SharedRing) -> None:
        self._ring = ring
        self._record = bytearray(ring.record_bytes)
        self._read = 0
        self._pictures: dict[str, Picture] = {}
        self.device = ""

    def newest(self) -> OperatorStatus | None:
        """Return the newest status since the last call, with the newest picture of each camera; None without one."""
        count, newest = self._ring.count, None
        # every record that is still there, as each may hold another camera
        for number in range(max(self._read, count - self._ring.slots + 1), count):
            if self._ring.read(number, self._record):
                newest = self._status() or newest
        self._read = count
        return newest

    def _status(self) -> OperatorStatus | None:
        """The record as a status; None for one that the loop cannot have written."""
        source, armed, connected, hold_reason, safety, *figures, size = _HEAD.unpack_from(self._record)
        rate_hz, wanted_rate_hz, tick, episode, successes, failures = figures
        try:
            said: dict[str, Any] = json.loads(self._record[_HEAD.size : _HEAD.size + size])
            pictures = self._pixels(said["pictures"], _HEAD.size + size)
            self._pictures = self._pictures | pictures if pictures else {}
            status = OperatorStatus(
                images=dict(self._pictures),
                source=Source(source),
                armed=bool(armed),
                connected=bool(connected),
                hold_reason=HoldReason(hold_reason),
                safety=Reason(safety),
                rate_hz=rate_hz,
                wanted_rate_hz=wanted_rate_hz,
                tick=tick,
                episode=episode,
                successes=successes,
                failures=failures,
                notice=str(said["notice"]),
            )
            self.device = str(said["device"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return status

    def _pixels(self, shapes: list[tuple[str, int, int, int]], at: int) -> dict[str, Picture]:
        pictures = {}
        for name, height, width, step in shapes:
            pixels = np.frombuffer(self._record, np.uint8, height * width * 3, at)
            pictures[str(name)] = pixels.reshape(height, width, 3)[:, ::step].copy()
            at += pixels.nbytes
        return pictures
