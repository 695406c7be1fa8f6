"""Identity publisher: brings identities online at this endpoint, and renews their delegations.

The vault signs them. A delegation proves that an identity speaks through this endpoint.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from fastn_p2p_client.errors import P2PError, VaultLocked
from fastn_p2p_client.keys import PublicKey

from ...credentials.delegation import peek_delegation
from ...runtime.mailbox import Sender
from ..address_book import AddressBook
from ..clock import ClockJump, ClockWatch
from ..serving.registry import OnlineIdentity, Registry
from ..vault_client import VaultClient
from .due_times import DueTimes
from .record_publisher import MOST_RENEWED, RecordPublisher

log = logging.getLogger(__name__)

_TICK: Final = 1.0
"""Seconds between two checks of the clocks and of delegations that must be renewed."""
_RETRY: Final = 30.0
"""Seconds until a failed renewal is tried again."""
_SAVE_INTERVAL: Final = 30.0
"""Seconds between two checks of what is to be written to disk."""
_EARLIEST, _LATEST = 0.4, 0.5
"""Parts of a delegation's lifetime after which it is renewed: at the earliest, at the latest."""
_SHARE_BYTES: Final = 4
"""Bytes of a key that decide between the two."""


class IdentityPublisher:
    """Brings identities online at this endpoint, and keeps them online while the vault restarts.

    Delegations are renewed with their records, before half of their lifetime is over, and at once when the clock was
    set or the machine has slept. Those of joined identities come from their owners' daemons (``replicas``).

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
        self._joined = records.replicas.joined
        self._book = book
        self._wall = wall
        self._clock = clock
        self._on_clock_set = on_clock_set
        self._loop = asyncio.get_running_loop()
        self._due = DueTimes()
        """Unix times at which delegations are to be renewed, by key. A record that is published brings one earlier."""
        self._outdated: set[bytes] = set()
        """Keys of the identities whose delegation was signed before the clock was set."""
        self._publishing: dict[str, asyncio.Task[None]] = {}
        self._on_online: dict[str, list[Callable[[OnlineIdentity], None]]] = {}
        """Registrations of bindings that wait for their identity."""
        self._renewal = self._loop.create_task(self._renew_loop())

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
            self._joined.report_soon(identity.name)
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
        joined = self._joined.find(name)
        key = peek_delegation((await self._vault.delegation(name)).blob).key if joined is None else joined.key
        await self._bring_online(OnlineIdentity(name, key, sender, listed=listed))

    async def _bring_online(
        self, identity: OnlineIdentity, register: Callable[[OnlineIdentity], None] = lambda _: None
    ) -> None:
        name, sender = identity.name, identity.sender
        self._book.revocations.check(identity.raw, name)
        self._book.revocations.release_name(name, identity.raw)
        if name in self._joined:
            await self._joined.wait_until_granted(name)
            identity.is_joined = True
        await self._records.sign(identity, is_one_of_many=sender is None)
        if sender is not None and sender.gone:
            return
        if sender is None and self._registry.by_name(name) is not None:
            return  # its process has registered it meanwhile
        self._registry.add_identity(identity)
        if not identity.is_joined:
            self._due.set(identity.raw, _renewal_time(identity))
        self._outdated.discard(identity.raw)
        register(identity)
        waiting = self._on_online.pop(name, [])
        while waiting:
            waiting.pop()(identity)
        self._records.publish_first(identity)
        self._joined.report_soon(name)
        level, state = (logging.DEBUG, "asleep") if sender is None else (logging.INFO, "online")
        log.log(level, "%s is %s as %s", name, state, identity.key)

    def _wake(self, earlier: OnlineIdentity, sender: Sender, listed: bool) -> None:
        """Register an identity that was asleep by its process. Its record and its delegation hold."""
        identity = OnlineIdentity(earlier.name, earlier.key, sender, listed=earlier.listed)
        identity.delegation, identity.record, identity.packet = earlier.delegation, earlier.record, earlier.packet
        identity.not_before, identity.not_after = earlier.not_before, earlier.not_after
        identity.publications, identity.is_joined = earlier.publications, earlier.is_joined
        self._registry.add_identity(identity)
        waiting = self._on_online.pop(identity.name, [])
        while waiting:
            waiting.pop()(identity)
        if listed != identity.listed:
            identity.listed = listed
            self._records.publish_soon(identity)
        log.info("%s is awake", identity.name)

    async def _renew_loop(self) -> None:
        """Renew what is due, and everything when the clock has changed. Retry failures."""
        loop = asyncio.get_running_loop()
        next_save = 0.0
        while True:
            await asyncio.sleep(_TICK)
            jump = self._clock.check()
            if jump is not None:
                await self._renew_after(jump)
            await self._renew_due()
            if loop.time() >= next_save:
                next_save = loop.time() + _SAVE_INTERVAL
                try:
                    await self._book.save_seen_if_due()
                except P2PError as error:
                    log.warning("%s", error)

    async def _renew_due(self) -> None:
        """Renew some of the identities that are due. The next look finds the rest."""
        now = self._wall()
        batch = list(filter(None, map(self._registry.by_key, self._due.remove_due(now, MOST_RENEWED))))
        for identity in batch:
            self._due.set(identity.raw, max(now + _RETRY, _renewal_time(identity)))
        await self._renew([each for each in batch if self._is_due(each, now)])

    def _is_due(self, identity: OnlineIdentity, now: float) -> bool:
        return identity.raw in self._outdated or _renewal_time(identity) <= now

    async def _renew_after(self, jump: ClockJump) -> None:
        """Renew everything, because peers may refuse what was signed by another clock, whether it ran fast or slow.

        Identities that are awake come first, and peers are shown their delegations before the others are renewed.
        """
        log.warning(
            "the clock was set by %.0f s, after %.0f s of sleep: renewing all delegations", jump.set_by, jump.slept
        )
        self._outdated = {each.raw for each in self._registry if not each.is_joined}
        for is_asleep in (False, True):
            wanted = [each for each in self._registry if each.is_asleep is is_asleep and each.raw in self._outdated]
            renewed: list[OnlineIdentity] = []
            for start in range(0, len(wanted), MOST_RENEWED):
                began = self._loop.time()
                renewed += await self._renew(wanted[start : start + MOST_RENEWED])
                await asyncio.sleep(min(self._loop.time() - began, _TICK))
            self._on_clock_set(ClockJump(jump.set_by, 0.0) if is_asleep else jump, renewed)

    async def _renew(self, batch: list[OnlineIdentity]) -> list[OnlineIdentity]:
        """Renew a few identities. Return those that are renewed; the others are tried again later."""
        renewed: list[OnlineIdentity] = []
        for identity, error in zip(batch, await self._records.renew_all(batch), strict=True):
            if error is None:
                renewed.append(identity)
                self._outdated.discard(identity.raw)
                log.info("delegation of %s renewed", identity.name)
            time = _renewal_time(identity) if error is None else self._wall() + _RETRY
            self._due.set(identity.raw, time)
        return renewed


def _renewal_time(identity: OnlineIdentity) -> float:
    """Return the Unix time at which a delegation is to be renewed. It differs by key, so that not all are due at once.

    Delegations of identities that came online together would be renewed together for ever.
    """
    share = int.from_bytes(identity.raw[:_SHARE_BYTES]) / 256**_SHARE_BYTES
    part = _EARLIEST + (_LATEST - _EARLIEST) * share
    return identity.not_before + part * (identity.not_after - identity.not_before)
