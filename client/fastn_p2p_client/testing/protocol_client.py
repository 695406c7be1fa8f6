"""Client of one protocol of one peer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, overload

from ..limits import DEFAULT_CALL_TIMEOUT, DEFAULT_INSTANCE
from ..session.session import Session

T = TypeVar("T")


class CallOptions(TypedDict, total=False):
    """Options of a call."""

    command: str
    """Command of the protocol; empty by default."""
    timeout: float
    """Seconds until the call ends with ``DeadlineExceeded``; 10 by default."""
    request_id: str
    """Name of the call for the handler; without it the client makes one."""


class SupportsCalls(Protocol):
    """Object that can call and connect, as ``Client`` can.

    Implement it to check another way of calling with ``check_requests``, ``check_errors`` and ``check_streams``.
    """

    async def call(
        self,
        identity: str | None,
        peer: str,
        protocol: str,
        instance: str,
        request: Any,
        *,
        command: str = "",
        returns: Any,
        timeout: float = DEFAULT_CALL_TIMEOUT,
        request_id: str = "",
    ) -> Any:
        """Call a protocol of a peer and return its reply.

        Args:
            identity: the name of the identity that calls.
            peer: the callee's ID52.
            protocol, instance: names of the binding.
            request: a msgspec Struct, a dataclass or JSON-like values.
            command: the command; empty for none.
            returns: the type that the reply is decoded to.
            timeout: seconds until the call ends with ``DeadlineExceeded``.
            request_id: name of the call for the handler; empty to have one made.

        Raises:
            ApplicationError: the handler has rejected the request.
            BadReply: the reply does not fit ``returns``.
            P2PError: another error.
        """

    async def connect(
        self, identity: str | None, peer: str, protocol: str, instance: str, initial: Any, *, timeout: float
    ) -> Session:
        """Open a session with a protocol of a peer.

        Args:
            identity, peer, protocol, instance: caller and callee, as for ``call``.
            initial: the initial data for the handler, encoded like a request; at most 64 KiB.
            timeout: seconds until the handler must have accepted the session.

        Raises:
            ApplicationError: the handler has rejected the session.
            P2PError: another error.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProtocolClient:
    """Client of one protocol of one peer: a call needs nothing but the request.

    ::

        echo = ProtocolClient(client, "alice", peer.id52, "Echo")
        reply = await echo.call({"message": "hi"})
    """

    client: SupportsCalls
    """Calls and connects, for instance a ``Client``."""
    identity: str | None
    """Name of the identity that calls; None for the only one online."""
    peer: str
    """ID52 of the callee."""
    protocol: str
    """Name of the protocol."""
    instance: str = DEFAULT_INSTANCE
    """Name of the instance."""

    @overload
    async def call(self, request: Any = ..., *, returns: type[T], **options: Unpack[CallOptions]) -> T: ...
    @overload
    async def call(self, request: Any = ..., **options: Unpack[CallOptions]) -> Any: ...
    async def call(self, request: Any = None, *, returns: Any = Any, **options: Unpack[CallOptions]) -> Any:
        """Call the protocol and return its reply.

        Args:
            request: a msgspec Struct, a dataclass or JSON-like values.
            returns: the type that the reply is decoded to and checked against.
            options: ``command`` is the command of the protocol, empty by default. ``timeout`` is the number of seconds
                until the call ends with ``DeadlineExceeded``, 10 by default. ``request_id`` is the name of the call for
                its handler.

        Raises:
            ApplicationError: the handler has rejected the request.
            BadReply: the reply does not fit ``returns``.
            P2PError: another error.
        """
        return await self.client.call(
            self.identity, self.peer, self.protocol, self.instance, request, returns=returns, **options
        )

    async def connect(self, initial: Any = None, *, timeout: float = DEFAULT_CALL_TIMEOUT) -> Session:
        """Open a session with the protocol.

        Args:
            initial: the initial data for the handler, encoded like a request; at most 64 KiB.
            timeout: seconds until the handler must have accepted the session.

        Raises:
            ApplicationError: the handler has rejected the session.
            P2PError: another error.
        """
        return await self.client.connect(
            self.identity, self.peer, self.protocol, self.instance, initial, timeout=timeout
        )
