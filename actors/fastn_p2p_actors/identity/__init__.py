"""The identity actor: one identity that is online, and the code of the protocols that it offers.

It holds no key and opens no connection: requests come from the network process, which has checked who may ask, and
answers go back there. Third-party code runs here and nowhere else; what it breaks, it breaks for this identity.

Layout
------

``actor``         the process: mailbox, link to the network, start and end
``hosted``        one binding: loads a protocol and takes it through its life
``blame``         which binding's code was running when a process ended
``offspring``     what protocol code forks
``registration``  what the network is told, again after each reconnection
``aside``         a short-lived process for protocol code that is not to run in this one
``messages``      what the gateway may ask

Requests themselves are handled by ``fastn_p2p_client.serving.dispatcher``, which programs that serve use too.
"""

from __future__ import annotations

from ..runtime.actor import Stage
from ..runtime.specs import IdentitySettings
from ..storage.identity_store import Store
from .actor import IdentityActor
from .fork_guard import tame_offspring
from .resource_limits import apply_limits

__all__ = ["serve"]


async def serve(stage: Stage) -> None:
    """Serve the identity that the settings name until told to stop. Ready once the network hands requests over."""
    if stage.leash is not None:  # a process of its own
        settings = stage.settings_as(IdentitySettings)
        apply_limits(stage, Store(stage.home).identity(settings.identity).limits, settings.memory)
        tame_offspring(stage.home.sockets, stage.leash)
    await IdentityActor(stage).run()
