"""Gateway actor: ``control.sock`` for programs, and the only process that changes identities on disk.

It reads messages of local programs, so it holds no key and runs no protocol code. The vault holds the keys, and
protocols run in identity processes. Calls do not pass through the gateway: a program that says hello gets the path of
the network process's mailbox.

- ``control_server``: hello, commands in flight, limits.
- ``commands``: every command and the function that runs it, one module per group.
- ``context``: store and actor clients for every command, and one lock per identity.
- ``actor_clients``: clients of vault, network, identity and supervisor.
- ``binding_watchers``: long polls of programs that watch bindings.
- ``granted_permissions``: what the owner grants to bindings, checked.
- ``restore_plan``, ``restore_journal``: restores of backups, planned first, and finished after a crash.
- ``one_shot``: questions about bindings for which protocol code has to run.
- ``one_shot_workers``, ``supervised_workers``, ``worker_programs``: the worker processes that run it.
- ``command_audit``: reports to the audit log which program has changed what.
- ``disk_guard``: takes an identity offline whose protocols fill the disk.
- ``restored_identities``: has identities online after a restart, awake or asleep.
- ``worker_bindings``: tells the network process which bindings workers on other machines may serve.
- ``leftovers``: files of a deleted identity that only its own user may delete.
- ``metrics``: the page for Prometheus, and its server.
- ``process_usage``: CPU and memory of processes, from ``/proc``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Final

from fastn_p2p_client.errors import P2PError

from ..runtime.actor import ActorContext
from ..runtime.sandbox.roles import gateway_sandbox
from ..runtime.specs import GatewaySettings
from ..storage.atomic_files import set_on_leftover
from ..storage.shared_directories import share_with
from .commands.backup import finish_restores
from .commands.bindings import roll_back_uncommitted
from .commands.identities import bring_offline_for_disk, hosts_foreign_code
from .commands.identity_revocation import finish_revocations
from .commands.metrics_text import metrics_page
from .commands.transport import finish_rotation
from .context import GatewayContext
from .control_server import ControlServer
from .disk_guard import DiskGuard
from .leftovers import delete_leftover
from .restored_identities import restore_identities
from .worker_bindings import keep_workers_announced

DRAIN_SECONDS: Final = 4.0
"""Seconds that commands in flight may take when the gateway stops."""


async def serve(actor: ActorContext) -> None:
    """Serve ``control.sock`` until told to stop, and have every identity started that is to be online."""
    settings = actor.load_settings(GatewaySettings)
    listener, metrics_problem = _bind_metrics(settings.metrics)
    actor.enter_sandbox(lambda: gateway_sandbox(actor.home))
    context = GatewayContext(actor)
    context.metrics_problem = metrics_problem
    if any(context.settings.identities):
        share_with(*context.settings.identities)
        _complete_permissions(context)
        set_on_leftover(partial(delete_leftover, context, asyncio.get_running_loop()))
    server = ControlServer(context, actor.connection_limits(), actor.listeners.get("control"))
    context.store.delete_trash()
    server.open()
    actor.ready()
    context.spawn(finish_restores(context))
    context.spawn(finish_revocations(context))
    context.spawn(finish_rotation(context))
    context.spawn(keep_workers_announced(context))
    bring_offline, runs_foreign_code = partial(bring_offline_for_disk, context), partial(hosts_foreign_code, context)
    guard = DiskGuard(actor.home.identities, actor.home.asleep, bring_offline, runs_foreign_code)
    context.spawn(guard.watch())
    metrics = None
    if listener is not None:
        from .metrics.metrics_server import MetricsServer

        metrics = MetricsServer(listener, partial(metrics_page, context))
        await metrics.open()
    restoring = asyncio.create_task(_restore_after_restart(context))
    try:
        await actor.stop_requested.wait()
        await server.drain(DRAIN_SECONDS)
        await context.audit.close()
    finally:
        restoring.cancel()
        if metrics is not None:
            metrics.close()
        server.close()
        context.close()


def _bind_metrics(address: str) -> tuple[socket.socket | None, str]:
    """Return the socket of the metrics, if there are any, and the reason why it could not be bound."""
    if not address:
        return None, ""
    from ..daemon_settings.metrics_address import parse_metrics_address
    from .metrics.metrics_server import bind_metrics

    try:
        return bind_metrics(parse_metrics_address(address)), ""
    except (OSError, ValueError) as error:
        problem = f"metrics are not served at {address}: {getattr(error, 'strerror', None) or error}"
        logging.getLogger(__name__).error("%s", problem)
        return None, problem


def _complete_permissions(context: GatewayContext) -> None:
    """Grant nothing more to bindings that are older than permissions: the identity's process may not write the file."""
    for name in context.store.names():
        try:
            context.permissions.complete(name, dict)
        except P2PError as error:
            logging.getLogger(__name__).error("%s", error)


async def _restore_after_restart(context: GatewayContext) -> None:
    """Have identities online that are to be, and roll back what an interrupted gateway left unfinished."""
    context.spawn(restore_identities(context))
    await roll_back_uncommitted(context)
