"""The identity actor: one identity that is online, and the code of the protocols that it offers.

It holds no key and opens no connection: requests come from the network process, which has checked who may ask, and
answers go back there. Third-party code runs here and nowhere else; what it breaks, it breaks for this identity.

Layout
------

``actor``                 the process: mailbox, connection to the network process, start and end
``hosted_binding``        one binding: loads a protocol and takes it through its life
``crash_attribution``     which binding's code was running when a process ended
``fork_guard``            children that protocol code forks
``network_registration``  registers with the network process, again after each reconnection
``one_shot_worker``       the short-lived process for protocol code that is not to run in this one
``resource_limits``       CPU, memory and tasks that the process may use
``messages``              requests of the gateway

Requests themselves are handled by ``fastn_p2p_client.serving.dispatcher``, which programs that serve use too.
"""

from __future__ import annotations

from ..runtime.actor import ActorContext
from ..runtime.specs import IdentitySettings
from ..storage.identity_store import IdentityStore
from .actor import IdentityActor
from .fork_guard import guard_forked_children
from .resource_limits import apply_limits

__all__ = ["serve"]


async def serve(stage: ActorContext) -> None:
    """Serve the identity that the settings name until told to stop. Ready once the network hands requests over."""
    if stage.leash is not None:  # a process of its own
        settings = stage.load_settings(IdentitySettings)
        apply_limits(stage, IdentityStore(stage.home).identity(settings.identity).limits, settings.memory)
        guard_forked_children(stage.home.sockets, stage.leash)
    await IdentityActor(stage).run()
