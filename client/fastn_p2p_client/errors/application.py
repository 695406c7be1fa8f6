"""Errors that a handler raises on purpose."""

from __future__ import annotations

from typing import Any, TypeVar

from .usage import BadReply

T = TypeVar("T")


class ApplicationError(Exception):
    """An error that a handler raises on purpose; the caller's ``call`` or ``connect`` raises the same.

    Args:
        kind: the handler's name for the error, for instance ``"MessageTooLong"``.
        message: text for people; may be empty.
        payload: data of the error: a msgspec Struct, a dataclass or JSON-like values.

    Attributes:
        kind, message: as above.
        payload: the object that the handler gave. In the caller it is plain values; see ``payload_as``.
        request_id: id of the call or session that ended with it; empty where it was not received from a peer.
    """

    request_id = ""

    def __init__(self, kind: str, message: str, payload: Any = None) -> None:
        super().__init__(kind, message, payload)
        self.kind = kind
        self.message = message
        self.payload = payload

    def __str__(self) -> str:
        """Return text that is safe to print. ``kind`` and ``message`` have the exact values."""
        from ..plain_text import plain_lines

        return plain_lines(f"{self.kind}: {self.message}" if self.message else self.kind)

    def payload_as(self, kind: type[T]) -> T:
        """Return the payload as a ``kind``, the type of which the handler gave an instance.

        Raises:
            BadReply: the payload is not a ``kind``; the error names the field.
        """
        from msgspec import ValidationError, convert  # imported late: most programs load errors and never see one

        if isinstance(self.payload, kind):
            return self.payload
        try:
            return convert(self.payload, kind)
        except ValidationError as error:
            raise BadReply(protocol=f"the error {self.kind}", reason=str(error)) from error
