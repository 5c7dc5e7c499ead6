"""The loop's end of the chunk server: requests and answers through two rings, in real time."""

from __future__ import annotations

from policy.chunk_messages import ChunkMessages, MessageKind
from policy.chunk_source import ChunkReply, ChunkRequest, ReplyKind, note_failure
from policy.manifest import Manifest
from robot.message_ring import MessageRing

_REQUESTS, _REPLIES = 3, 4  # that a ring holds: one in work, one behind it, one given up
_HEAD_BYTES = 16  # of a message in a ring


def new_rings(manifest: Manifest) -> tuple[MessageRing, MessageRing]:
    """Make the rings of requests and of answers. Raises OSError where there is no memory for them."""
    messages = ChunkMessages(manifest)
    requests = MessageRing.new(_REQUESTS * (messages.request_bytes + _HEAD_BYTES))
    try:
        return requests, MessageRing.new(_REPLIES * (messages.reply_bytes + _HEAD_BYTES))
    except OSError:
        requests.close()
        raise


class RingSource:
    """A chunk source whose server is another process, which may die, hang or be started anew at any moment.

    Args:
        manifest: of the bundle.
        requests, replies: as `new_rings` makes them; closed by the caller.
        hung_after_s: how long nothing may be answered.
    """

    def __init__(self, manifest: Manifest, requests: MessageRing, replies: MessageRing, *, hung_after_s: float) -> None:
        self._messages = ChunkMessages(manifest)
        self._requests, self._replies, self._hung_after_s = requests, replies, hung_after_s
        self._number = self._first = 0  # of the last request, and of the first one that is not forgotten
        self._unanswered_s: float | None = None
        self._now_s = 0.0  # when the loop last looked
        self._newest: ChunkReply | None = None
        self.failures: list[str] = []

    def ask(self, request: ChunkRequest) -> None:
        """Hand over a request; one for which there is no room gets no answer, as the server takes none."""
        self._number += 1
        if self._unanswered_s is None:
            self._unanswered_s = request.asked_s
        if self._requests.has_room(self._messages.request_bytes):
            self._requests.put(MessageKind.REQUEST, self._messages.pack_request(self._number, request))
            self._requests.ring()

    def poll(self, now_s: float) -> ChunkReply | None:
        """Return the newest answer to a request that is not forgotten."""
        self._now_s = now_s
        self._listen()
        newest, self._newest = self._newest, None
        return newest

    @property
    def hung(self) -> bool:
        """True when nothing was answered for so long, by the time of the last look, that the server has to be killed.

        It stays so until the successor says hello. What said hello before this is asked is heard, so whoever sees that
        the process is ready and then asks does not take a new one for the old one.
        """
        self._listen()
        since_s = self._unanswered_s
        return since_s is not None and self._now_s - since_s > self._hung_after_s

    def forget(self) -> None:
        """Have all answers dropped that belong to requests of before."""
        self._first, self._newest = self._number + 1, None

    def _listen(self) -> None:
        while (message := self._replies.take()) is not None:
            self._newest = self._heard(*message) or self._newest

    def _heard(self, kind: int, data: bytes) -> ChunkReply | None:
        if kind == MessageKind.HELLO:
            # its time counts from now: what it had to load before is not what it takes for an answer
            self._unanswered_s = None if self._unanswered_s is None else self._now_s
            return None
        try:
            number, reply = self._messages.read_reply(data)
        except ValueError as error:
            note_failure(self.failures, f"chunk server: {error}")
            return None
        self._unanswered_s = (
            None if number >= self._number else self._now_s
        )  # an answer to an older one is a sign of life
        if reply.kind is not ReplyKind.CHUNK:
            note_failure(self.failures, reply.why)
        return reply if number >= self._first else None
