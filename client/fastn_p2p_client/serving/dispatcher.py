"""Dispatcher of requests: runs the handler of each request and sends one answer. It knows no sockets.

An identity process or a program gives it what the network process sends, and a function that sends answers.
``session_dispatcher`` does the same for sessions. Each request is handled in a task of its own:

=============================================  ===================================================================
the handler returns                            ``Reply``
the handler raises ``ApplicationError``        ``ApplicationErrorReply``, with the error's payload
the handler raises a ``P2PError``              ``ErrorReply`` with it
the handler raises another exception           ``ErrorReply`` of ``HandlerFailed`` with the class's name; the rest is
                                               logged
there is no handler for the command            ``ErrorReply`` of ``CommandNotFound``
the request does not fit the annotation        ``ErrorReply`` of ``BadRequest``, naming the field
the reply is too large or cannot be encoded    ``ErrorReply`` of ``PayloadTooLarge`` or ``HandlerFailed``
the deadline passes                            ``ErrorReply`` of ``DeadlineExceeded``; the handler is cancelled
the caller cancels (``Cancel``)                no answer; the handler is cancelled
=============================================  ===================================================================

A request with a ``call_id`` is executed once, however often it is delivered; see ``idempotency``. It goes on when the
network process that delivered it has ended. If its binding has claims, it is claimed first; see ``claims``.

A handler that computes for long does not keep the process from reading: once the handlers of one loop iteration have
used up its time, further ones wait in a ``StartQueue``, in which peers take turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from sys import modules
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..call_context import CallContext
from ..errors import BadMessage, BadRequest, DeadlineExceeded, Overloaded, PayloadTooLarge
from ..ipc.deadlines import DeadlineTimer
from ..ipc.latency_trace import TRACING, trace_point
from ..ipc.message_cache import MessageCache
from ..ipc.messages import (
    UNDECODABLE,
    ApplicationErrorReply,
    CallUnknown,
    Cancel,
    DeliverCall,
    DeliverSession,
    ErrorReply,
    HomeChanged,
    Message,
    Reply,
    SessionMessage,
    encode,
)
from ..limits import MAX_CALL_TIMEOUT, MAX_CALLS_PER_BINDING, MAX_HEADER, MAX_PAYLOAD
from ..otel import OTEL, has_provider
from ..peer import Peer, from_message
from ..request_id import DAEMON_ID, SERVED_REQUEST, ServedRequest, full_id
from ..session.shared_memory import ReceiveDescriptor
from .binding import ServedBinding, ServedBindings, encode_error, encode_exception
from .forwarded_call import ForwardedCall
from .handlers import RequestHandler
from .idempotency import IdempotencyCache
from .session_dispatcher import Send, SessionDispatcher
from .start_queue import StartQueue

if TYPE_CHECKING:
    from ..claims.call_claims import CallClaims, Outcome

_messages: Final = MessageCache(msgspec.msgpack.Decoder(DeliverCall | DeliverSession | HomeChanged | SessionMessage))
_REPLY: Final = encode(Reply())
_answers: Final = msgspec.msgpack.Decoder(Reply | ApplicationErrorReply | ErrorReply)
_UNKNOWN: Final = encode(CallUnknown())
_encode_payload: Final = msgspec.msgpack.Encoder().encode


class _Running(ServedRequest):
    """A request whose handler runs. A later request may have the same key, so it is compared by identity."""

    __slots__ = ("_correlation", "binding", "deadline", "message", "seconds", "task")

    def __init__(
        self, binding: ServedBinding, seconds: float, deadline: float, message: DeliverCall, correlation: bytes
    ) -> None:
        self.binding = binding
        self.seconds = seconds
        self.deadline = deadline
        self.message = message
        self._correlation = correlation
        self.task: asyncio.Future[Any]

    @property
    def request_id(self) -> str:
        if self.task.done():
            return ""
        message = self.message
        return full_id(message.request_id, self._correlation[DAEMON_ID:]) or message.call_id.hex()

    @property
    def traceparent(self) -> str:
        return self.message.traceparent


class Dispatcher:
    """Runs the handlers of this process's bindings. Create and use it inside one running event loop.

    Args:
        send: sends one answer to the network process: correlation id, header, payload. Must not raise.
        send_session_message: sends one message of a session; raises P2PError if the connection is lost. By default
            ``send``.
        receive_descriptor: receives the descriptor of a session's shared memory; None if sessions share none.
        on_session_end: called when a session has ended, and when its handler has.
    """

    def __init__(
        self,
        send: Send,
        send_session_message: Send | None = None,
        receive_descriptor: ReceiveDescriptor | None = None,
        on_session_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._bindings = ServedBindings()
        self._starts = StartQueue(self._loop)
        self._sessions = SessionDispatcher(
            send, send_session_message or send, self._starts, receive_descriptor, on_session_end
        )
        self._running: dict[bytes, _Running] = {}
        """By correlation id, or by the key of a call with a ``call_id``."""
        self._idempotency = IdempotencyCache(self._loop.time)
        self._cancelled_handlers: dict[asyncio.Future[Any], ServedBinding] = {}
        self._deadlines: DeadlineTimer[bytes] = DeadlineTimer(self._loop, self._expired)

    @property
    def in_flight(self) -> int:
        """Requests whose answer is awaited, and sessions."""
        return len(self._running) + len(self._sessions)

    @property
    def has_sessions(self) -> bool:
        """True while sessions are open, or handlers of sessions run."""
        return bool(self._sessions) or bool(self._sessions.tasks)

    @property
    def has_outcomes(self) -> bool:
        """True if callers may still ask for the outcome of an earlier call, so this process must not forget it."""
        return self._idempotency.has_outcomes

    def add(self, binding: ServedBinding) -> None:
        """Accept requests for a binding from now on. It replaces one with the same names."""
        self._bindings.add(binding)

    def remove(self, binding: ServedBinding) -> None:
        """Reject requests for a binding from now on. Requests in flight go on."""
        self._bindings.remove(binding)

    def on_message(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        """Handle one message of the network process. Ignore the answer to a request that has timed out."""
        try:
            message = _messages[header]
        except UNDECODABLE:
            return
        if type(message) is DeliverCall:
            self.deliver(correlation, message, payload)
        elif type(message) is DeliverSession:
            self.open_session(correlation, message, payload)
        elif type(message) is Cancel:
            self.cancel(correlation)
        elif type(message) is HomeChanged:
            binding = self._bindings.find(message)
            if isinstance(binding, ServedBinding):
                binding.on_home(message.daemon)
        else:
            self.on_session_message(correlation, message, payload)

    def deliver(self, correlation: bytes, message: DeliverCall, payload: bytes) -> None:
        """Handle one request. The answer is sent under the same correlation id."""
        if TRACING:
            trace_point("5 handler: request")
        binding = self._bindings.find(message)
        if not isinstance(binding, ServedBinding):
            self._send(correlation, *encode_error(binding))
            return
        if binding.in_flight >= MAX_CALLS_PER_BINDING:
            what = f"calls in flight at {binding.protocol}"
            self._send(correlation, *encode_error(Overloaded(what=what, limit=MAX_CALLS_PER_BINDING)))
            return
        key = correlation
        if message.call_id:
            key = IdempotencyCache.key_of(message)
            if self._is_duplicate(key, correlation, again=message.attempt > 0):
                return
        if key in self._running:
            self._send(correlation, *encode_error(BadMessage(reason="this correlation id is in flight already")))
            return
        if message.call_id:
            self._idempotency.start(key)
            self._idempotency.add_waiter(key, correlation)
        seconds = min(message.deadline_ms / 1000, MAX_CALL_TIMEOUT)
        deadline = self._loop.time() + seconds
        binding.in_flight += 1
        running = self._running[key] = _Running(binding, seconds, deadline, message, correlation)
        if binding.forward is None:
            self._starts.on_read()
            running.task = self._loop.create_task(self._handle(key, running, payload))
        else:
            call = ForwardedCall(message, correlation, payload, deadline)
            running.task = self._forward(key, running, binding.forward, call)
        self._deadlines.add(key, deadline)

    def _is_duplicate(self, key: bytes, correlation: bytes, *, again: bool) -> bool:
        """Return whether the call was delivered before, and then answer it or add a waiter.

        A caller that retries gets ``CallUnknown`` if this process does not know its call.
        """
        outcome = self._idempotency.outcome(key)
        if outcome is not None:
            self._send(correlation, *outcome)
        elif key in self._idempotency:
            self._idempotency.add_waiter(key, correlation)
        elif again:
            self._send(correlation, _UNKNOWN, b"")
        else:
            return False
        return True

    def open_session(self, correlation: bytes, message: DeliverSession, payload: bytes) -> None:
        """Handle the opening of one session."""
        binding = self._bindings.find(message)
        if isinstance(binding, ServedBinding):
            self._sessions.open_session(correlation, binding, message, payload)
        else:
            self._send(correlation, *encode_error(binding))

    def on_session_message(self, correlation: bytes, message: Message, payload: bytes) -> None:
        """Handle one message of an open session."""
        self._sessions.on_session_message(correlation, message, payload)

    def cancel(self, correlation: bytes) -> None:
        """Cancel the handler of a request or session: the caller does not wait any more."""
        key = self._idempotency.remove_waiter(correlation)
        if key is not None:
            self._idempotency.finish(key)
        if self._abandon(key or correlation) is None:
            self._sessions.cancel(correlation)

    def cancel_all(self) -> None:
        """Cancel everything, because the network process has ended. Calls with a ``call_id`` go on."""
        for key in list(self._running):
            if key not in self._idempotency:
                self._abandon(key)
        self._idempotency.remove_all_waiters()
        self._sessions.connection_lost()

    async def wait_for_binding(self, binding: ServedBinding, timeout: float) -> bool:
        """Wait for a binding's requests and sessions. Cancel those that still run after ``timeout`` seconds.

        Returns:
            True if none had to be cancelled.
        """
        return await self._finish(
            [key for key, running in self._running.items() if running.binding is binding],
            [task for task, served in self._sessions.tasks.items() if served is binding],
            timeout,
        )

    async def drain(self, timeout: float) -> bool:
        """Reject further requests, wait for those in flight, and cancel those that still run after ``timeout`` seconds.

        Returns:
            True if none had to be cancelled.
        """
        self._bindings.closed = True
        return await self._finish(list(self._running), list(self._sessions.tasks), timeout)

    def close(self) -> None:
        """Cancel everything in flight, without an answer."""
        self._bindings.closed = True
        self.cancel_all()
        for key in list(self._running):
            self._abandon(key)
        self._deadlines.close()

    # ── one request ──────────────────────────────────────────────────────────────────────────────

    async def _handle(self, key: bytes, running: _Running, payload: bytes) -> None:
        binding, message = running.binding, running.message
        try:
            if not self._starts.has_time():
                await self._starts.wait(message.peer)
            handler = binding.handler_of(message.command)
            try:
                decoded = handler.decode(payload)
            except UNDECODABLE as error:
                raise BadRequest(protocol=binding.protocol, reason=str(error)) from None
            if binding.claims is not None and message.call_id:
                outcome = await self._claim(binding.claims, key, running, handler, decoded)
            else:
                outcome = _replied(await self._reply_of(handler, decoded, running))
        except BaseException as error:  # a handler that exits ends its own call, not the process
            if isinstance(error, GeneratorExit) and not self._loop.is_running():
                raise
            if self._running.get(key) is not running:
                return
            outcome = encode_exception(error, binding)
        self._end(key, running, outcome)

    def _forward(
        self,
        key: bytes,
        running: _Running,
        forward: Callable[[ForwardedCall], asyncio.Future[Outcome]],
        call: ForwardedCall,
    ) -> asyncio.Future[Outcome]:
        """Have the binding pass a call on. Return the future of its outcome."""

        def on_done(future: asyncio.Future[Outcome]) -> None:
            try:
                outcome = header, answer = future.result()
                if header != _REPLY:
                    _answers.decode(header[:MAX_HEADER])
                _check_size(answer)
            except BaseException as error:
                if self._running.get(key) is not running:
                    return
                outcome = encode_exception(error, running.binding)
            self._end(key, running, outcome)

        try:
            future = forward(call)
        except Exception as error:
            future = self._loop.create_future()
            future.set_exception(error)
        future.add_done_callback(on_done)
        return future

    def _end(self, key: bytes, running: _Running, outcome: Outcome) -> None:
        """Send the outcome of a request, unless it was abandoned."""
        if TRACING:
            trace_point("5 handler: answer")
        if self._running.get(key) is running:
            del self._running[key]
            if time.monotonic() >= running.deadline:  # the handler may notice it a moment before the timer
                outcome = encode_error(DeadlineExceeded(seconds=running.seconds))
            self._deadlines.discard(key)
            running.binding.in_flight -= 1
            if running.message.call_id:
                self._idempotency.store(key, outcome, running.deadline)
                self._answer(key, outcome)
            else:
                self._send(key, *outcome)

    async def _claim(
        self, claims: CallClaims, key: bytes, running: _Running, handler: RequestHandler, decoded: Any
    ) -> Outcome:
        """Return the outcome of a claimed call, which is perhaps executed here."""
        binding, message = running.binding, running.message

        async def execute() -> Outcome:
            try:
                return _replied(await self._reply_of(handler, decoded, running))
            except BaseException as error:
                if isinstance(error, GeneratorExit) or self._running.get(key) is not running:
                    raise
                return encode_exception(error, binding)  # an outcome, too

        call = CallContext(message.command, message.call_id, running.deadline)
        return await claims.execute_once(message.peer, call, execute)

    def _reply_of(self, handler: RequestHandler, decoded: Any, running: _Running) -> Awaitable[Any]:
        """Return the reply of a handler, when its binding has room for it."""
        limit = running.binding.concurrency_limit
        if limit is None:
            return self._call(handler, decoded, running)
        return self._call_within(limit, handler, decoded, running)

    async def _call_within(
        self, limit: asyncio.Semaphore, handler: RequestHandler, decoded: Any, running: _Running
    ) -> Any:
        async with limit:
            return await self._call(handler, decoded, running)

    def _call(self, handler: RequestHandler, decoded: Any, running: _Running) -> Awaitable[Any]:
        message = running.message
        if not handler.extras:
            called = handler.call(decoded)
            return self._in_span(called, message, running) if OTEL in modules else called
        extras: list[Any] = []
        for kind in handler.extras:
            if kind is Peer:
                extras.append(from_message(message))
            elif kind is CallContext:
                SERVED_REQUEST.set(running)  # for the tasks that the handler starts
                extras.append(CallContext(message.command, message.call_id, running.deadline, running.request_id))
            else:
                extras.append(handler.context)
        called = handler.call(decoded, *extras)
        return self._in_span(called, message, running) if OTEL in modules else called

    @staticmethod
    def _in_span(called: Awaitable[Any], message: DeliverCall, running: _Running) -> Awaitable[Any]:
        """Return the handler's call in a span, if the program has a tracer provider."""
        if not has_provider():
            return called
        from ..otel.spans import served

        return served(message, running.request_id, called)

    def _answer(self, key: bytes, outcome: Outcome) -> None:
        """Send the outcome under every correlation id that waits for it."""
        for correlation in self._idempotency.finish(key) if key in self._idempotency else (key,):
            self._send(correlation, *outcome)

    def _expired(self, key: bytes) -> None:
        running = self._abandon(key)
        if running is not None:
            self._answer(key, encode_error(DeadlineExceeded(seconds=running.seconds)))

    def _abandon(self, key: bytes) -> _Running | None:
        running = self._running.pop(key, None)
        if running is not None:
            self._deadlines.discard(key)
            self._cancelled_handlers[running.task] = running.binding
            running.task.add_done_callback(self._on_cancelled_end)
            running.task.cancel()
        return running

    def _on_cancelled_end(self, task: asyncio.Future[Any]) -> None:
        self._cancelled_handlers.pop(task).in_flight -= 1

    async def _finish(self, keys: list[bytes], sessions: list[asyncio.Task[None]], timeout: float) -> bool:
        tasks = [self._running[key].task for key in keys]
        if not tasks and not sessions:
            return True
        _, late = await asyncio.wait([*tasks, *sessions], timeout=timeout)
        for task in late:
            if task in sessions:
                task.cancel()
        for key in keys:
            running = self._running.get(key)
            if running is not None and running.task in late:
                self._abandon(key)
                self._answer(key, running.binding.handler_failed("it was stopped before it had finished"))
        return not late


def _replied(reply: Any) -> Outcome:
    """Return the outcome of a request with this reply. Raises PayloadTooLarge."""
    payload = _encode_payload(reply)
    _check_size(payload)
    return _REPLY, payload


def _check_size(payload: bytes) -> None:
    """Raise PayloadTooLarge if it is."""
    if len(payload) > MAX_PAYLOAD:
        raise PayloadTooLarge(size=len(payload), limit=MAX_PAYLOAD)
