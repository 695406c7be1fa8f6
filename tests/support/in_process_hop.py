"""A session's ends with the messages between them in a test's hands: it says which of them arrives next."""

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
from tests.support.scenario import a_few_turns

__all__ = ["CHUNK", "COST", "WINDOW", "Hop", "Line", "RelayedHop", "small_windows"]

WINDOW: Final = 1000
CHUNK: Final = 300
COST: Final = limits.CHUNK_COST

decode: Final = msgspec.msgpack.Decoder(SessionMessage).decode
Take = Callable[[bytes, Message, bytes], object]


@contextmanager
def small_windows() -> Iterator[None]:
    """A few hundred bytes fill a window: what takes megabytes otherwise happens at once."""
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


class Line:
    """Messages on their way in one direction, in order."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self.waiting: deque[tuple[bytes, bytes]] = deque()
        self.said: list[Message] = []
        """All that has ever been sent, for tests that look at the words."""

    def send(self, header: bytes, payload: Payload = b"") -> None:
        self.waiting.append((bytes(header), bytes(payload)))
        self.said.append(decode(header))

    def deliver(self) -> bool:
        """The next message arrives; False when there is none."""
        if not self.waiting:
            return False
        header, payload = self.waiting.popleft()
        self._take(header, decode(header), payload)
        return True


class Hop:
    """The side that has asked for a session, and the side that serves it.

    Attributes:
        opener, server: the two.
        ended: how often each has said that it is over.
        lines: what is on its way.
    """

    lines: list[Line]

    def __init__(self) -> None:
        towards_server = Line(lambda header, message, payload: self.server.on_message(message, payload))
        towards_opener = Line(lambda header, message, payload: self.opener.on_message(message, payload))
        self.lines = [towards_server, towards_opener]
        self._make(towards_server, towards_opener)

    def _make(self, from_opener: Line, from_server: Line) -> None:
        self.ended = [0, 0]
        common: dict[str, Any] = {"protocol": "Test", "instance": "default"}
        self.opener = Session(from_opener.send, **common, on_end=lambda: self._over(0))
        self.server = Session(from_server.send, **common, credit=window(), on_end=lambda: self._over(1))
        self.ends = [self.opener, self.server]

    def _over(self, side: int) -> None:
        self.ended[side] += 1

    def deliver_all(self) -> None:
        """Deliver all messages, also the answers to them."""
        while any(line.deliver() for line in self.lines):
            pass

    async def settle(self) -> None:
        """Deliver all messages and run the tasks that wait for them, until nothing happens any more."""
        while True:
            await a_few_turns()
            if not any(line.waiting for line in self.lines):
                return
            self.deliver_all()

    async def opened(self) -> Hop:
        """Once the session stands."""
        self.server.accept()
        self.deliver_all()
        await self.opener.opened
        return self


class _LegLine:
    """A relay's leg, the far end of which is a line."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def take(self, header: bytes, message: Message, payload: bytes) -> None:
        assert header == encode(message)
        self._line.send(header, payload)


class RelayedHop(Hop):
    """Hop with a network process in between."""

    def __init__(self) -> None:
        out = [
            Line(lambda header, message, payload: self.relay.from_opener(header, message, payload)),
            Line(lambda header, message, payload: self.server.on_message(message, payload)),
        ]
        back = [
            Line(lambda header, message, payload: self.relay.from_server(header, message, payload)),
            Line(lambda header, message, payload: self.opener.on_message(message, payload)),
        ]
        self.lines = [*out, *back]
        self.relay_ended = 0
        self.relay = relay.SessionRelay(_LegLine(back[1]), window())
        self.relay.server = _LegLine(out[1])
        self.relay.at_end.append(self._relay_over)
        self._make(out[0], back[0])

    def _relay_over(self) -> None:
        self.relay_ended += 1
