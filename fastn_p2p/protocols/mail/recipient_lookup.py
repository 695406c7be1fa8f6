"""From what the owner calls a receiver to its public key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from fastn_p2p_client.errors import PeerNameUnknown
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.tickets import Ticket

__all__ = ["RecipientLookup"]

_SHORTEST_KEY: Final = 40
"""What is shorter is a name, and no mistyped ID52."""


class RecipientLookup:
    """Used inside one event loop. Those who ask at the same time share a look into the address book.

    Args:
        book: asks for the address book: name → ID52.
    """

    def __init__(self, book: Callable[[], Awaitable[dict[str, str]]]) -> None:
        self._ask = book
        self._looking = asyncio.Lock()
        self._looks = 0
        """How many have begun."""
        self._book: dict[str, str] = {}
        self._look = 0
        """Which look it is from."""

    async def find(self, to: str) -> tuple[PublicKey, str]:
        """Whom a petname, an ID52 or a ticket means, and how to address them from now on, also under another name.

        Raises:
            InvalidKey, InvalidTicket, PeerNameUnknown: nobody.
            P2PError: the address book cannot be asked.
        """
        if Ticket.is_ticket(to):
            ticket = Ticket(to)
            return ticket.identity, str(ticket)
        key = PublicKey(to if len(to) >= _SHORTEST_KEY else await self._named(to))
        return key, key.id52

    async def _named(self, name: str) -> str:
        begun = self._looks
        async with self._looking:
            if self._look <= begun:  # from before we were asked: the name may be somebody else's since
                self._looks = look = self._looks + 1
                self._book, self._look = await self._ask(), look
        try:
            return self._book[name]
        except KeyError:
            raise PeerNameUnknown(name=name[:64]) from None
