"""Tests of programs and protocols without a daemon.

* ``serve`` runs a protocol in memory; the ``ProtocolClient`` that it yields calls it.
* ``session_pair`` gives both ends of a session.
* ``Conformance``, ``check_requests``, ``check_errors`` and ``check_streams`` check that another implementation of
  serving or calling behaves as this one does.

Modules: ``in_memory``, ``protocol_client``, ``conformance``, ``conformance_protocol``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from ..ipc.messages import SessionMessage
from ..limits import SESSION_WINDOW
from ..peer import Peer
from ..session.session import Session
from ..session.session_state import Payload
from .conformance import check_errors, check_requests, check_streams
from .conformance_protocol import Conformance
from .in_memory import ANONYMOUS_PEER, serve
from .protocol_client import ProtocolClient, SupportsCalls

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
    """Return both ends of one session inside the running event loop: the caller's, then the handler's.

    They behave as over a daemon, with the same flow control, ends and errors. The caller's ``opened`` is done once the
    other end accepts, reads or writes.

    Args:
        protocol: the session's ``protocol``; the instance is ``"default"``.
        opener: the peer that the handler's end sees; by default ``ANONYMOUS_PEER``.
        server: the peer that the caller's end sees; by default ``ANONYMOUS_PEER``.
    """
    loop = asyncio.get_running_loop()
    ends: list[Session] = []

    def send_to(number: int) -> Callable[[bytes, Payload], None]:
        def send(header: bytes, payload: Payload) -> None:
            loop.call_soon(lambda: ends[number].on_message(_decode(header), bytes(payload)))

        return send

    ends.append(Session(send_to(1), protocol=protocol, instance="default", peer=server or ANONYMOUS_PEER))
    ends.append(
        Session(send_to(0), protocol=protocol, instance="default", peer=opener or ANONYMOUS_PEER, credit=SESSION_WINDOW)
    )
    return ends[0], ends[1]
