"""A `PeerConnection` without QUIC: its owner is a stub, and the messages that it sends are read from its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from fastn_p2p_actors.credentials import Delegation, read_delegation
from fastn_p2p_actors.network.connections.connection import PeerConnection
from fastn_p2p_actors.network.connections.events import ConnectionEvents
from fastn_p2p_actors.network.connections.identity_exchange import Wants
from fastn_p2p_actors.network.connections.peer_memory import PeerMemory
from fastn_p2p_actors.network.connections.proven_identities import ProvenIdentities
from fastn_p2p_actors.network.wire.framing import FrameDecoder
from tests.support.signer import ENDPOINT, NOW

__all__ = ["StubOwner", "new_connection", "pop_sent"]


class StubOwner:
    """Owner of connections; ``online`` has the delegations of its identities."""

    def check_introduction(self, _connection: PeerConnection, delegation: bytes) -> Delegation:
        return read_delegation(delegation)

    def __init__(self, online: dict[bytes, bytes] | None = None) -> None:
        self.online = online if online is not None else {}
        self.introduced: list[bytes] = []
        self.revoked: dict[bytes, bytes] = {}
        self.newest_records: dict[bytes, bytes] = {}
        self.is_starting = False

    def introduction_for(self, identity: bytes) -> bytes | None:
        return self.online.get(identity)

    def record_of(self, identity: bytes) -> bytes:
        return self.newest_records.get(identity, b"")

    def awaits_identities(self) -> bool:
        return self.is_starting

    def revocation_of(self, identity: bytes) -> bytes:
        return self.revoked.get(identity, b"")

    def on_introduced(self, _connection: PeerConnection, identity: bytes) -> None:
        self.introduced.append(identity)

    def on_closed(self, _connection: PeerConnection) -> None:
        """Ignore the end of the connection."""


def new_connection(
    owner: StubOwner | None = None, wall: Callable[[], float] = lambda: NOW, wants: Wants | None = None
) -> PeerConnection:
    """Return an open connection to ``ENDPOINT``."""
    raw = SimpleNamespace(
        paths=list,
        watch_paths=lambda _: None,
        remote_id=lambda: SimpleNamespace(to_bytes=lambda: ENDPOINT),
        close=lambda _code, _reason: None,
    )
    connection = PeerConnection(
        cast(Any, raw),
        cast(ConnectionEvents[PeerConnection], owner or StubOwner()),
        outgoing=True,
        wall=wall,
        memory=PeerMemory(asyncio.get_running_loop()),
    )
    connection.share(ProvenIdentities(), wants or Wants())
    return connection


def pop_sent(connection: PeerConnection) -> list[object]:
    """Return the messages that the connection has sent since the last call."""
    frames = [message for message, _ in FrameDecoder().feed(b"".join(connection._channel._queue))]
    connection._channel._queue.clear()
    return list(frames)
