"""Web: give peers access to one HTTP service of this machine, which learns who calls."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from fastn_p2p_client.errors import Overloaded
from fastn_p2p_client.http.channel_server import ChannelInitial, ChannelServer
from fastn_p2p_client.peer import Peer
from fastn_p2p_client.protocol import BindingContext, Permissions, Protocol, request, stream
from fastn_p2p_client.session.session import Session

from .._shared.target_service import connect_target, target_address, target_permissions

if TYPE_CHECKING:
    from fastn_p2p_client.http.request_rewriter import RequestRewriter

_HOST: Final = r"\A([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?\Z|\A\Z"
_UPGRADE: Final = r"\A[!#$%&'*+.^_`|~0-9A-Za-z/-]{1,64}\Z"
_CARRY_REQUESTS: Final = re.compile(r"h2c?|http.*|tls.*", re.IGNORECASE)


class GetWebState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request without fields: get the state of the service's binding."""


class WebState(msgspec.Struct, frozen=True):
    """State of the binding. It does not say whether the service runs."""

    connections: int
    """Open connections of all peers."""
    max_connections: int


class Web(Protocol):
    """Give peers access to one HTTP service of this machine.

    Each session is one HTTP/1.1 connection to ``target``, or carries several as channels. Every request gets the
    headers ``Fastn-Peer`` and ``Fastn-Peer-Name``, which name the verified caller. By default peers in the address
    book may use it.

    Raises:
        Overloaded: ``max_connections`` are open.
    """

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        target: str
        """``127.0.0.1:8000``, ``[::1]:8000``, ``localhost:8000`` or ``unix:/run/web.sock``."""
        host: Annotated[str, msgspec.Meta(pattern=_HOST, max_length=255)] = ""
        """Value of Host for a service that accepts only its own; empty passes on that of the caller."""
        upgrades: tuple[Annotated[str, msgspec.Meta(pattern=_UPGRADE)], ...] = ("websocket",)
        """Protocols to which a connection may change. Requests for others go on as plain HTTP."""
        max_connections: Annotated[int, msgspec.Meta(ge=1)] = 256
        """Open connections of all peers together."""
        connect_timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
        """Seconds that the service has to accept a connection."""

    config: Config

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._connections = 0
        self._channels: ChannelServer | None = None

    @classmethod
    def permissions(cls, config: Config) -> Permissions:
        return target_permissions(config.target)

    async def on_check(self) -> None:
        """Check that the target is an address, and that no upgrade carries requests that would not be checked."""
        target_address(self.config.target)
        for each in self.config.upgrades:
            if _CARRY_REQUESTS.fullmatch(each):
                raise ValueError(
                    f"upgrades: {each!r} carries requests whose callers could not be verified - at `$.upgrades`"
                )

    @request
    async def state(self, request: GetWebState) -> WebState:
        """Return the number of connections. Does not connect to the service."""
        return WebState(self._connections, self.config.max_connections)

    @stream
    async def connect(self, session: Session, initial: ChannelInitial | None) -> None:
        """Serve one connection of a peer, or several that share the session as channels."""
        if initial is not None:
            await self._shared_sessions().serve(session, initial)
            return
        self._reserve()
        try:
            await self._serve(session)
        finally:
            self._release()

    def _reserve(self) -> None:
        if self._connections >= self.config.max_connections:
            raise Overloaded(what="connections to this service", limit=self.config.max_connections)
        self._connections += 1

    def _release(self) -> None:
        self._connections -= 1

    def _shared_sessions(self) -> ChannelServer:
        if self._channels is None:
            from .shared_connections import SharedConnections

            self._channels = SharedConnections(
                self._rewriter_for, self._connect_service, self._reserve, self._release
            ).server
        return self._channels

    def _rewriter_for(self, peer: Peer, connection_id: str, *, can_upgrade: bool = False) -> RequestRewriter:
        """Return a rewriter of the requests of a connection of a peer."""
        from fastn_p2p_client.http.caller_headers import with_caller
        from fastn_p2p_client.http.request_reader import RequestHead, RequestRefused, without_upgrade
        from fastn_p2p_client.http.request_rewriter import RequestRewriter

        host = self.config.host
        upgrades = {each.lower().encode() for each in self.config.upgrades} if can_upgrade else set()

        def check(head: RequestHead) -> RequestHead:
            if head.upgrade and head.upgrade not in upgrades:
                head = without_upgrade(head)
            if head.upgrade and rewriter.reader.requests:
                raise RequestRefused(400, "an upgrade must be the first request of its connection")
            return with_caller(head, peer, host=host)

        rewriter = RequestRewriter(check, connection_id)
        return rewriter

    async def _connect_service(self) -> socket.socket:
        """Return a connection to the service.

        Raises:
            RequestRefused: there is none; says so to the caller.
        """
        from fastn_p2p_client.http.request_reader import RequestRefused

        try:
            return await connect_target(self.context, self.config.target, self.config.connect_timeout)
        except TimeoutError:
            status, problem = 504, "does not answer"
        except OSError as error:
            status, problem = 502, f"is not running ({(error.strerror or type(error).__name__).lower()})"
        raise RequestRefused(
            status,
            f"You have reached {self.context.identity}, but the service {self.context.instance!r} {problem}.\n"
            "Ask its owner to start it, and load this page again. Nothing has to be changed here.",
        )

    async def _serve(self, session: Session) -> None:
        from fastn_p2p_client.http.error_response import error_response
        from fastn_p2p_client.http.request_reader import RequestRefused

        from .http_splice import ServiceSplice

        rewriter = self._rewriter_for(session.peer, session.request_id, can_upgrade=True)
        try:
            connection = await self._connect_service()
        except RequestRefused as refused:
            if await session.read():
                await session.write(error_response(refused.status, refused.text))
        else:
            session.accept()
            await ServiceSplice(session, connection, rewriter, []).run()
