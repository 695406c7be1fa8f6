"""Owner statement: an identity says which daemon renews its replicas, in place of the one that has done so before.

It has no end. The highest generation counts, and of two with the same generation that with the higher lineage: so
everyone who has seen the same statements names the same daemon, in whatever order they came.
"""

from __future__ import annotations

import time
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fastn_p2p_client.errors import BadMessage
from fastn_p2p_client.limits import MAX_NAME

from .delegation import LINEAGE_BYTES
from .envelope import Body, KeyBytes, UnixTime, open_signed, peek_signed

OWNER_VERSION: Final = 1
MAX_OWNER_STATEMENT: Final = 512
"""Bytes of a signed statement."""


class OwnerStatement(Body, frozen=True):
    """Body that the identity signs."""

    endpoint: KeyBytes
    """Transport key of the daemon at that time."""
    lineage: Annotated[bytes, Meta(min_length=LINEAGE_BYTES, max_length=LINEAGE_BYTES)]
    """Lineage of its transport keys: a later one of them is the same daemon."""
    generation: Annotated[int, Meta(ge=0, lt=2**40)]
    """Number of this choice; 0 in backups for the daemon that was the owner's without any choice."""
    term: Annotated[int, Meta(ge=0, lt=2**40)]
    """Terms of homes from this choice on are higher, and those of earlier owners' daemons are not."""
    issued: UnixTime
    daemon: Annotated[str, Meta(max_length=MAX_NAME)]
    """Name of the daemon, for people."""

    @property
    def issued_text(self) -> str:
        """Time at which it was signed: UTC, ISO 8601."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.issued))

    @property
    def rank(self) -> tuple[int, bytes]:
        """Order of the statements of one identity: the highest counts."""
        return self.generation, self.lineage


_decoders: Final = {OWNER_VERSION: msgspec.msgpack.Decoder(OwnerStatement)}


def read_owner_statement(blob: bytes, identity: bytes) -> OwnerStatement:
    """Return the statement in ``blob``, after verifying that ``identity`` has signed it.

    Raises:
        BadMessage: it is no statement, or another identity's.
        BadSignature: its identity has not signed it.
    """
    statement = open_signed("owner", blob, _decoders, MAX_OWNER_STATEMENT)
    if statement.identity != identity:
        raise BadMessage(reason="a statement about the owner's daemon of another identity")
    return statement


def peek_owner_statement(blob: bytes) -> OwnerStatement:
    """Return the statement in ``blob``, which was verified before. Raises BadMessage."""
    return peek_signed("owner", blob, _decoders, MAX_OWNER_STATEMENT)
