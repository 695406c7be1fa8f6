"""The gateway actor: the programs' front door, and the only actor that changes what lies on disk about identities.

It reads what local programs send, so it holds no key and runs no protocol code: keys are the vault's, which it reaches
with a key of its own, and protocols run in the identities' processes. Calls do not pass through here: a program is
told where the network's mailbox is when it says hello.

Layout
------

``door``        hello, the commands in flight, their limits
``commands``    every command and what carries it out
``identities``  created, deleted, listed, online, offline
``bindings``    protocols added and removed, live
``life``        bindings checked, reloaded, stopped and started
``catalogue``   the protocols that are installed
``aside``       protocol code in a process of its own, for a moment
``peers``       the address book and tickets
``programs``    programs that serve are given a grant, and told what to serve; ``noticeboard`` has what is new
``status``      what everybody says, as one answer; ``processes`` reads ``/proc``
``desk``        what commands work with; ``colleagues`` are the other actors
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastn_p2p_client.errors import P2PError

from ..runtime.actor import Stage
from .commands.bindings import clear_unfinished
from .context import Desk
from .control_server import Door

__all__ = ["serve"]

DRAIN_SECONDS: Final = 4.0
RETRY_SECONDS: Final = 1.0
_BATCH: Final = 256
"""Identities named in one message to the supervisor."""


async def serve(stage: Stage) -> None:
    """Open the door and have every identity started that is wanted online; until told to stop."""
    desk = Desk(stage)
    door = Door(desk, stage.connection_limits())
    desk.store.sweep()
    door.open()
    stage.ready()
    recovering = asyncio.create_task(_recover(stage, desk))
    try:
        await stage.stopping.wait()
        await door.drain(DRAIN_SECONDS)
    finally:
        recovering.cancel()
        door.close()
        desk.close()


async def _recover(stage: Stage, desk: Desk) -> None:
    """Brings what is into line with what lies on disk: nobody knows how the gateway before this one ended."""
    found = desk.store.identities()
    for damaged in found.damaged:
        stage.log.error("%s", damaged)
    wanted = [record.name for record in found.usable if record.online]
    while wanted:
        try:
            await desk.supervisor.ensure_online(tuple(wanted[:_BATCH]))
            del wanted[:_BATCH]
        except P2PError as error:
            stage.log.warning("identities are not started yet: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
    await clear_unfinished(desk)
