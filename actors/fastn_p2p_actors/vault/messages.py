"""What the gateway and the network say to the vault, and what it answers: one message, one answer.

Which role may say what is in ``policy``. Anything refused is answered with the client protocol's ``ErrorReply``. Every
message is the header of a mailbox message; payloads are empty. Times are Unix seconds.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from fastn_p2p_client.ipc.messages import (
    Ack,
    Cancel,
    ErrorReply,
    Message,
)
from fastn_p2p_client.limits import MAX_NAME

__all__ = [
    "PAGE",
    "CreateKey",
    "DeleteKey",
    "GetTransport",
    "IdentityKey",
    "IdentityKeys",
    "ListKeys",
    "SignDelegation",
    "SignRecord",
    "SignedDelegation",
    "SignedRecord",
    "Transport",
    "VaultReply",
    "VaultRequest",
]

PAGE: Final = 256
"""Identities in one ``IdentityKeys``."""

Name = Annotated[str, Meta(max_length=4 * MAX_NAME)]
"""Long enough to be answered with what is wrong with it."""


# ── gateway → vault ──────────────────────────────────────────────────────────────────────────────


class CreateKey(Message, frozen=True, tag=200):
    """Makes a key pair; it is on disk when the answer comes. Answered by ``IdentityKey``."""

    name: Name


class DeleteKey(Message, frozen=True, tag=201):
    """Deletes the key for good. Answered by ``Ack``."""

    name: Name


class ListKeys(Message, frozen=True, tag=202):
    """Those whose names come after ``after``, in order of their names. Answered by ``IdentityKeys``."""

    after: Name = ""


# ── network → vault ──────────────────────────────────────────────────────────────────────────────


class GetTransport(Message, frozen=True, tag=203):
    """The transport key, once for each start of the network process. Answered by ``Transport``."""


class SignDelegation(Message, frozen=True, tag=204):
    """Lets the vault's own transport key speak for the identity from now. Answered by ``SignedDelegation``."""

    identity: Name


class SignRecord(Message, frozen=True, tag=205):
    """A peer record with a fresh delegation and a higher sequence than any before. Answered by ``SignedRecord``.

    ``relays`` are https URLs, ``addresses`` are ``ip:port``; both within the limits of a record.
    """

    identity: Name
    relays: tuple[str, ...]
    addresses: tuple[str, ...]


# ── vault → gateway, network ─────────────────────────────────────────────────────────────────────


class IdentityKey(Message, frozen=True, tag=220):
    name: str
    public: bytes
    """32 bytes."""
    created: str
    """UTC, ISO 8601."""


class IdentityKeys(Message, frozen=True, tag=221):
    """At most ``PAGE`` identities; when ``more``, ask again with ``after`` set to ``last``.

    ``damaged`` says, in words that name the file, what keeps an identity of this page from being used.
    """

    identities: tuple[IdentityKey, ...]
    damaged: tuple[str, ...]
    more: bool
    last: str
    """The last name of this page, also if it is a damaged one's."""


class Transport(Message, frozen=True, tag=222):
    """The one secret that ever leaves the vault: no identity's, and replaced by raising its epoch."""

    secret: bytes
    """32 bytes, the Ed25519 seed."""
    public: bytes
    epoch: int
    lineage: bytes

    def __repr__(self) -> str:
        return f"Transport(public={self.public.hex()}, epoch={self.epoch})"


class SignedDelegation(Message, frozen=True, tag=223):
    blob: bytes
    not_after: int


class SignedRecord(Message, frozen=True, tag=224):
    blob: bytes
    expires: int


VaultRequest: TypeAlias = CreateKey | DeleteKey | ListKeys | GetTransport | SignDelegation | SignRecord | Cancel
"""Everything that may arrive at the vault's mailbox. ``Cancel`` has no answer: nothing here is worth interrupting."""

VaultReply: TypeAlias = IdentityKey | IdentityKeys | Transport | SignedDelegation | SignedRecord | Ack | ErrorReply
"""Everything it answers."""
