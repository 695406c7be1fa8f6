"""What all messages are made of, and those of both conversations."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...errors import (
    P2PError,
    error_from,
)

__all__ = ["UNDECODABLE", "UNKNOWN", "Ack", "Cancel", "ErrorReply", "LongReply", "Message", "Record", "encode"]


class Message(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A struct that travels as an array with its tag first."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A struct inside a message that travels as a map: scripts read these, and they grow."""


UNKNOWN: Final = "unknown"
"""The path to a peer of which nobody has said anything."""


# ── both conversations ───────────────────────────────────────────────────────────────────────────


class ErrorReply(Message, frozen=True, tag=0):
    """The request with this id ended with an error of the system: see ``errors.CODES``."""

    code: str
    fields: dict[str, Any] = {}

    @classmethod
    def of(cls, error: P2PError) -> ErrorReply:
        return cls(error.code, error.fields())

    def error(self) -> P2PError:
        return error_from(self.code, self.fields)


class Cancel(Message, frozen=True, tag=1):
    """Whoever asked under this id no longer wants the answer. There is no reply."""


class Ack(Message, frozen=True, tag=2):
    """It is done; there is nothing to tell."""


class LongReply(Message, frozen=True, tag=3):
    """The answer is too long for a header: it is the payload."""


encode: Final = msgspec.msgpack.Encoder().encode

UNDECODABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding a stranger's bytes can raise: msgspec lets through what broken UTF-8 and deep nesting raise."""
