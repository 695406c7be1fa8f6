"""Record source: a place where daemons publish the records of their identities, and look for those of others.

A record proves itself, so a source needs no trust. A source that lies, lags or fails delays nobody: the finder asks all
of them at once, verifies what each reports, and keeps the newest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..serving.registry import Publication

OnRecord = Callable[[bytes], None]
"""Callback for a record that a source has: the signed blob, not verified."""


class PublishedIdentity(Protocol):
    """Identity whose record a source publishes: one that is online, or one that is revoked.

    Attributes:
        record: its signed record or revocation.
        packet: packet for directories with the record; empty if there is none.
        publications: state at each place, by its name. The sources change it.
    """

    record: bytes
    packet: bytes
    publications: dict[str, Publication]

    @property
    def name(self) -> str: ...
    @property
    def raw(self) -> bytes:
        """Public key of the identity."""
        ...


class RecordSource(Protocol):
    """A place such as the LAN or one directory server.

    Attributes:
        name: as owners know it, such as ``LAN`` or the URL of a directory.
    """

    name: str

    async def search(self, key: bytes, found: OnRecord) -> None:
        """Report each record that the source has of an identity. Return when it has no more to report.

        Args:
            key: the identity, 32 bytes.
            found: called with each record, as soon as it is there.

        Raises:
            P2PError: the source does not work at the moment; the text says why.
        """
        ...

    def publish(self, identity: PublishedIdentity) -> None:
        """Publish ``identity.record``, which is new, in place of an earlier one. Must not block."""
        ...

    def unpublish(self, identity: PublishedIdentity) -> None:
        """Publish the identity no longer: it is offline here. Must not block."""
        ...

    def close(self) -> None:
        """Withdraw everything and stop."""
        ...
