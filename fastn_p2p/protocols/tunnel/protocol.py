"""Tunnel: give peers access to one TCP service or Unix socket of this machine."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fastn_p2p_client.errors import ApplicationError, Overloaded
from fastn_p2p_client.protocol import BindingContext, Permissions, Protocol, request, stream
from fastn_p2p_client.session.session import Session

from .._shared.splice import splice
from .._shared.target_service import connect_target, target_address, target_permissions


class GetTunnelState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request without fields: get the state of the tunnel."""


class TunnelState(msgspec.Struct, frozen=True):
    """State of the tunnel."""

    connections: int
    """Open connections of all peers."""
    max_connections: int


class Tunnel(Protocol):
    """Give peers access to one TCP service or Unix socket of this machine.

    Each session is one connection to ``target``, and carries its bytes in both directions. A peer cannot choose the
    target: nothing that it sends is used as an address, and initial data is ignored. By default peers in the address
    book may use it.

    Raises:
        ApplicationError: ``TargetUnreachable``, with ``{"reason"}``: the target accepts no connection.
        Overloaded: ``max_connections`` are open.
    """

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        target: str
        """``127.0.0.1:8000``, ``[::1]:8000``, ``localhost:8000`` or ``unix:/run/web.sock``."""
        max_connections: Annotated[int, msgspec.Meta(ge=1)] = 256
        """Open connections of all peers together."""
        connect_timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
        """Seconds that the target has to accept a connection."""

    config: Config

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._connections = 0

    @classmethod
    def permissions(cls, config: Config) -> Permissions:
        return target_permissions(config.target)

    async def on_check(self) -> None:
        """Check that the target is an address."""
        target_address(self.config.target)

    @request
    async def state(self, request: GetTunnelState) -> TunnelState:
        """Return the number of connections. Does not connect to the target."""
        return TunnelState(self._connections, self.config.max_connections)

    @stream
    async def connect(self, session: Session) -> None:
        """Forward one connection."""
        if self._connections >= self.config.max_connections:
            raise Overloaded(what="connections through this tunnel", limit=self.config.max_connections)
        self._connections += 1
        try:
            try:
                connection = await connect_target(self.context, self.config.target, self.config.connect_timeout)
            except TimeoutError:
                raise _unreachable("it did not answer in time") from None
            except OSError as error:
                raise _unreachable((error.strerror or type(error).__name__).lower()) from None
            session.accept()
            await splice(session, connection)
        finally:
            self._connections -= 1


def _unreachable(reason: str) -> ApplicationError:
    return ApplicationError(
        "TargetUnreachable", f"the service behind the tunnel cannot be reached: {reason}", {"reason": reason}
    )
