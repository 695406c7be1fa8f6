"""Dispatcher of sessions: runs the binding's handler for each session in a task of its own.

==========================================  ======================================================
the handler raises before it accepts        the caller gets the error: ``connect`` raises it
the handler returns                         the session is closed
the handler raises after it has accepted    the session is reset with ``RESET_FAILED``; the rest is logged
the handler is cancelled                    the session is reset with ``RESET_LOST``
the caller cancels (``Cancel``)             the handler is cancelled; if it has accepted, reading and writing raise
                                            ``ConnectionLost`` instead
the connection to the caller is lost        reading and writing raise ``ConnectionLost``
==========================================  ======================================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from sys import modules
from typing import Any, TypeAlias

from ..errors import BadMessage, BadRequest, ConnectionLost, InvalidKey, Overloaded, StreamReset
from ..ipc.messages import UNDECODABLE, DeliverSession, Message
from ..limits import MAX_SESSIONS_PER_BINDING, RESET_FAILED, RESET_LOST
from ..otel import OTEL, has_provider
from ..peer import from_message
from ..request_id import SERVED_REQUEST, ServedRequest
from ..session.session import Session
from ..session.shared_memory import ReceiveDescriptor
from .binding import ServedBinding, encode_error, encode_exception
from .start_queue import StartQueue

log = logging.getLogger(__name__)

Send: TypeAlias = Callable[[bytes, bytes, Any], object]
"""Sends a message: correlation id, header, payload."""


class _ServedSession(ServedRequest):
    """Session whose handler runs."""

    __slots__ = ("_request_id",)

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    @property
    def request_id(self) -> str:
        return self._request_id

    def end(self) -> None:
        """The handler has ended: what it leaves behind does not belong to the session."""
        self._request_id = ""


class SessionDispatcher:
    """Sessions that this process serves. Create and use it inside one running event loop.

    Attributes:
        tasks: handlers that run, and their bindings.
    """

    def __init__(
        self,
        send: Send,
        send_session_message: Send,
        starts: StartQueue,
        receive_descriptor: ReceiveDescriptor | None = None,
        on_session_end: Callable[[], object] = lambda: None,
    ) -> None:
        """
        Args:
            send: sends the answer to the opening of a session. Must not raise.
            send_session_message: sends one message of a session. Raises P2PError if the connection is lost.
            starts: queue in which handlers wait for their start, together with those of requests.
            receive_descriptor: see ``SessionState``.
            on_session_end: called when a session has ended, and when its handler has.
        """
        self._send = send
        self._send_session_message = send_session_message
        self._starts = starts
        self._receive_descriptor = receive_descriptor
        self._on_session_end = on_session_end
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[bytes, Session] = {}
        self._handlers: dict[bytes, asyncio.Task[None]] = {}
        self.tasks: dict[asyncio.Task[None], ServedBinding] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open_session(self, correlation: bytes, binding: ServedBinding, message: DeliverSession, payload: bytes) -> None:
        """Run the binding's handler for one session."""
        if binding.sessions >= MAX_SESSIONS_PER_BINDING:
            error = Overloaded(what=f"sessions at {binding.protocol}", limit=MAX_SESSIONS_PER_BINDING)
            self._send(correlation, *encode_error(error))
            return
        if correlation in self._sessions:
            self._send(
                correlation, *encode_error(BadMessage(reason="a session with this correlation id is open already"))
            )
            return
        try:
            peer = from_message(message)
        except InvalidKey as error:
            self._send(correlation, *encode_error(error))
            return
        session = self._sessions[correlation] = Session(
            partial(self._send_session_message, correlation),
            protocol=message.protocol,
            instance=message.instance,
            peer=peer,
            credit=message.credit,
            window=message.window,
            on_end=lambda: self._remove(correlation),
            receive_descriptor=self._receive_descriptor if message.shares_memory else None,
            request_id=message.request_id,
        )
        self._starts.on_read()
        task = self._loop.create_task(self._serve(correlation, session, binding, message, payload))
        self.tasks[task] = binding
        binding.sessions += 1
        self._handlers[correlation] = task
        task.add_done_callback(lambda task: self._ended(correlation, task))

    def _remove(self, correlation: bytes) -> None:
        self._sessions.pop(correlation, None)
        self._on_session_end()

    def on_session_message(self, correlation: bytes, message: Message, payload: bytes) -> None:
        """Handle one message of a session. A message of a session that has ended is ignored."""
        session = self._sessions.get(correlation)
        if session is not None:
            session.on_message(message, payload)

    def cancel(self, correlation: bytes) -> None:
        """Cancel the opening of a session. If the handler has accepted it meanwhile, the session is lost."""
        session = self._sessions.get(correlation)
        if session is not None:
            accepted = session.opened.done()
            session.fail(ConnectionLost(what="the program that opened the session"))
            if not accepted:
                self._handlers[correlation].cancel()

    def connection_lost(self) -> None:
        """End all sessions, because the network process has ended."""
        for session in list(self._sessions.values()):
            session.fail(ConnectionLost(what="the daemon's network process"))

    def _ended(self, correlation: bytes, task: asyncio.Task[None]) -> None:
        self.tasks.pop(task).sessions -= 1
        if self._handlers.get(correlation) is task:
            del self._handlers[correlation]
        self._on_session_end()

    async def _serve(
        self, correlation: bytes, session: Session, binding: ServedBinding, message: DeliverSession, payload: bytes
    ) -> None:
        served = _ServedSession(session.request_id)
        SERVED_REQUEST.set(served)
        try:
            if not self._starts.has_time():
                await self._starts.wait(message.peer)
            handler = binding.streams
            if handler is None:
                raise BadRequest(protocol=binding.protocol, reason="it takes no sessions")
            initial = None
            if handler.decode is not None:
                try:
                    initial = handler.decode(payload)
                except UNDECODABLE as error:
                    raise BadRequest(protocol=binding.protocol, reason=str(error)) from None
            serving = handler.serve(session, initial)
            if OTEL in modules and has_provider():
                from ..otel.spans import served as in_span

                serving = in_span(message, session.request_id, serving)
            await serving
            await session.close()
        except BaseException as error:  # a handler that exits ends its own session, not the process
            if isinstance(error, GeneratorExit) and not self._loop.is_running():
                raise
            self._on_error(correlation, session, binding, error)
        finally:
            served.end()

    def _on_error(self, correlation: bytes, session: Session, binding: ServedBinding, error: BaseException) -> None:
        if session.is_over:
            if isinstance(error, asyncio.CancelledError):  # the caller waits no more, or a worker has the session
                return
            log.info("a session of %s ended: %r", binding.protocol, error)
        elif not session.opened.done():
            self._sessions.pop(correlation, None)
            self._send(correlation, *encode_exception(error, binding))
        elif isinstance(error, asyncio.CancelledError):
            session.abort(RESET_LOST)
        else:
            if isinstance(error, StreamReset | ConnectionLost):
                log.info("a session of %s ended: %s", binding.protocol, error)
            else:
                log.error(
                    "%s (%s) of %s: uncaught %s in a session",
                    binding.protocol, binding.instance, binding.identity, type(error).__name__, exc_info=error,
                )  # fmt: skip
            session.abort(RESET_FAILED)
