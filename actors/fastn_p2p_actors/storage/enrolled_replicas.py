"""Enrolled replicas on disk: ``vault/identities/<name>.replicas``, as the vault writes it and a backup contains it.

JSON, with bytes in base64. None of it is secret.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from fastn_p2p_client.keys import KEY_BYTES

from ..credentials.delegation import LINEAGE_BYTES
from ..credentials.owner_statement import MAX_OWNER_STATEMENT

FORMAT: Final = 1


class SavedReplica(msgspec.Struct, frozen=True, kw_only=True):
    """Enrolment of another daemon."""

    name: str
    endpoint: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    lineage: Annotated[bytes, msgspec.Meta(min_length=LINEAGE_BYTES, max_length=LINEAGE_BYTES)]
    epoch: int
    removed: int = 0
    at_once: bool = False


class SavedHome(msgspec.Struct, frozen=True, kw_only=True):
    """Home of a binding; without an endpoint it is the owner's daemon."""

    protocol: str
    instance: str
    endpoint: bytes = b""
    term: int


class EnrolmentFile(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the file."""

    format: int = FORMAT
    replicas: tuple[SavedReplica, ...] = ()
    homes: tuple[SavedHome, ...] = ()
    term: int = 0
    """Highest term of this identity so far, also of homes that are gone."""
    owner: Annotated[bytes, msgspec.Meta(max_length=MAX_OWNER_STATEMENT)] = b""
    """Highest signed ``OwnerStatement`` so far, verified. Empty if this daemon has always been the owner's."""

    @property
    def present(self) -> tuple[SavedReplica, ...]:
        """Replicas that were not removed."""
        return tuple(each for each in self.replicas if not each.removed)


_decoder: Final = msgspec.json.Decoder(EnrolmentFile)


def decode_enrolments(data: bytes) -> EnrolmentFile:
    """Return the content of a file. Raises one of ``UNDECODABLE`` if it is damaged, or of another version."""
    content = _decoder.decode(data)
    if content.format != FORMAT:
        raise ValueError(f"it has format {content.format}, which this version cannot read")
    return content
