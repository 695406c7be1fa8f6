"""Two ends of a session; the test decides which message between them arrives next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import msgspec

from fastn_p2p_actors.network.sessions import relay
from fastn_p2p_client import limits, testing
from fastn_p2p_client.ipc.messages import Message, SessionMessage, encode
from fastn_p2p_client.session import session, session_state
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.session.session_state import Payload
from fastn_p2p_client.session.shared_memory import Chunk
from tests.support.event_loop import run_pending

__all__ = ["CHUNK", "COST", "WINDOW", "Hop", "MessageQueue", "RelayedHop", "small_windows"]

WINDOW: Final = 1000
CHUNK: Final = 300
COST: Final = limits.CHUNK_COST

decode: Final = msgspec.msgpack.Decoder(SessionMessage).decode
Deliver = Callable[[bytes, Message, bytes], object]


@contextmanager
def small_windows() -> Iterator[None]:
    """Let a few hundred bytes fill a window, instead of megabytes."""
    with (
        patch.object(session, "MAX_CHUNK", CHUNK),
        patch.object(session_state, "SESSION_WINDOW", WINDOW),
        patch.object(testing, "SESSION_WINDOW", WINDOW),
        patch.object(relay, "SESSION_WINDOW", WINDOW),
    ):
        yield


def window() -> int:
    """Return the present size of a session\'s window."""
    return int(vars(session_state)["SESSION_WINDOW"])


class MessageQueue:
    """Messages on their way in one direction, in order."""

    def __init__(self, on_message: Deliver) -> None:
        self._on_message = on_message
        self.waiting: deque[tuple[bytes, bytes]] = deque()
        self.sent: list[Message] = []
        """Every message that was ever sent."""

    def send(self, header: bytes, payload: Payload = b"") -> None:
        self.waiting.append((bytes(header), bytes(payload)))
        self.sent.append(decode(header))

    def deliver(self) -> bool:
        """Deliver the next message. Return False if there is none."""
        if not self.waiting:
            return False
        header, payload = self.waiting.popleft()
        self._on_message(header, decode(header), payload)
        return True


class Hop:
    """Opener and server of a session, and the messages between them.

    Attributes:
        opener, server: the two ends.
        ended: how often each end has reported its end.
        queues: messages on their way.
    """

    queues: list[MessageQueue]

    def __init__(self) -> None:
        towards_server = MessageQueue(lambda header, message, payload: self.server.on_message(message, payload))
        towards_opener = MessageQueue(lambda header, message, payload: self.opener.on_message(message, payload))
        self.queues = [towards_server, towards_opener]
        self._make(towards_server, towards_opener)

    def _make(self, from_opener: MessageQueue, from_server: MessageQueue) -> None:
        self.ended = [0, 0]
        common: dict[str, Any] = {"protocol": "Test", "instance": "default"}
        self.opener = Session(from_opener.send, **common, on_end=lambda: self._on_end(0))
        self.server = Session(from_server.send, **common, credit=window(), on_end=lambda: self._on_end(1))
        self.ends = [self.opener, self.server]

    def _on_end(self, side: int) -> None:
        self.ended[side] += 1

    def deliver_all(self) -> None:
        """Deliver all messages, also the answers to them."""
        while any(queue.deliver() for queue in self.queues):
            pass

    async def deliver_until_idle(self) -> None:
        """Deliver all messages and run the tasks that wait for them, until nothing happens any more."""
        while True:
            await run_pending()
            if not any(queue.waiting for queue in self.queues):
                return
            self.deliver_all()

    async def opened(self) -> Hop:
        """Open the session."""
        self.server.accept()
        self.deliver_all()
        await self.opener.opened
        return self


class _QueueLeg:
    """Leg of a relay that sends into a queue."""

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue

    def receive(self, header: bytes, message: Message, payload: Chunk) -> None:
        assert header == encode(message)
        self._queue.send(header, bytes(payload))


class RelayedHop(Hop):
    """Hop with a network process in between."""

    def __init__(self) -> None:
        out = [
            MessageQueue(lambda header, message, payload: self.relay.from_opener(header, message, payload)),
            MessageQueue(lambda header, message, payload: self.server.on_message(message, payload)),
        ]
        back = [
            MessageQueue(lambda header, message, payload: self.relay.from_server(header, message, payload)),
            MessageQueue(lambda header, message, payload: self.opener.on_message(message, payload)),
        ]
        self.queues = [*out, *back]
        self.relay_ended = 0
        self.relay = relay.SessionRelay(_QueueLeg(back[1]), window())
        self.relay.server = _QueueLeg(out[1])
        self.relay.at_end.append(self._on_relay_end)
        self._make(out[0], back[0])

    def _on_relay_end(self) -> None:
        self.relay_ended += 1
