"""The gateway actor: the programs' front door, and the only actor that changes what lies on disk about identities.

It reads what local programs send, so it holds no key and runs no protocol code: keys are the vault's, which it reaches
with a key of its own, and protocols run in the identities' processes. Calls do not pass through here: a program is
told where the network's mailbox is when it says hello.

Layout
------

``control_server``    hello, the commands in flight, their limits
``commands``          every command and the function that runs it, one module per group
``context``           the store and the actors that commands work with, and one lock per identity
``actor_clients``     clients of vault, network, identity and supervisor
``binding_watchers``  long polls of programs that watch bindings
``one_shot``          protocol code in a one-shot worker process
``process_usage``     CPU and memory of processes, from ``/proc``
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastn_p2p_client.errors import P2PError

from ..runtime.actor import ActorContext
from .commands.bindings import roll_back_uncommitted
from .context import GatewayContext
from .control_server import ControlServer

__all__ = ["serve"]

DRAIN_SECONDS: Final = 4.0
RETRY_SECONDS: Final = 1.0
_BATCH: Final = 256
"""Identities named in one message to the supervisor."""


async def serve(stage: ActorContext) -> None:
    """Open the door and have every identity started that is wanted online; until told to stop."""
    desk = GatewayContext(stage)
    door = ControlServer(desk, stage.connection_limits())
    desk.store.sweep()
    door.open()
    stage.ready()
    recovering = asyncio.create_task(_restore_after_restart(stage, desk))
    try:
        await stage.stop_requested.wait()
        await door.drain(DRAIN_SECONDS)
    finally:
        recovering.cancel()
        door.close()
        desk.close()


async def _restore_after_restart(stage: ActorContext, desk: GatewayContext) -> None:
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
    await roll_back_uncommitted(desk)
