"""Requests of one connection, in both directions: number and send them, check those of the peer, answer them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from fastn_p2p_client.errors import BadMessage, ConnectionLost, Overloaded, P2PError
from fastn_p2p_client.ipc.messages import Call
from fastn_p2p_client.limits import MAX_CALL_ID, MAX_CALLS_PER_PEER, MAX_NAME
from fastn_p2p_client.otel import safe_traceparent

from ..transport.peer_limits import REFUSED_REQUESTS, PeerLimit
from ..wire import messages as wire
from ..wire.framing import encode_frame, encode_head
from ..wire.messages import BULK_THRESHOLD
from .bulk_streams import BulkStreams
from .call_channel import MAX_QUEUED, CallChannel
from .connection_memory import ConnectionMemory
from .events import ConnectionEvents, OutgoingCall
from .identity_exchange import IdentityExchange
from .overload_pause import OverloadPause
from .payload_memory import Account
from .step_budget import ConnectionSteps
from .stream_pacing import StreamPacer


class RequestConnection(Protocol):
    """Members of the connection that its requests use."""

    closed: bool
    used_at: float
    identities: IdentityExchange[Any]
    memory: ConnectionMemory
    pacer: StreamPacer
    steps: ConnectionSteps
    pause: OverloadPause

    @property
    def name(self) -> str: ...
    def send(self, message: wire.WireMessage) -> None: ...
    def expect_reply(self) -> None: ...
    def overload(self, limit: PeerLimit) -> Overloaded | None: ...
    def is_abusive(self) -> bool: ...
    def abort(self, reason: str) -> None: ...


ConnectionT = TypeVar("ConnectionT", bound=RequestConnection)


class ConnectionRequests(Generic[ConnectionT]):
    """Requests of one connection, in both directions. A request is a call, or opens a session.

    Args:
        owner: gets the peer's calls.
        account: of outgoing requests that are not written yet, on the channel or on bulk streams.

    Attributes:
        pending: outgoing calls without a reply, by number. It stays the same object.
        serving: incoming calls without a reply, by number; kept by the owner.
        cancelled_early: numbers of requests that were cancelled before they arrived, as a large one travels on a stream
            of its own; kept by the owner.
    """

    __slots__ = (
        "_account", "_bulk", "_channel", "_connection", "_last_number", "_loop", "_owner", "cancelled_early",
        "pending", "serving",
    )  # fmt: skip

    def __init__(
        self,
        connection: ConnectionT,
        owner: ConnectionEvents[ConnectionT],
        channel: CallChannel,
        bulk: BulkStreams,
        account: Account,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._owner = owner
        self._channel = channel
        self._bulk = bulk
        self._account = account
        self._last_number = 0
        self.pending: dict[int, OutgoingCall] = {}
        self.serving: dict[int, Any] = {}
        self.cancelled_early: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self.pending) + len(self.serving)

    def on_connection_lost(self) -> None:
        """End the outgoing calls: the connection has ended."""
        calls = list(self.pending.values())
        self.pending.clear()
        for call in calls:
            call.on_error(ConnectionLost(what="the connection to the peer"))

    def release_repeatable(self) -> None:
        """End the outgoing calls that their programs repeat: another connection works, and this one may still heal."""
        repeatable = [(number, call) for number, call in self.pending.items() if call.may_repeat]
        for number, _ in repeatable:
            del self.pending[number]
        for _, call in repeatable:
            call.on_error(ConnectionLost(what="the connection to the peer"))

    def end_retried(self, target: bytes, error: P2PError) -> None:
        """End the outgoing calls to an identity that their programs repeat. Ignore replies that still come."""
        for number, call in list(self.pending.items()):
            if call.may_repeat and call.target == target:
                del self.pending[number]
                call.on_error(error)

    def end_identity(self, identity: bytes, error: P2PError) -> None:
        """End the calls of an identity at the peer daemon without an answer, and those to it with ``error``."""
        for number, served in list(self.serving.items()):
            if served.source == identity:
                del self.serving[number]
                served.cancel()
        for number, call in list(self.pending.items()):
            if call.target == identity:
                self.cancel(number)
                call.on_error(error)

    # ── outgoing ─────────────────────────────────────────────────────────────────────────────────

    def call(
        self,
        waiting: OutgoingCall,
        source: bytes,
        target: bytes,
        call: Call,
        deadline_ms: int,
        payload: bytes,
        request_id: str,
        id_number: bytes = b"",
        earlier: bytes = b"",
    ) -> int:
        """Send a call, and return its number, for ``cancel``. ``waiting`` gets its outcome exactly once.

        Args:
            request_id, id_number: as ``safe_id`` returns them.
            earlier: as in ``wire.RepeatedRequest``; empty if no other daemon may have executed the call.

        Raises:
            Overloaded: the peer does not read what it is sent, or too much waits for all peers; nothing was queued.
        """
        number = self._last_number = self._last_number + 1
        request = wire.Request(
            number, source, target, call.protocol, call.instance, deadline_ms,
            call.command, call.call_id, call.attempt, request_id, id_number,
            call.traceparent and safe_traceparent(call.traceparent),
        )  # fmt: skip
        if earlier:
            request = wire.RepeatedRequest.of(request, earlier)
        head = encode_head(request, len(payload))
        connection = self._connection
        if len(payload) > BULK_THRESHOLD:
            self._channel.check_queue(len(head) + len(payload), self._bulk.queued)
            head = connection.identities.frame_for(source) + head
            self._account.add(len(head) + len(payload))
            self._bulk.send(head, payload, self._account)
            connection.expect_reply()
        else:
            self.send(source, head + payload)
        self.pending[number] = waiting
        connection.pacer.on_call()
        return number

    def redeem(
        self, waiting: OutgoingCall, source: bytes, target: bytes, secret: bytes, name: str, record: bytes
    ) -> int:
        """Redeem an invitation of ``target``, and return the number, for ``cancel``. ``waiting`` gets the outcome.

        Raises:
            Overloaded: the peer does not read what it is sent, or too much waits for all peers; nothing was queued.
        """
        number = self.next_number()
        self.send(source, encode_frame(wire.RedeemInvitation(number, source, target, secret, name, record)))
        self.pending[number] = waiting
        self._connection.pacer.on_call()
        return number

    def renew_replica(self, waiting: OutgoingCall, message: wire.RenewReplica) -> None:
        """Report as a replica; ``next_number`` gave the message its id. ``waiting`` gets the outcome."""
        self.pending[message.id] = waiting
        self._connection.used_at = self._loop.time()
        self._connection.send(message)
        self._connection.expect_reply()
        self._connection.pacer.on_call()

    def next_number(self) -> int:
        """Return the number of the next request."""
        self._last_number += 1
        return self._last_number

    def send(self, source: bytes, request: bytes) -> None:
        """Send the frame of a request on the channel, preceded by the introduction of its source if that is due.

        Raises:
            Overloaded: the peer does not read what it is sent, or too much waits for all peers; nothing was queued.
        """
        channel, connection = self._channel, self._connection
        channel.check_queue(len(request), self._bulk.queued)
        introduction = connection.identities.pending_introduction(source)
        if introduction is not None:
            connection.send(introduction)
        channel.write_request(request)
        connection.expect_reply()

    def cancel(self, number: int) -> None:
        """Cancel a call: its reply is no longer wanted."""
        if self.pending.pop(number, None) is not None:
            self._connection.send(wire.Cancel(number))

    # ── incoming ─────────────────────────────────────────────────────────────────────────────────

    def on_request(self, request: wire.Request, payload: bytes) -> None:
        """Check a call of the peer, and report it to the owner."""
        connection = self._connection
        try:
            connection.identities.check(request.source)
        except P2PError as error:
            if not self.hold_until_introduced(request, payload, lambda: self.on_request(request, payload)):
                self.refuse(request.id, error)
            return
        if len(request.protocol) > MAX_NAME or len(request.instance) > MAX_NAME or len(request.command) > MAX_NAME:
            self.refuse(request.id, BadMessage(reason=f"a name of more than {MAX_NAME} characters"))
            return
        if len(request.call_id) > MAX_CALL_ID:
            self.refuse(request.id, BadMessage(reason=f"a call id of more than {MAX_CALL_ID} bytes"))
            return
        if len(self.serving) >= MAX_CALLS_PER_PEER:
            self.answer(_error_reply(request.id, Overloaded(what="calls in flight", limit=MAX_CALLS_PER_PEER)))
            return
        connection.used_at = self._loop.time()
        connection.pacer.on_call()
        self._owner.on_request(connection, request, payload)

    def on_redeem(self, message: wire.RedeemInvitation) -> None:
        """Check that the bearer of an invitation is who it says, and report it to the owner."""
        connection = self._connection
        try:
            connection.identities.check(message.source)
        except P2PError as error:
            if not self.hold_until_introduced(message, message.record, lambda: self.on_redeem(message)):
                self.refuse(message.id, error)
            return
        connection.used_at = self._loop.time()
        self._owner.on_redeem(connection, message)

    def hold_until_introduced(
        self,
        request: wire.Request | wire.OpenSession | wire.RedeemInvitation,
        payload: bytes,
        retry: Callable[[], None],
    ) -> bool:
        """Hold a request whose source was evicted here, until it is introduced again; return whether it is held.

        ``retry`` is called when the introduction arrives or does not arrive in time, unless the request is cancelled
        first.
        """

        def unless_cancelled() -> None:
            if self.cancelled_early.pop(request.id, self) is self:
                retry()

        return self._connection.identities.hold(request.source, len(payload), unless_cancelled)

    def answer(
        self,
        message: wire.Reply | wire.SessionAccepted | wire.ApplicationErrorReply | wire.ErrorReply,
        payload: bytes = b"",
    ) -> None:
        """Answer a request of the peer. ``Overloaded`` takes the place of a reply for which there is no memory.

        A stranger that gets ``Overloaded`` is read more slowly from now on.
        """
        if self._connection.closed:
            return
        if type(message) is wire.ErrorReply and message.code == Overloaded.code:
            self.on_overload()
        channel = self._channel
        is_large = len(payload) > BULK_THRESHOLD
        if channel.queued + self._bulk.queued > MAX_QUEUED:
            error = Overloaded(what="bytes queued for the peer", limit=MAX_QUEUED)
            message, payload, is_large = _error_reply(message.id, error), b"", False
        try:
            data = encode_head(message, len(payload))
        except BadMessage as too_long:  # the text of the handler's application error
            data, payload, is_large = encode_frame(_error_reply(message.id, too_long)), b"", False
        if is_large:
            account = self._connection.memory.account
            overload = account.reserve(len(data) + len(payload))
            if overload is None:
                self._bulk.send(data, payload, account)
                return
            self.on_overload()
            data, payload = encode_frame(_error_reply(message.id, overload)), b""
        data += payload
        channel.reply_bytes += len(data)
        channel.write(data)

    def on_overload(self) -> None:
        """A request of the peer was above a limit: read what a stranger sends more slowly from now on."""
        if not self._connection.steps.is_free:
            self._connection.pause.on_overload()

    def refuse(self, number: int, error: P2PError) -> None:
        """Answer a request with ``error``, within the rate limit for such answers."""
        self.push_back(number, error, self._connection.overload(REFUSED_REQUESTS))

    def push_back(self, number: int, error: P2PError, overload: Overloaded | None) -> None:
        """Answer a request with ``error``, or with ``overload`` if that is given.

        A stranger that goes on in spite of ``overload`` is disconnected.
        """
        if overload is not None:
            if self._connection.is_abusive():
                self._connection.abort(f"too many {overload.what}")
                return
            error = overload
        self.answer(_error_reply(number, error))


def _error_reply(number: int, error: P2PError) -> wire.ErrorReply:
    return wire.ErrorReply(number, error.code, error.fields())
