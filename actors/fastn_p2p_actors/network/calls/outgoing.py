"""Calls that local programs make: send, hold, cancel, and expire at the deadline. Each has exactly one outcome.

A call has a task of its own only while its peer is being connected to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from msgspec.structs import replace

from fastn_p2p_client.errors import (
    BadMessage,
    DeadlineExceeded,
    HomeAway,
    OutcomeUnknown,
    Overloaded,
    P2PError,
    PeerOffline,
    PeerUnreachable,
)
from fastn_p2p_client.ipc.deadlines import DeadlineTimer
from fastn_p2p_client.ipc.latency_trace import TRACING, trace_point
from fastn_p2p_client.ipc.messages import ApplicationErrorReply, Call, ErrorReply, Reply, encode
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import MAX_CALL_ID, MAX_CALL_TIMEOUT, MAX_CALLS_PER_CLIENT, MAX_NAME
from fastn_p2p_client.names import check_name
from fastn_p2p_client.request_id import full_id, safe_id
from fastn_p2p_client.retry import NOT_EXECUTED

from ...runtime.mailbox import Mailbox, Sender
from ..call_counters import APPLICATION, CallCounters
from ..connections.connection import PeerConnection
from ..connections.network_path import LOCAL
from ..connections.payload_memory import Account, PayloadMemory
from ..discovery.missing_bindings import MISSING
from ..discovery.router import display_name
from ..discovery.search import TOO_SHORT, Search
from ..discovery.targets import MAX_HOPS, TargetFinder
from ..serving.registry import OnlineIdentity
from ..wire import messages as wire
from .earlier_attempts import THIS_DAEMON, EarlierAttempt, EarlierAttempts
from .incoming import IncomingCalls

log = logging.getLogger(__name__)

_REPLY: Final = encode(Reply())
_HERE: Final = EarlierAttempt(THIS_DAEMON, b"")

_SMALL: Final = 4096
"""Bytes of a payload that is kept until its call is answered: another daemon of the callee may have to serve it. A
larger one is kept, and counted, only if that is likely: see ``TargetFinder.may_refuse``."""


class _OutgoingCall:
    """Call of a local program until its outcome. It is the ``Seeker`` of its target and then the ``ReplyTarget`` or the
    pending call of a connection.

    Attributes:
        state: calls in flight of the same program.
        began: time at which it began, in seconds of ``time.monotonic()``.
        seconds: timeout.
        target: key of the callee, once the call was sent.
        call_id: idempotency key of a retried call that was sent; empty otherwise.
        endpoint: endpoint of the peer daemon that it was sent to, or ``THIS_DAEMON``.
        start: start of that daemon, once a retried call was sent.
        done: true if it has its outcome, or needs none.
        connecting_to: name of the peer while there is no connection to it, so nothing has been executed; "" otherwise.
        search: record of the attempts to reach the peer.
        cancel: stops the call at the place that it has reached.
        id: request id and number, as ``safe_id`` returns them.
        _is_free: true once the daemon that got an earlier attempt has said that no process of it has executed the call.
        _is_elsewhere: true if the last attempt was sent to another daemon than an earlier one; set with ``call_id``.
        may_repeat: true if the program calls again, under the same id, when the connection ends.
    """

    path = LOCAL

    __slots__ = (
        "_calls",
        "_hops",
        "_is_elsewhere",
        "_is_free",
        "_is_returning",
        "_kept",
        "_payload",
        "_reserved",
        "began",
        "call_id",
        "cancel",
        "connecting_to",
        "correlation",
        "done",
        "endpoint",
        "id",
        "may_repeat",
        "search",
        "seconds",
        "sender",
        "start",
        "state",
        "target",
    )  # fmt: skip

    def __init__(
        self,
        calls: OutgoingCalls,
        sender: Sender,
        state: _ProgramCalls,
        correlation: bytes,
        seconds: float,
        may_repeat: bool,
        request_id: tuple[str, bytes],
    ) -> None:
        self._calls = calls
        self.sender = sender
        self.state = state
        self.correlation = correlation
        self.seconds = seconds
        self.began = monotonic()  # the clock of the event loop, which has a resolution of 1 ms
        self.may_repeat = may_repeat
        self.id = request_id
        self._payload = b""
        self._reserved = 0
        self._is_returning = self._is_free = False
        self._is_elsewhere: bool
        self._hops = 0
        self._kept: tuple[OnlineIdentity, Call, bytes] | None = None
        """The request, while another daemon may serve it if this one does not."""
        self.target = b""
        self.call_id = b""
        self.start: bytes
        self.endpoint = THIS_DAEMON
        self.done = False
        self.connecting_to = ""
        self.search: Search | None = None
        self.cancel: Callable[[], object] | None = None

    @property
    def account(self) -> Account:
        """Account of the program."""
        return self.state.account

    def hold(self, payload: bytes) -> bool:
        """Keep the payload while the call waits. Return False after a failure: too much waits already."""
        overload = self.state.account.reserve(len(payload))
        if overload is not None:
            self.on_error(overload)
            return False
        self._payload, self._reserved = payload, len(payload)
        return True

    def release_payload(self) -> bytes:
        """Return the payload that was kept, and keep it no longer."""
        payload, self._payload = self._payload, b""
        self.state.account.release(self._reserved)
        self._reserved = 0
        return payload

    def on_binding(self, source: OnlineIdentity, target: bytes, message: Call, payload: bytes) -> None:
        """Send the call to a local process."""
        request: Call | wire.Request = message
        if message.call_id:
            earlier = self._earlier_start(_HERE, self._calls.started_ms, source, target, message, payload)
            if earlier is None:
                return
            if earlier:
                request = wire.RepeatedRequest(
                    0, source.raw, target, message.protocol, message.instance, message.deadline_ms, message.command,
                    message.call_id, message.attempt, traceparent=message.traceparent, earlier=earlier,
                )  # fmt: skip
        served = self._calls.incoming.serve(self, source.raw, target, request, payload)
        self.cancel = served.cancel if served is not None else None

    def on_connection(
        self, connection: PeerConnection, source: OnlineIdentity, target: bytes, message: Call, payload: bytes
    ) -> None:
        """Send the call to the peer."""
        earlier = b""
        if message.call_id:
            daemon = EarlierAttempt(connection.endpoint, connection.daemon_start)
            found = self._earlier_start(daemon, connection.daemon_started_ms, source, target, message, payload)
            if found is None:
                return
            if daemon.start:  # an older version does not understand it
                earlier = found
        self.target, self.endpoint = target, connection.endpoint
        size = len(payload)
        if size <= _SMALL:
            self._kept = source, message, payload
        elif (
            self._calls.targets.may_refuse(target, connection.endpoint, message)
            and self.state.account.reserve(size) is None
        ):
            self._kept, self._reserved = (source, message, payload), size
        requests = connection.requests
        try:
            number = requests.call(self, source.raw, target, message, message.deadline_ms, payload, *self.id, earlier)
        except P2PError as error:
            self.on_error(error)
            return
        self.cancel = lambda: requests.cancel(number)

    def _earlier_start(
        self,
        daemon: EarlierAttempt,
        started_ms: int,
        source: OnlineIdentity,
        target: bytes,
        message: Call,
        payload: bytes,
    ) -> bytes | None:
        """Return the start of a daemon that may have executed a retried call and does not know it any more.

        Args:
            daemon: to which the call is about to be sent.
            started_ms: when it was started, in ``boot_ms``.

        Returns:
            Empty if there is no such daemon; None if the call must not be sent to this one. If another daemon has got
            it, the call goes there instead, or fails.
        """
        found, is_elsewhere = b"", False
        if message.attempt and not self._is_free:
            earlier = self._calls.attempts.find(target, message.call_id)
            if earlier is None:
                is_elsewhere = self._calls.targets.has_others(target, daemon.endpoint)
                if is_elsewhere:
                    found = wire.ANOTHER_START
                elif 0 < message.sent_ms < started_ms:
                    found = wire.UNKNOWN_START
            elif earlier.endpoint == daemon.endpoint:
                # An attempt sent after this start cannot have reached the earlier one.
                if earlier.start != daemon.start and not 0 < started_ms < message.sent_ms:
                    found = earlier.start or wire.UNKNOWN_START
            elif not self._is_returning:
                self._is_returning = True  # to that daemon, which may have another endpoint by now
                self._calls.targets.find_endpoint(self, source, target, earlier.endpoint, message, payload)
                return None
            elif earlier.start != daemon.start or not daemon.start:
                is_elsewhere = True
                found = earlier.start or wire.ANOTHER_START
            if is_elsewhere and not daemon.start and daemon is not _HERE:
                self.on_error(OutcomeUnknown(peer=display_name(target, message.peer)))
                return None  # an older version would execute it
        self._is_elsewhere = is_elsewhere
        self.target, self.call_id = target, message.call_id
        self.endpoint, self.start = daemon
        return found

    def on_reply(self, payload: bytes) -> None:
        if TRACING:
            trace_point("7 network of the caller: reply")
        self._note_served()
        self._finish(_REPLY, payload)

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        self._note_served()
        if not self.done:
            self._calls.counters.fail(APPLICATION)
        self._finish(encode(ApplicationErrorReply(kind, message)), payload)

    def _note_served(self) -> None:
        """Remember that the daemon serves the binding, if the payload was kept in case that it does not."""
        if self._reserved and self._kept is not None:
            self._calls.targets.on_served(self.target, self.endpoint, self._kept[1])

    def on_error(self, error: P2PError) -> None:
        if self._kept is None and isinstance(error, (*MISSING, HomeAway)) and self.target:
            self._calls.targets.on_refused(self.target, self.endpoint)
        if isinstance(error, MISSING) and self._kept is not None and not self.done and self._goes_over(error):
            return
        if isinstance(error, HomeAway) and self.endpoint != THIS_DAEMON and not self.done and self._goes_home(error):
            return
        if self.call_id and self._is_elsewhere and isinstance(error, NOT_EXECUTED):
            error = OutcomeUnknown(peer=PublicKey(self.target).id52)  # another daemon may have executed it
        if self.call_id and not isinstance(error, NOT_EXECUTED):
            attempt = EarlierAttempt(self.endpoint, self.start)
            until = self._calls.now() + self.seconds
            self._calls.attempts.note(self.target, self.call_id, attempt, until, replace=self._is_free)
        elif isinstance(error, PeerOffline) and self.endpoint != THIS_DAEMON:
            self._calls.targets.on_offline(self.target, self.endpoint)
        if not self.done:
            self._calls.counters.fail(error.code)
            log.info("a call has failed: %s", error, extra={"request_id": full_id(*self.id)})
        self._finish(encode(ErrorReply.of(error)), b"")

    def _goes_over(self, error: P2PError) -> bool:
        """Send the call to another daemon of the callee, because this one lacks the binding. Return False if there is
        none."""
        if self._kept is None:
            return False
        (source, message, payload), self._kept = self._kept, None
        self.release_payload()
        left = max(1, int((self.began + self.seconds - monotonic()) * 1000))
        message = replace(message, deadline_ms=left)
        return self._calls.targets.go_over(self, source, self.target, self.endpoint, message, payload, error)

    def _goes_home(self, error: HomeAway) -> bool:
        """Send the call to the home of its binding, unless it went from one daemon to the next too often. Return False
        if it cannot go there."""
        self._hops += 1
        if self._kept is None or self._hops > MAX_HOPS:
            return False
        (source, message, payload), self._kept = self._kept, None
        self._is_free = True
        self.release_payload()
        left = max(1, int((self.began + self.seconds - monotonic()) * 1000))
        message = replace(message, deadline_ms=left)
        return self._calls.targets.go_home(self, source, self.target, self.endpoint, message, payload, error)

    def on_rejected(self, error: P2PError) -> None:
        self.on_error(error)

    def abandon(self) -> None:
        """Stop the call without an answer, because its program no longer waits."""
        if self._close():
            self._calls.counters.unanswered += 1
            self._stop()

    def expire(self) -> None:
        """Fail the call at its deadline. If the peer could not be reached, the error says what was tried."""
        if not self.done:
            self._stop()
            now = self._calls.now()
            if self.connecting_to and self.search is not None and self.search.seconds(now) >= TOO_SHORT:
                self.on_error(PeerUnreachable(peer=self.connecting_to, reason=self.search.words(now)))
            else:
                self.on_error(DeadlineExceeded(seconds=round(self.seconds, 3)))

    def _stop(self) -> None:
        cancel, self.cancel = self.cancel, None
        if cancel is not None:
            cancel()

    def _finish(self, header: bytes, payload: bytes) -> None:
        if self._close():
            self._calls.counters.answer(monotonic() - self.began)
            self._calls.mailbox.answer(self.sender, self.correlation, header, payload)

    def _close(self) -> bool:
        if self.done:
            return False
        self.done = True
        self._kept = None
        if self._reserved:
            self.release_payload()
        self.state.pop(self.correlation, None)
        self._calls.remove(self)
        return True


class _ProgramCalls(dict[bytes, _OutgoingCall]):
    """Calls in flight of one local program, by correlation id, and its account."""

    __slots__ = ("account",)

    def __init__(self, account: Account) -> None:
        super().__init__()
        self.account = account


class OutgoingCalls:
    """Calls of local programs that are in flight.

    Args:
        mailbox: of the network process.
        targets: finds where each call goes.
        incoming: serves calls whose target is a local binding.
        payloads: memory for payloads of calls that wait.
        started_ms: start of this daemon, in ``boot_ms``.

    Attributes:
        counters: what has become of all calls so far.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        targets: TargetFinder,
        incoming: IncomingCalls,
        payloads: PayloadMemory,
        started_ms: int = 0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.started_ms = started_ms
        self.mailbox = mailbox
        self.targets = targets
        self.incoming = incoming
        self._payloads = payloads
        self.counters = CallCounters()
        self.attempts = EarlierAttempts(self._loop.time)
        self._deadlines: DeadlineTimer[_OutgoingCall] = DeadlineTimer(self._loop, _OutgoingCall.expire)
        self._idle: asyncio.Event | None = None

    def now(self) -> float:
        """Return the event loop's time, in seconds."""
        return self._loop.time()

    def __len__(self) -> int:
        return len(self._deadlines)

    def close(self) -> None:
        """Stop the timer of the deadlines."""
        self._deadlines.close()

    async def drained(self) -> None:
        """Wait until no call is in flight."""
        self._idle = asyncio.Event()
        if len(self._deadlines):
            await self._idle.wait()

    def remove(self, call: _OutgoingCall) -> None:
        """Remove a call that has its outcome."""
        self._deadlines.discard(call)
        if self._idle is not None and not len(self._deadlines):
            self._idle.set()

    def on_call(self, sender: Sender, correlation: bytes, message: Call, payload: bytes) -> None:
        """Check a program's call and send it to its target."""
        if TRACING:
            trace_point("2 network of the caller: call")
        state = sender.state
        if not isinstance(state, _ProgramCalls):
            state = sender.state = _ProgramCalls(Account(self._payloads.programs))
        try:
            if correlation in state:
                raise BadMessage(reason="a call with this id is in flight already")
            if len(state) >= MAX_CALLS_PER_CLIENT:
                raise Overloaded(what="calls in flight from this program", limit=MAX_CALLS_PER_CLIENT)
            if len(message.protocol) > MAX_NAME or len(message.instance) > MAX_NAME or len(message.command) > MAX_NAME:
                check_name(message.protocol, "a protocol")
                check_name(message.instance, "an instance")
                check_name(message.command, "a command")
            if len(message.call_id) > MAX_CALL_ID:
                raise BadMessage(reason=f"a call id of more than {MAX_CALL_ID} bytes")
        except P2PError as error:
            self.counters.refuse(error.code)
            self.mailbox.send(sender, correlation, encode(ErrorReply.of(error)))
            return
        seconds = min(message.deadline_ms / 1000, MAX_CALL_TIMEOUT)
        call = state[correlation] = _OutgoingCall(
            self,
            sender,
            state,
            correlation,
            seconds,
            message.call_id != b"",
            safe_id(message.request_id, correlation, message.call_id),
        )
        self._deadlines.add(call, call.began + seconds)
        self.targets.find(call, message, payload)

    @staticmethod
    def has_calls(sender: Sender) -> bool:
        """Return whether a program has calls in flight."""
        return bool(isinstance(sender.state, _ProgramCalls) and sender.state)

    def on_cancel(self, sender: Sender, correlation: bytes) -> None:
        """Abandon the call that a program has cancelled, if it is still in flight."""
        if isinstance(sender.state, _ProgramCalls):
            call = sender.state.get(correlation)
            if call is not None:
                call.abandon()

    def on_sender_gone(self, sender: Sender) -> None:
        """Abandon all calls of a program that has ended."""
        if isinstance(sender.state, _ProgramCalls):
            for call in list(sender.state.values()):
                call.abandon()
