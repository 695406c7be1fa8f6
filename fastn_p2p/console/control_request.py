"""Requests of a command to the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from fastn_p2p_client.client import Client
from fastn_p2p_client.control_client import list_all_identities, list_all_peers
from fastn_p2p_client.errors import PeerNameUnknown
from fastn_p2p_client.ipc.messages import IdentityInfo, PeerInfo, RequestFor

ReplyT = TypeVar("ReplyT")
T = TypeVar("T")


def request_daemon(
    home: Path | None, message: RequestFor[ReplyT], payload: bytes = b"", *, timeout: float = 60.0
) -> ReplyT:
    """Send a control request to the daemon of ``home`` and return its reply.

    Raises:
        P2PError: the error reply of the daemon, or the reason why it did not answer.
    """
    return _with_client(home, lambda client: client.control(message, payload, timeout=timeout))


def list_identities(home: Path | None) -> list[IdentityInfo]:
    """Return all identities of the daemon.

    Raises:
        P2PError: the daemon replied with an error, or did not reply.
    """
    return _with_client(home, list_all_identities)


def list_peers(home: Path | None) -> list[PeerInfo]:
    """Return the whole address book of the daemon.

    Raises:
        P2PError: the daemon replied with an error, or did not reply.
    """
    return _with_client(home, list_all_peers)


def find_peer(home: Path | None, peer: str) -> PeerInfo:
    """Return the entry of the address book with this petname or ID52.

    Raises:
        PeerNameUnknown: there is none.
        P2PError: the daemon replied with an error, or did not reply.
    """
    for each in list_peers(home):
        if peer in (each.name, each.id52):
            return each
    raise PeerNameUnknown(name=peer)


def _with_client(home: Path | None, action: Callable[[Client], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Client(home, program="fastn-p2p") as client:
            return await action(client)

    return asyncio.run(run())
