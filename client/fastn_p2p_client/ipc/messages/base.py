"""Base classes of all messages, and the messages that both conversations share."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...errors import P2PError, error_from

__all__ = ["UNDECODABLE", "UNKNOWN", "Ack", "Cancel", "ErrorReply", "LongReply", "Message", "Record", "encode"]


class Message(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A struct that travels as an array with its tag first."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A struct inside a message that travels as a map, because scripts read it and later versions add fields."""


UNKNOWN: Final = "unknown"
"""Path to a peer while nothing is known about it."""


# ── both conversations ───────────────────────────────────────────────────────────────────────────


class ErrorReply(Message, frozen=True, tag=0):
    """The request with this id ended with an error of the system. ``errors.CODES`` lists the codes."""

    code: str
    fields: dict[str, Any] = {}
    detail: str = ""

    @classmethod
    def of(cls, error: P2PError) -> ErrorReply:
        return cls(error.code, error.fields(), error.detail)

    def error(self) -> P2PError:
        return error_from(self.code, self.fields, self.detail)


class Cancel(Message, frozen=True, tag=1):
    """The sender of the request with this id no longer wants the reply. There is no reply to this message."""


class Ack(Message, frozen=True, tag=2):
    """The request was carried out; the reply has no data."""


class LongReply(Message, frozen=True, tag=3):
    """The reply is too long for a header: the payload is its header."""


encode: Final = msgspec.msgpack.Encoder().encode

UNDECODABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""Exceptions that decoding untrusted bytes can raise. msgspec lets those of invalid UTF-8 and of deep nesting through.
"""
