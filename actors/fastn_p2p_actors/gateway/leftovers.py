"""Files of a deleted identity or binding that only the identity's own user may delete: a worker does it."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import Ack

from ..identity.one_shot_worker import EmptyDirectory
from .context import GatewayContext

log = logging.getLogger(__name__)


def delete_leftover(context: GatewayContext, loop: asyncio.AbstractEventLoop, directory: Path) -> None:
    """Delete a directory in the background, of which this process may not delete all. Works in every thread."""
    loop.call_soon_threadsafe(lambda: context.spawn(_delete(context, directory)))


async def _delete(context: GatewayContext, directory: Path) -> None:
    try:
        await context.workers.run(EmptyDirectory(str(directory)), directory.name, Ack)
    except P2PError as error:
        log.error("%s cannot be deleted: %s. The next start of the daemon tries again.", directory, error)
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
