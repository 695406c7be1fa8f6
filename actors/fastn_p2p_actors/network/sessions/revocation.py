"""Sessions that stand: who talks with whom, and what takes away the right to go on."""

from __future__ import annotations

from dataclasses import dataclass

from fastn_p2p_client.errors import ConnectionLost, Denied

from ...runtime.loop_turns import in_turns
from ...runtime.mailbox import Sender
from ..connections.session_handshake import IncomingSession
from ..serving.registry import (
    OnlineIdentity,
    RegisteredBinding,
    Registry,
)
from .relay import SessionRelay

__all__ = ["SessionRevocation"]


@dataclass(frozen=True, slots=True)
class _SessionPermission:
    source: bytes
    """Whose session it is, and ``target`` whom it was opened with: keys."""
    target: bytes
    protocol: str
    instance: str
    server: Sender | None
    """Who serves it, when that is here."""


class SessionRevocation:
    """A session is begun by who may begin one. Here it ends when that is no longer so."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._parties: dict[SessionRelay, _SessionPermission] = {}

    def add(
        self,
        relay: SessionRelay,
        source: bytes,
        target: bytes,
        protocol: str,
        instance: str,
        server: Sender | None = None,
    ) -> None:
        """This one does, until it ends."""
        self._parties[relay] = _SessionPermission(source, target, protocol, instance, server)
        relay.at_end.append(lambda: self._parties.pop(relay, None))

    async def identity_offline(self, identity: OnlineIdentity) -> None:
        """Its owner has taken it offline: nobody speaks as it any more, and no program answers for it.

        What its own process serves, that process brings to an end.
        """
        async for relay, parties in in_turns(list(self._parties.items())):
            served = parties.target == identity.raw and parties.server not in (None, identity.sender)
            if parties.source == identity.raw or served:
                relay.fail(ConnectionLost(what=f"the identity {identity.name}, which was taken offline,"))

    async def access_changed(self) -> None:
        """A binding has another access list, or the address book is another: a peer that may not use what it uses,
        stops. Identities of this daemon are of one owner with the binding. All have stopped when this returns."""
        async for relay, parties in in_turns(list(self._parties.items())):
            if parties.server is None or not isinstance(relay.opener, IncomingSession):
                continue
            binding = self._registry.find(parties.target, parties.protocol, parties.instance)
            if isinstance(binding, RegisteredBinding) and not binding.admits(parties.source):
                peer = binding.identity.key.id52
                relay.fail(Denied(peer=peer, protocol=parties.protocol, instance=parties.instance))
