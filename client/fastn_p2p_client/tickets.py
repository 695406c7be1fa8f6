"""``Ticket``: a signed peer record, or a signed invitation, as text that people copy to each other.

A ticket is ``fastn1`` and the signed bytes in BASE32_DNSSEC (base32hex, lower case, no padding). This module handles
the text form only. The daemon that is given the ticket verifies them.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from .errors import InvalidKey, InvalidTicket
from .keys import PublicKey

TICKET_PREFIX: Final = "fastn1"
MAX_RECORD: Final = 16 * 1024
"""Bytes in a signed peer record."""
FIRST_INVITATION: Final = 64
"""First version number of invitations; those below are of records. A daemon that does not know a version says so."""
MAX_TICKET: Final = len(TICKET_PREFIX) + (MAX_RECORD * 8 + 4) // 5
"""Characters in a ticket."""


class _TicketEnvelope(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    body: bytes
    signature: bytes


class _Header(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """First fields of a record's body, the same in every version."""

    version: int
    identity: bytes


_envelope = msgspec.msgpack.Decoder(_TicketEnvelope)
_header = msgspec.msgpack.Decoder(_Header)


class Ticket:
    """A signed peer record as text: immutable and hashable. ``str(ticket)`` is the text.

    Neither the signature nor the expiry is checked here; the daemon checks both when it uses the ticket.

    Args:
        text: the text of a ticket, in lower case, or in upper case as a whole, as QR codes have it. White space around
            it is ignored. ``str`` has lower case.

    Raises:
        InvalidTicket: the text is not a ticket, or its content does not have the form of a record.
    """

    __slots__ = ("_header", "_identity", "_record", "_text")
    _header: _Header
    _identity: PublicKey
    _record: bytes
    _text: str

    def __init__(self, text: str, /) -> None:
        stripped = text.strip()
        if stripped.isupper():
            stripped = stripped.lower()
        record = _decode(stripped)
        header = _decode_header(record)
        object.__setattr__(self, "_header", header)
        object.__setattr__(self, "_identity", _identity_of(header))
        object.__setattr__(self, "_record", record)
        object.__setattr__(self, "_text", stripped)

    @classmethod
    def of_record(cls, record: bytes) -> Ticket:
        """Return the ticket of a signed record.

        Args:
            record: the signed record, at most 16 KiB.

        Raises:
            InvalidTicket: the record is larger than 16 KiB, or does not have the form of a record.
        """
        if len(record) > MAX_RECORD:
            raise InvalidTicket(reason=f"its record has {len(record)} bytes, the limit is {MAX_RECORD}")
        return cls(_encode(record))

    @staticmethod
    def is_ticket(text: str) -> bool:
        """Return whether ``text`` is meant as a ticket: it has its prefix and is longer than an ID52 or a name."""
        return len(text) > 64 and text.lstrip().startswith((TICKET_PREFIX, TICKET_PREFIX.upper()))

    @property
    def record_bytes(self) -> bytes:
        """The signed record or invitation, exactly as the identity signed it."""
        return self._record

    @property
    def is_invitation(self) -> bool:
        """True if it is an invitation, which is redeemed once before the identity can be called."""
        return self._header.version >= FIRST_INVITATION

    @property
    def identity(self) -> PublicKey:
        """Identity that the ticket names. Not verified: any program can write any identity into a ticket."""
        return self._identity

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Ticket({self._text[:24]}…, identity={self._identity})"

    def __eq__(self, other: object) -> bool:
        return self._record == other._record if isinstance(other, Ticket) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._record)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Ticket is immutable")

    def __reduce__(self) -> tuple[type[Ticket], tuple[str]]:
        return (Ticket, (self._text,))


def _encode(record: bytes) -> str:
    return TICKET_PREFIX + base64.b32hexencode(record).decode("ascii").rstrip("=").lower()


def _decode(text: str) -> bytes:
    if not text.startswith(TICKET_PREFIX):
        raise InvalidTicket(reason=f"it does not start with {TICKET_PREFIX!r}")
    if len(text) > MAX_TICKET:
        raise InvalidTicket(reason=f"it has {len(text)} characters, the limit is {MAX_TICKET}")
    digits = text.removeprefix(TICKET_PREFIX)
    try:
        record = base64.b32hexdecode(digits.upper() + "=" * (-len(digits) % 8))
    except (binascii.Error, ValueError):
        raise InvalidTicket(reason="a part of it is missing, or a character is wrong") from None
    if _encode(record) != text:
        raise InvalidTicket(reason="a part of it is missing, or a character is wrong; all letters are lower case")
    return record


def _decode_header(record: bytes) -> _Header:
    try:
        return _header.decode(_envelope.decode(record).body)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # msgspec lets UnicodeDecodeError through
        raise InvalidTicket(reason="its content is not a record") from None


def _identity_of(header: _Header) -> PublicKey:
    try:
        return PublicKey(header.identity)
    except InvalidKey as error:
        raise InvalidTicket(reason=f"its identity is not a public key: {error.reason}") from None
