"""Requests for whoever serves on this machine, from peers and from local programs: each ends in exactly one outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from msgspec.structs import replace

from fastn_p2p_client.errors import ConnectionLost, DeadlineExceeded, Denied, Overloaded, P2PError
from fastn_p2p_client.ipc.deadlines import DeadlineTimer
from fastn_p2p_client.ipc.latency_trace import (
    TRACING,
    trace_point,
)
from fastn_p2p_client.ipc.messages import (
    ApplicationErrorReply,
    Call,
    CallUnknown,
    Cancel,
    DeliverCall,
    ErrorReply,
    Reply,
    encode,
)
from fastn_p2p_client.limits import MAX_CALL_TIMEOUT, MAX_CALLS_PER_BINDING

from ...runtime.mailbox import (
    Mailbox,
    Sender,
)
from ..address_book import AddressBook
from ..connections.connection import PeerConnection
from ..connections.network_path import (
    LOCAL,
    NetworkPath,
)
from ..connections.payload_memory import (
    MOST_SERVED_OF_STRANGERS,
    Account,
    PayloadMemory,
)
from ..serving.expected_programs import (
    ExpectedPrograms,
    Program,
)
from ..serving.load_balancer import ServingProcess
from ..serving.registration_grace import RegistrationGrace
from ..serving.registry import (
    RegisteredBinding,
    Registry,
)
from ..wire import messages as wire
from ..wire.messages import (
    BULK_THRESHOLD,
)

__all__ = ["OVER", "IncomingCalls", "ReplyTarget", "ServedCall"]

_CANCEL: Final = encode(Cancel())
_OURS: Final = 1 << 63
"""Set in the ids that we choose: whoever serves also asks us, under ids of its own, over the same connection."""
_MAX_FORSAKEN: Final = 1024
OVER: Final = 0.05
"""Seconds before its deadline from which on a request that nobody waits for has run out of time: its caller has a clock
of its own, and is often the first to say so."""


class ReplyTarget(Protocol):
    """Who waits for a request that is being served here."""

    @property
    def way(self) -> NetworkPath:
        """How they are connected."""
        ...

    @property
    def account(self) -> Account:
        """Return where what waits for them is reserved."""
        ...

    def on_reply(self, payload: bytes) -> None: ...
    def on_refusal(self, kind: str, message: str, payload: bytes) -> None: ...
    def on_failure(self, error: P2PError) -> None: ...
    def on_rejected(self, error: P2PError) -> None:
        """As ``on_failure``, where nobody has been asked: there is no such binding, or it does not admit the caller."""
        ...


class _RemoteCaller:
    """Another daemon waits."""

    __slots__ = ("connection", "number")

    def __init__(self, connection: PeerConnection, number: int) -> None:
        self.connection = connection
        self.number = number

    @property
    def way(self) -> NetworkPath:
        return self.connection.way()

    @property
    def account(self) -> Account:
        return self.connection.account

    def on_reply(self, payload: bytes) -> None:
        self._forget()
        self.connection.answer(wire.Reply(self.number), payload)

    def on_refusal(self, kind: str, message: str, payload: bytes) -> None:
        self._forget()
        self.connection.answer(wire.ApplicationErrorReply(self.number, kind, message), payload)

    def on_failure(self, error: P2PError) -> None:
        self._forget()
        self.connection.answer(wire.ErrorReply(self.number, error.code, error.fields()))

    def on_rejected(self, error: P2PError) -> None:
        self._forget()
        self.connection.refuse(self.number, error)

    def _forget(self) -> None:
        self.connection.serving.pop(self.number, None)


class _Gone:
    """The connection over which a call came that goes on has ended. It must not be held: QUIC keeps what it has."""

    __slots__ = ("account",)

    way = LOCAL

    def __init__(self, account: Account) -> None:
        self.account = account

    def on_reply(self, payload: bytes) -> None:
        pass

    def on_refusal(self, kind: str, message: str, payload: bytes) -> None:
        pass

    def on_failure(self, error: P2PError) -> None:
        pass

    def on_rejected(self, error: P2PError) -> None:
        pass


class ServedCall:
    """A request that a process of this machine is working on.

    Attributes:
        source, target: keys.
        payload: kept only where it may be handed over again.
        account: where that is reserved, and the call itself.
        reserved: bytes.
        size: bytes of the payload.
        is_abandoned: whether its caller has gone: it is not handed over again.
        asked: who has said that they have not had it, of a call that was sent before.
        over: whether nothing more is to be done for it.
    """

    __slots__ = (
        "_requests",
        "account",
        "correlation",
        "denied_by",
        "expires",
        "is_abandoned",
        "origin",
        "over",
        "payload",
        "request",
        "reserved",
        "seconds",
        "server",
        "size",
        "source",
        "started",
        "target",
    )  # fmt: skip

    def __init__(
        self,
        requests: IncomingCalls,
        origin: ReplyTarget,
        source: bytes,
        target: bytes,
        request: Call | wire.Request,
        payload: bytes,
    ) -> None:
        self._requests = requests
        self.origin = origin
        self.source = source
        self.target = target
        self.request = request
        self.payload = payload
        self.account = origin.account
        self.reserved = 0
        self.size = len(payload)
        self.is_abandoned = False
        self.seconds = min(request.deadline_ms / 1000, MAX_CALL_TIMEOUT)
        self.expires = 0.0
        self.started = 0.0
        self.server: ServingProcess | None = None
        self.correlation = b""
        self.denied_by: set[Sender] = set()
        self.over = False

    @property
    def is_retryable(self) -> bool:
        """Whether it goes on when the connection that brought it ends: its caller sends it again."""
        return bool(self.request.call_id)

    def cancel(self) -> None:
        """Nobody waits for it."""
        self._requests.cancel(self)

    def reserve(self) -> Overloaded | None:
        """Reserve what it takes here while it has no answer, or return the error because of which it may not."""
        size = self.account.budget.call_cost + (len(self.payload) if self.request.call_id else 0)
        overload = self.account.reserve(size) if size else None
        if overload is None:
            self.reserved = size
        return overload

    def release(self) -> None:
        """Keep nothing of it any more."""
        self.payload = b""
        if self.reserved:
            self.account.release(self.reserved)
            self.reserved = 0

    def abandon(self) -> None:
        """Its caller has gone, and sends it again: it goes on where it is, but is not given to another."""
        self.is_abandoned = True
        self.origin = _Gone(self.account)
        self.payload = b""
        if self.server is None:
            self.over = True
            self.release()
        elif self.reserved:
            cost = self.account.budget.call_cost
            self.account.release(self.reserved - cost)
            self.reserved = cost


class _Parked:
    """A peer's request that waits for a registration. Taken back when it is not among those being served any more."""

    __slots__ = ("_size", "account", "payload", "request", "reserved")

    is_retryable = False

    def __init__(self, account: Account, request: wire.Request, payload: bytes) -> None:
        self.account = account
        self.request: wire.Request | None = request
        self.payload = payload
        self.reserved = 0
        self._size = account.budget.call_cost + len(request.target) + len(payload)

    def reserve(self) -> Overloaded | None:
        """Reserve what it takes here, or return the error because of which it may not wait."""
        overload = self.account.reserve(self._size)
        if overload is None:
            self.reserved = self._size
        return overload

    def cancel(self) -> None:
        """Keep nothing of it any more: its turn may come only seconds later."""
        self.request, self.payload = None, b""
        self.account.release(self.reserved)
        self.reserved = 0


class IncomingCalls:
    """What is being served at the moment."""

    def __init__(
        self,
        mailbox: Mailbox,
        registry: Registry,
        book: AddressBook,
        parking: RegistrationGrace,
        returning: ExpectedPrograms,
        payloads: PayloadMemory,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._mailbox = mailbox
        self._registry = registry
        self._book = book
        self._parking = parking
        self._returning = returning
        self._payloads = payloads
        self._deadlines: DeadlineTimer[ServedCall] = DeadlineTimer(self._loop, self._expire)
        self._next_number = 0
        self._served: dict[bytes, ServedCall] = {}
        self._idle: asyncio.Event | None = None

    def close(self) -> None:
        self._deadlines.close()

    async def drained(self) -> None:
        """Returns when nothing is being served."""
        self._idle = asyncio.Event()
        if self._served:
            await self._idle.wait()

    # ── peers ────────────────────────────────────────────────────────────────────────────────────

    def on_request(self, connection: PeerConnection, request: wire.Request, payload: bytes) -> None:
        if connection.closed or request.id in connection.serving:
            return  # nobody waits, or the first one with this id is answered
        if request.id in connection.cancelled_early:
            del connection.cancelled_early[request.id]
            return
        origin = _RemoteCaller(connection, request.id)
        found = self._registry.find(request.target, request.protocol, request.instance)
        if not isinstance(found, RegisteredBinding) and self._parking.is_open():
            self._park_request(origin, request, payload)
            return
        served = self.serve(origin, request.source, request.target, request, payload)
        if served is not None:
            connection.serving[request.id] = served

    def _park_request(self, origin: _RemoteCaller, request: wire.Request, payload: bytes) -> None:
        connection = origin.connection
        parked = _Parked(connection.account, request, payload)
        overload = parked.reserve()
        if overload is not None:
            origin.on_failure(overload)
            return
        connection.serving[request.id] = parked
        self._parking.retry_later(
            partial(self._unpark, connection, parked, self._parking.remaining_ms(request.deadline_ms))
        )

    def _unpark(self, connection: PeerConnection, parked: _Parked, left: Callable[[], int]) -> None:
        request, payload = parked.request, parked.payload
        if request is not None and connection.serving.get(request.id) is parked:
            del connection.serving[request.id]
            parked.cancel()
            self.on_request(connection, replace(request, deadline_ms=left()), payload)

    def on_cancel(self, connection: PeerConnection, number: int) -> None:
        served = connection.serving.pop(number, None)
        if served is not None:
            served.cancel()
            return
        connection.cancelled_early[number] = None
        if len(connection.cancelled_early) > _MAX_FORSAKEN:
            del connection.cancelled_early[next(iter(connection.cancelled_early))]

    def on_connection_closed(self, connection: PeerConnection) -> None:
        """Nobody waits for the requests that came over it. Those that may be sent again go on."""
        serving, connection.serving = connection.serving, {}
        for served in serving.values():
            if served.is_retryable:
                served.abandon()
            else:
                served.cancel()

    # ── whoever serves ───────────────────────────────────────────────────────────────────────────

    def serve(
        self, origin: ReplyTarget, source: bytes, target: bytes, request: Call | wire.Request, payload: bytes
    ) -> ServedCall | None:
        """Hand a request to whoever serves it; None when it was refused."""
        if TRACING:
            trace_point("4 network of the callee: request")
        served = ServedCall(self, origin, source, target, request, payload)
        served.expires = self._loop.time() + served.seconds
        self._dispatch(served)
        return None if served.over else served

    def _dispatch(self, served: ServedCall) -> None:
        """To one of those who serve it, or end it with why that cannot be."""
        request = served.request
        protocol, instance = request.protocol, request.instance
        binding = self._registry.find(served.target, protocol, instance)
        if not isinstance(binding, RegisteredBinding):
            self._reject(served, binding)
            return
        if not binding.admits(served.source):
            self._reject(served, Denied(peer=binding.identity.key.id52, protocol=protocol, instance=instance))
            return
        overload = served.reserve() if not served.reserved else None
        if overload is not None:
            self._fail(served, overload)
            return
        attempt = request.attempt
        now = time.monotonic()  # the loop's own clock has whole milliseconds
        server = binding.servers.pick_for_request(now) if binding.in_flight < MAX_CALLS_PER_BINDING else None
        if attempt and server is not None:
            known = binding.servers.other_than(served.denied_by)
            if known is not None:
                server = known
            elif self._returning.is_expected(binding.identity.name, protocol, instance):
                self._wait(served, self._returning.retry_later)
                return
            else:
                attempt = 0
        if server is None:
            limit = min(MAX_CALLS_PER_BINDING, sum(each.limit for each in binding.servers))
            self._fail(served, Overloaded(what=f"calls in flight at {protocol}", limit=limit))
            return
        if request.call_id and self._returning.is_behind and not server.hosted:
            self._note(server)
        self._next_number = number = self._next_number + 1
        served.correlation = correlation = (_OURS | number).to_bytes(8, "big")
        deadline_ms = request.deadline_ms if not served.started else self._left(served)
        header = encode(
            DeliverCall(
                served.source, self._book.name_of(served.source), binding.identity.name, protocol, instance,
                deadline_ms, request.command, request.call_id, attempt, *served.origin.way,
            )
        )  # fmt: skip
        size = served.size
        if server.bytes + size > MOST_SERVED_OF_STRANGERS and served.account.budget is self._payloads.strangers:
            what = f"bytes of payloads in flight at {protocol}, of those that strangers may add to"
            self._fail(served, Overloaded(what=what, limit=MOST_SERVED_OF_STRANGERS))
            return
        may_wait = server.sender.is_behind or size > BULK_THRESHOLD
        if may_wait:
            overload = self._payloads.may_queue(served.account, len(header) + size)
            if overload is not None:
                self._fail(served, overload)
                return
        if not self._mailbox.send(server.sender, correlation, header, served.payload):
            self._fail(
                served,
                ConnectionLost(what=f"the process that serves {protocol}")
                if server.sender.gone
                else Overloaded(what=f"requests queued for {protocol}", limit=MAX_CALLS_PER_BINDING),
            )
            return
        if may_wait and server.sender.is_behind:
            self._payloads.queued(server.sender, served.account, len(header) + size)
        if not request.call_id:
            served.payload = b""  # whoever serves has it, and nobody gets it again
        served.server = server
        served.started = now
        server.in_flight += 1
        server.bytes += size
        binding.in_flight += 1
        binding.calls += 1
        self._served[correlation] = served
        self._deadlines.add(served, served.expires)

    def _note(self, server: ServingProcess) -> None:
        """It may execute a call that another must not execute again, whatever becomes of us."""
        binding, pid = server.binding, server.sender.pid
        program = Program(pid, binding.identity.name, binding.protocol, binding.instance)
        self._returning.note(program, sum(each.sender.pid == pid for each in binding.servers))

    def _wait(self, served: ServedCall, park: Callable[[Callable[[], None]], None]) -> None:
        """Give it another turn when something has changed."""

        def again() -> None:
            if not served.over:
                if self._loop.time() < served.expires:
                    self._dispatch(served)
                else:
                    self._fail(served, DeadlineExceeded(seconds=round(served.seconds, 3)))

        park(again)

    def _left(self, served: ServedCall) -> int:
        return max(1, int((served.expires - self._loop.time()) * 1000))

    def _fail(self, served: ServedCall, error: P2PError) -> None:
        """End it with ``error``, or with the loss of whoever had it already: it may have been executed."""
        served.over = True
        served.release()
        if served.started and not isinstance(error, DeadlineExceeded):
            error = ConnectionLost(what=f"the process that serves {served.request.protocol}")
        served.origin.on_failure(error)

    def _reject(self, served: ServedCall, error: P2PError) -> None:
        """End it before anybody has been asked to serve it."""
        if served.started:
            self._fail(served, error)
        else:
            served.over = True
            served.release()
            served.origin.on_rejected(error)

    def on_answer(
        self,
        sender: Sender,
        correlation: bytes,
        answer: Reply | ApplicationErrorReply | ErrorReply | CallUnknown,
        payload: bytes,
    ) -> None:
        """Whoever serves has answered."""
        if TRACING:
            trace_point("6 network of the callee: answer")
        now = sender.answered_at = time.monotonic()
        served = self._served.get(correlation)
        if served is None or served.server is None or served.server.sender is not sender:
            return  # too late, or somebody else's
        server = served.server
        binding = server.binding
        self._finish(served)
        if isinstance(answer, CallUnknown):
            binding.calls -= 1
            served.denied_by.add(sender)
            if served.is_abandoned:
                served.over = True
                served.release()
            else:
                self._dispatch(served)
            return
        served.over = True
        served.release()
        binding.answered(server, now - served.started, now)
        if isinstance(answer, Reply):
            served.origin.on_reply(payload)
            return
        binding.errors += 1
        if isinstance(answer, ApplicationErrorReply):
            served.origin.on_refusal(answer.kind, answer.message, payload)
        else:
            served.origin.on_failure(answer.error())

    def on_sender_gone(self, sender: Sender) -> None:
        """A local process has ended: what it was serving has failed, or goes to another."""
        self._payloads.gone(sender)
        for served in list(self._served.values()):
            server = served.server
            if server is None or server.sender is not sender:
                continue
            server.binding.errors += 1
            self._finish(served)
            request = served.request
            if served.is_abandoned or not request.call_id:
                self._fail(served, ConnectionLost(what=f"the process that serves {request.protocol}"))
            elif self._parking.is_open() and not self._serves(served):
                self._wait(served, self._parking.retry_later)
            else:
                self._dispatch(served)

    def _serves(self, served: ServedCall) -> bool:
        """Whether anybody does who could take it."""
        request = served.request
        return isinstance(self._registry.find(served.target, request.protocol, request.instance), RegisteredBinding)

    def _finish(self, served: ServedCall) -> None:
        """Nobody works on it any more."""
        del self._served[served.correlation]
        self._deadlines.discard(served)
        if self._idle is not None and not self._served:
            self._idle.set()
        if served.server is not None:
            served.server.binding.in_flight -= 1
            served.server.in_flight -= 1
            served.server.bytes -= served.size
            served.server = None

    def cancel(self, served: ServedCall) -> None:
        """Nobody waits for it."""
        served.over = True
        served.release()
        server = served.server
        if server is not None:
            if self._loop.time() > served.expires - OVER:
                server.binding.errors += 1
                server.binding.servers.missed(server, served.started, time.monotonic())
            self._finish(served)
            self._mailbox.send(server.sender, served.correlation, _CANCEL)

    def _expire(self, served: ServedCall) -> None:
        self.cancel(served)
        served.origin.on_failure(DeadlineExceeded(seconds=round(served.seconds, 3)))
