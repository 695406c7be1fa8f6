"""Replica set: what this daemon has to do with identities that several daemons serve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastn_p2p_client.ipc.messages import Ack, Message, ReplicaInfo, ReplicaList
from fastn_p2p_client.keys import PublicKey

from ..address_book import AddressBook
from ..admin_messages import EndJoined, KeepJoined, RefreshReplicas, ReplicaRequest, RestoreReplicas
from ..connections.identity_exchange import Wants
from ..serving.registry import OnlineIdentity, Registry
from ..transport.endpoint import NetworkEndpoint
from ..vault_client import VaultClient
from .joined_identities import JoinedIdentities
from .owned_replicas import OwnedReplicas
from .owner_exchange import OwnerExchange, Routes


class ReplicaSet:
    """Replicas of own identities, and identities that are replicas here.

    Args:
        directory: of the files with both.
        wants: identities that peers know.
        routes: to the other daemons of an identity.
        wall: returns Unix time.

    Attributes:
        owned: replicas of the identities whose keys are here.
        joined: identities whose keys are elsewhere.
        owners: which daemon renews the replicas of each identity.
    """

    def __init__(
        self,
        directory: Path,
        vault: VaultClient,
        registry: Registry,
        book: AddressBook,
        endpoint: NetworkEndpoint,
        wants: Wants,
        routes: Routes,
        wall: Callable[[], float],
    ) -> None:
        self._registry = registry
        registry.homes.own = endpoint.id
        self.owned = OwnedReplicas(directory / ".replicas.json", vault, registry, wall, wants.retired)
        self.owned.on_changed = wants.show_retired
        self.joined = JoinedIdentities(
            directory / ".joined.json", endpoint, routes.connect_to_lineage, registry, book, wall
        )
        self.owners = OwnerExchange(self.owned, self.joined, book, routes)

    def open(self) -> None:
        """Report, and look for replicas that do not, from now on."""
        self.joined.open()
        self.owners.open()

    def close(self) -> None:
        """Stop all reports, and write what has changed."""
        self.owners.close()
        self.owned.close()
        self.joined.close()

    async def handle(self, message: ReplicaRequest) -> Message:
        """Return the reply to a request of the gateway. Raises P2PError."""
        if isinstance(message, RefreshReplicas):
            key = bytes(PublicKey(message.id52))
            await self.owned.refresh(message.identity, key)
            if message.wait:
                await self.owners.wait_until_reported(key)
        elif isinstance(message, RestoreReplicas):
            self.owned.restore(message.identity, bytes(PublicKey(message.id52)), message.reports)
        elif isinstance(message, KeepJoined):
            self.joined.add(message.name, message.ticket, message.owner)
        elif isinstance(message, EndJoined):
            self.joined.remove(message.name)
        else:
            here = [
                f"{identity.name}/{each.binding}"
                for identity in self._registry
                for each in self._registry.homes.of(identity.raw)
                if each.endpoint == self._registry.homes.own
            ]
            return ReplicaList([*self.owned.all_infos(), *self.joined.infos()], here, self._standby())
        return Ack()

    def _standby(self) -> dict[str, str]:
        """Return the bindings here whose home is another daemon, with its name, as ``ReplicaList`` has them."""
        homes = self._registry.homes
        found = {
            f"{identity.name}/{each.protocol}/{each.instance}": homes.daemon_elsewhere(each)
            for identity in self._registry
            if homes.of(identity.raw)
            for each in homes.stateful(identity.bindings.values())
        }
        return {binding: daemon for binding, daemon in found.items() if daemon}

    async def on_stateful(self, name: str) -> None:
        """Find a home for the bindings of an identity that keep state: one was registered."""
        identity = self._registry.by_name(name)
        if identity is None:
            return
        if identity.is_joined:
            self.joined.report_without_home(identity)
        else:
            await self.owned.claim_homes(identity)
        if self._registry.homes.of(identity.raw):
            self._registry.homes.on_changed(identity.raw)

    def infos(self, identity: OnlineIdentity) -> list[ReplicaInfo]:
        """Return the other daemons of an identity, as far as they are known."""
        return self.joined.infos(identity.name) if identity.is_joined else self.owned.infos(identity.raw)

    def warnings(self) -> list[str]:
        """Return what is wrong, in words."""
        return self.owned.warnings() + self.joined.warnings()
