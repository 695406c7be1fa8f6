"""The network actor: the one process that talks to the internet.

Layout
------

``actor``         the mailbox and how the parts fit together; ``serve`` starts it
``wire``          the protocol between daemons
``transport``     the iroh endpoint
``connections``   one QUIC connection to each daemon, and what it carries
``serving``       local processes that serve: registry, load balancer, access lists
``discovery``     from a name to a connection; delegations and records of the identities that are online
``calls``         calls of local programs, and calls that local processes serve
``sessions``      sessions, each a relay between two legs
``address_book``  peers by name; ``known_peers`` and ``seen_store`` are under it
``report``        counters and states for ``status``
``clock``         detects a wall clock that was set
``admin_messages``, ``vault_client``  requests of the gateway; requests to the vault

A call of a program: ``actor``, ``calls.outgoing``, ``discovery.router``, ``connections.pool``,
``connections.connection``. There: ``connections.connection``, ``calls.incoming``, ``serving.load_balancer``, and the
reply goes back the same way. A session: ``actor``, ``sessions.manager``, ``discovery.router``,
``connections.session_handshake``, then bytes through ``sessions.relay`` and ``connections.remote_leg``. There:
``connections.connection_sessions``, ``sessions.manager``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fastn_p2p_actors.runtime.actor import ActorContext

__all__ = ["serve"]


RUST_DIAGNOSTICS: Final = ("RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "RUST_ERROR_LOCATION")
"""Variables of a developer's shell that make iroh look up where each error comes from: 40 MB more memory at the first
failed handshake, and the paths of its build machine in what users read."""


async def serve(stage: ActorContext) -> None:
    """Runs the network until ``stage.stopping``."""
    for variable in RUST_DIAGNOSTICS:
        os.environ.pop(variable, None)
    from .actor import serve  # who only wants the messages needs no iroh

    await serve(stage)
