"""Interface of the calls and sessions that ``Download`` and ``Upload`` make; ``FilesClient`` implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastn_p2p_client.session.session import Session

from .messages import Entry, OfferReply, SessionRequest


class FilesTransport(Protocol):
    """``FileTransfer`` at one peer."""

    async def open(self, order: SessionRequest, /) -> Session:
        """Open a session. Raises FileError and P2PError."""
        ...

    async def offer(self, entries: Sequence[Entry], /) -> OfferReply:
        """Offer files. The same entries are the same offer."""
        ...

    async def await_offer(self, offer: str, seconds: float = 0.0, /) -> OfferReply:
        """Return the state of an offer once it is decided, or after ``seconds``."""
        ...
