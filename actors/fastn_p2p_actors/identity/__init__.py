"""The identity actor: one identity that is online, and the code of the protocols that it offers.

It holds no key and opens no connection: requests come from the network process, which has checked who may ask, and
answers go back there. Third-party code runs here and nowhere else; what it breaks, it breaks for this identity.

Layout
------

``actor``         the process: mailbox, link to the network, start and end
``hosted``        one binding: loads a protocol and takes it through its life
``registration``  what the network is told, again after each reconnection
``check``         a short-lived process that checks a config while the identity is offline
``messages``      what the gateway may ask

Requests themselves are handled by ``fastn_p2p_client.dispatch``, which programs that serve use too.
"""

from __future__ import annotations

from ..stage import Stage
from .actor import IdentityActor

__all__ = ["serve"]


async def serve(stage: Stage) -> None:
    """Serve the identity that the settings name until told to stop. Ready once the network hands requests over."""
    await IdentityActor(stage).run()
