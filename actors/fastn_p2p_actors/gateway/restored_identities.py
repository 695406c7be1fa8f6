"""Restored identities: after a restart, those that were asleep stay asleep, and all others are started."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from fastn_p2p_client.errors import P2PError

from ..network.admin_messages import AnnounceSleepers, Sleeper, SleeperNames
from ..storage.identity_store import IdentityFile, LoadResult
from .context import GatewayContext

RETRY_SECONDS: Final = 1.0
"""Seconds between two attempts to have the identities online."""
_BATCH: Final = 256
"""Identities in one message to the supervisor."""
_SLEEPERS: Final = 64
"""Identities in one message to the network process. Commands for them wait meanwhile."""
_ANNOUNCE_SECONDS: Final = 30.0
"""Seconds that the network process may take to announce them: the vault signs two statements for each."""

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
    found = await asyncio.to_thread(context.store.identities)
    for damaged in found.damaged if is_first else ():
        log.error("%s", damaged)
    online = [record for record in found.usable if record.online and not record.revoked]
    always = [record.name for record in online if not record.idle]
    if is_first:
        await _start(context, always)
    sleepers = [record.name for record in online if record.idle]
    if sleepers:
        await context.network_connected.wait()
    context.network_connected.clear()
    for start in range(0, len(sleepers), _SLEEPERS):
        await _announce(context, sleepers[start : start + _SLEEPERS])


async def _announce(context: GatewayContext, names: Sequence[str]) -> None:
    """Have those of these identities asleep that were before, and start the others."""
    async with AsyncExitStack() as locks:
        for name in names:
            await locks.enter_async_context(context.identity_lock(name))
        found, sleepers = await asyncio.to_thread(_read, context, names)
        wanted = [record.name for record in found.usable if record.online and not record.revoked]
        if not wanted:
            return
        request = AnnounceSleepers(tuple(sleepers))
        asleep = await context.network.request(request, SleeperNames, timeout=_ANNOUNCE_SECONDS)
        await context.supervisor.keep_asleep(asleep.names)
        known = set(asleep.names)
        await _start(context, [name for name in wanted if name not in known])


async def _start(context: GatewayContext, names: Sequence[str]) -> None:
    for start in range(0, len(names), _BATCH):
        await context.supervisor.ensure_online(tuple(names[start : start + _BATCH]))


def _read(context: GatewayContext, names: Sequence[str]) -> tuple[LoadResult[IdentityFile], list[Sleeper]]:
    found = context.store.identities(names)
    sleepers: list[Sleeper] = []
    for record in found.usable:
        bindings = context.store.bindings(record.name)
        if record.online and record.idle and not record.revoked and not bindings.damaged:
            served = tuple(
                (each.protocol, each.instance) for each in bindings.usable if not each.program and not each.stopped
            )
            sleepers.append(Sleeper(record.name, record.listed, served))
    return found, sleepers
