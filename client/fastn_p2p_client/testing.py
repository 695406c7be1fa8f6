"""For tests of programs and protocols: whole protocols, and sessions, without a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from .keys import PublicKey
from .limits import SESSION_WINDOW
from .messages import SessionPart
from .peer import Peer
from .rehearsal import Rehearsal, rehearse
from .session import Payload, Session

__all__ = ["Rehearsal", "rehearse", "session_pair"]

_decode: Final = msgspec.msgpack.Decoder(SessionPart).decode
_SOMEBODY: Final = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")


def session_pair(
    protocol: str = "Test", *, opener: Peer | None = None, server: Peer | None = None
) -> tuple[Session, Session]:
    """Two ends of one session inside the running event loop: the side that has asked for it, and the side that serves.

    They behave as over a daemon: the same waiting, ends and errors. The opener's ``opened`` is done once the other
    side accepts, reads or writes.

    Args:
        opener: who the serving side sees; somebody without a name by default. ``server``: who the opener sees.
    """
    loop = asyncio.get_running_loop()
    ends: list[Session] = []

    def towards(number: int) -> Callable[[bytes, Payload], None]:
        def send(header: bytes, payload: Payload) -> None:
            loop.call_soon(lambda: ends[number].take(_decode(header), bytes(payload)))

        return send

    somebody = Peer(_SOMEBODY, None)
    ends.append(Session(towards(1), protocol=protocol, instance="default", peer=server or somebody))
    ends.append(
        Session(towards(0), protocol=protocol, instance="default", peer=opener or somebody, credit=SESSION_WINDOW)
    )
    return ends[0], ends[1]
