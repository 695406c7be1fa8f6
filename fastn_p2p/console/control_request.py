"""Requests of a command to the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import PeerNameUnknown
from fastn_p2p_client.ipc.messages import IdentityInfo, ListIdentities, ListPeers, PeerInfo, RequestFor

ReplyT = TypeVar("ReplyT")


def request_daemon(
    home: Path | None, message: RequestFor[ReplyT], payload: bytes = b"", *, timeout: float = 60.0
) -> ReplyT:
    """Send a control request to the daemon of ``home`` and return its reply.

    Raises:
        P2PError: the error reply of the daemon, or the reason why it did not answer.
    """

    async def send() -> ReplyT:
        async with Client(home, program="fastn-p2p") as client:
            return await client.control(message, payload, timeout=timeout)

    return asyncio.run(send())


def list_all_identities(home: Path | None) -> list[IdentityInfo]:
    """Return all identities of the daemon, requested page by page.

    Raises:
        P2PError: the daemon replied with an error, or did not reply.
    """

    def page_after(name: str) -> tuple[list[IdentityInfo], bool]:
        page = request_daemon(home, ListIdentities(name))
        return page.identities, page.more

    return _all_pages(page_after)


def list_all_peers(home: Path | None) -> list[PeerInfo]:
    """Return the whole address book of the daemon, requested page by page.

    Raises:
        P2PError: the daemon replied with an error, or did not reply.
    """

    def page_after(name: str) -> tuple[list[PeerInfo], bool]:
        page = request_daemon(home, ListPeers(name))
        return page.peers, page.more

    return _all_pages(page_after)


def find_peer(home: Path | None, peer: str) -> PeerInfo:
    """Return the entry of the address book with this petname or ID52.

    Raises:
        PeerNameUnknown: there is none.
        P2PError: the daemon replied with an error, or did not reply.
    """
    for each in list_all_peers(home):
        if peer in (each.name, each.id52):
            return each
    raise PeerNameUnknown(name=peer)


Named = TypeVar("Named", IdentityInfo, PeerInfo)


def _all_pages(page_after: Callable[[str], tuple[list[Named], bool]]) -> list[Named]:
    """Return the entries of all pages.

    Args:
        page_after: returns the entries after a name, and whether there are more.
    """
    found, more = page_after("")
    page = found
    while more and page:
        page, more = page_after(found[-1].name)
        found = found + page
    return found
