"""Calls that local processes serve, from peers and from local programs. Each has exactly one outcome."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from fastn_p2p_client.errors import ConnectionLost, DeadlineExceeded, Denied, OutcomeUnknown, Overloaded, P2PError
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
from fastn_p2p_client.limits import MAX_CALLS_PER_BINDING
from fastn_p2p_client.otel import safe_traceparent
from fastn_p2p_client.request_id import DAEMON_ID, full_id

from ...runtime.mailbox import Mailbox, Sender
from ..address_book import AddressBook
from ..call_counters import APPLICATION, CallCounters
from ..connections.payload_memory import MOST_SERVED_OF_STRANGERS, PayloadMemory
from ..serving.expected_programs import ExpectedPrograms, Program
from ..serving.load_balancer import ServingProcess
from ..serving.registration_grace import RegistrationGrace
from ..serving.registry import OnlineIdentity, RegisteredBinding, Registry
from ..serving.wake_ups import WakeUps
from ..wire import messages as wire
from ..wire.messages import BULK_THRESHOLD
from .served_call import DEADLINE_MARGIN, ReplyTarget, ServedCall

log = logging.getLogger(__name__)

_CANCEL: Final = encode(Cancel())
_DAEMON_ID: Final = 1 << 63
"""Bit of the correlation ids that this process chooses. A process that serves also makes calls over the same
connection, with ids of its own."""


class IncomingCalls:
    """Calls that are being served at the moment.

    Args:
        mailbox: of the network process: local processes get calls and send answers there.
        registry: finds bindings.
        book: names of callers.
        grace: holds calls whose binding is not registered yet.
        expected: holds retried calls that a program may have executed before this process started.
        payloads: memory for payloads.
        wake_ups: wakes identities that are asleep, and holds their calls meanwhile.
        on_denied: called with a binding and the key of a caller that its access list does not admit.

    Attributes:
        counters: what has become of all calls so far. The durations are those of the processes that served them.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        registry: Registry,
        book: AddressBook,
        grace: RegistrationGrace,
        expected: ExpectedPrograms,
        payloads: PayloadMemory,
        wake_ups: WakeUps,
        on_denied: Callable[[RegisteredBinding, bytes], object] = lambda _binding, _source: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_denied = on_denied
        self._mailbox = mailbox
        self._registry = registry
        self._book = book
        self._grace = grace
        self._expected = expected
        self._payloads = payloads
        self._wake_ups = wake_ups
        self.counters = CallCounters()
        self._deadlines: DeadlineTimer[ServedCall] = DeadlineTimer(self._loop, self._expire)
        self._next_number = 0
        self._served: dict[bytes, ServedCall] = {}
        self._idle: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._served)

    def close(self) -> None:
        """Stop the timer of the deadlines."""
        self._deadlines.close()

    async def drained(self) -> None:
        """Wait until no call is being served."""
        self._idle = asyncio.Event()
        if self._served:
            await self._idle.wait()

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
            self._on_denied(binding, served.source)
            self._reject(served, Denied(peer=binding.identity.key.id52, protocol=protocol, instance=instance))
            return
        away = self._registry.homes.elsewhere(binding) if self._registry.homes and not served.is_own else None
        if away is not None and not request.attempt:
            self._reject(served, away)
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
            elif self._may_have_lost(served, binding):
                self._fail(served, OutcomeUnknown(peer=binding.identity.key.id52))
                return
            elif away is not None:
                served.started = 0.0  # every process has answered that it has not executed the call
                self._reject(served, away)
                return
            else:
                attempt = 0
        if server is None:
            if binding.identity.is_asleep and not binding.servers:
                self._wake(served, binding.identity)
                return
            limit = min(MAX_CALLS_PER_BINDING, sum(each.limit for each in binding.servers))
            self._fail(served, Overloaded(what=f"calls in flight at {protocol}", limit=limit))
            return
        if request.call_id and self._expected.is_behind and not server.hosted:
            self._list_program(server)
        self._next_number = number = self._next_number + 1
        served.correlation = correlation = (_DAEMON_ID | number).to_bytes(DAEMON_ID, "big") + served.id[1]
        deadline_ms = request.deadline_ms if not served.started else self._remaining_ms(served)
        header = encode(
            DeliverCall(
                served.source, self._book.name_of(served.source), binding.identity.name, protocol, instance,
                deadline_ms, request.command, request.call_id, attempt, *served.origin.path, served.id[0],
                request.traceparent and safe_traceparent(request.traceparent),
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

    def _may_have_lost(self, served: ServedCall, binding: RegisteredBinding) -> bool:
        """Return whether a process may have executed the call that has ended with an earlier start of its daemon."""
        request = served.request
        if not isinstance(request, wire.RepeatedRequest):
            return False
        if binding.claims_calls:
            return False  # the store knows whether it was executed
        if any(server.hosted for server in binding.servers):
            return True
        start = "" if request.earlier == wire.UNKNOWN_START else request.earlier.hex()
        return self._expected.may_have_lost(binding.identity.name, binding.protocol, binding.instance, start)

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

    def _wake(self, served: ServedCall, identity: OnlineIdentity) -> None:
        """Wake the identity, whose access list has admitted the caller, and send the call then."""

        def fail(error: P2PError) -> None:
            if not served.done:
                self._fail(served, error)

        self._hold(served, lambda again: self._wake_ups.hold(identity, served.source, again, fail))

    def _remaining_ms(self, served: ServedCall) -> int:
        return max(1, int((served.expires - self._loop.time()) * 1000))

    def _fail(self, served: ServedCall, error: P2PError) -> None:
        """End a call with an error. If a process has had it, that is ``ConnectionLost``: it may have been executed."""
        served.done = True
        served.release()
        if served.started and not isinstance(error, DeadlineExceeded | OutcomeUnknown):
            error = ConnectionLost(what=f"the process that serves {served.request.protocol}")
        self.counters.refuse(error.code)
        log.info("a call was not served: %s", error, extra={"request_id": full_id(*served.id)})
        served.origin.on_error(error)

    def _reject(self, served: ServedCall, error: P2PError) -> None:
        """End a call with an error that precedes every handler, unless a process has had it."""
        if served.started:
            self._fail(served, error)
        else:
            served.done = True
            served.release()
            self.counters.refuse(error.code)
            log.debug("a call was rejected: %s", error, extra={"request_id": full_id(*served.id)})
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
            served.denied_by |= {sender}
            if served.is_abandoned:
                served.done = True
                served.release()
            else:
                self._dispatch(served)
            return
        served.done = True
        served.release()
        seconds = now - served.started
        self.counters.answer(seconds)
        binding.answered(server, seconds, now)
        if isinstance(answer, Reply):
            served.origin.on_reply(payload)
            return
        binding.errors += 1
        if isinstance(answer, ApplicationErrorReply):
            self.counters.fail(APPLICATION)
            served.origin.on_application_error(answer.kind, answer.message, payload)
        else:
            self.counters.fail(answer.code)
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
        self.counters.unanswered += 1
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
        self.counters.fail(DeadlineExceeded.code)
        served.origin.on_error(DeadlineExceeded(seconds=round(served.seconds, 3)))
