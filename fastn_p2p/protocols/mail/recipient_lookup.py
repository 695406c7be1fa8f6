"""Lookup of a recipient: from the name that the owner uses to the public key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from fastn_p2p_client.errors import PeerNameUnknown
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.peer_text import read_peer_text
from fastn_p2p_client.tickets import Ticket

_SHORTEST_KEY: Final = 40
"""Characters: a shorter text is taken for a name, not for a mistyped ID52."""


class RecipientLookup:
    """Resolver of names, used inside one event loop. Concurrent lookups share one request for the address book.

    Args:
        read_address_book: returns the address book: name -> ID52.
    """

    def __init__(self, read_address_book: Callable[[], Awaitable[dict[str, str]]]) -> None:
        self._read_address_book = read_address_book
        self._reading = asyncio.Lock()
        self._started = 0
        """Number of the last request that was started."""
        self._book: dict[str, str] = {}
        self._book_number = 0
        """Number of the request that returned ``_book``."""

    async def find(self, to: str) -> tuple[PublicKey, str]:
        """Return the key of a petname, an ID52 or a ticket, and the address to use from now on.

        The address stays valid when the peer gets another petname.

        Raises:
            InvalidKey, InvalidTicket, InvalidName, PeerNameUnknown: ``to`` names no peer.
            P2PError: the address book cannot be read.
        """
        named = read_peer_text(to)
        named.check_target("Mail", "")
        to = named.name
        if Ticket.is_ticket(to):
            ticket = Ticket(to)
            return ticket.identity, str(ticket)
        key = PublicKey(to if len(to) >= _SHORTEST_KEY else await self._find_name(to))
        return key, key.id52

    async def _find_name(self, name: str) -> str:
        started = self._started
        async with self._reading:
            if self._book_number <= started:  # older than this lookup: the name may mean another peer now
                self._started = number = self._started + 1
                self._book, self._book_number = await self._read_address_book(), number
        try:
            return self._book[name]
        except KeyError:
            raise PeerNameUnknown(name=name[:64]) from None
