"""A session as the network process sees it: two legs, and what passes between them.

A leg is one side's way to the session: a local process (through the mailbox) or another daemon (a QUIC stream). Both
speak the session part of the client protocol, so a relay only has to pass messages on, and to see when both
directions have ended. Credit passes through too: whoever reads slowly stops whoever writes, and what is on its way
here is never more than both have granted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from fastn_p2p_client.errors import ConnectionLost, P2PError
from fastn_p2p_client.messages import (
    ApplicationFailure,
    Cancel,
    Done,
    Failure,
    Message,
    Opened,
    Reset,
    encode,
)

__all__ = ["Leg", "Relay", "lost"]

_CANCEL: Final = encode(Cancel())


def lost() -> P2PError:
    """What one side is told when the other side's process has ended."""
    return ConnectionLost(what="the program at the other end of the session")


class Leg(Protocol):
    """One side's way to a session."""

    def take(self, header: bytes, message: Message, payload: bytes) -> None:
        """Pass a message on to the side behind the leg. Must not raise; ``Failure`` and ``Cancel`` are the last."""
        ...


class Relay:
    """A session between whoever opens it and whoever serves it. The serving leg is set once there is one.

    Attributes:
        answer: what the opener is told when the serving side accepts, made of what that side says.
        at_opened, at_end: called once each: when the serving side has accepted, and when nothing can come any more.
        opened, over: whether that has happened.
    """

    __slots__ = ("_ended", "answer", "at_end", "at_opened", "opened", "opener", "over", "server")

    def __init__(self, opener: Leg) -> None:
        self.opener = opener
        self.server: Leg | None = None
        self.answer: Callable[[Opened], Opened] = _as_it_is
        self.at_opened: list[Callable[[], object]] = []
        self.at_end: list[Callable[[], object]] = []
        self._ended = [False, False]
        """The direction from the opener, and the one towards it."""
        self.opened = False
        self.over = False

    def from_opener(self, header: bytes, message: Message, payload: bytes) -> None:
        """A message of whoever has opened the session."""
        if isinstance(message, Cancel):
            self.opener_gone()
        elif isinstance(message, Failure):
            self._end_with(self.server, header, message, payload)
        elif self.server is not None and self.opened and not self.over:
            self._pass_on(self.server, header, message, payload, 0)

    def from_server(self, header: bytes, message: Message, payload: bytes) -> None:
        """A message of whoever serves it."""
        if isinstance(message, Opened):
            if not self.opened and not self.over:
                self.opened = True
                _call(self.at_opened)
                told = self.answer(message)
                self.opener.take(encode(told), told, b"")
        elif isinstance(message, Failure | ApplicationFailure):
            if isinstance(message, Failure) or not self.opened:
                self._end_with(self.opener, header, message, payload)
        elif self.opened and not self.over:
            self._pass_on(self.opener, header, message, payload, 1)

    def fail(self, error: P2PError) -> None:
        """End it for both sides: the opener is told why; the serving side that nobody is there, if it has not begun."""
        failure = Failure.of(error)
        header = encode(failure)
        server = self.server
        if not self.over and server is not None:
            if self.opened:
                server.take(header, failure, b"")
            else:
                server.take(_CANCEL, Cancel(), b"")
        self._end_with(self.opener, header, failure, b"")

    def opener_gone(self) -> None:
        """The process or the connection of the opener has ended."""
        if self.opened:
            failure = Failure.of(lost())
            self._end_with(self.server, encode(failure), failure, b"")
        else:
            self._end_with(self.server, _CANCEL, Cancel(), b"")

    def server_gone(self) -> None:
        """The process or the connection of whoever serves has ended."""
        failure = Failure.of(lost())
        self._end_with(self.opener, encode(failure), failure, b"")

    def _pass_on(self, leg: Leg, header: bytes, message: Message, payload: bytes, direction: int) -> None:
        leg.take(header, message, payload)
        if isinstance(message, Reset):
            self._ended[direction] = True
        elif isinstance(message, Done):
            self._ended[1 - direction] = True
        else:
            return
        if all(self._ended):
            self._finish()

    def _end_with(self, leg: Leg | None, header: bytes, message: Message, payload: bytes) -> None:
        if not self.over:
            if leg is not None:
                leg.take(header, message, payload)
            self._finish()

    def _finish(self) -> None:
        if not self.over:
            self.over = True
            _call(self.at_end)


def _as_it_is(opened: Opened) -> Opened:
    return opened


def _call(hooks: list[Callable[[], object]]) -> None:
    for hook in hooks:
        hook()
    hooks.clear()
