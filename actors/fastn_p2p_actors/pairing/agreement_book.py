"""Agreement book: what a pairing does with what both sides have agreed on.

``pairing_book`` is the one of peers, ``replica_books`` are those of an identity that another daemon joins.
"""

from __future__ import annotations

from typing import Any, Protocol

from .pairing_book import StoredPeer


class AgreementBook(Protocol):
    """Requests of one side to its daemon. Each method raises P2PError."""

    purpose: str
    """Added to the words before anything is derived from them, so that words for another purpose are other words."""

    async def own_identity(self, identity: str) -> Any:
        """Return what this side says about itself: an object with ``name``, ``ticket`` and ``id52``."""
        ...

    async def check(self, own: Any, of_owner: str, ticket: str) -> Any:
        """Return what ``store`` takes, if what the other side says about itself can be stored."""
        ...

    async def store(self, own: Any, of_owner: str, ticket: Any) -> StoredPeer:
        """Store the other side. If this is cancelled, nothing is stored."""
        ...

    async def complete(self, own: Any, stored: StoredPeer) -> None:
        """Do what follows once both sides have stored each other."""
        ...

    async def undo(self, stored: StoredPeer) -> None:
        """Undo ``store``."""
        ...
