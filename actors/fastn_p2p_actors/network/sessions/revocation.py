"""Revocation: end open sessions when the permission that allowed them ends."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastn_p2p_client.errors import ConnectionLost, Denied, P2PError

from ...runtime.mailbox import Sender
from ...runtime.time_slices import in_time_slices
from ..connections.session_handshake import IncomingSession
from ..serving.registry import OnlineIdentity, RegisteredBinding, Registry
from .relay import SessionRelay


@dataclass(frozen=True, slots=True)
class _SessionPermission:
    """Identities and binding of one session, on which its permission depends."""

    source: bytes
    """Key of the opener."""
    target: bytes
    """Key of the identity that serves."""
    protocol: str
    instance: str
    server: Sender | None
    """Local process that serves; None if a peer does."""


class SessionRevocation:
    """End open sessions when the permission that allowed them is revoked: the identity went offline, or an access list
    or the address book changed.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._permissions: dict[SessionRelay, _SessionPermission] = {}

    def add(
        self,
        relay: SessionRelay,
        source: bytes,
        target: bytes,
        protocol: str,
        instance: str,
        server: Sender | None = None,
    ) -> None:
        """Watch a session until it ends."""
        self._permissions[relay] = _SessionPermission(source, target, protocol, instance, server)
        relay.at_end.append(lambda: self._permissions.pop(relay, None))

    def served_by(self, relay: SessionRelay, server: Sender) -> None:
        """Note that another local process serves a session from now on."""
        self._permissions[relay] = replace(self._permissions[relay], server=server)

    async def binding_ended(self, target: bytes, protocol: str, instance: str) -> None:
        """End the sessions of a binding that workers on other machines have: its identity does not serve it any more.

        The identity's own process ends those that it serves itself.
        """
        async for relay, permission in in_time_slices(list(self._permissions.items())):
            named = permission.target, permission.protocol, permission.instance
            if named == (target, protocol, instance) and permission.server is not None and permission.server.is_remote:
                relay.fail(ConnectionLost(what=f"the binding {protocol} ({instance}), which was removed or stopped,"))

    async def identity_offline(self, identity: OnlineIdentity) -> None:
        """End the sessions that an identity has opened, and those that programs serve for it: its owner has taken it
        offline. The identity's own process ends those that it serves itself.
        """
        async for relay, permission in in_time_slices(list(self._permissions.items())):
            served = permission.target == identity.raw and permission.server not in (None, identity.sender)
            if permission.source == identity.raw or served:
                relay.fail(ConnectionLost(what=f"the identity {identity.name}, which was taken offline,"))

    async def identity_ended(self, key: bytes, error: P2PError) -> None:
        """End the sessions with an identity of a peer, in both directions: it was blocked or revoked."""
        async for relay, permission in in_time_slices(list(self._permissions.items())):
            if key in (permission.source, permission.target):
                relay.fail(error)

    async def access_changed(self) -> None:
        """End the sessions of peers that the access lists no longer admit: one of them or the address book has changed.

        Sessions of this daemon's own identities continue, because they have the same owner as the binding. All other
        sessions without permission have ended when this returns.
        """
        async for relay, permission in in_time_slices(list(self._permissions.items())):
            if permission.server is None or not isinstance(relay.opener, IncomingSession):
                continue
            binding = self._registry.find(permission.target, permission.protocol, permission.instance)
            if isinstance(binding, RegisteredBinding) and not binding.admits(permission.source):
                peer = binding.identity.key.id52
                relay.fail(Denied(peer=peer, protocol=permission.protocol, instance=permission.instance))
