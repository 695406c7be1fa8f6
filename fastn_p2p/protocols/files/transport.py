"""Calls and sessions of a transfer: what ``FilesClient`` has, and ``Download`` and ``Upload`` need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastn_p2p_client.session.session import Session

from .messages import Entry, OfferReply, SessionRequest


class FilesTransport(Protocol):
    async def open(self, order: SessionRequest, /) -> Session:
        """One session. Raises FileError and P2PError."""
        ...

    async def offer(self, entries: Sequence[Entry], /) -> OfferReply:
        """Offer files. The same entries are the same offer."""
        ...

    async def await_offer(self, offer: str, seconds: float = 0.0, /) -> OfferReply:
        """How an offer stands, once it is decided or the time is over."""
        ...
