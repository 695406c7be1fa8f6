"""A session as the network process sees it: two legs, and what passes between them.

A leg is one side's way to the session: a local process (through the mailbox) or another daemon (a QUIC stream). Both
speak the session part of the client protocol, so a relay only has to pass messages on, and to see when both
directions have ended. Credit passes through too: whoever reads slowly stops whoever writes. Programs are not trusted
to keep to it: what they say is passed on only where it is their turn, and never more than a window is on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from fastn_p2p_client.errors import BadMessage, ConnectionLost, P2PError
from fastn_p2p_client.ipc.messages import (
    Ack,
    ApplicationErrorReply,
    Cancel,
    EndOfStream,
    ErrorReply,
    Message,
    ResetStream,
    SessionData,
    SessionOpened,
    StopSending,
    WindowUpdate,
    encode,
)
from fastn_p2p_client.limits import CHUNK_COST, RESET_LOST, SESSION_WINDOW

__all__ = ["Leg", "SessionRelay", "process_lost_error"]

_CANCEL: Final = encode(Cancel())


def process_lost_error() -> P2PError:
    """What one side is told when the other side's process has ended."""
    return ConnectionLost(what="the program at the other end of the session")


class Leg(Protocol):
    """One side's way to a session."""

    def take(self, header: bytes, message: Message, payload: bytes) -> None:
        """Pass a message on to the side behind the leg. Must not raise; ``ErrorReply`` and ``Cancel`` are the last."""
        ...


class SessionRelay:
    """A session between whoever opens it and whoever serves it. The serving leg is set once there is one.

    Args:
        credit: what the opener takes at first.

    Attributes:
        answer: what the opener is told when the serving side accepts, made of what that side says.
        at_opened, at_end: called once each: when the serving side has accepted, and when nothing can come any more.
        opened, over: whether that has happened.
    """

    __slots__ = ("_credit", "_ended", "_eof", "answer", "at_end", "at_opened", "opened", "opener", "over", "server")

    def __init__(self, opener: Leg, credit: int) -> None:
        self.opener = opener
        self.server: Leg | None = None
        self.answer: Callable[[SessionOpened], SessionOpened] = _unchanged
        self.at_opened: list[Callable[[], object]] = []
        self.at_end: list[Callable[[], object]] = []
        # Of the direction from the opener, and the one towards it:
        self._ended = [False, False]
        self._eof = [False, False]
        self._credit = [0, credit]
        self.opened = False
        self.over = False

    def from_opener(self, header: bytes, message: Message, payload: bytes) -> None:
        """A message of whoever has opened the session."""
        if isinstance(message, Cancel):
            self.opener_gone()
        elif isinstance(message, ErrorReply):
            if self.opened:
                self._end_with(self.server, header, message, payload)
            else:
                self.opener_gone()
        elif self.server is not None and self.opened and not self.over:
            self._pass_on(self.server, header, message, payload, 0)

    def from_server(self, header: bytes, message: Message, payload: bytes) -> None:
        """A message of whoever serves it."""
        if isinstance(message, SessionOpened):
            if not self.opened and not self.over:
                self._open(message)
        elif isinstance(message, ErrorReply | ApplicationErrorReply):
            if isinstance(message, ErrorReply) or not self.opened:
                self._end_with(self.opener, header, message, payload)
        elif self.opened and not self.over:
            self._pass_on(self.opener, header, message, payload, 1)

    def fail(self, error: P2PError) -> None:
        """End it for both sides: the opener is told why; the serving side that nobody is there, if it has not begun."""
        failure = ErrorReply.of(error)
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
            failure = ErrorReply.of(process_lost_error())
            self._end_with(self.server, encode(failure), failure, b"")
        else:
            self._end_with(self.server, _CANCEL, Cancel(), b"")

    def server_gone(self) -> None:
        """The process or the connection of whoever serves has ended."""
        failure = ErrorReply.of(process_lost_error())
        self._end_with(self.opener, encode(failure), failure, b"")

    def _open(self, opened: SessionOpened) -> None:
        if not 0 < opened.credit <= SESSION_WINDOW:
            self.fail(BadMessage(reason=f"the credit is between 1 and {SESSION_WINDOW}"))
            return
        self.opened = True
        self._credit[0] = opened.credit
        _call(self.at_opened)
        told = self.answer(opened)
        self.opener.take(encode(told), told, b"")

    def _pass_on(self, leg: Leg, header: bytes, message: Message, payload: bytes, mine: int) -> None:
        """``mine`` is the direction in which whoever says it sends; nothing is said about one that has ended."""
        other = 1 - mine
        kind = type(message)
        if kind is SessionData:
            self._credit[mine] -= len(payload) + CHUNK_COST
            if self._credit[mine] < 0 or not payload:
                self.fail(BadMessage(reason="a chunk beyond the credit, or an empty one"))
            elif not self._eof[mine] and not self._ended[mine]:
                leg.take(header, message, payload)
        elif isinstance(message, WindowUpdate):
            self._credit[other] += message.size
            if message.size <= 0 or self._credit[other] > SESSION_WINDOW:
                self.fail(BadMessage(reason="credit for what has not been taken"))
            elif not self._ended[other]:
                leg.take(header, message, payload)
        elif isinstance(message, ResetStream | StopSending):
            if not 0 <= message.code <= RESET_LOST:
                self.fail(BadMessage(reason=f"a code is between 0 and {RESET_LOST}"))
            elif isinstance(message, StopSending):
                if not self._ended[other]:
                    leg.take(header, message, payload)
            elif not self._ended[mine]:
                leg.take(header, message, payload)
                self._end(mine)
        elif kind is EndOfStream:
            if not self._eof[mine] and not self._ended[mine]:
                self._eof[mine] = True
                leg.take(header, message, payload)
        elif kind is Ack and self._eof[other] and not self._ended[other]:
            leg.take(header, message, payload)
            self._end(other)

    def _end(self, direction: int) -> None:
        self._ended[direction] = True
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


def _unchanged(opened: SessionOpened) -> SessionOpened:
    return opened


def _call(hooks: list[Callable[[], object]]) -> None:
    for hook in hooks:
        hook()
    hooks.clear()
