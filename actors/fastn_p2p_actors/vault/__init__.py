"""The vault: the only process that ever holds an identity's secret.

It hears typed requests from two roles, signs delegations and records that it has put together itself, and is no
signing oracle for anything else.

Layout
------

``messages``       requests and replies, as one tagged union
``access_policy``  which role may send which request: default deny
``locked_memory``  locked pages, and how the process keeps others out of its memory
``key_pair``       key pairs in locked pages: made, read, used and written without a secret in a Python object
``key_file``       a key at rest
``key_store``      all keys of a home, one by one
``vault``          requests into answers
``actor``          the process: mailbox, start and end
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastn_p2p_actors.runtime.actor import ActorContext

__all__ = ["serve"]


async def serve(stage: ActorContext) -> None:
    """Runs the vault until ``stage.stopping``."""
    from .actor import serve  # who only wants the messages needs neither libsodium nor ZeroMQ

    await serve(stage)
