"""The identities that speak through this endpoint: their delegations and records, fetched, renewed, published."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Final

from fastn_p2p_client.errors import InternalError, P2PError

from ...credentials import (
    read_delegation,
    read_record,
)
from ...runtime.mailbox import Sender
from ..address_book import AddressBook
from ..clock import (
    JUMP,
    ClockJump,
    ClockWatch,
)
from ..serving.registry import (
    OnlineIdentity,
    Registry,
)
from ..transport.endpoint import (
    EndpointAddress,
    NetworkEndpoint,
)
from ..vault_client import VaultClient
from .host_directory import HostDirectory

__all__ = ["IdentityPublisher"]

log = logging.getLogger(__name__)

_TICK: Final = 1.0
"""Seconds between two looks at the clocks and at whether a delegation must be renewed."""
_LOOK_INTERVAL: Final = 30.0
"""Seconds between two looks at whether our addresses have changed; and until what has failed is tried again."""


class IdentityPublisher:
    """Brings identities online at this endpoint and keeps them so while the vault comes and goes."""

    def __init__(
        self,
        endpoint: NetworkEndpoint,
        vault: VaultClient,
        registry: Registry,
        hosts: HostDirectory,
        book: AddressBook,
        wall: Callable[[], float],
        clock: ClockWatch,
        on_clock_set: Callable[[ClockJump, list[OnlineIdentity]], None],
    ) -> None:
        """``on_clock_set`` gets the identities that were renewed because the clock was set, or the machine slept."""
        self._endpoint = endpoint
        self._vault = vault
        self._registry = registry
        self._hosts = hosts
        self._book = book
        self._wall = wall
        self._clock = clock
        self._on_clock_set = on_clock_set
        self._next_look = 0.0
        self._announcing: dict[str, asyncio.Task[None]] = {}
        self._arriving: dict[str, list[Callable[[OnlineIdentity], None]]] = {}
        self._published_at: EndpointAddress | None = endpoint.address()
        self._keeper = asyncio.get_running_loop().create_task(self._renew_loop())

    def close(self) -> None:
        self._keeper.cancel()
        for task in self._announcing.values():
            task.cancel()
        self._hosts.close()

    async def bring_online(self, name: str, sender: Sender) -> None:
        """The identity is online once this returns. Raises P2PError when the vault refuses."""
        task = asyncio.ensure_future(self._announce(name, sender))
        self._announcing[name] = task
        try:
            await task
        finally:
            if self._announcing.get(name) is task:
                del self._announcing[name]

    async def serve(self, name: str, register: Callable[[OnlineIdentity], None]) -> bool:
        """Calls ``register`` with the identity; False when it is not online.

        While it is being announced, that happens in the moment in which it comes online: nobody finds it there
        without what it serves.
        """
        announcing = self._announcing.get(name)
        if announcing is not None:
            arriving = self._arriving.setdefault(name, [])
            arriving.append(register)
            await asyncio.wait([announcing])
            if register not in arriving:
                return True
            arriving.remove(register)
        identity = self._registry.by_name(name)
        if identity is not None:
            register(identity)
        return identity is not None

    def take_offline(self, identity: OnlineIdentity) -> None:
        """It is offline."""
        self._registry.remove_identity(identity)
        if self._registry.by_name(identity.name) is None:
            self._hosts.withdraw(identity.key)

    async def fresh_record(self, identity: OnlineIdentity) -> bytes:
        """A signed record with the addresses of this moment."""
        await self._sign_record(identity)
        return identity.record

    async def _announce(self, name: str, sender: Sender) -> None:
        signed = await self._vault.delegation(name)
        delegation = read_delegation(signed.blob)
        identity = OnlineIdentity(name, delegation.key, sender)
        identity.delegation = signed.blob
        identity.not_before, identity.not_after = delegation.not_before, delegation.not_after
        await self._sign_record(identity)
        if sender.gone:
            return
        self._registry.add_identity(identity)
        arriving = self._arriving.pop(name, [])
        while arriving:
            arriving.pop()(identity)
        self._hosts.publish(identity.key, identity.record)
        log.info("%s is online as %s", name, identity.key)

    async def _sign_record(self, identity: OnlineIdentity) -> None:
        where = self._endpoint.address()
        signed = await self._vault.record(identity.name, where.relays, where.addresses)
        if read_record(signed.blob).identity != identity.key:
            raise InternalError(reason="the vault signed with another key")
        identity.record = signed.blob

    async def _renew(self, identity: OnlineIdentity) -> None:
        signed = await self._vault.delegation(identity.name)
        delegation = read_delegation(signed.blob)
        identity.delegation = signed.blob
        identity.not_before, identity.not_after = delegation.not_before, delegation.not_after
        await self._sign_record(identity)
        if self._registry.by_name(identity.name) is identity:
            self._hosts.publish(identity.key, identity.record)
        log.info("delegation of %s renewed", identity.name)

    async def _renew_loop(self) -> None:
        """Renew at half-life, sign anew when our addresses or the clock have changed; what fails is tried again."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK)
            jump = self._clock.look()
            if jump is not None:
                await self._renew_after(jump)
            now = self._wall()
            if loop.time() >= self._next_look:
                self._next_look = loop.time() + _LOOK_INTERVAL * (0.9 + 0.2 * random.random())
                await self._look()
            elif any(map(partial(_is_due, now=now), self._registry)):
                await self._renew_all(partial(_is_due, now=now))

    async def _look(self) -> None:
        where = self._endpoint.address()
        now = self._wall()
        moved = where != self._published_at
        if await self._renew_all(lambda identity: moved or _is_due(identity, now)) and moved:
            self._published_at = where
        try:
            await self._book.save_seen_if_due()
        except P2PError as error:
            log.warning("%s", error)

    async def _renew_after(self, jump: ClockJump) -> None:
        """What was signed by another clock may not hold for peers, from either side of the change."""
        log.warning("the clock was set by %.0f s, after %.0f s of sleep: renewing", jump.set_by, jump.slept)
        renewed: list[OnlineIdentity] = []
        if not await self._renew_all(lambda _: True, renewed):
            self._published_at = None  # the next look tries again
            self._next_look = 0.0
        self._on_clock_set(jump, renewed)

    async def _renew_all(
        self, wanted: Callable[[OnlineIdentity], bool], renewed: list[OnlineIdentity] | None = None
    ) -> bool:
        """Renew those that are ``wanted``; False when one could not be renewed: the rest waits for the next look."""
        for identity in list(self._registry):
            if wanted(identity):
                try:
                    await self._renew(identity)
                except P2PError as error:
                    log.warning("cannot renew the delegation of %s yet: %s", identity.name, error)
                    return False
                if renewed is not None:
                    renewed.append(identity)
        return True


def _is_due(identity: OnlineIdentity, now: float) -> bool:
    """Return whether half of the delegation's time is over, or its time has not come: the clock was set back."""
    return not identity.not_before - JUMP <= now < (identity.not_before + identity.not_after) / 2
