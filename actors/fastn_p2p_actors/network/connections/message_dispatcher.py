"""Dispatch of a peer daemon's messages to the parts of its connection."""

from __future__ import annotations

import asyncio
from typing import Any, Generic, Protocol, TypeVar

from fastn_p2p_client.errors import Overloaded

from ..transport.peer_limits import CANCELS, NEWS, PeerLimit
from ..wire import messages as wire
from ..wire.messages import remote_error
from .call_channel import CallChannel
from .connection_requests import ConnectionRequests
from .connection_sessions import ConnectionSessions
from .events import ConnectionEvents
from .identity_exchange import IdentityExchange
from .keepalive import Keepalive
from .round_trip import RoundTrip
from .stream_pacing import StreamPacer


class DispatchConnection(Protocol):
    """Members of the connection that the dispatch of its messages uses."""

    used_at: float
    identities: IdentityExchange[Any]
    sessions: ConnectionSessions
    pacer: StreamPacer
    round_trip: RoundTrip

    @property
    def requests(self) -> ConnectionRequests[Any]: ...
    def overload(self, limit: PeerLimit) -> Overloaded | None: ...
    def on_hello(self, hello: wire.Hello) -> None: ...


ConnectionT = TypeVar("ConnectionT", bound=DispatchConnection)


class MessageDispatcher(Generic[ConnectionT]):
    """Dispatch of the messages of one connection, from its call channel and its bulk streams.

    Args:
        owner: callbacks of the connection.
    """

    __slots__ = (
        "_channel", "_connection", "_identities", "_keepalive", "_loop", "_on_request", "_owner", "_pacer", "_pending",
        "_round_trip", "_sessions",
    )  # fmt: skip

    def __init__(
        self,
        connection: ConnectionT,
        owner: ConnectionEvents[ConnectionT],
        channel: CallChannel,
        keepalive: Keepalive,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._owner = owner
        self._channel = channel
        self._keepalive = keepalive
        self._identities = connection.identities
        self._sessions = connection.sessions
        self._pacer = connection.pacer
        self._round_trip = connection.round_trip
        self._pending = connection.requests.pending
        self._on_request = connection.requests.on_request

    def handle(self, message: wire.WireMessage, payload: bytes) -> None:
        """Handle a message of the peer daemon, from the channel or from a bulk stream.

        Raises:
            BadMessage: it violates the protocol.
        """
        if isinstance(message, wire.Reply):
            self._pacer.on_reply()
            call = self._pending.pop(message.id, None)
            if call is not None:
                call.on_reply(payload)
        elif isinstance(message, wire.Request):
            self._on_request(message, payload)
        elif isinstance(message, wire.OpenSession):
            self._sessions.on_open(message, payload)
        elif isinstance(message, wire.SessionAccepted):
            self._sessions.on_answer(message, payload)
        elif isinstance(message, wire.SessionStream):
            self._sessions.streams.on_announcement(message)
        elif isinstance(message, wire.ApplicationErrorReply):
            call = self._pending.pop(message.id, None)
            if call is not None:
                call.on_application_error(message.kind, message.message, payload)
            else:
                self._sessions.on_answer(message, payload)
        elif isinstance(message, wire.ErrorReply):
            call = self._pending.pop(message.id, None)
            if call is not None:
                call.on_error(remote_error(message))
            else:
                self._sessions.on_answer(message, payload)
        elif isinstance(message, wire.Cancel):
            if not self._sessions.on_cancel(message.id):
                self._owner.on_cancel(self._connection, message.id)
                if self._connection.overload(CANCELS) is not None:
                    self._connection.requests.on_overload()
        elif isinstance(message, wire.Introduce):
            self._identities.on_introduce(message)
        elif isinstance(message, wire.RequestIntroduction):
            self._connection.used_at = self._loop.time()
            self._identities.on_request(message.identity)
        elif isinstance(message, wire.Ping):
            self._channel.write_pong()
        elif isinstance(message, wire.Pong):
            self._keepalive.on_pong()
            self._pacer.on_pong()
            self._round_trip.on_pong()
        elif isinstance(message, wire.Pause | wire.Resume):
            self._sessions.pausing.on_pause(message)
        elif isinstance(message, wire.Hello):
            self._connection.on_hello(message)
        elif isinstance(message, wire.IdentityOffline):
            self._identities.on_identity_offline(message.identity)
        elif isinstance(message, wire.RedeemInvitation):
            self._connection.requests.on_redeem(message)
        elif isinstance(message, wire.RenewReplica):
            self._connection.used_at = self._loop.time()
            self._owner.on_renew_replica(self._connection, message)
        elif self._connection.overload(NEWS) is None:
            if isinstance(message, wire.ObservedAddress):
                self._owner.on_observed_address(self._connection, message.address)
            elif isinstance(message, wire.SpreadRequests):
                self._owner.on_spread_requests(self._connection, message)
            elif isinstance(message, wire.ShowOwner):
                self._owner.on_owner_shown(self._connection, message)
            else:
                self._owner.on_pushed_record(self._connection, message.record)
