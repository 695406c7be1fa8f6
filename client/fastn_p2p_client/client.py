"""``Client``: calls and sessions of a program.

A client has two connections: to the gateway, for ``control_client``, and to the network process.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from sys import modules
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import msgspec

from .affinity import running_loop
from .control_client import ControlClient, check_timeout, time_left
from .errors import ApplicationError, BadReply, ConnectionLost, DaemonBusy, DeadlineExceeded, P2PError, PayloadTooLarge
from .ipc import messages as m
from .ipc.latency_trace import TRACING, trace_point
from .ipc.request_channel import RequestChannel, decode_answer
from .keys import PublicKey
from .limits import DEFAULT_CALL_TIMEOUT, DEFAULT_INSTANCE, MAX_CALL_TIMEOUT, MAX_INITIAL, SESSION_WINDOW
from .otel import OTEL, has_provider
from .request_id import check_request_id, full_id, new_request_id
from .retry import CallRetry
from .session.client_sessions import error_from_reply
from .session.session import Session
from .tickets import Ticket

if TYPE_CHECKING:
    from .admin.group_admin import GroupAdmin
    from .admin.identity_admin import IdentityAdmin
    from .admin.invitation_admin import InvitationAdmin
    from .admin.peer_admin import PeerAdmin
    from .admin.protocol_admin import ProtocolAdmin

T = TypeVar("T")

_ADVANCE: Final = 0.02
"""Seconds by which a call's deadline at the daemon is earlier than here: the daemon knows why there is no reply."""

_encode_payload: Final = msgspec.msgpack.Encoder().encode
_encode_header: Final = m.encode
_REPLY: Final = m.encode(m.Reply())


@lru_cache(maxsize=256)
def _call_header(
    identity: str, peer: str, protocol: str, instance: str, deadline_ms: int, command: str, request_id: str
) -> bytes:
    return _encode_header(m.Call(identity, peer, protocol, instance, deadline_ms, command, request_id=request_id))


@lru_cache(maxsize=256)
def _decoder(returns: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(returns)


class Client(ControlClient):
    """A program's client of the daemon.

    It connects at its first use, and reconnects by itself when a process of the daemon has restarted. Calls that were
    in flight then end with ``ConnectionLost``.

    From its first use until ``close`` a client belongs to one event loop of one process. Elsewhere, also in a forked
    child, every method but ``close`` raises ``UsedElsewhere`` and sends nothing. The functions ``call`` and ``connect``
    of this package use a client of their own in each event loop.

    ::

        async with Client() as client:
            reply = await client.call("alice", peer, "Echo", request={"message": "hi"})

    Args:
        home: the daemon's home directory; default ``$FASTN_HOME``, else ``~/.fastn``.
        program: name of this program in ``fastn-p2p status``, at most 64 characters; default the name of the script.
        transport: ``"native"`` or ``"pyzmq"``; default ``$FASTN_TRANSPORT``, else ``"native"``.

    Raises:
        HomeUnusable: the path of the home is not UTF-8, or its ``~`` cannot be resolved.
        InvalidName: there is no transport of this name.
    """

    @property
    def identities(self) -> IdentityAdmin:
        """Identities of the daemon: create them, bring them online."""
        from .admin.identity_admin import IdentityAdmin

        return IdentityAdmin(self)

    @property
    def protocols(self) -> ProtocolAdmin:
        """Protocols of the daemon: add them to identities, configure them."""
        from .admin.protocol_admin import ProtocolAdmin

        return ProtocolAdmin(self)

    @property
    def peers(self) -> PeerAdmin:
        """The address book of the daemon."""
        from .admin.peer_admin import PeerAdmin

        return PeerAdmin(self)

    @property
    def groups(self) -> GroupAdmin:
        """Groups of peers."""
        from .admin.group_admin import GroupAdmin

        return GroupAdmin(self)

    @property
    def invitations(self) -> InvitationAdmin:
        """Invitations of the daemon."""
        from .admin.invitation_admin import InvitationAdmin

        return InvitationAdmin(self)

    @overload
    async def call(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = ...,
        request: Any = ...,
        *,
        command: str = ...,
        returns: type[T],
        timeout: float = ...,
        retry: bool = ...,
        request_id: str = ...,
    ) -> T: ...
    @overload
    async def call(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = ...,
        request: Any = ...,
        *,
        command: str = ...,
        timeout: float = ...,
        retry: bool = ...,
        request_id: str = ...,
    ) -> Any: ...
    async def call(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = DEFAULT_INSTANCE,
        request: Any = None,
        *,
        command: str = "",
        returns: Any = Any,
        timeout: float = DEFAULT_CALL_TIMEOUT,
        retry: bool = False,
        request_id: str = "",
    ) -> Any:
        """Call a protocol of ``peer`` and return its reply.

        With ``retry``, the call is sent again until the timeout in four cases: the process or connection that had it
        was lost, the handler's process or identity has not started yet, a delegation does not hold by one of the
        clocks, or the error is ``retryable``. One serving process executes a retried call once, however often it
        arrives. If that process ends, it may have executed the call; another process then executes it again, under the
        same ``call_id``. Another daemon that serves the peer does not, nor does the same one if it was killed as a
        whole and started again: ``OutcomeUnknown`` ends the call instead.

        Args:
            identity: name of the local identity that calls; None for the only one online.
            peer: a ``PublicKey``, an ID52, a ``Ticket`` or its text, a ``fastn-p2p://`` URI, or a petname.
            protocol: name of the protocol, for instance ``"Echo"``.
            instance: name of the protocol's instance at the peer.
            request: a msgspec Struct, a dataclass or JSON-like values, encoded as msgpack; at most 16 MiB.
            command: one of the protocol's commands, for instance ``"settings.add-forwarding"``; empty for its request
                handler.
            returns: type of the reply; the reply is checked against it.
            timeout: seconds until the call ends with ``DeadlineExceeded``, at most 3600.
            retry: True to send the call again after passing errors, as described above.
            request_id: name of the call for its handler, for errors and for the logs of both daemons, at most 64 ASCII
                letters, digits and ``-._+/=``. It need not be unique. Without one the client makes one, which is in
                the error of a call that fails.

        Returns:
            The reply as a ``returns``; without ``returns``, plain values.

        Raises:
            ApplicationError: the handler raised it on purpose.
            BadReply: the reply is not a ``returns``.
            ConnectionLost: a process or connection ended with the call in flight; it may have been executed.
            DeadlineExceeded: there was no reply in time; the call may have been executed.
            InvalidName: ``request_id`` is too long or has other characters; nothing was sent.
            OutcomeUnknown: with ``retry``, a daemon of the peer got the call and does not answer, or was started again;
                the call may have been executed.
            PayloadTooLarge: the request is too large; nothing was sent.
            UsedElsewhere: the client belongs to another event loop or process; nothing was sent.
            LocalError: this daemon cannot make the call, for instance ``IdentityOffline``.
            RemoteError: the peer cannot be reached or does not serve it, for instance ``Denied``.
            P2PError: any other error; ``fastn_p2p_client.errors`` lists them.
        """
        if TRACING:
            trace_point("1 program: call")
        if not 0 < timeout <= MAX_CALL_TIMEOUT:
            check_timeout(timeout)
            timeout = MAX_CALL_TIMEOUT
        payload = _encode_payload(request)
        if (loop := running_loop()) is not self._loop or loop is None:
            loop = self._claim()
        deadline = loop.time() + timeout
        target = identity or "", str(peer), protocol, instance
        if request_id:
            check_request_id(request_id)
        if OTEL in modules and has_provider():
            from .otel.spans import REQUEST, calling

            request_id = request_id or new_request_id()
            with calling(target, command or REQUEST, request_id) as traceparent:
                return await self._retried(
                    target, command, payload, returns, deadline, timeout, request_id, retry, traceparent
                )
        if not retry:
            return await self._call(target, command, payload, returns, deadline, timeout, request_id)
        return await self._retried(target, command, payload, returns, deadline, timeout, request_id, retry)

    async def _retried(
        self,
        target: tuple[str, str, str, str],
        command: str,
        payload: bytes,
        returns: Any,
        deadline: float,
        timeout: float,
        request_id: str,
        retry: bool,
        traceparent: str = "",
    ) -> Any:
        """Make attempts until one succeeds; only one without ``retry``."""
        if not retry:
            return await self._call(
                target, command, payload, returns, deadline, timeout, request_id, traceparent=traceparent
            )
        retries = CallRetry(deadline, timeout, request_id)
        while True:
            retries.begin()
            try:
                return await self._call(
                    target, command, payload, returns, deadline, timeout, retries.request_id,
                    retries.call_id, retries.attempt, traceparent, retries.sent_ms,
                )  # fmt: skip
            except P2PError as error:
                await retries.wait_or_raise(error)

    async def _call(
        self,
        target: tuple[str, str, str, str],
        command: str,
        payload: bytes,
        returns: Any,
        deadline: float,
        timeout: float,
        request_id: str,
        call_id: bytes = b"",
        attempt: int = 0,
        traceparent: str = "",
        sent_ms: int = 0,
    ) -> Any:
        """Make one attempt. ``target`` is identity, peer, protocol and instance, as in ``messages.Call``."""
        channel: RequestChannel | None = None
        correlation = b""
        try:
            answer = None
            while answer is None:
                channel = self._daemon.network
                left = timeout
                if channel is None or not channel.connected.is_set():
                    channel = await self._daemon.reach_network(deadline, timeout)
                    left = time_left(deadline, timeout)
                elif attempt:
                    left = time_left(deadline, timeout)
                milliseconds = int((left - (_ADVANCE if left > 10 * _ADVANCE else left / 10)) * 1000)
                if call_id or traceparent:
                    message = m.Call(*target, milliseconds, command, call_id, attempt, request_id, traceparent, sent_ms)
                    header = _encode_header(message)
                else:
                    header = _call_header(*target, milliseconds, command, request_id or channel.call_ids)
                correlation = channel.new_id()
                try:
                    answer = await channel.request_encoded(header, payload, left, correlation)
                except DaemonBusy:
                    continue  # the connection ended before anything was sent
                except DeadlineExceeded:
                    raise DeadlineExceeded(seconds=timeout) from None
                except ConnectionLost:
                    if not call_id:
                        self._daemon.check_running()
                    raise
            if TRACING:
                trace_point("8 program: reply")
            if answer.header == _REPLY:
                try:
                    return _decoder(returns).decode(answer.payload)
                except m.UNDECODABLE as error:
                    raise BadReply(protocol=target[2], reason=str(error)) from error
            error_reply = error_from_reply(decode_answer(_decoder(m.DataMessage), answer.header), answer.payload)
            if (
                isinstance(error_reply, DeadlineExceeded)
                and asyncio.get_running_loop().time() > deadline - 2 * _ADVANCE
            ):
                raise DeadlineExceeded(seconds=timeout)  # the deadline of this call, not of one that the handler made
            raise error_reply
        except (P2PError, ApplicationError) as error:
            if request_id or not correlation or channel is None:
                error.request_id = request_id
            else:
                error.request_id = full_id(channel.call_ids, correlation)
            raise

    async def connect(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = DEFAULT_INSTANCE,
        initial: Any = None,
        *,
        timeout: float = DEFAULT_CALL_TIMEOUT,
        request_id: str = "",
    ) -> Session:
        """Open a session with a protocol of ``peer``. The handler has accepted it when this returns.

        ::

            async with await client.connect("alice", "bob", "FileTransfer", initial="report.pdf") as session:
                await session.copy_to(file)

        Args:
            identity: name of the local identity that opens it; None for the only one online.
            peer: a ``PublicKey``, an ID52, a ``Ticket`` or its text, a ``fastn-p2p://`` URI, or a petname.
            protocol: name of the protocol, for instance ``"FileTransfer"``.
            instance: name of the protocol's instance at the peer.
            initial: value for the handler, encoded like a request; at most 64 KiB.
            timeout: seconds until the handler must have accepted, at most 3600. The session has no time limit.
            request_id: name of the session, as for ``call``. ``Session.request_id`` has the one that the client makes.

        Returns:
            An open session. Use it in ``async with``, or close it.

        Raises:
            ApplicationError: the handler rejected the session on purpose.
            ConnectionLost: a process or connection ended before the session was open.
            DeadlineExceeded: the handler did not accept in time.
            InvalidName: ``request_id`` is too long or has other characters; nothing was sent.
            PayloadTooLarge: ``initial`` is too large; nothing was sent.
            UsedElsewhere: the client belongs to another event loop or process; nothing was sent.
            LocalError: this daemon cannot open it, for instance ``IdentityOffline``.
            RemoteError: the peer cannot be reached or does not serve it, for instance ``Denied``.
            P2PError: any other error; ``fastn_p2p_client.errors`` lists them.
        """
        check_timeout(timeout)
        timeout = min(timeout, MAX_CALL_TIMEOUT)
        payload = _encode_payload(initial)
        if len(payload) > MAX_INITIAL:
            raise PayloadTooLarge(size=len(payload), limit=MAX_INITIAL)
        if (loop := running_loop()) is not self._loop or loop is None:
            loop = self._claim()
        request_id = check_request_id(request_id) if request_id else new_request_id()
        deadline = loop.time() + timeout
        target = identity or "", str(peer), protocol, instance
        try:
            if OTEL in modules and has_provider():
                from .otel.spans import SESSION, calling

                with calling(target, SESSION, request_id) as traceparent:
                    session = await self._connect(target, payload, deadline, timeout, request_id, traceparent)
            else:
                session = await self._connect(target, payload, deadline, timeout, request_id)
        except (P2PError, ApplicationError) as error:
            error.request_id = request_id
            raise
        session._set_client(self)
        return session

    async def _connect(
        self,
        target: tuple[str, str, str, str],
        payload: bytes,
        deadline: float,
        timeout: float,
        request_id: str,
        traceparent: str = "",
    ) -> Session:
        while True:
            channel = await self._daemon.reach_network(deadline, timeout)
            left = time_left(deadline, timeout)
            advanced = left - min(_ADVANCE, left / 10)
            message = m.OpenSession(*target, int(advanced * 1000), SESSION_WINDOW, request_id, traceparent)
            try:
                return await self._sessions.open(channel, message, payload, left)
            except DaemonBusy:
                continue  # the connection ended before anything was sent
            except DeadlineExceeded:
                raise DeadlineExceeded(seconds=timeout) from None
            except ConnectionLost:
                self._daemon.check_running()
                raise

    async def wait_until_online(self, identity: str | None, peer: str | PublicKey | Ticket, *, timeout: float) -> None:
        """Wait until ``peer`` can be called. Returns at once if the peer is online already.

        It waits through restarts of the daemon's processes, and for peer daemons that have not started yet. It does not
        check that the peer serves a certain protocol. The peer can go offline again before the next call.

        Args:
            identity: name of the local identity, which must be online; None for the only one online.
            peer: a ``PublicKey``, an ID52, a ``Ticket`` or its text, a ``fastn-p2p://`` URI, or a petname.
            timeout: seconds, at most 3600.

        Raises:
            DeadlineExceeded: the peer did not come online in time.
            PeerUnknown: the address book has no such name.
            UsedElsewhere: the client belongs to another event loop or process.
            P2PError: another error that no waiting can end, for instance ``IdentityOffline``.
        """
        check_timeout(timeout)
        timeout = min(timeout, MAX_CALL_TIMEOUT)
        if (loop := running_loop()) is not self._loop or loop is None:
            loop = self._claim()
        deadline = loop.time() + timeout
        answer = None
        while answer is None:
            channel = await self._daemon.reach_network(deadline, timeout)
            left = time_left(deadline, timeout)
            message = m.WaitForPeer(identity or "", str(peer), int(left * 1000))
            try:
                answer = await channel.request_encoded(_encode_header(message), b"", left)
            except DaemonBusy:
                continue  # the connection ended before anything was sent
            except DeadlineExceeded:
                raise DeadlineExceeded(seconds=timeout) from None
            except ConnectionLost:
                self._daemon.check_running()
                if channel is not self._daemon.network:
                    raise  # the client was closed
        reply = decode_answer(_decoder(m.DataMessage), answer.header)
        if isinstance(reply, m.Ack):
            return
        error_reply = error_from_reply(reply, answer.payload)
        raise DeadlineExceeded(seconds=timeout) if isinstance(error_reply, DeadlineExceeded) else error_reply
