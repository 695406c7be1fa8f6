"""The dispatcher: requests in, outcomes out. Knows nothing of sockets.

Whoever serves, an identity's process or a program, gives it what the network sends, and a way to send answers.
``session_host`` does the same for sessions. Each request is handled in a task of its own and ends in at most one
answer:

==========================================  ======================================================
the handler returns                         ``Reply``
it raises ``ApplicationError``              ``ApplicationFailure``, with the error's payload
it raises a ``P2PError``                    ``Failure`` of it
there is no handler for the command         ``Failure`` of ``CommandNotFound``
it raises anything else                     ``Failure`` of ``HandlerFailed``: the class's name; the rest goes to the log
the request does not fit its annotation     ``Failure`` of ``BadRequest``, naming the field
the reply is too large or not encodable     ``Failure`` of ``PayloadTooLarge`` or ``HandlerFailed``
its deadline passes                         ``Failure`` of ``DeadlineExceeded``; the handler is cancelled
nobody waits any more (``Cancel``)          nothing; the handler is cancelled
==========================================  ======================================================
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

import msgspec

from .binding import Binding, Bindings, failure, outcome_of
from .call_context import CallContext
from .deadlines import Deadlines
from .errors import BadMessage, BadRequest, DeadlineExceeded, Overloaded, PayloadTooLarge
from .handlers import RequestHandler
from .limits import MAX_CALL_TIMEOUT, MAX_CALLS_PER_BINDING, MAX_PAYLOAD
from .messages import UNDECODABLE, Cancel, Deliver, Message, Offer, Reply, SessionPart, encode
from .peer import Peer, peer_of
from .session_host import Send, SessionHost
from .trace import TRACING, mark

__all__ = ["Dispatcher"]

_said: Final = msgspec.msgpack.Decoder(Deliver | Offer | SessionPart)
_REPLY: Final = encode(Reply())
_encode_payload: Final = msgspec.msgpack.Encoder().encode


class _Running(NamedTuple):
    task: asyncio.Task[None]
    binding: Binding
    seconds: float


class Dispatcher:
    """Made and used inside one running event loop.

    Args:
        send: sends one answer to whoever delivered the request. Must not raise.
        send_part: the same for what sessions say; raises P2PError when nobody can be told. ``send`` by default.
    """

    def __init__(self, send: Send, send_part: Send | None = None) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._bindings = Bindings()
        self._sessions = SessionHost(send, send_part or send)
        self._running: dict[bytes, _Running] = {}
        self._forsaken: dict[asyncio.Task[None], Binding] = {}
        self._deadlines: Deadlines[bytes] = Deadlines(self._loop, self._expired)

    @property
    def in_flight(self) -> int:
        """Requests that somebody waits for, and sessions."""
        return len(self._running) + len(self._sessions)

    def add(self, binding: Binding) -> None:
        """Requests for it are taken from now on; replaces one of the same name."""
        self._bindings.add(binding)

    def remove(self, binding: Binding) -> None:
        """Requests for it are refused from now on; those in flight go on."""
        self._bindings.remove(binding)

    def on_message(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        """What the network says by itself. An answer that came too late is dropped."""
        try:
            message = _said.decode(header)
        except UNDECODABLE:
            return
        if type(message) is Deliver:
            self.deliver(correlation, message, payload)
        elif type(message) is Offer:
            self.offer(correlation, message, payload)
        elif type(message) is Cancel:
            self.cancel(correlation)
        else:
            self.take(correlation, message, payload)

    def deliver(self, correlation: bytes, message: Deliver, payload: bytes) -> None:
        """Take one request; its outcome is sent under the same id."""
        if TRACING:
            mark("5 handler: request")
        binding = self._bindings.find(message)
        if not isinstance(binding, Binding):
            self._send(correlation, *failure(binding))
            return
        if binding.in_flight >= MAX_CALLS_PER_BINDING:
            what = f"calls in flight at {binding.protocol}"
            self._send(correlation, *failure(Overloaded(what=what, limit=MAX_CALLS_PER_BINDING)))
            return
        if correlation in self._running:
            self._send(correlation, *failure(BadMessage(reason="this id is in flight already")))
            return
        seconds = min(message.deadline_ms / 1000, MAX_CALL_TIMEOUT)
        deadline = self._loop.time() + seconds
        binding.in_flight += 1
        task = self._loop.create_task(self._handle(correlation, binding, message, payload, deadline))
        self._running[correlation] = _Running(task, binding, seconds)
        self._deadlines.add(correlation, deadline)

    def offer(self, correlation: bytes, message: Offer, payload: bytes) -> None:
        """Take one session."""
        binding = self._bindings.find(message)
        if isinstance(binding, Binding):
            self._sessions.offer(correlation, binding, message, payload)
        else:
            self._send(correlation, *failure(binding))

    def take(self, correlation: bytes, message: Message, payload: bytes) -> None:
        """Something is said in a session."""
        self._sessions.take(correlation, message, payload)

    def cancel(self, correlation: bytes) -> None:
        """Nobody waits for the answer any more."""
        if self._forsake(correlation) is None:
            self._sessions.cancel(correlation)

    def cancel_all(self) -> None:
        """Whoever delivered the requests is gone; nobody waits for any answer, and sessions are broken."""
        for correlation in list(self._running):
            self._forsake(correlation)
        self._sessions.lose_all()

    async def finish(self, binding: Binding, timeout: float) -> bool:
        """Wait for the binding's requests in flight; what is still running after ``timeout`` seconds is cancelled.

        Returns:
            Whether all of them ended by themselves.
        """
        return await self._finish(
            [key for key, running in self._running.items() if running.binding is binding],
            [task for task, served in self._sessions.tasks.items() if served is binding],
            timeout,
        )

    async def drain(self, timeout: float) -> bool:
        """Refuse what arrives from now on, and ``finish`` everything that is in flight."""
        self._bindings.closed = True
        return await self._finish(list(self._running), list(self._sessions.tasks), timeout)

    def close(self) -> None:
        """Cancels whatever is in flight, without an answer."""
        self._bindings.closed = True
        self.cancel_all()
        self._deadlines.close()

    # ── one request ──────────────────────────────────────────────────────────────────────────────

    async def _handle(
        self, correlation: bytes, binding: Binding, message: Deliver, payload: bytes, deadline: float
    ) -> None:
        try:
            handler = binding.handler_of(message.command)
            try:
                decoded = handler.decode(payload)
            except UNDECODABLE as error:
                raise BadRequest(protocol=binding.protocol, reason=str(error)) from None
            if binding.turns is None:
                reply = await self._call(handler, decoded, message, deadline)
            else:
                async with binding.turns:
                    reply = await self._call(handler, decoded, message, deadline)
            answer = _encode_payload(reply)
            if len(answer) > MAX_PAYLOAD:
                raise PayloadTooLarge(size=len(answer), limit=MAX_PAYLOAD)
            header = _REPLY
        except GeneratorExit:  # the event loop is gone
            raise
        except BaseException as error:  # a handler that exits ends its own call, not the process
            if not self._is_awaited(correlation):
                return
            header, answer = outcome_of(error, binding)
        if TRACING:
            mark("5 handler: answer")
        if self._is_awaited(correlation):
            del self._running[correlation]
            self._deadlines.discard(correlation)
            binding.in_flight -= 1
            self._send(correlation, header, answer)

    async def _call(self, handler: RequestHandler, decoded: Any, message: Deliver, deadline: float) -> Any:
        if not handler.extras:
            return await handler.call(decoded)
        extras: list[Any] = []
        for kind in handler.extras:
            if kind is Peer:
                extras.append(peer_of(message))
            elif kind is CallContext:
                extras.append(CallContext(message.command, message.call_id, deadline))
            else:
                extras.append(handler.context)
        return await handler.call(decoded, *extras)

    def _is_awaited(self, correlation: bytes) -> bool:
        """Whether somebody waits for the answer of the current task, and not of a later one under the same id."""
        running = self._running.get(correlation)
        return running is not None and running.task is asyncio.current_task()

    def _expired(self, correlation: bytes) -> None:
        running = self._forsake(correlation)
        if running is not None:
            self._send(correlation, *failure(DeadlineExceeded(seconds=running.seconds)))

    def _forsake(self, correlation: bytes) -> _Running | None:
        running = self._running.pop(correlation, None)
        if running is not None:
            self._deadlines.discard(correlation)
            self._forsaken[running.task] = running.binding
            running.task.add_done_callback(self._forsaken_ended)
            running.task.cancel()
        return running

    def _forsaken_ended(self, task: asyncio.Task[None]) -> None:
        self._forsaken.pop(task).in_flight -= 1

    async def _finish(self, correlations: list[bytes], sessions: list[asyncio.Task[None]], timeout: float) -> bool:
        tasks = [self._running[correlation].task for correlation in correlations]
        if not tasks and not sessions:
            return True
        _, late = await asyncio.wait([*tasks, *sessions], timeout=timeout)
        for task in late:
            if task in sessions:
                task.cancel()
        for correlation in correlations:
            running = self._running.get(correlation)
            if running is not None and running.task in late:
                self._forsake(correlation)
                self._send(correlation, *running.binding.failed("it was stopped before it had finished"))
        return not late
