"""Calls that local processes serve, from peers and from local programs. Each has exactly one outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from msgspec.structs import replace

from fastn_p2p_client.errors import ConnectionLost, DeadlineExceeded, Denied, Overloaded, P2PError
from fastn_p2p_client.ipc.deadlines import DeadlineTimer
from fastn_p2p_client.ipc.latency_trace import TRACING, trace_point
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

from ...runtime.mailbox import Mailbox, Sender
from ..address_book import AddressBook
from ..connections.connection import PeerConnection
from ..connections.network_path import LOCAL, NetworkPath
from ..connections.payload_memory import MOST_SERVED_OF_STRANGERS, Account, PayloadMemory
from ..serving.expected_programs import ExpectedPrograms, Program
from ..serving.load_balancer import ServingProcess
from ..serving.registration_grace import RegistrationGrace
from ..serving.registry import RegisteredBinding, Registry
from ..wire import messages as wire
from ..wire.messages import BULK_THRESHOLD

_CANCEL: Final = encode(Cancel())
_DAEMON_ID: Final = 1 << 63
"""Bit of the correlation ids that this process chooses. A process that serves also makes calls over the same
connection, with ids of its own."""
_MAX_CANCELLED_EARLY: Final = 1024
"""Cancelled calls of one connection that are remembered until their requests arrive."""
DEADLINE_MARGIN: Final = 0.05
"""Seconds before its deadline from which a cancelled call counts as one that has missed it: the caller has a clock of
its own, and often cancels first."""


class ReplyTarget(Protocol):
    """Caller of a call that is served here. It gets exactly one of the four outcomes."""

    @property
    def path(self) -> NetworkPath:
        """Path over which the caller is connected."""
        ...

    @property
    def account(self) -> Account:
        """Account on which memory for the caller is reserved."""
        ...

    def on_reply(self, payload: bytes) -> None:
        """Send the reply."""
        ...

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        """Send the application error that the handler raised."""
        ...

    def on_error(self, error: P2PError) -> None:
        """Send an error of the system."""
        ...

    def on_rejected(self, error: P2PError) -> None:
        """Send an error that precedes every handler: there is no such binding, or it does not admit the caller."""
        ...


class _RemoteCaller:
    """``ReplyTarget`` for a call of a peer."""

    __slots__ = ("connection", "number")

    def __init__(self, connection: PeerConnection, number: int) -> None:
        self.connection = connection
        self.number = number

    @property
    def path(self) -> NetworkPath:
        return self.connection.path()

    @property
    def account(self) -> Account:
        return self.connection.memory.account

    def on_reply(self, payload: bytes) -> None:
        requests = self.connection.requests
        requests.serving.pop(self.number, None)
        requests.answer(wire.Reply(self.number), payload)

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        self._forget()
        self.connection.requests.answer(wire.ApplicationErrorReply(self.number, kind, message), payload)

    def on_error(self, error: P2PError) -> None:
        self._forget()
        self.connection.requests.answer(wire.ErrorReply(self.number, error.code, error.fields()))

    def on_rejected(self, error: P2PError) -> None:
        self._forget()
        self.connection.requests.refuse(self.number, error)

    def _forget(self) -> None:
        self.connection.requests.serving.pop(self.number, None)


class _DisconnectedCaller:
    """``ReplyTarget`` of a retryable call whose connection has ended: all outcomes are dropped.

    It does not refer to the connection, because QUIC keeps its buffers as long as that exists.
    """

    __slots__ = ("account",)

    path = LOCAL

    def __init__(self, account: Account) -> None:
        self.account = account

    def on_reply(self, payload: bytes) -> None:
        pass

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        pass

    def on_error(self, error: P2PError) -> None:
        pass

    def on_rejected(self, error: P2PError) -> None:
        pass


class ServedCall:
    """Call that a local process is executing, or that waits for one.

    Attributes:
        source, target: keys of the caller and the callee.
        payload: kept only while the call may be sent to another process.
        account: on which the call and its payload are reserved.
        reserved: bytes reserved there.
        size: bytes of the payload.
        seconds: timeout.
        expires: deadline, in the event loop's time.
        started: when a process got it, in seconds of ``time.monotonic()``; 0 before.
        server: process that has it; None while it waits.
        correlation: id under which that process has it.
        is_abandoned: true if the caller has gone, so no other process gets it.
        denied_by: senders of processes that have answered "call unknown" to a retried call.
        done: true if it has its outcome, or needs none.
    """

    __slots__ = (
        "_requests",
        "account",
        "correlation",
        "denied_by",
        "done",
        "expires",
        "is_abandoned",
        "origin",
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
        self.done = False

    @property
    def is_retryable(self) -> bool:
        """True if it continues after the end of its connection, because its caller will send it again."""
        return bool(self.request.call_id)

    def cancel(self) -> None:
        """Stop it: its caller no longer waits."""
        self._requests.cancel(self)

    def reserve(self) -> Overloaded | None:
        """Reserve memory for it until it is answered. Return an error if too much is reserved already."""
        size = self.account.budget.call_cost + (len(self.payload) if self.request.call_id else 0)
        overload = self.account.reserve(size) if size else None
        if overload is None:
            self.reserved = size
        return overload

    def release(self) -> None:
        """Drop the payload and release its memory."""
        self.payload = b""
        if self.reserved:
            self.account.release(self.reserved)
            self.reserved = 0

    def abandon(self) -> None:
        """Let its process finish it, but give it to no other: the caller has gone, and will send it again."""
        self.is_abandoned = True
        self.origin = _DisconnectedCaller(self.account)
        self.payload = b""
        if self.server is None:
            self.done = True
            self.release()
        elif self.reserved:
            cost = self.account.budget.call_cost
            self.account.release(self.reserved - cost)
            self.reserved = cost


class _HeldRequest:
    """Request of a peer that waits for a registration. Its connection lists it among the calls that are served."""

    __slots__ = ("_size", "account", "payload", "request", "reserved")

    is_retryable = False

    def __init__(self, account: Account, request: wire.Request, payload: bytes) -> None:
        self.account = account
        self.request: wire.Request | None = request
        self.payload = payload
        self.reserved = 0
        self._size = account.budget.call_cost + len(request.target) + len(payload)

    def reserve(self) -> Overloaded | None:
        """Reserve memory for it. Return an error if too much is reserved already."""
        overload = self.account.reserve(self._size)
        if overload is None:
            self.reserved = self._size
        return overload

    def cancel(self) -> None:
        """Drop it and release its memory at once: its retry may come seconds later."""
        self.request, self.payload = None, b""
        self.account.release(self.reserved)
        self.reserved = 0


class IncomingCalls:
    """Calls that are being served at the moment.

    Args:
        mailbox: of the network process: local processes get calls and send answers there.
        registry: finds bindings.
        book: names of callers.
        grace: holds calls whose binding is not registered yet.
        expected: holds retried calls that a program may have executed before this process started.
        payloads: memory for payloads.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        registry: Registry,
        book: AddressBook,
        grace: RegistrationGrace,
        expected: ExpectedPrograms,
        payloads: PayloadMemory,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._mailbox = mailbox
        self._registry = registry
        self._book = book
        self._grace = grace
        self._expected = expected
        self._payloads = payloads
        self._deadlines: DeadlineTimer[ServedCall] = DeadlineTimer(self._loop, self._expire)
        self._next_number = 0
        self._served: dict[bytes, ServedCall] = {}
        self._idle: asyncio.Event | None = None

    def close(self) -> None:
        """Stop the timer of the deadlines."""
        self._deadlines.close()

    async def drained(self) -> None:
        """Wait until no call is being served."""
        self._idle = asyncio.Event()
        if self._served:
            await self._idle.wait()

    # ── from peers ───────────────────────────────────────────────────────────────────────────────

    def on_request(self, connection: PeerConnection, request: wire.Request, payload: bytes) -> None:
        """Serve a peer's call, or hold it until its binding is registered."""
        requests = connection.requests
        if connection.closed or request.id in requests.serving:
            return  # no caller waits, or only the first call with this id is answered
        if request.id in requests.cancelled_early:
            del requests.cancelled_early[request.id]
            return
        origin = _RemoteCaller(connection, request.id)
        found = self._registry.find(request.target, request.protocol, request.instance)
        if not isinstance(found, RegisteredBinding) and self._grace.is_open():
            self._hold_request(origin, request, payload)
            return
        served = self.serve(origin, request.source, request.target, request, payload)
        if served is not None:
            requests.serving[request.id] = served

    def _hold_request(self, origin: _RemoteCaller, request: wire.Request, payload: bytes) -> None:
        connection = origin.connection
        held = _HeldRequest(connection.memory.account, request, payload)
        overload = held.reserve()
        if overload is not None:
            origin.on_error(overload)
            return
        connection.requests.serving[request.id] = held
        self._grace.retry_later(
            partial(self._retry_held, connection, held, self._grace.remaining_ms(request.deadline_ms))
        )

    def _retry_held(self, connection: PeerConnection, held: _HeldRequest, left: Callable[[], int]) -> None:
        request, payload = held.request, held.payload
        serving = connection.requests.serving
        if request is not None and serving.get(request.id) is held:
            del serving[request.id]
            held.cancel()
            self.on_request(connection, replace(request, deadline_ms=left()), payload)

    def on_cancel(self, connection: PeerConnection, number: int) -> None:
        """Cancel a peer's call. Remember the id if its request, on a stream of its own, has not arrived yet."""
        served = connection.requests.serving.pop(number, None)
        if served is not None:
            served.cancel()
            return
        early = connection.requests.cancelled_early
        early[number] = None
        if len(early) > _MAX_CANCELLED_EARLY:
            del early[next(iter(early))]

    def on_connection_closed(self, connection: PeerConnection) -> None:
        """Cancel the calls of this connection. Retryable ones continue: their callers will send them again."""
        serving = list(connection.requests.serving.values())
        connection.requests.serving.clear()
        for served in serving:
            if served.is_retryable:
                served.abandon()
            else:
                served.cancel()

    # ── to local processes ───────────────────────────────────────────────────────────────────────

    def serve(
        self, origin: ReplyTarget, source: bytes, target: bytes, request: Call | wire.Request, payload: bytes
    ) -> ServedCall | None:
        """Send a call to a process that serves its binding. Return None if it has its outcome already: an error.

        Args:
            origin: gets the outcome.
            source, target: keys of the caller and the callee.
        """
        if TRACING:
            trace_point("4 network of the callee: request")
        served = ServedCall(self, origin, source, target, request, payload)
        served.expires = self._loop.time() + served.seconds
        self._dispatch(served)
        return None if served.done else served

    def _dispatch(self, served: ServedCall) -> None:
        """Send a call to one of the processes that serve its binding, hold it, or fail it."""
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
        now = time.monotonic()  # the event loop's clock has a resolution of 1 ms
        server = binding.servers.pick_for_request(now) if binding.in_flight < MAX_CALLS_PER_BINDING else None
        # A retry goes to one process after the other until one of them knows its call id. Only if all have answered
        # "call unknown", and no other program is expected, it is sent as attempt 0, which a process executes.
        if attempt and server is not None:
            untried = binding.servers.other_than(served.denied_by)
            if untried is not None:
                server = untried
            elif self._expected.is_expected(binding.identity.name, protocol, instance):
                self._hold(served, self._expected.retry_later)
                return
            else:
                attempt = 0
        if server is None:
            limit = min(MAX_CALLS_PER_BINDING, sum(each.limit for each in binding.servers))
            self._fail(served, Overloaded(what=f"calls in flight at {protocol}", limit=limit))
            return
        if request.call_id and self._expected.is_behind and not server.hosted:
            self._list_program(server)
        self._next_number = number = self._next_number + 1
        served.correlation = correlation = (_DAEMON_ID | number).to_bytes(8, "big")
        deadline_ms = request.deadline_ms if not served.started else self._remaining_ms(served)
        header = encode(
            DeliverCall(
                served.source, self._book.name_of(served.source), binding.identity.name, protocol, instance,
                deadline_ms, request.command, request.call_id, attempt, *served.origin.path,
            )
        )  # fmt: skip
        size = served.size
        if server.bytes + size > MOST_SERVED_OF_STRANGERS and served.account.budget is self._payloads.strangers:
            what = f"payload bytes in flight at {protocol} that strangers may add to"
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
            served.payload = b""  # the process has it, and no other one will get it
        served.server = server
        served.started = now
        server.in_flight += 1
        server.bytes += size
        binding.in_flight += 1
        binding.calls += 1
        self._served[correlation] = served
        self._deadlines.add(served, served.expires)

    def _list_program(self, server: ServingProcess) -> None:
        """List the program for the successor of this process: no other one may execute this call again."""
        binding, pid = server.binding, server.sender.pid
        program = Program(pid, binding.identity.name, binding.protocol, binding.instance)
        self._expected.note(program, sum(each.sender.pid == pid for each in binding.servers))

    def _hold(self, served: ServedCall, retry_later: Callable[[Callable[[], None]], None]) -> None:
        """Send the call later, when ``retry_later`` calls back."""

        def again() -> None:
            if not served.done:
                if self._loop.time() < served.expires:
                    self._dispatch(served)
                else:
                    self._fail(served, DeadlineExceeded(seconds=round(served.seconds, 3)))

        retry_later(again)

    def _remaining_ms(self, served: ServedCall) -> int:
        return max(1, int((served.expires - self._loop.time()) * 1000))

    def _fail(self, served: ServedCall, error: P2PError) -> None:
        """End a call with an error. If a process has had it, that is ``ConnectionLost``: it may have been executed."""
        served.done = True
        served.release()
        if served.started and not isinstance(error, DeadlineExceeded):
            error = ConnectionLost(what=f"the process that serves {served.request.protocol}")
        served.origin.on_error(error)

    def _reject(self, served: ServedCall, error: P2PError) -> None:
        """End a call with an error that precedes every handler, unless a process has had it."""
        if served.started:
            self._fail(served, error)
        else:
            served.done = True
            served.release()
            served.origin.on_rejected(error)

    def on_answer(
        self,
        sender: Sender,
        correlation: bytes,
        answer: Reply | ApplicationErrorReply | ErrorReply | CallUnknown,
        payload: bytes,
    ) -> None:
        """End the call that a local process has answered. After "call unknown", try another process."""
        if TRACING:
            trace_point("6 network of the callee: answer")
        now = sender.answered_at = time.monotonic()
        served = self._served.get(correlation)
        if served is None or served.server is None or served.server.sender is not sender:
            return  # too late, or the call of another process
        server = served.server
        binding = server.binding
        self._remove_from_process(served)
        if isinstance(answer, CallUnknown):
            binding.calls -= 1
            served.denied_by.add(sender)
            if served.is_abandoned:
                served.done = True
                served.release()
            else:
                self._dispatch(served)
            return
        served.done = True
        served.release()
        binding.answered(server, now - served.started, now)
        if isinstance(answer, Reply):
            served.origin.on_reply(payload)
            return
        binding.errors += 1
        if isinstance(answer, ApplicationErrorReply):
            served.origin.on_application_error(answer.kind, answer.message, payload)
        else:
            served.origin.on_error(answer.error())

    def on_sender_gone(self, sender: Sender) -> None:
        """Fail the calls of a local process that has ended. Send retryable ones to another process."""
        self._payloads.gone(sender)
        for served in list(self._served.values()):
            server = served.server
            if server is None or server.sender is not sender:
                continue
            server.binding.errors += 1
            self._remove_from_process(served)
            request = served.request
            if served.is_abandoned or not request.call_id:
                self._fail(served, ConnectionLost(what=f"the process that serves {request.protocol}"))
            elif self._grace.is_open() and not self._is_registered(served):
                self._hold(served, self._grace.retry_later)
            else:
                self._dispatch(served)

    def _is_registered(self, served: ServedCall) -> bool:
        """Return whether the call's binding is registered."""
        request = served.request
        return isinstance(self._registry.find(served.target, request.protocol, request.instance), RegisteredBinding)

    def _remove_from_process(self, served: ServedCall) -> None:
        """Count a call out of its process."""
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
        """Stop a call: its caller no longer waits. Tell the process that has it."""
        served.done = True
        served.release()
        server = served.server
        if server is not None:
            if self._loop.time() > served.expires - DEADLINE_MARGIN:
                server.binding.errors += 1
                server.binding.servers.missed(server, served.started, time.monotonic())
            self._remove_from_process(served)
            self._mailbox.send(server.sender, served.correlation, _CANCEL)

    def _expire(self, served: ServedCall) -> None:
        self.cancel(served)
        served.origin.on_error(DeadlineExceeded(seconds=round(served.seconds, 3)))
