"""Bindings that workers on other machines may serve: the network process is told of them, and of every change."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from fastn_p2p_client.errors import P2PError

from ..network.admin_messages import SetWorkerBindings, WorkerBinding, WorkerListenerReply
from .context import GatewayContext

_RETRY_SECONDS: Final = 1.0
_DEFAULT_ACCESS: Final = ("peers",)
"""Access list of a binding whose owner has set none."""

log = logging.getLogger(__name__)


async def keep_workers_announced(context: GatewayContext) -> None:
    """Tell the network process after each connection to it, and after changes, for ever."""
    problem = ""
    while True:
        await context.workers_changed.wait()
        context.workers_changed.clear()
        try:
            await announce_workers(context)
            problem = ""
        except P2PError as error:
            if str(error) != problem:
                problem = str(error)
                log.info("workers cannot connect yet: %s. Retrying.", error)
            context.workers_changed.set()
            await asyncio.sleep(_RETRY_SECONDS)


async def announce_workers(context: GatewayContext) -> WorkerListenerReply:
    """Tell the network process now. Return where workers connect. Raises P2PError."""
    async with context.workers_lock:
        bindings = await asyncio.to_thread(_read, context)
        return await context.network.request(SetWorkerBindings(bindings), WorkerListenerReply)


def _read(context: GatewayContext) -> tuple[WorkerBinding, ...]:
    found: list[WorkerBinding] = []
    for binding, hashes in context.worker_tokens.read().items():
        try:
            record = context.store.binding(*binding)
        except P2PError as error:
            log.debug("no worker may serve %s: %s", "/".join(binding), error)
            continue
        if record.program and not record.stopped:
            found.append(WorkerBinding(binding, record.allow or _DEFAULT_ACCESS, hashes))
    return tuple(found)
