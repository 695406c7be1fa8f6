"""Blocking API: ``Client``, ``call``, ``connect``, ``Session``, ``Server`` and ``BindingServer`` without ``await``.

All of it runs on one event loop in a thread of its own, which starts at the first use. Any thread may use it.
``_server`` has the servers, and ``_admin`` what administers the daemon.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from .. import client as _async
from ..affinity import caller_location
from ..control_client import DEFAULT_CONTROL_TIMEOUT
from ..event_loop_thread import close, run_blocking
from ..home import Home
from ..ipc import messages as m
from ..ipc.transport.base import TransportName
from ..keys import PublicKey
from ..limits import DEFAULT_CALL_TIMEOUT, DEFAULT_INSTANCE
from ..session.blocking_session import Session
from ..session.session import Session as AsyncSession
from ..shared_client import SHARED
from ..tickets import Ticket
from ._server import BindingServer, Server, listen, serve_all

if TYPE_CHECKING:
    from ._admin import GroupAdmin, IdentityAdmin, InvitationAdmin, PeerAdmin, ProtocolAdmin

__all__ = ["BindingServer", "Client", "Server", "Session", "call", "connect", "listen", "serve_all"]

T = TypeVar("T")
ReplyT = TypeVar("ReplyT")


def _opened(session: AsyncSession) -> Session:
    session.opened_at = caller_location()
    return Session(session)


class Client:
    """Blocking twin of ``fastn_p2p_client.Client``. Any thread may use it.

    ::

        with Client() as client:
            reply = client.call("alice", peer, "Echo", request={"message": "hi"})

    From its first use until ``close`` it belongs to one process: in a forked child it raises ``UsedElsewhere``.
    ``call`` and ``connect`` of this module work in a child too.

    Args:
        home: the daemon's home directory; default ``$FASTN_HOME``, else ``~/.fastn``.
        program: name of this program in ``fastn-p2p status``, at most 64 characters; default the name of the script.
        transport: ``"native"`` or ``"pyzmq"``; default ``$FASTN_TRANSPORT``, else ``"native"``.
    """

    def __init__(
        self,
        home: Home | str | os.PathLike[str] | None = None,
        *,
        program: str = "",
        transport: TransportName | None = None,
    ) -> None:
        self._client = _async.Client(home, program=program, transport=transport)

    @property
    def home(self) -> Home:
        """Home of the daemon."""
        return self._client.home

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """As ``Client.close``."""
        close(self._client)

    def start(self, *, timeout: float = DEFAULT_CONTROL_TIMEOUT) -> None:
        """As ``Client.start``."""
        run_blocking(self._client.start(timeout=timeout))

    def control(
        self, message: m.RequestFor[ReplyT], payload: bytes = b"", *, timeout: float = DEFAULT_CONTROL_TIMEOUT
    ) -> ReplyT:
        """As ``Client.control``."""
        return run_blocking(self._client.control(message, payload, timeout=timeout))

    def control_with_payload(
        self, message: m.RequestFor[ReplyT], payload: bytes = b"", *, timeout: float = DEFAULT_CONTROL_TIMEOUT
    ) -> tuple[ReplyT, bytes]:
        """As ``Client.control_with_payload``."""
        return run_blocking(self._client.control_with_payload(message, payload, timeout=timeout))

    def status(self) -> m.Status:
        """As ``Client.status``."""
        return run_blocking(self._client.status())

    @property
    def identities(self) -> IdentityAdmin:
        """As ``Client.identities``."""
        from ._admin import IdentityAdmin

        return IdentityAdmin(self._client.identities)

    @property
    def protocols(self) -> ProtocolAdmin:
        """As ``Client.protocols``."""
        from ._admin import ProtocolAdmin

        return ProtocolAdmin(self._client.protocols)

    @property
    def peers(self) -> PeerAdmin:
        """As ``Client.peers``."""
        from ._admin import PeerAdmin

        return PeerAdmin(self._client.peers)

    @property
    def groups(self) -> GroupAdmin:
        """As ``Client.groups``."""
        from ._admin import GroupAdmin

        return GroupAdmin(self._client.groups)

    @property
    def invitations(self) -> InvitationAdmin:
        """As ``Client.invitations``."""
        from ._admin import InvitationAdmin

        return InvitationAdmin(self._client.invitations)

    def resolve_identity(self, identity: str | None) -> tuple[str, PublicKey]:
        """As ``Client.resolve_identity``."""
        return run_blocking(self._client.resolve_identity(identity))

    @overload
    def call(
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
    def call(
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
    def call(
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
        """As ``Client.call``."""
        return run_blocking(
            self._client.call(
                identity,
                peer,
                protocol,
                instance,
                request,
                command=command,
                returns=returns,
                timeout=timeout,
                retry=retry,
                request_id=request_id,
            )
        )

    def connect(
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
        """As ``Client.connect``."""
        return _opened(
            run_blocking(
                self._client.connect(
                    identity, peer, protocol, instance, initial, timeout=timeout, request_id=request_id
                )
            )
        )

    def wait_until_online(self, identity: str | None, peer: str | PublicKey | Ticket, *, timeout: float) -> None:
        """As ``Client.wait_until_online``."""
        run_blocking(self._client.wait_until_online(identity, peer, timeout=timeout))


class _SharedClient(Client):
    """``call`` and ``connect`` of the client for ``$FASTN_HOME`` that all threads of the process share."""

    def __init__(self) -> None:
        self._client = SHARED


call: Final = _SharedClient().call
connect: Final = _SharedClient().connect
