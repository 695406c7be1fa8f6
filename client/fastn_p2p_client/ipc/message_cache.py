"""``MessageCache``: decoded headers of messages, by their bytes.

The headers of two calls differ only where their targets, timeouts or ids do. A program that gives its calls no ids has
the same header for all calls to one target. To look up such a header takes a tenth of the time.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..request_id import NUMBERED
from .messages import Call, DeliverCall, Reply, SessionData

MAX_CACHED: Final = 256
"""Messages that are cached. If there are more, all are removed."""
MAX_CACHED_BYTES: Final = 512
"""Bytes of a header above which it is not cached."""


class MessageCache(dict[bytes, Any]):
    """Messages by their headers: ``cache[header]`` decodes a header that is not cached.

    Cached are calls without ids of their own, replies and the data of sessions. Their fields cannot be changed, so all
    users of a message get the same object.

    Args:
        decoder: decodes the headers.

    Raises:
        One of ``messages.UNDECODABLE``: a header is not a message of the decoder's type.
    """

    __slots__ = ("_decode",)

    def __init__(self, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        super().__init__()
        self._decode = decoder.decode

    def __missing__(self, header: bytes) -> Any:
        message = self._decode(header)
        kind = type(message)
        if kind is Call or kind is DeliverCall:
            repeats = not (message.call_id or message.traceparent) and message.request_id[-1:] in ("", NUMBERED)
        else:
            repeats = kind is Reply or kind is SessionData
        if repeats and len(header) <= MAX_CACHED_BYTES:
            if len(self) >= MAX_CACHED:
                self.clear()
            self[header] = message
        return message
