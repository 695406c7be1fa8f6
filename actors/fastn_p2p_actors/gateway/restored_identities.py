"""Restored identities: after a restart, those that were asleep stay asleep, and all others are started."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final

from fastn_p2p_client.errors import P2PError

from ..network.admin_messages import AnnounceSleepers, Sleeper, SleeperNames
from ..storage.identity_store import IdentityFile, LoadResult
from .context import GatewayContext

RETRY_SECONDS: Final = 1.0
"""Seconds between two attempts to have the identities online."""
_BATCH: Final = 64
"""Identities that are looked at together. Commands for them wait meanwhile."""
_PARALLEL: Final = 3
"""Batches at a time: one is read while the vault signs for another."""
_CONNECT_SECONDS: Final = 2.0
"""Seconds for which the first look waits for the network process, which would cause a second one."""
_ANNOUNCE_SECONDS: Final = 30.0
"""Seconds that the network process may take to announce them: the vault signs a record of each."""

log = logging.getLogger(__name__)


# The network process remembers which identities were asleep, and with which access lists. The gateway alone knows
# which of them their owner still wants online, with which bindings. Only those that fit are asleep again; all others
# are started as if they had never slept. The network process forgets everything at its end, so it is told again at each
# connection. The locks keep a command from changing an identity between the reading of its files and its announcement.


async def restore_identities(context: GatewayContext) -> None:
    """Have every identity online that is to be, for ever: after the start, and when the network process restarts."""
    problem = ""
    is_first = True
    while True:
        try:
            await _restore(context, is_first=is_first)
            is_first, problem = False, ""
            await context.network_connected.wait()
        except P2PError as error:
            context.network_connected.set()
            if str(error) != problem:
                problem = str(error)
                log.warning("identities are not online yet: %s. Retrying.", error)
            await asyncio.sleep(RETRY_SECONDS)


async def _restore(context: GatewayContext, *, is_first: bool) -> None:
    names = await asyncio.to_thread(context.store.names)
    if is_first and names:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_SECONDS):
                await context.network_connected.wait()
    context.network_connected.clear()
    slots = asyncio.Semaphore(_PARALLEL)

    async def restore(some: Sequence[str]) -> None:
        async with slots:
            await _restore_some(context, some, is_first=is_first)

    batches = (names[start : start + _BATCH] for start in range(0, len(names), _BATCH))
    for outcome in await asyncio.gather(*map(restore, batches), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _restore_some(context: GatewayContext, names: Sequence[str], *, is_first: bool) -> None:
    """Have those of these identities asleep that were before, and start the others."""
    async with AsyncExitStack() as locks:
        for name in names:
            await locks.enter_async_context(context.identity_lock(name))
        found, sleepers = await asyncio.to_thread(_read, context, names)
        for damaged in found.damaged if is_first else ():
            log.error("%s", damaged)
        wanted = [record for record in found.usable if record.online and not record.revoked]
        if is_first:
            await _start(context, [record.name for record in wanted if not record.idle])
        asleep: tuple[str, ...] = ()
        if sleepers:
            request = AnnounceSleepers(tuple(sleepers))
            asleep = (await context.network.request(request, SleeperNames, timeout=_ANNOUNCE_SECONDS)).names
            await context.supervisor.keep_asleep(asleep)
        known = set(asleep)
        await _start(context, [record.name for record in wanted if record.idle and record.name not in known])


async def _start(context: GatewayContext, names: Sequence[str]) -> None:
    if names:
        await context.supervisor.ensure_online(tuple(names))


def _read(context: GatewayContext, names: Sequence[str]) -> tuple[LoadResult[IdentityFile], list[Sleeper]]:
    found = context.store.identities(names)
    sleepers: list[Sleeper] = []
    for record in found.usable:
        bindings = context.store.bindings(record.name)
        if record.online and record.idle and not record.revoked and not bindings.damaged:
            served = tuple(
                (each.protocol, each.instance) for each in bindings.usable if not each.program and not each.stopped
            )
            sleepers.append(Sleeper(record.name, record.listed, served, record.id52))
    return found, sleepers
