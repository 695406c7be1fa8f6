"""The dispatcher: requests in, outcomes out. Knows nothing of sockets.

Whoever serves, an identity's process or a program, gives it each ``Deliver`` and ``Cancel`` that the network sends,
and a way to send answers. Each request is handled in a task of its own and ends in at most one answer:

==========================================  ======================================================
the handler returns                         ``Reply``
it raises ``ApplicationError``              ``ApplicationFailure``, with the error's payload
it raises a ``P2PError``                    ``Failure`` of it
it raises anything else                     ``Failure`` of ``HandlerFailed``: the class's name; the rest goes to the log
the request does not fit its annotation     ``Failure`` of ``BadRequest``, naming the field
the reply is too large or not encodable     ``Failure`` of ``PayloadTooLarge`` or ``HandlerFailed``
its deadline passes                         ``Failure`` of ``DeadlineExceeded``; the handler is cancelled
nobody waits any more (``Cancel``)          nothing; the handler is cancelled
==========================================  ======================================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from .deadlines import Deadlines
from .errors import (
    ApplicationError,
    BadMessage,
    BadRequest,
    DeadlineExceeded,
    HandlerFailed,
    InstanceNotFound,
    Overloaded,
    P2PError,
    PayloadTooLarge,
    PeerOffline,
    ProtocolNotFound,
)
from .handlers import RequestHandler
from .keys import PublicKey
from .limits import MAX_CALL_TIMEOUT, MAX_CALLS_PER_BINDING, MAX_HEADER, MAX_PAYLOAD
from .messages import UNDECODABLE, ApplicationFailure, Deliver, Failure, Reply, encode
from .protocol import peer_from
from .trace import TRACING, mark

__all__ = ["Binding", "Dispatcher", "Outcome"]

log = logging.getLogger(__name__)

Outcome: TypeAlias = tuple[bytes, bytes]
"""Header and payload of an answer."""
Send: TypeAlias = Callable[[bytes, bytes, bytes], object]
"""Takes (id, header, payload). Must not raise."""

_REPLY: Final = encode(Reply())
_MAX_KIND: Final = 128
_MAX_TEXT: Final = 4096
_encode_payload: Final = msgspec.msgpack.Encoder().encode


class Binding:
    """One protocol instance that one identity offers, and the handler behind it.

    Attributes:
        in_flight: handlers that run, including those that were cancelled and have not noticed yet.
    """

    __slots__ = ("handler", "identity", "in_flight", "instance", "key", "protocol")

    def __init__(
        self, identity: str, key: PublicKey, protocol: str, instance: str, handler: RequestHandler | None
    ) -> None:
        self.identity = identity
        self.key = key
        self.protocol = protocol
        self.instance = instance
        self.handler = handler
        self.in_flight = 0

    def failed(self, reason: str) -> Outcome:
        return _failure(HandlerFailed(peer=self.key.id52, protocol=self.protocol, reason=reason))


class _Running(NamedTuple):
    task: asyncio.Task[None]
    binding: Binding
    seconds: float


class Dispatcher:
    """Made and used inside one running event loop.

    Args:
        send: sends one answer to whoever delivered the request.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._bindings: dict[tuple[str, str, str], Binding] = {}
        self._running: dict[bytes, _Running] = {}
        self._forsaken: dict[asyncio.Task[None], Binding] = {}
        self._deadlines: Deadlines[bytes] = Deadlines(self._loop, self._expired)
        self._draining = False

    @property
    def in_flight(self) -> int:
        """Requests that somebody waits for."""
        return len(self._running)

    def add(self, binding: Binding) -> None:
        """Requests for it are taken from now on; replaces one of the same name."""
        self._bindings[binding.identity, binding.protocol, binding.instance] = binding

    def remove(self, binding: Binding) -> None:
        """Requests for it are refused from now on; those in flight go on."""
        self._bindings.pop((binding.identity, binding.protocol, binding.instance), None)

    def deliver(self, correlation: bytes, message: Deliver, payload: bytes) -> None:
        """Take one request; its outcome is sent under the same id."""
        if TRACING:
            mark("5 handler: request")
        binding = self._bindings.get((message.identity, message.protocol, message.instance))
        if binding is None or self._draining:
            self._send(correlation, *_failure(self._why_not(message)))
            return
        if binding.in_flight >= MAX_CALLS_PER_BINDING:
            what = f"calls in flight at {binding.protocol}"
            self._send(correlation, *_failure(Overloaded(what=what, limit=MAX_CALLS_PER_BINDING)))
            return
        if correlation in self._running:
            self._send(correlation, *_failure(BadMessage(reason="this id is in flight already")))
            return
        seconds = min(message.deadline_ms / 1000, MAX_CALL_TIMEOUT)
        binding.in_flight += 1
        task = self._loop.create_task(self._handle(correlation, binding, message, payload))
        self._running[correlation] = _Running(task, binding, seconds)
        self._deadlines.add(correlation, self._loop.time() + seconds)

    def cancel(self, correlation: bytes) -> None:
        """Nobody waits for the answer any more."""
        self._forsake(correlation)

    def cancel_all(self) -> None:
        """Whoever delivered the requests is gone; nobody waits for any answer."""
        for correlation in list(self._running):
            self._forsake(correlation)

    async def finish(self, binding: Binding, timeout: float) -> bool:
        """Wait for the binding's requests in flight; what is still running after ``timeout`` seconds is cancelled.

        Returns:
            Whether all of them ended by themselves.
        """
        return await self._finish(
            [key for key, running in self._running.items() if running.binding is binding], timeout
        )

    async def drain(self, timeout: float) -> bool:
        """Refuse what arrives from now on, and ``finish`` everything that is in flight."""
        self._draining = True
        return await self._finish(list(self._running), timeout)

    def close(self) -> None:
        """Cancels whatever is in flight, without an answer."""
        self._draining = True
        self.cancel_all()
        self._deadlines.close()

    # ── one request ──────────────────────────────────────────────────────────────────────────────

    async def _handle(self, correlation: bytes, binding: Binding, message: Deliver, payload: bytes) -> None:
        try:
            handler = binding.handler
            if handler is None:
                raise BadRequest(protocol=binding.protocol, reason="it takes no requests")
            try:
                decoded = handler.decode(payload)
            except UNDECODABLE as error:
                raise BadRequest(protocol=binding.protocol, reason=str(error)) from None
            if handler.wants_peer:
                reply = await handler.call(decoded, peer_from(message.peer, message.petname))
            else:
                reply = await handler.call(decoded)
            answer = _encode_payload(reply)
            if len(answer) > MAX_PAYLOAD:
                raise PayloadTooLarge(size=len(answer), limit=MAX_PAYLOAD)
            header = _REPLY
        except GeneratorExit:  # the event loop is gone
            raise
        except BaseException as error:  # a handler that exits ends its own call, not the process
            if not self._is_awaited(correlation):
                return
            header, answer = _outcome_of(error, binding)
        if TRACING:
            mark("5 handler: answer")
        if self._is_awaited(correlation):
            del self._running[correlation]
            self._deadlines.discard(correlation)
            binding.in_flight -= 1
            self._send(correlation, header, answer)

    def _is_awaited(self, correlation: bytes) -> bool:
        """Whether somebody waits for the answer of the current task, and not of a later one under the same id."""
        running = self._running.get(correlation)
        return running is not None and running.task is asyncio.current_task()

    def _expired(self, correlation: bytes) -> None:
        running = self._forsake(correlation)
        if running is not None:
            self._send(correlation, *_failure(DeadlineExceeded(seconds=running.seconds)))

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

    async def _finish(self, correlations: list[bytes], timeout: float) -> bool:
        tasks = [self._running[correlation].task for correlation in correlations]
        if not tasks:
            return True
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for correlation in correlations:
            running = self._running.get(correlation)
            if running is not None and running.task in late:
                self._forsake(correlation)
                self._send(correlation, *running.binding.failed("it was stopped before it had finished"))
        return not late

    def _why_not(self, message: Deliver) -> P2PError:
        offered = [binding for binding in self._bindings.values() if binding.identity == message.identity]
        if not offered or self._draining:
            return PeerOffline(peer=message.identity)
        peer = offered[0].key.id52
        if any(binding.protocol == message.protocol for binding in offered):
            return InstanceNotFound(peer=peer, protocol=message.protocol, instance=message.instance)
        return ProtocolNotFound(peer=peer, protocol=message.protocol)


def _failure(error: P2PError) -> Outcome:
    return encode(Failure.of(error)), b""


def _outcome_of(error: BaseException, binding: Binding) -> Outcome:
    """What the caller is told about an exception; the log gets the rest."""
    name = type(error).__name__
    try:
        if isinstance(error, ApplicationError):
            header = encode(ApplicationFailure(str(error.kind)[:_MAX_KIND], str(error.message)[:_MAX_TEXT]))
            payload: Any = _encode_payload(error.payload)
            if len(payload) <= MAX_PAYLOAD:
                return header, payload
        elif isinstance(error, P2PError):
            header, payload = _failure(error)
            if len(header) <= MAX_HEADER:
                return header, payload
    except Exception as unfit:  # fields or a payload that cannot be encoded
        log.error("%s raised a %s that cannot be sent: %s", binding.protocol, name, unfit)
        return binding.failed(name)
    log.error("%s (%s) of %s: uncaught %s", binding.protocol, binding.instance, binding.identity, name, exc_info=error)
    return binding.failed(name)
