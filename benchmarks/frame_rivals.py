"""What others would send pictures by: a multiprocessing queue, ZeroMQ, shared memory under a lock."""

from __future__ import annotations

import multiprocessing
import queue
import struct
import tempfile
import time
from multiprocessing import shared_memory

import numpy as np
import zmq
from numpy.typing import NDArray

from benchmarks.frame_transport import SIZE, Picture, Publish, Transport

_QUEUED = 4
_LOCK_S = 5.0  # nobody holds a lock so long and lives
_FORK = multiprocessing.get_context("fork")
_STAMP = struct.Struct("=d")


class Queue(Transport):
    """`multiprocessing.Queue` of arrays, which pickles them through a pipe."""

    def __init__(self, cameras: int) -> None:
        super().__init__(cameras)
        self._queues = [_FORK.Queue(_QUEUED) for _ in range(cameras)]

    def publisher(self, camera: int) -> Publish:
        """Put the array."""
        own = self._queues[camera]
        own.cancel_join_thread()
        return lambda frame_id, rgb: own.put((time.monotonic(), rgb))

    def poll(self, camera: int) -> tuple[float, Picture] | None:
        """Get an array."""
        try:
            sent: tuple[float, Picture] = self._queues[camera].get_nowait()
        except queue.Empty:
            return None
        return sent

    def close(self) -> None:
        """Close the queues."""
        for own in self._queues:
            own.close()


class Zmq(Transport):
    """ZeroMQ PUSH to PULL over ipc, without copies on our side."""

    def __init__(self, cameras: int) -> None:
        super().__init__(cameras)
        self._folder = tempfile.TemporaryDirectory()
        self._pulls: list[zmq.Socket[bytes]] = []

    def _address(self, camera: int) -> str:
        return f"ipc://{self._folder.name}/{camera}"

    def publisher(self, camera: int) -> Publish:
        """Send header and array."""
        push = zmq.Context().socket(zmq.PUSH)
        push.set_hwm(_QUEUED)
        push.linger = 0
        push.connect(self._address(camera))

        def publish(frame_id: int, rgb: Picture) -> None:
            # the array is handed over, so its memory must not change until it is sent: ours never does
            push.send_multipart([_STAMP.pack(time.monotonic()), rgb.data], copy=False)

        return publish

    def poll(self, camera: int) -> tuple[float, Picture] | None:
        """Receive; the message's memory is the reader's own, so it is not copied once more."""
        if not self._pulls:  # after the fork: sockets do not outlive one
            self._context = zmq.Context()
            for own in range(self.cameras):
                pull = self._context.socket(zmq.PULL)
                pull.set_hwm(_QUEUED)
                pull.bind(self._address(own))
                self._pulls.append(pull)
        try:
            head, body = self._pulls[camera].recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        return _STAMP.unpack(head.bytes)[0], np.frombuffer(body.buffer, np.uint8).reshape(*SIZE, 3)

    def close(self) -> None:
        """Close the sockets."""
        self._context.destroy(linger=0)
        self._folder.cleanup()


class Locked(Transport):
    """One buffer of `multiprocessing.shared_memory` under a lock, with an event that says that it is new."""

    def __init__(self, cameras: int) -> None:
        super().__init__(cameras)
        size = 8 + int(np.prod((*SIZE, 3)))
        self._memory = [shared_memory.SharedMemory(create=True, size=size) for _ in range(cameras)]
        self._locks = [_FORK.Lock() for _ in range(cameras)]
        self._events = [_FORK.Event() for _ in range(cameras)]

    def _arrays(self, camera: int) -> tuple[NDArray[np.float64], Picture]:
        memory = self._memory[camera].buf
        assert memory is not None
        picture = np.frombuffer(memory, np.uint8, count=3 * SIZE[0] * SIZE[1], offset=8)
        return np.frombuffer(memory, np.float64, 1), picture.reshape(*SIZE, 3)

    def publisher(self, camera: int) -> Publish:
        """Copy in under the lock."""
        sent_s, shared = self._arrays(camera)
        lock, event = self._locks[camera], self._events[camera]

        def publish(frame_id: int, rgb: Picture) -> None:
            now_s = time.monotonic()
            with lock:
                sent_s[0] = now_s
                shared[:] = rgb
            event.set()

        return publish

    def poll(self, camera: int) -> tuple[float, Picture] | None:
        """Copy out under the lock."""
        if not self._events[camera].is_set():
            return None
        self._events[camera].clear()
        sent_s, shared = self._arrays(camera)
        if not self._locks[camera].acquire(timeout=_LOCK_S):
            raise RuntimeError(f"camera {camera} holds its lock for ever; it died with it")
        try:
            return float(sent_s[0]), shared.copy()
        finally:
            self._locks[camera].release()

    def close(self) -> None:
        """Remove the memory."""
        for memory in self._memory:
            memory.close()
            memory.unlink()
