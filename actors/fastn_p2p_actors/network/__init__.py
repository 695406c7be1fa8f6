"""The network actor: the one process that talks to the internet.

Layout
------

``actor``           the mailbox and how the parts fit together; ``serve`` starts it
``calls``           calls of local programs; ``routes`` finds the way to a peer
``requests``        requests for whoever serves here; ``parking`` lets them wait for one that restarts
``sessions``        sessions, each a ``relay`` between two legs: local processes, or a ``stream_leg`` to a daemon
``awaiting``        programs that wait for a peer to come online; ``lookout`` asks where it may appear
``registry``        who is online here and what they serve; ``access`` says to whom
``presence``        delegations and records of the identities that are online, renewed in time
``address_book``    peers by name; ``host_directory`` and ``resolvers`` find the others
``pool``            one ``connection`` to each daemon; ``neighbours`` finds them again after a crash
``returning``       programs that served when an earlier process of ours ended
``standing``        who talks with whom in sessions, and what takes away the right to go on
``manners``         what sessions leave to calls
``peer_sessions``   the sessions over one connection, ``peer_streams`` until they are open; ``bulk``: large payloads
``way``             how the other end of a connection is reached
``introductions``   who speaks through the other end of a connection; ``introducing`` shows it, and asks for it
``peer_memory``     what peers may make this process keep, with ``unread``: what QUIC holds of one
``wire``            the messages between daemons
``endpoint``        iroh; ``iroh_binding`` repairs its Python
``messages``        what the gateway may ask
``vault_client``    what the vault is asked
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fastn_p2p_actors.runtime.actor import Stage

__all__ = ["serve"]


RUST_DIAGNOSTICS: Final = ("RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "RUST_ERROR_LOCATION")
"""Variables of a developer's shell that make iroh look up where each error comes from: 40 MB more memory at the first
failed handshake, and the paths of its build machine in what users read."""


async def serve(stage: Stage) -> None:
    """Runs the network until ``stage.stopping``."""
    for variable in RUST_DIAGNOSTICS:
        os.environ.pop(variable, None)
    from .actor import serve  # who only wants the messages needs no iroh

    await serve(stage)
