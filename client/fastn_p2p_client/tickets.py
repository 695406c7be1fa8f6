"""Tickets: a peer record as text, to be copied from one person to another.

A ticket is ``fastn1`` and the signed record in BASE32_DNSSEC (base32hex, lower case, no padding). This module
only knows the text form; whether the record holds is checked by the daemon that is given the ticket.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from .errors import InvalidKey, InvalidTicket
from .keys import PublicKey

__all__ = ["MAX_RECORD", "MAX_TICKET", "TICKET_PREFIX", "Ticket"]

TICKET_PREFIX: Final = "fastn1"
MAX_RECORD: Final = 16 * 1024
"""Bytes in a signed peer record."""
MAX_TICKET: Final = len(TICKET_PREFIX) + (MAX_RECORD * 8 + 4) // 5
"""Characters in a ticket."""


class _Envelope(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    body: bytes
    signature: bytes


class _Opening(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What every version of a record's body starts with."""

    version: int
    identity: bytes


_envelope = msgspec.msgpack.Decoder(_Envelope)
_opening = msgspec.msgpack.Decoder(_Opening)


class Ticket:
    """One ticket: immutable and hashable; ``str()`` is its text.

    Build one from text (white space around it is ignored, lower case only) or, with ``of_record``, from a record.

    Raises:
        InvalidTicket: the text is no ticket, or what it holds is not shaped like a record. A ticket that was
            changed or is too old is noticed only where its signature and its times are checked.
    """

    __slots__ = ("_identity", "_record", "_text")
    _identity: PublicKey
    _record: bytes
    _text: str

    def __init__(self, text: str, /) -> None:
        stripped = text.strip()
        record = _decode(stripped)
        object.__setattr__(self, "_identity", _decode_header(record))
        object.__setattr__(self, "_record", record)
        object.__setattr__(self, "_text", stripped)

    @classmethod
    def of_record(cls, record: bytes) -> Ticket:
        """The ticket that carries this signed record."""
        if len(record) > MAX_RECORD:
            raise InvalidTicket(reason=f"its record has {len(record)} bytes, the limit is {MAX_RECORD}")
        return cls(_encode(record))

    @staticmethod
    def is_ticket(text: str) -> bool:
        """Whether ``text`` is meant as a ticket, and no ID52 or name: it starts like one and is longer than both."""
        return len(text) > 64 and text.lstrip().startswith(TICKET_PREFIX)

    @property
    def record_bytes(self) -> bytes:
        """The signed record, exactly as its identity signed it."""
        return self._record

    @property
    def identity(self) -> PublicKey:
        """Whose ticket it says it is. Not verified: anybody can write any name into a ticket."""
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
        raise AttributeError("a Ticket does not change")

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
        raise InvalidTicket(reason="a part of it is missing, or a character in it is wrong") from None
    if _encode(record) != text:
        raise InvalidTicket(reason="a character in it is wrong; it is lower case throughout")
    return record


def _decode_header(record: bytes) -> PublicKey:
    try:
        return PublicKey(_opening.decode(_envelope.decode(record).body).identity)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # msgspec lets the latter through
        raise InvalidTicket(reason="what it holds is no record") from None
    except InvalidKey as error:
        raise InvalidTicket(reason=f"its identity is no public key: {error.reason}") from None
