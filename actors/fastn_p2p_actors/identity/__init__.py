"""Identity actor: one process per online identity, which runs the code of its protocols.

It holds no key and opens no connection to peers. The network process sends it requests of callers that it has checked,
and gets the replies. Third-party code runs only here. ``fastn_p2p_client.serving`` runs the handlers, as in programs.

- ``actor``: the process: mailbox, bindings, connection to the network process.
- ``hosted_binding``: one binding in this process. ``idle_watch``: when the identity falls asleep.
- ``network_registration``: register with the network process, again after each reconnection.
- ``crash_attribution``, ``running_marker``: which binding's code was running when the process ended.
- ``fork_guard``: children that protocol code forks.
- ``sandbox_preparation``: its sandbox, worked out by a fork of the process.
- ``sandboxed_process``, ``declared_permissions``: what its sandbox makes necessary.
- ``refused_attempts``: what the sandbox refuses to protocol code, for the log and for ``status``.
- ``one_shot_worker``: the process that answers a question of the gateway.
- ``resource_limits``: memory, files and processes that the process may use.
- ``rehearsal``: all of it once, before the first process is forked.
- ``messages``: requests of the gateway.
"""

from __future__ import annotations

from ..runtime.actor import ActorContext
from ..runtime.specs import IdentitySettings
from ..storage.identity_store import IdentityStore
from .actor import IdentityActor
from .fork_guard import guard_forked_children
from .resource_limits import apply_limits


async def serve(context: ActorContext) -> None:
    """Serve the identity of the settings until told to stop. Ready once the network process sends it requests."""
    if context.channel_descriptor is not None:  # not in a test that runs several actors in one process
        settings = context.load_settings(IdentitySettings)
        apply_limits(context, IdentityStore(context.home).identity(settings.identity).limits, settings.memory)
        guard_forked_children(context.home.sockets, context.channel_descriptor)
    await IdentityActor(context).run()
