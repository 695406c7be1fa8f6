"""Relay of one session: it passes messages between two legs and enforces the rules of the session protocol.

A leg is one side of the session: a local process (through the mailbox) or a peer daemon (a QUIC stream). Both speak the
session messages of the local protocol, so the relay passes them on and notes when both directions have ended.

Credit passes through too, so a slow reader stops the writer. Programs are not trusted: the relay is the one place that
checks them. It drops messages about a direction that has ended, and fails the session of a program that sends beyond
its credit, sends an empty chunk, or grants credit for bytes that it has not received. So a leg never has more than
``SESSION_WINDOW`` bytes to write, or ``WINDOW`` with shared memory.
"""

from __future__ import annotations

import logging
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
from fastn_p2p_client.session.shared_memory import MORE_CREDIT, WINDOW, Chunk

log = logging.getLogger(__name__)

_CANCEL: Final = encode(Cancel())


def process_lost_error() -> P2PError:
    """Return the error for one side of a session after the process of the other side has ended."""
    return ConnectionLost(what="the program at the other end of the session")


class Leg(Protocol):
    """Leg of a relayed session: a local process or a peer daemon."""

    def receive(self, header: bytes, message: Message, payload: Chunk) -> None:
        """Send a message to this side. Must not raise. Nothing follows ``ErrorReply`` or ``Cancel``."""
        ...


class SessionRelay:
    """Session between an opener and a server.

    Args:
        opener: leg of the side that opens the session.
        credit: bytes that the opener takes at first.
        request_id: id for the log, if it is to have the error with which the session is not opened; else empty.

    Attributes:
        server: leg of the serving side; None until it is chosen.
        answer: makes the opener's ``SessionOpened`` of the one that the server sent.
        at_opened: called once, when the server has accepted.
        at_end: called once, when both directions have ended, or the session has failed.
        opened: true after the server has accepted.
        done: true after the end.
    """

    __slots__ = (
        "_credit",
        "_ended",
        "_eof",
        "_request_id",
        "_window",
        "answer",
        "at_end",
        "at_opened",
        "done",
        "opened",
        "opener",
        "server",
    )  # fmt: skip

    def __init__(self, opener: Leg, credit: int, request_id: str = "") -> None:
        self._request_id = request_id
        self.opener = opener
        self.server: Leg | None = None
        self.answer: Callable[[SessionOpened], SessionOpened] = _unchanged
        self.at_opened: list[Callable[[], object]] = []
        self.at_end: list[Callable[[], object]] = []
        # Index 0: direction from the opener to the server. Index 1: the opposite direction.
        self._ended = [False, False]
        self._eof = [False, False]
        self._credit = [0, credit]
        self._window = SESSION_WINDOW
        self.opened = False
        self.done = False

    def from_opener(self, header: bytes, message: Message, payload: Chunk) -> None:
        """Handle a message of the opener."""
        if isinstance(message, Cancel):
            self.on_opener_lost()
        elif isinstance(message, ErrorReply):
            if self.opened:
                self._end_with(self.server, header, message, payload)
            else:
                self.on_opener_lost()
        elif self.server is not None and self.opened and not self.done:
            self._pass_on(self.server, header, message, payload, 0)

    def from_server(self, header: bytes, message: Message, payload: Chunk) -> None:
        """Handle a message of the server."""
        if isinstance(message, SessionOpened):
            if not self.opened and not self.done:
                self._open(message)
        elif isinstance(message, ErrorReply | ApplicationErrorReply):
            if isinstance(message, ErrorReply) or not self.opened:
                self._end_with(self.opener, header, message, payload)
        elif self.opened and not self.done:
            self._pass_on(self.opener, header, message, payload, 1)

    def on_memory_mapped(self) -> None:
        """Allow more bytes on their way in both directions: they have memory of their own."""
        self._window = WINDOW
        self._credit = [credit + MORE_CREDIT for credit in self._credit]

    def fail(self, error: P2PError) -> None:
        """End the session with an error for both sides. A server that has not accepted yet gets ``Cancel``."""
        reply = ErrorReply.of(error)
        header = encode(reply)
        server = self.server
        if not self.done and server is not None:
            if self.opened:
                server.receive(header, reply, b"")
            else:
                server.receive(_CANCEL, Cancel(), b"")
        self._end_with(self.opener, header, reply, b"")

    def on_opener_lost(self) -> None:
        """End the session: the process or the connection of the opener has ended."""
        if self.opened:
            reply = ErrorReply.of(process_lost_error())
            self._end_with(self.server, encode(reply), reply, b"")
        else:
            self._end_with(self.server, _CANCEL, Cancel(), b"")

    def on_server_lost(self) -> None:
        """End the session: the process or the connection of the server has ended."""
        reply = ErrorReply.of(process_lost_error())
        self._end_with(self.opener, encode(reply), reply, b"")

    def _open(self, opened: SessionOpened) -> None:
        if not 0 < opened.credit <= SESSION_WINDOW:
            self.fail(BadMessage(reason=f"the credit is between 1 and {SESSION_WINDOW}"))
            return
        self.opened = True
        self._credit[0] = opened.credit
        _run(self.at_opened)
        answer = self.answer(opened)
        self.opener.receive(encode(answer), answer, b"")

    def _pass_on(self, leg: Leg, header: bytes, message: Message, payload: Chunk, direction: int) -> None:
        """Pass a message on to ``leg``, if the rules allow it.

        Args:
            direction: in which the sender of the message writes; it reads the opposite one.
        """
        opposite = 1 - direction
        kind = type(message)
        if kind is SessionData:
            self._credit[direction] -= len(payload) + CHUNK_COST
            if self._credit[direction] < 0 or not payload:
                self.fail(BadMessage(reason="a chunk beyond the credit, or an empty one"))
            elif not self._eof[direction] and not self._ended[direction]:
                leg.receive(header, message, payload)
        elif isinstance(message, WindowUpdate):
            self._credit[opposite] += message.size
            if message.size <= 0 or self._credit[opposite] > self._window:
                self.fail(BadMessage(reason="credit for bytes that were not received"))
            elif not self._ended[opposite]:
                leg.receive(header, message, payload)
        elif isinstance(message, ResetStream | StopSending):
            if not 0 <= message.code <= RESET_LOST:
                self.fail(BadMessage(reason=f"a code is between 0 and {RESET_LOST}"))
            elif isinstance(message, StopSending):
                if not self._ended[opposite]:
                    leg.receive(header, message, payload)
            elif not self._ended[direction]:
                leg.receive(header, message, payload)
                self._end(direction)
        elif kind is EndOfStream:
            if not self._eof[direction] and not self._ended[direction]:
                self._eof[direction] = True
                leg.receive(header, message, payload)
        elif kind is Ack and self._eof[opposite] and not self._ended[opposite]:
            leg.receive(header, message, payload)
            self._end(opposite)

    def _end(self, direction: int) -> None:
        self._ended[direction] = True
        if all(self._ended):
            self._finish()

    def _end_with(self, leg: Leg | None, header: bytes, message: Message, payload: Chunk) -> None:
        if not self.done:
            if self._request_id and not self.opened and isinstance(message, ErrorReply):
                log.info("a session was not opened: %s", message.error(), extra={"request_id": self._request_id})
            if leg is not None:
                leg.receive(header, message, payload)
            self._finish()

    def _finish(self) -> None:
        if not self.done:
            self.done = True
            self.at_opened.clear()
            _run(self.at_end)


def _unchanged(opened: SessionOpened) -> SessionOpened:
    return opened


def _run(hooks: list[Callable[[], object]]) -> None:
    for hook in hooks:
        hook()
    hooks.clear()
