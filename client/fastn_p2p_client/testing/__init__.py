"""For tests of programs and protocols.

* ``serve``: a protocol in memory, without a daemon, and the ``ProtocolClient`` that calls it.
* ``session_pair``: both ends of a session, likewise.
* ``Conformance``, ``check_requests``, ``check_errors``, ``check_streams``: what every way of serving must do alike, for
  whoever writes another one, or another way of calling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from ..ipc.messages import SessionMessage
from ..limits import SESSION_WINDOW
from ..peer import Peer
from ..session.session import (
    Payload,
    Session,
)
from .conformance import Conformance, check_errors, check_requests, check_streams
from .in_memory import (
    ANONYMOUS_PEER,
    serve,
)
from .protocol_client import (
    ProtocolClient,
    SupportsCalls,
)

__all__ = [
    "ANONYMOUS_PEER",
    "Conformance",
    "ProtocolClient",
    "SupportsCalls",
    "check_errors",
    "check_requests",
    "check_streams",
    "serve",
    "session_pair",
]

_decode: Final = msgspec.msgpack.Decoder(SessionMessage).decode


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
            loop.call_soon(lambda: ends[number].on_message(_decode(header), bytes(payload)))

        return send

    ends.append(Session(towards(1), protocol=protocol, instance="default", peer=server or ANONYMOUS_PEER))
    ends.append(
        Session(towards(0), protocol=protocol, instance="default", peer=opener or ANONYMOUS_PEER, credit=SESSION_WINDOW)
    )
    return ends[0], ends[1]
