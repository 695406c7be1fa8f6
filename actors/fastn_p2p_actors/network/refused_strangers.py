"""Refused strangers: listed for the owner to accept or block, and reported to the audit log."""

from __future__ import annotations

import asyncio
from typing import Final

from fastn_p2p_client.keys import id52_of

from ..runtime.rate_limiter import Rate, TokenBucket
from ..vault.audit_reporter import AuditReporter
from .address_book import AddressBook
from .connections.connection import PeerConnection
from .connections.proven_identities import IntroductionRegistry
from .contacts.pending_peers import PendingPeers
from .serving.registry import OnlineIdentity, RegisteredBinding, Registry

_REPORTS: Final = Rate(1 / 60, 60)
"""Refused strangers that are reported to the audit log, per second. A stranger is listed in any case."""


class RefusedStrangers:
    """Strangers that an access list or an invitation does not admit. Peers of the address book are no strangers."""

    def __init__(
        self,
        introductions: IntroductionRegistry[PeerConnection],
        registry: Registry,
        book: AddressBook,
        pending: PendingPeers,
        audit: AuditReporter,
    ) -> None:
        self._introductions = introductions
        self._registry = registry
        self._book = book
        self._pending = pending
        self._audit = audit
        self._now = asyncio.get_running_loop().time
        self._reports = TokenBucket(_REPORTS, self._now())

    def add(self, binding: RegisteredBinding, source: bytes) -> None:
        """Note a caller that the access list of a binding does not admit."""
        self._add((binding.identity.name, binding.protocol, binding.instance), source)

    def add_bearer(self, identity: OnlineIdentity, source: bytes) -> None:
        """Note the bearer of an invitation that does not hold."""
        self._add((identity.name, "", ""), source)

    def _add(self, wanted: tuple[str, str, str], source: bytes) -> None:
        speaking = next(self._introductions.at(source), None)
        connection = speaking.connection if speaking is not None else None
        if connection is None or self._book.by_key(source) is not None or self._registry.by_key(source) is not None:
            return
        if self._pending.note(source, connection.endpoint, connection.network(), wanted) and self._reports.try_spend(
            self._now()
        ):
            what = "/".join(wanted) if wanted[1] else f"{wanted[0]}, by an invitation"
            self._audit.record("stranger-refused", peer=id52_of(source), binding=what)
