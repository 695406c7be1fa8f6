"""Identity publisher: brings identities online at this endpoint, and renews their delegations.

The vault signs them. A delegation proves that an identity speaks through this endpoint.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

from fastn_p2p_client.errors import P2PError, VaultLocked
from fastn_p2p_client.keys import PublicKey

from ...credentials.delegation import peek_delegation
from ...runtime.mailbox import Sender
from ..address_book import AddressBook
from ..clock import JUMP, ClockJump, ClockWatch
from ..serving.registry import OnlineIdentity, Registry
from ..vault_client import VaultClient
from .record_publisher import RecordPublisher

log = logging.getLogger(__name__)

_TICK: Final = 1.0
"""Seconds between two checks of the clocks and of delegations that must be renewed."""
_CHECK_INTERVAL: Final = 30.0
"""Seconds until a failed renewal is tried again, and between two checks of what is to be written to disk."""


class IdentityPublisher:
    """Brings identities online at this endpoint, and keeps them online while the vault restarts.

    Delegations are renewed at half of their lifetime, and at once when the clock was set or the machine has slept.

    Attributes:
        on_offline: called with each identity that was taken offline.
    """

    def __init__(
        self,
        vault: VaultClient,
        registry: Registry,
        records: RecordPublisher,
        book: AddressBook,
        wall: Callable[[], float],
        clock: ClockWatch,
        on_clock_set: Callable[[ClockJump, list[OnlineIdentity]], None],
    ) -> None:
        """Start the renewals.

        Args:
            records: publishes the records of the identities.
            wall: returns Unix time.
            on_clock_set: called with the identities that were renewed because the clock was set or the machine slept.
        """
        self.on_offline: Callable[[OnlineIdentity], None] = lambda _: None
        self._vault = vault
        self._registry = registry
        self._records = records
        self._book = book
        self._wall = wall
        self._clock = clock
        self._on_clock_set = on_clock_set
        self._next_check = 0.0
        self._publishing: dict[str, asyncio.Task[None]] = {}
        self._on_online: dict[str, list[Callable[[OnlineIdentity], None]]] = {}
        """Registrations of bindings that wait for their identity."""
        self._clock_changed = False
        """True until everything is renewed after the clock was set."""
        self._is_refused = False
        """True if the vault was locked at the last renewal: the next check tries again."""
        self._renewal = asyncio.get_running_loop().create_task(self._renew_loop())

    def close(self) -> None:
        """Stop the renewals, and publish no more records."""
        self._renewal.cancel()
        for task in self._publishing.values():
            task.cancel()
        self._records.close()

    async def bring_online(
        self,
        name: str,
        sender: Sender,
        *,
        listed: bool = True,
    ) -> None:
        """Bring the identity online. Raise P2PError if the vault refuses to sign, or does not answer.

        An identity that was asleep keeps its delegation and its record.

        Args:
            sender: connection of its process.
            listed: False if its record must not leave this machine by itself.
        """
        await self._publish(name, self._register(name, sender, listed))

    async def announce(
        self, name: str, key: PublicKey, *, listed: bool, register: Callable[[OnlineIdentity], None]
    ) -> None:
        """Bring an identity online that is asleep. Raise P2PError as ``bring_online`` does.

        Args:
            listed: False if its record must not leave this machine by itself.
            register: called with the identity at the moment it comes online.
        """
        await self._publish(name, self._bring_online(OnlineIdentity(name, key, None, listed=listed), register))

    async def _publish(self, name: str, publication: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(publication)
        self._publishing[name] = task
        try:
            await task
        finally:
            if self._publishing.get(name) is task:
                del self._publishing[name]

    async def serve(self, name: str, register: Callable[[OnlineIdentity], None]) -> bool:
        """Call ``register`` with the identity. Return False if it is not online.

        If the identity is still being announced, call ``register`` at the moment it comes online, so that no caller
        sees it without its bindings.
        """
        publishing = self._publishing.get(name)
        if publishing is not None:
            waiting = self._on_online.setdefault(name, [])
            waiting.append(register)
            await asyncio.wait([publishing])
            if register not in waiting:
                return True
            waiting.remove(register)
        identity = self._registry.by_name(name)
        if identity is not None:
            register(identity)
        return identity is not None

    async def bring_offline(self, identity: OnlineIdentity) -> None:
        """Bring the identity offline and unpublish its record."""
        self._registry.remove_identity(identity)
        if self._registry.by_name(identity.name) is None:
            self.on_offline(identity)
            await self._records.unpublish(identity)

    async def set_listed(self, name: str, *, listed: bool) -> None:
        """Publish the record of an identity from now on, or no longer. Does nothing if it is not online."""
        identity = self._registry.by_name(name)
        if identity is not None:
            await self._records.set_listed(identity, listed=listed)

    async def fresh_record(self, identity: OnlineIdentity) -> bytes:
        """Sign and return a record with the endpoint's present addresses. Raise P2PError if the vault does not.

        While the vault is locked, return the last record.
        """
        with suppress(VaultLocked):
            await self._records.sign(identity)
        return identity.record

    async def _register(self, name: str, sender: Sender, listed: bool) -> None:
        earlier = self._registry.by_name(name)
        if earlier is not None and earlier.is_asleep:
            await asyncio.sleep(0)  # its bindings are registered by messages that have come with this one
            if self._registry.by_name(name) is earlier and not sender.gone:
                self._wake(earlier, sender, listed)
            return
        signed = await self._vault.delegation(name)
        await self._bring_online(OnlineIdentity(name, peek_delegation(signed.blob).key, sender, listed=listed))

    async def _bring_online(
        self, identity: OnlineIdentity, register: Callable[[OnlineIdentity], None] = lambda _: None
    ) -> None:
        name, sender = identity.name, identity.sender
        self._book.revocations.check(identity.raw, name)
        self._book.revocations.release_name(name, identity.raw)
        await self._records.sign(identity)
        if sender is not None and sender.gone:
            return
        if sender is None and self._registry.by_name(name) is not None:
            return  # its process has registered it meanwhile
        self._registry.add_identity(identity)
        register(identity)
        waiting = self._on_online.pop(name, [])
        while waiting:
            waiting.pop()(identity)
        self._records.publish_first(identity)
        level, state = (logging.DEBUG, "asleep") if sender is None else (logging.INFO, "online")
        log.log(level, "%s is %s as %s", name, state, identity.key)

    def _wake(self, earlier: OnlineIdentity, sender: Sender, listed: bool) -> None:
        """Register an identity that was asleep by its process. Its record and its delegation hold."""
        identity = OnlineIdentity(earlier.name, earlier.key, sender, listed=earlier.listed)
        identity.delegation, identity.record, identity.packet = earlier.delegation, earlier.record, earlier.packet
        identity.not_before, identity.not_after = earlier.not_before, earlier.not_after
        identity.publications = earlier.publications
        self._registry.add_identity(identity)
        waiting = self._on_online.pop(identity.name, [])
        while waiting:
            waiting.pop()(identity)
        if listed != identity.listed:
            identity.listed = listed
            self._records.publish_soon(identity)
        log.info("%s is awake", identity.name)

    async def _renew(self, identity: OnlineIdentity) -> None:
        await self._records.renew(identity)
        log.info("delegation of %s renewed", identity.name)

    async def _renew_loop(self) -> None:
        """Renew what is due, and everything when the clock has changed. Retry failures."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK)
            jump = self._clock.check()
            if jump is not None:
                await self._renew_after(jump)
            now = self._wall()
            if loop.time() >= self._next_check:
                self._next_check = loop.time() + _CHECK_INTERVAL
                await self._check(now)
            elif not self._is_refused and any(map(partial(_is_due, now=now), self._registry)):
                await self._renew_all(partial(_is_due, now=now))

    async def _check(self, now: float) -> None:
        changed = self._clock_changed
        if await self._renew_all(lambda identity: changed or _is_due(identity, now)):
            self._clock_changed = False
        try:
            await self._book.save_seen_if_due()
        except P2PError as error:
            log.warning("%s", error)

    async def _renew_after(self, jump: ClockJump) -> None:
        """Renew everything, because peers may refuse what was signed by another clock, whether it ran fast or slow."""
        log.warning(
            "the clock was set by %.0f s, after %.0f s of sleep: renewing all delegations", jump.set_by, jump.slept
        )
        renewed: list[OnlineIdentity] = []
        if not await self._renew_all(lambda _: True, renewed):
            self._clock_changed = True  # the next check tries again
            self._next_check = 0.0
        self._on_clock_set(jump, renewed)

    async def _renew_all(
        self, wanted: Callable[[OnlineIdentity], bool], renewed: list[OnlineIdentity] | None = None
    ) -> bool:
        """Renew the identities that are ``wanted``. After a failure return False: the next check does the rest."""
        for identity in list(self._registry):
            if wanted(identity):
                try:
                    await self._renew(identity)
                except P2PError as error:
                    self._is_refused = isinstance(error, VaultLocked)
                    log.warning("cannot renew the delegation of %s yet: %s", identity.name, error)
                    return False
                self._is_refused = False
                if renewed is not None:
                    renewed.append(identity)
        return True


def _is_due(identity: OnlineIdentity, now: float) -> bool:
    """Return whether half of the delegation's lifetime is over, or has not begun because the clock was set back."""
    return not identity.not_before - JUMP <= now < (identity.not_before + identity.not_after) / 2
