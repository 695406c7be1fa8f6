"""One question to the daemon, one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import InternalError
from fastn_p2p_client.ipc.messages import (
    ControlRequest,
    IdentityInfo,
    IdentityList,
    ListIdentities,
    ListPeers,
    PeerInfo,
    PeerList,
)

__all__ = ["list_all_identities", "list_all_peers", "request_daemon"]

T = TypeVar("T")


def request_daemon(
    home: Path | None, message: ControlRequest, expected: type[T], payload: bytes = b"", *, timeout: float = 60.0
) -> T:
    """Sends ``message`` to the daemon of ``home`` and returns its answer, which is an ``expected``.

    Raises:
        P2PError: what the daemon answered instead, or why it did not answer.
    """

    async def conversation() -> object:
        async with Client(home, program="fastn-p2p") as client:
            return await client.control(message, payload, timeout=timeout)

    reply = asyncio.run(conversation())
    if not isinstance(reply, expected):
        raise InternalError(reason=f"the daemon answered {type(message).__name__} with {type(reply).__name__}")
    return reply


def list_all_identities(home: Path | None) -> list[IdentityInfo]:
    """Return the identities of the daemon, however many there are: page by page. Raises P2PError as
    ``request_daemon``."""

    def page_after(name: str) -> tuple[list[IdentityInfo], bool]:
        page = request_daemon(home, ListIdentities(name), IdentityList)
        return page.identities, page.more

    return _all_pages(page_after)


def list_all_peers(home: Path | None) -> list[PeerInfo]:
    """Return the address book of the daemon, page by page. Raises P2PError as ``request_daemon``."""

    def page_after(name: str) -> tuple[list[PeerInfo], bool]:
        page = request_daemon(home, ListPeers(name), PeerList)
        return page.peers, page.more

    return _all_pages(page_after)


Named = TypeVar("Named", IdentityInfo, PeerInfo)


def _all_pages(page_after: Callable[[str], tuple[list[Named], bool]]) -> list[Named]:
    """``page_after`` gives the entries behind a name, and whether there are more of them."""
    found, more = page_after("")
    page = found
    while more and page:
        page, more = page_after(found[-1].name)
        found = found + page
    return found
